//! One 512-byte header block, taken apart.
//!
//! In: a block. Out: its fields, or why it is no header. The layout is POSIX.1-1988 ustar with GNU's variations.
//! Never: a value that does not fit its type, or a negative one.

use super::BLOCK;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    V7,
    Ustar,
    Gnu,
}

#[derive(Debug)]
pub struct Header {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub mtime: i64,
    pub type_flag: u8,
    pub format: Format,
    pub dev_major: u32,
    pub dev_minor: u32,
}

pub fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|b| *b == 0)
}

pub fn parse(block: &[u8; BLOCK]) -> Result<Header, &'static str> {
    check_sum(block)?;
    let format = match &block[257..265] {
        b"ustar  \0" => Format::Gnu,
        b"ustar\x0000" => Format::Ustar,
        magic if magic.starts_with(b"ustar") => return Err("unknown version of the ustar format"),
        _ => Format::V7,
    };
    let mut name = text(&block[0..100]).to_vec();
    if format == Format::Ustar && block[345] != 0 {
        let mut joined = text(&block[345..500]).to_vec();
        joined.push(b'/');
        joined.append(&mut name);
        name = joined;
    }
    let device = |field: &[u8]| match format {
        Format::V7 => Ok(0),
        _ => u32::try_from(number(field)?).map_err(|_| "device number out of range"),
    };
    Ok(Header {
        name,
        link: text(&block[157..257]).to_vec(),
        // Some writers put the file type into the mode, too.
        mode: (number(&block[100..108])? & 0o7777) as u32,
        uid: number(&block[108..116])?,
        gid: number(&block[116..124])?,
        size: number(&block[124..136])?,
        mtime: time(&block[136..148])?,
        type_flag: block[156],
        format,
        dev_major: device(&block[329..337])?,
        dev_minor: device(&block[337..345])?,
    })
}

/// The sum of all bytes with the sum's own field as spaces; old writers summed signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), &'static str> {
    let said = number(&block[148..156])?;
    let bytes = block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let unsigned: u64 = bytes.clone().map(u64::from).sum();
    let signed: i64 = bytes.map(|b| i64::from(b as i8)).sum();
    if said == unsigned || i64::try_from(said) == Ok(signed) { Ok(()) } else { Err("header checksum differs") }
}

/// Bytes up to the first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(field)
}

/// Octal digits with blanks around, or GNU's base 256 (top bit set).
pub fn number(field: &[u8]) -> Result<u64, &'static str> {
    match field.first() {
        Some(0x80) => field[1..].iter().try_fold(0u64, |sum, b| {
            sum.checked_mul(256).and_then(|s| s.checked_add(u64::from(*b))).ok_or("number too large")
        }),
        Some(first) if first & 0x80 != 0 => Err("negative or too large number"),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Result<u64, &'static str> {
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[end..].iter().all(blank) {
        return Err("a number with a gap");
    }
    digits[..end].iter().try_fold(0u64, |sum, b| match b {
        b'0'..=b'7' => sum.checked_mul(8).map(|s| s + u64::from(b - b'0')).ok_or("number too large"),
        _ => Err("a number with other than octal digits"),
    })
}

/// Times alone may be negative (before 1970), in base 256.
fn time(field: &[u8]) -> Result<i64, &'static str> {
    if field[0] == 0xff {
        return field[1..]
            .iter()
            .try_fold(-1i64, |sum, b| sum.checked_mul(256).and_then(|s| s.checked_add(i64::from(*b))))
            .ok_or("time out of range");
    }
    i64::try_from(number(field)?).map_err(|_| "time out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_all_writings() {
        for (field, expect) in [
            (&b"0000644\0"[..], Ok(0o644)),
            (b"   644 \0", Ok(0o644)),
            (b"\0\0\0\0\0\0\0\0", Ok(0)),
            (b"        ", Ok(0)),
            (b"77777777777\0", Ok(0o77777777777)),
            (b"777777777777", Ok(0o777777777777)),
            (b"\x80\0\0\0\0\0\x01\0", Ok(256)),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff", Ok(u64::MAX)),
            (b"\x80\x01\0\0\0\0\0\0\0\0", Err(())),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Err(())),
            (b"-1\0", Err(())),
            (b"0x10\0", Err(())),
            (b"12 34\0", Err(())),
            (b"9\0", Err(())),
        ] {
            assert_eq!(number(field).map_err(|_| ()), expect, "{field:?}");
        }
        assert_eq!(time(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Ok(-1));
        assert_eq!(time(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"), Ok(-256));
    }
}
