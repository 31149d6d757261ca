//! Maps of sparse files: which areas of the file the archive has data for.
//!
//! In: the three writings of a map that GNU tar has used. Out: checked areas in ascending order.
//! Never: areas that overlap, run backwards, pass the file's end, or do not add up to the stored bytes.

use super::BLOCK;
use super::header;
use super::pax::decimal;
use crate::limits::SPARSE_AREAS_MAX;

/// `length` bytes of data at `offset` of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    pub offset: u64,
    pub length: u64,
}

/// `offset,length,offset,length…` (PAX 0.1).
pub fn parse_list(value: &[u8]) -> Result<Vec<Area>, &'static str> {
    let numbers: Vec<u64> = value
        .split(|b| *b == b',')
        .take(2 * SPARSE_AREAS_MAX + 1)
        .map(decimal)
        .collect::<Result<_, _>>()?;
    if !numbers.len().is_multiple_of(2) || numbers.len() > 2 * SPARSE_AREAS_MAX {
        return Err("bad or too long sparse map");
    }
    Ok(numbers.chunks_exact(2).map(|p| Area { offset: p[0], length: p[1] }).collect())
}

/// The entries of GNU's old format in a header (4 of them) or an extension block (21). True: more follow.
pub fn parse_old(entries: &[u8], more: u8, areas: &mut Vec<Area>) -> Result<bool, &'static str> {
    for entry in entries.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        push(areas, Area { offset: header::number(&entry[..12])?, length: header::number(&entry[12..])? })?;
    }
    Ok(more != 0)
}

/// The lines in front of the data (PAX 1.0), fed byte by byte.
#[derive(Default)]
pub struct Lines {
    digits: Vec<u8>,
    count: Option<u64>,
    offset: Option<u64>,
    areas: Vec<Area>,
}

impl Lines {
    /// Takes one block; the areas once the map is complete.
    pub fn block(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<Area>>, &'static str> {
        for byte in block {
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Err("bad number in a sparse map");
                }
                continue;
            }
            let number = decimal(&self.digits)?;
            self.digits.clear();
            self.number(number)?;
            if self.count == Some(self.areas.len() as u64) && self.offset.is_none() {
                return Ok(Some(std::mem::take(&mut self.areas)));
            }
        }
        Ok(None)
    }

    fn number(&mut self, number: u64) -> Result<(), &'static str> {
        match (self.count, self.offset.take()) {
            (None, _) if number > SPARSE_AREAS_MAX as u64 => Err("too long sparse map"),
            (None, _) => {
                self.count = Some(number);
                Ok(())
            }
            (Some(_), None) => {
                self.offset = Some(number);
                Ok(())
            }
            (Some(_), Some(offset)) => push(&mut self.areas, Area { offset, length: number }),
        }
    }
}

fn push(areas: &mut Vec<Area>, area: Area) -> Result<(), &'static str> {
    if areas.len() == SPARSE_AREAS_MAX {
        return Err("too long sparse map");
    }
    areas.push(area);
    Ok(())
}

pub fn check(areas: &[Area], real_size: u64, stored: u64) -> Result<(), &'static str> {
    let (mut end, mut sum) = (0u64, 0u64);
    for area in areas {
        if area.offset < end {
            return Err("sparse map with overlapping or unsorted areas");
        }
        end = area.offset.checked_add(area.length).ok_or("sparse map out of range")?;
        sum += area.length;
    }
    if end > real_size || sum != stored {
        return Err("sparse map that differs from the sizes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(offset: u64, length: u64) -> Area {
        Area { offset, length }
    }

    #[test]
    fn lines_over_blocks() {
        let mut text = b"2\n0\n5\n100\n".to_vec();
        text.resize(BLOCK, b'\n');
        let mut lines = Lines::default();
        // Left-over line ends inside the padding never count as numbers: an empty number is an error.
        assert!(lines.block(&text.clone().try_into().unwrap()).is_err());
        let mut padded = b"2\n0\n5\n100\n7\n".to_vec();
        padded.resize(BLOCK, 0);
        let parsed = Lines::default().block(&padded.try_into().unwrap()).unwrap();
        assert_eq!(parsed, Some(vec![area(0, 5), area(100, 7)]));
        let mut none = b"0\n".to_vec();
        none.resize(BLOCK, 0);
        assert_eq!(Lines::default().block(&none.try_into().unwrap()).unwrap(), Some(vec![]));
    }

    #[test]
    fn maps_must_add_up() {
        assert!(check(&[area(0, 5), area(10, 5)], 20, 10).is_ok());
        assert!(check(&[area(0, 5), area(5, 0)], 5, 5).is_ok());
        assert!(check(&[area(0, 5), area(4, 5)], 20, 10).is_err());
        assert!(check(&[area(10, 5), area(0, 5)], 20, 10).is_err());
        assert!(check(&[area(0, 5)], 4, 5).is_err());
        assert!(check(&[area(0, 5)], 20, 6).is_err());
        assert!(check(&[area(u64::MAX, 5)], u64::MAX, 5).is_err());
        assert!(parse_list(b"0,5,10,5").is_ok());
        assert!(parse_list(b"").is_err());
        assert!(parse_list(b"0,5,10").is_err());
    }
}
