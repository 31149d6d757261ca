//! Header blocks (RFC 7541) of a connection on which nobody keeps a table.
//!
//! In: a block. Out: its fields, of those whose names this module knows or that are written out. Our own blocks are written
//! without any compression. Never: a field by an index into a table that is not kept; that is an error.

/// Bits of the Huffman code of each byte and of the end (RFC 7541, appendix B). The code is canonical, so they say it all.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
const BITS_MAX: usize = 30;
const END: u16 = 256;
const STATIC_FIELDS: usize = 61;
const NUMBER_MAX: usize = 1 << 20;

/// The fields of a block; the names of the static table that matter to nobody here are empty.
pub fn decode(mut block: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    let mut fields = Vec::new();
    while let Some(first) = block.first().copied() {
        match first {
            0x80.. => {
                let index = number(&mut block, 7)?;
                fields.push((name_of(index)?.to_string(), value_of(index).to_string()));
            }
            // A new size of the table: ours has none.
            0x20..0x40 => drop(number(&mut block, 5)?),
            _ => {
                let index = number(&mut block, if first & 0x40 != 0 { 6 } else { 4 })?;
                let name = if index == 0 { text(&mut block)? } else { name_of(index)?.to_string() };
                fields.push((name, text(&mut block)?));
            }
        }
    }
    Ok(fields)
}

/// RFC 7541, appendix A: what matters here.
fn name_of(index: usize) -> Result<&'static str, &'static str> {
    match index {
        4 | 5 => Ok(":path"),
        8..=14 => Ok(":status"),
        1..=STATIC_FIELDS => Ok(""),
        _ => Err("a header field names an entry of a table that is not kept"),
    }
}

fn value_of(index: usize) -> &'static str {
    match index {
        4 => "/",
        8 => "200",
        9 => "204",
        10 => "206",
        11 => "304",
        12 => "400",
        13 => "404",
        14 => "500",
        _ => "",
    }
}

/// RFC 7541, 5.1.
fn number(block: &mut &[u8], prefix_bits: u32) -> Result<usize, &'static str> {
    const CUT: &str = "a header field is cut off";
    let mask = (1usize << prefix_bits) - 1;
    let (first, mut rest) = block.split_first().ok_or(CUT)?;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        for shift in (0..28).step_by(7) {
            let (byte, more) = rest.split_first().ok_or(CUT)?;
            rest = more;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *block = rest;
                return if value > NUMBER_MAX { Err("a number in a header is too large") } else { Ok(value) };
            }
        }
        return Err("a number in a header is too long");
    }
    *block = rest;
    Ok(value)
}

/// RFC 7541, 5.2.
fn text(block: &mut &[u8]) -> Result<String, &'static str> {
    let is_huffman = block.first().is_some_and(|b| b & 0x80 != 0);
    let length = number(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or("a header field is cut off")?;
    *block = rest;
    let bytes = if is_huffman { huffman(bytes).ok_or("a header field is no Huffman code")? } else { bytes.to_vec() };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn huffman(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut symbols: Vec<u16> = (0..=END).collect();
    symbols.sort_by_key(|s| LENGTHS[usize::from(*s)]);
    let mut counts = [0i64; BITS_MAX + 1];
    LENGTHS.iter().for_each(|length| counts[usize::from(*length)] += 1);
    let mut out = Vec::new();
    // Of the code that is being read: its bits, the first code of this length, and where its symbols begin.
    let (mut length, mut code, mut first, mut index) = (0, 0i64, 0i64, 0i64);
    let mut ones = true;
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1)) {
        code = code << 1 | i64::from(bit);
        ones &= bit == 1;
        length += 1;
        let count = *counts.get(length)?;
        if code - first < count {
            let symbol = symbols[usize::try_from(index + code - first).ok()?];
            out.push(u8::try_from(symbol).ok()?);
            (length, code, first, index, ones) = (0, 0, 0, 0, true);
        } else {
            index += count;
            first = (first + count) << 1;
        }
    }
    // What is left fills the last byte, with the beginning of the end's code.
    (length < 8 && ones).then_some(out)
}

/// A field by the static table's index of its name, or with the name written out.
pub fn put(out: &mut Vec<u8>, name: Result<u8, &str>, value: &str) {
    match name {
        Ok(index) => put_number(out, 4, usize::from(index)),
        Err(name) => {
            out.push(0);
            put_text(out, name);
        }
    }
    put_text(out, value);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, prefix_bits: u32, value: usize) {
    let mask = (1usize << prefix_bits) - 1;
    if value < mask {
        return out.push(value as u8);
    }
    out.push(mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
        digits.chunks(2).map(|two| u8::from_str_radix(&two.iter().collect::<String>(), 16).unwrap()).collect()
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    /// RFC 7541, appendix C.
    #[test]
    fn the_examples_of_the_rfc() {
        for (block, want) in [
            ("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572", field("custom-key", "custom-header")),
            ("040c 2f73 616d 706c 652f 7061 7468", field(":path", "/sample/path")),
            ("1008 7061 7373 776f 7264 0673 6563 7265 74", field("password", "secret")),
            ("4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", field("custom-key", "custom-value")),
            ("418c f1e3 c2e5 f23a 6ba0 ab90 f4ff", field("", "www.example.com")),
            ("88", field(":status", "200")),
        ] {
            assert_eq!(decode(&hex(block)).unwrap(), [want], "{block}");
        }
    }

    #[test]
    fn what_is_wrong_is_an_error() {
        let cut = ["40", "400a 63", "0481", "0482 ffff"];
        for block in ["be", "80", "7f80 8080 80", "04ff ffff ffff 7f", "3fe1 ffff ffff 7f"].into_iter().chain(cut) {
            assert!(decode(&hex(block)).is_err(), "{block}");
        }
        assert!(huffman(&[0xff; 4]).is_none(), "the end's own code is no byte");
        assert!(huffman(&[0b0000_0000]).is_none(), "filled with zeros");
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        let mut block = Vec::new();
        let long = "x".repeat(300);
        put(&mut block, Ok(4), "/a.B/C");
        put(&mut block, Err("grpc-message"), &long);
        put(&mut block, Ok(31), "application/grpc");
        let got = decode(&block).unwrap();
        assert_eq!(got, [field(":path", "/a.B/C"), field("grpc-message", &long), field("", "application/grpc")]);
    }
}
