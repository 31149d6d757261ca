//! PAX extended headers: records of `length key=value\n` (POSIX.1-2001, pax Interchange Format).
//!
//! In: the data of an `x` entry. Out: the records that matter to an unpacker.
//! Never: two records for one path, link or size (which of the two wins differs between readers).

use super::reader::Time;
use super::sparse::{self, Area};
use crate::limits::XATTRS_MAX;

#[derive(Default, Debug)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<Time>,
    pub xattrs: Vec<(String, Vec<u8>)>,
    pub sparse: Sparse,
}

/// GNU's sparse formats inside PAX: 0.1 has its map here, 1.0 in front of the data.
#[derive(Default, Debug)]
pub struct Sparse {
    pub major: Option<u64>,
    pub minor: Option<u64>,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    pub map: Option<Vec<Area>>,
}

impl Sparse {
    pub fn is_used(&self) -> bool {
        self.major.is_some() || self.map.is_some() || self.real_size.is_some()
    }
}

pub fn parse(mut data: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    while !data.is_empty() {
        let space = data.iter().take(20).position(|b| *b == b' ').ok_or("PAX record without a length")?;
        let length = decimal(&data[..space])? as usize;
        let record = data.get(space + 1..length).ok_or("PAX record with a wrong length")?;
        let record = record.strip_suffix(b"\n").ok_or("PAX record without an end")?;
        let equals = record.iter().position(|b| *b == b'=').ok_or("PAX record without a value")?;
        take(&mut pax, &record[..equals], &record[equals + 1..])?;
        data = &data[length..];
    }
    Ok(pax)
}

/// A global header (`g`) may hold comments, but nothing that changes the meaning of the entries after it.
pub fn check_global(data: &[u8]) -> Result<(), &'static str> {
    let pax = parse(data)?;
    let quiet = pax.path.is_none() && pax.link.is_none() && pax.size.is_none() && !pax.sparse.is_used();
    if quiet { Ok(()) } else { Err("a global PAX header changes path, link or size") }
}

fn take(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    match key {
        b"path" => once(&mut pax.path, text(value)?),
        b"linkpath" => once(&mut pax.link, text(value)?),
        b"size" => once(&mut pax.size, decimal(value)?),
        b"uid" => once(&mut pax.uid, decimal(value)?),
        b"gid" => once(&mut pax.gid, decimal(value)?),
        b"mtime" => once(&mut pax.mtime, time(value)?),
        b"GNU.sparse.major" => once(&mut pax.sparse.major, decimal(value)?),
        b"GNU.sparse.minor" => once(&mut pax.sparse.minor, decimal(value)?),
        b"GNU.sparse.name" => once(&mut pax.sparse.name, text(value)?),
        b"GNU.sparse.size" | b"GNU.sparse.realsize" => once(&mut pax.sparse.real_size, decimal(value)?),
        b"GNU.sparse.map" => once(&mut pax.sparse.map, sparse::parse_list(value)?),
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => Err("sparse format 0.0 is not supported"),
        _ => match key.strip_prefix(b"SCHILY.xattr.") {
            Some(name) => xattr(pax, name, value),
            None => Ok(()),
        },
    }
}

fn xattr(pax: &mut Pax, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "the name of an extended attribute is not UTF-8")?;
    if name.is_empty() || name.len() > 255 || name.contains('\0') {
        return Err("bad name of an extended attribute");
    }
    if pax.xattrs.len() == XATTRS_MAX || value.len() > 65_536 {
        return Err("too many or too large extended attributes");
    }
    pax.xattrs.push((name.to_string(), value.to_vec()));
    Ok(())
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("the same PAX record twice"),
    }
}

fn text(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    match value.is_empty() || value.contains(&0) {
        true => Err("a PAX path that is empty or has a NUL byte"),
        false => Ok(value.to_vec()),
    }
}

pub fn decimal(digits: &[u8]) -> Result<u64, &'static str> {
    if digits.is_empty() || digits.len() > 20 {
        return Err("bad decimal number");
    }
    digits.iter().try_fold(0u64, |sum, b| match b {
        b'0'..=b'9' => {
            sum.checked_mul(10).and_then(|s| s.checked_add(u64::from(b - b'0'))).ok_or("number too large")
        }
        _ => Err("bad decimal number"),
    })
}

/// `[-]seconds[.fraction]`
fn time(value: &[u8]) -> Result<Time, &'static str> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let (whole, fraction) = match value.iter().position(|b| *b == b'.') {
        Some(dot) => (&value[..dot], &value[dot + 1..]),
        None => (value, &value[..0]),
    };
    let whole = i64::try_from(decimal(whole)?).map_err(|_| "time out of range")?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err("bad fraction of a time");
    }
    let digit = |i: usize| u32::from(fraction.get(i).map_or(0, |b| b - b'0'));
    let nanos = (0..9).fold(0, |sum, i| sum * 10 + digit(i));
    Ok(match (negative, nanos) {
        (false, _) => Time { seconds: whole, nanos },
        (true, 0) => Time { seconds: -whole, nanos: 0 },
        (true, _) => Time { seconds: -whole - 1, nanos: 1_000_000_000 - nanos },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        crate::builder::pax_record(key, value.as_bytes())
    }

    #[test]
    fn records_are_read() {
        let data = [
            record("path", "a/ü"),
            record("mtime", "-1.25"),
            record("size", "9999999999"),
            record("comment", "ignored"),
            record("SCHILY.xattr.security.capability", "\u{1}\0"),
        ]
        .concat();
        let pax = parse(&data).unwrap();
        assert_eq!(pax.path.as_deref(), Some("a/ü".as_bytes()));
        assert_eq!(pax.mtime, Some(Time { seconds: -2, nanos: 750_000_000 }));
        assert_eq!(pax.size, Some(9_999_999_999));
        assert_eq!(pax.xattrs, [("security.capability".to_string(), vec![1, 0])]);
    }

    #[test]
    fn hostile_records_are_refused() {
        let twice = [record("size", "1"), record("size", "2")].concat();
        let nul = record("path", "a\0b");
        for data in [
            &b"x"[..], b"5 a=b", b"99 a=b\n", b"0 a=b\n", b"3 a\n", b"6 a=b\n\n", b"99999999999999999999 a=b\n",
            b"-6 a=b\n", b"4 ab\n", &twice, &nul, &record("size", "-1"), &record("size", ""),
            &record("size", "18446744073709551616"), &record("mtime", "1.x"),
            &record("GNU.sparse.map", "1,2,3"), &record("SCHILY.xattr.", "v"),
        ] {
            assert!(parse(data).is_err(), "{:?}", String::from_utf8_lossy(data));
        }
        let many: Vec<u8> = (0..=XATTRS_MAX).flat_map(|n| record(&format!("SCHILY.xattr.user.{n}"), "v")).collect();
        assert!(parse(&many).is_err());
        assert!(check_global(&record("comment", "git commit")).is_ok());
        assert!(check_global(&record("path", "x")).is_err());
    }
}
