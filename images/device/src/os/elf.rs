//! What a dynamically linked program needs: its loader and the names of its libraries.
//!
//! In: an ELF file, 32 or 64 bits, little-endian (hostile until parsed). Out: names. Pure.
//! Never: an index that was not looked at first.

/// A library has tens of these; this ends a damaged table.
const ENTRIES_MAX: usize = 4096;
const DYNAMIC: u32 = 2;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const NEEDED: u64 = 1;
const STRINGS: u64 = 5;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// `/lib/ld-linux-aarch64.so.1`; libraries have none.
    pub loader: Option<String>,
    pub libraries: Vec<String>,
}

struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
}

/// One entry of the program header: kind, place in the file, address, bytes.
type Segment = (u32, u64, u64, u64);

impl Elf<'_> {
    fn number(&self, at: u64, bytes: u64) -> Option<u64> {
        let at = usize::try_from(at).ok()?;
        let slice = self.bytes.get(at..at.checked_add(bytes as usize)?)?;
        Some(slice.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    /// A number as wide as an address.
    fn word(&self, at: u64) -> Option<u64> {
        self.number(at, if self.wide { 8 } else { 4 })
    }

    fn text(&self, at: u64) -> Option<String> {
        let rest = self.bytes.get(usize::try_from(at).ok()?..)?;
        let name = rest.split(|b| *b == 0).next()?;
        (name.len() <= 255).then(|| String::from_utf8_lossy(name).into_owned())
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let (table, size, count) = match self.wide {
            true => (self.word(32)?, self.number(54, 2)?, self.number(56, 2)?),
            false => (self.word(28)?, self.number(42, 2)?, self.number(44, 2)?),
        };
        let places = if self.wide { (8, 16, 32) } else { (4, 8, 16) };
        let one = |index: u64| {
            let at = table.checked_add(index * size)?;
            let word = |place: u64| self.word(at.checked_add(place)?);
            Some((self.number(at, 4)? as u32, word(places.0)?, word(places.1)?, word(places.2)?))
        };
        (0..count.min(ENTRIES_MAX as u64)).map(one).collect()
    }

    fn needs(&self) -> Option<Needs> {
        let segments = self.segments()?;
        let find = |kind: u32| segments.iter().find(|s| s.0 == kind);
        let loader = find(INTERPRETER).and_then(|s| self.text(s.1));
        let Some((_, dynamic, ..)) = find(DYNAMIC) else { return Some(Needs { loader, libraries: Vec::new() }) };
        let step = if self.wide { 16 } else { 8 };
        let mut entries = Vec::new();
        for index in 0..ENTRIES_MAX as u64 {
            let at = dynamic.checked_add(index * step)?;
            match self.word(at)? {
                0 => break,
                tag => entries.push((tag, self.word(at.checked_add(step / 2)?)?)),
            }
        }
        let address = entries.iter().find(|e| e.0 == STRINGS)?.1;
        let inside = |s: &&Segment| s.0 == LOAD && address >= s.2 && address - s.2 < s.3;
        let segment = segments.iter().find(inside)?;
        let strings = segment.1.checked_add(address - segment.2)?;
        let name = |e: &(u64, u64)| self.text(strings.checked_add(e.1)?);
        let libraries = entries.iter().filter(|e| e.0 == NEEDED).map(name).collect::<Option<_>>()?;
        Some(Needs { loader, libraries })
    }
}

/// Nothing when it is no such file.
pub fn needs(bytes: &[u8]) -> Option<Needs> {
    let wide = match bytes.get(..6)? {
        [0x7f, b'E', b'L', b'F', 1, 1] => false,
        [0x7f, b'E', b'L', b'F', 2, 1] => true,
        _ => return None,
    };
    Elf { bytes, wide }.needs()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A file of one segment that needs the libraries; 64 bits or 32.
    pub fn made(wide: bool, loader: Option<&str>, libraries: &[&str]) -> Vec<u8> {
        let word = |n: u64| if wide { n.to_le_bytes().to_vec() } else { (n as u32).to_le_bytes().to_vec() };
        let (head, entry, base) = if wide { (64u64, 56u64, 0x1000) } else { (52, 32, 0x1000) };
        let mut strings = vec![0u8];
        let mut dynamic = Vec::new();
        for name in libraries {
            dynamic.extend([word(NEEDED), word(strings.len() as u64)].concat());
            strings.extend([name.as_bytes(), b"\0"].concat());
        }
        let tables = head + 3 * entry;
        let strings_at = tables + dynamic.len() as u64 + 4 * if wide { 8 } else { 4 };
        dynamic.extend([word(STRINGS), word(base + strings_at), word(0), word(0)].concat());
        let loader_at = strings_at + strings.len() as u64;
        strings.extend([loader.unwrap_or("").as_bytes(), b"\0"].concat());
        let all = strings_at + strings.len() as u64;
        let mut elf = vec![0u8; head as usize];
        elf[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', if wide { 2 } else { 1 }, 1]);
        let (at, size, count) = if wide { (32, 54, 56) } else { (28, 42, 44) };
        elf[at..at + word(head).len()].copy_from_slice(&word(head));
        elf[size..size + 2].copy_from_slice(&(entry as u16).to_le_bytes());
        elf[count..count + 2].copy_from_slice(&3u16.to_le_bytes());
        let interpreter = if loader.is_some() { INTERPRETER } else { 4 };
        for (kind, place, bytes) in [(LOAD, 0, all), (DYNAMIC, tables, 16), (interpreter, loader_at, 16)] {
            let rest = match wide {
                true => [vec![0; 4], word(place), word(base + place), word(0), word(bytes), word(bytes), word(0)],
                false => [word(place), word(base + place), word(0), word(bytes), word(bytes), word(0), word(0)],
            };
            elf.extend(u32::to_le_bytes(kind));
            elf.extend(rest.concat());
        }
        [elf, dynamic, strings].concat()
    }

    #[test]
    fn needs_are_read_and_damage_is_survived() {
        for wide in [true, false] {
            let file = made(wide, Some("/lib/ld.so"), &["libc.so.6", "libm.so.6"]);
            let got = needs(&file).unwrap();
            assert_eq!(got.loader.as_deref(), Some("/lib/ld.so"), "{wide}");
            assert_eq!(got.libraries, ["libc.so.6", "libm.so.6"]);
            assert_eq!(needs(&made(wide, None, &[])), Some(Needs::default()));
            for cut in 0..file.len() {
                let _ = needs(&file[..cut]);
            }
            for at in 0..file.len() {
                for bit in 0..8 {
                    let mut bad = file.clone();
                    bad[at] ^= 1 << bit;
                    let _ = needs(&bad);
                }
            }
        }
        assert_eq!(needs(b"#!/bin/sh"), None);
    }
}
