//! A small coder for bytes that resemble other bytes: a delta and a compression with a dictionary in one.
//!
//! In: data, and a `base` that both sides have (an older version of the same object, or `dictionary::WORDS`).
//! Out: literal runs and copies out of base or earlier output. The decoder is forty lines, which is why it is here and
//! not a general compressor: it has to fit on the smallest boards, without tables, windows or allocation beyond the output.
//! Never: reads or writes outside of what the lengths allow; output larger than the caller's bound.
//!
//! Shape: varint length of the output, then operations until it is reached. An operation is a varint `n`; when its lowest
//! bit is 0, `n / 2` literal bytes follow; when it is 1, `n / 2 + COPY_MIN` bytes are copied from where a second varint says:
//! the zigzag distance from the end of the copy before. The copied-from space is base followed by the output so far.

use alloc::{vec, vec::Vec};

/// A shorter copy would cost more than the bytes themselves.
const COPY_MIN: usize = 4;
/// Positions remembered by the encoder: 2 to this power.
const TABLE_BITS: u32 = 16;
/// The same of a base that is prepared: two bytes each, in every program that has it.
const PREPARED_BITS: u32 = 13;
/// Steps of the encoder between two remembered positions of a long copy.
const SPARSE: usize = 3;

/// Why bytes do not unfold. Nobody retries: the sender is broken or hostile, or has another base.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SqueezeError {
    #[error("the data ends too early")]
    Short,
    #[error("the data is longer than it says, or than is allowed")]
    Long,
    #[error("a copy from outside of what is there")]
    Outside,
}

/// A base that much is folded with, with the positions of its bytes found once: at compile time, where it is a constant.
pub struct Prepared {
    base: &'static [u8],
    /// By the hash of four bytes, the last position where they stand, plus one; 0 is none.
    slots: [u16; 1 << PREPARED_BITS],
}

impl Prepared {
    pub const fn new(base: &'static [u8]) -> Prepared {
        assert!(base.len() < u16::MAX as usize);
        let mut slots = [0; 1 << PREPARED_BITS];
        let mut at = 0;
        while at + COPY_MIN <= base.len() {
            let four = [base[at], base[at + 1], base[at + 2], base[at + 3]];
            at += 1;
            slots[hash(four, PREPARED_BITS)] = at as u16;
        }
        Prepared { base, slots }
    }

    /// As `fold` with this base.
    pub fn fold(&self, data: &[u8]) -> Vec<u8> {
        let table = Table { known: Some(&self.slots), ..Table::new(data.len()) };
        fold_by(table, self.base, data)
    }
}

/// Bytes from which `unfold` with the same base makes `data` again.
pub fn fold(base: &[u8], data: &[u8]) -> Vec<u8> {
    let mut table = Table::new(base.len() + data.len());
    for at in (0..base.len().saturating_sub(COPY_MIN)).step_by(if base.len() > 1 << 16 { SPARSE } else { 1 }) {
        table.note(&base[at..], at);
    }
    fold_by(table, base, data)
}

fn fold_by(mut table: Table<'_>, base: &[u8], data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + data.len() / 4);
    varint(&mut out, data.len());
    let space = Space { base, data };
    let (mut at, mut literal, mut last_end) = (0, 0, 0usize);
    while at + COPY_MIN <= data.len() {
        let here = base.len() + at;
        // Where the last copy would go on had nothing been changed in between: the usual case in a delta.
        let straight = last_end + (at - literal);
        // Where both end alike: what has grown or shrunk in one place only.
        let aligned = (base.len() + at).checked_sub(data.len());
        let [found, known] = table.find(&data[at..]);
        let mut best: Option<(usize, usize)> = None;
        for from in [Some(straight), aligned, known, found].into_iter().flatten() {
            // Nearly everywhere nothing stands that is the same, and several ways lead to one place.
            if from >= here || !space.begins(from, here) || best.is_some_and(|(_, before)| before == from) {
                continue;
            }
            let len = space.same(from, here);
            best = best.filter(|(longest, _)| *longest > len).or(Some((len, from)));
        }
        let Some((mut len, mut from)) = best else {
            table.note(&data[at..], here);
            at += 1;
            continue;
        };
        // The copy may begin earlier than where it was noticed.
        while at > literal && from > 0 && space.byte(from - 1) == data.get(at - 1).copied() {
            (at, from, len) = (at - 1, from - 1, len + 1);
        }
        literals(&mut out, &data[literal..at]);
        varint(&mut out, (len - COPY_MIN) << 1 | 1);
        varint(&mut out, zigzag(from as i64 - last_end as i64));
        for step in (0..len).step_by(SPARSE) {
            table.note(&data[at + step..], base.len() + at + step);
        }
        at += len;
        (literal, last_end) = (at, from + len);
    }
    literals(&mut out, &data[literal..]);
    out
}

/// The inverse of `fold`. Allocates no more than `max` bytes.
pub fn unfold(base: &[u8], bytes: &[u8], max: usize) -> Result<Vec<u8>, SqueezeError> {
    let mut input = bytes;
    let length = take_varint(&mut input)?;
    if length > max {
        return Err(SqueezeError::Long);
    }
    let mut out = Vec::with_capacity(length);
    let mut last_end = 0usize;
    while out.len() < length {
        let n = take_varint(&mut input)?;
        if n & 1 == 0 {
            let (literal, rest) = input.split_at_checked(n >> 1).ok_or(SqueezeError::Short)?;
            if literal.is_empty() || literal.len() > length - out.len() {
                return Err(SqueezeError::Long);
            }
            out.extend_from_slice(literal);
            input = rest;
            continue;
        }
        let len = (n >> 1).checked_add(COPY_MIN).filter(|l| *l <= length - out.len()).ok_or(SqueezeError::Long)?;
        let jump = unzigzag(take_varint(&mut input)?);
        let from = (last_end as i64).checked_add(jump).and_then(|f| usize::try_from(f).ok());
        let from = from.filter(|f| *f < base.len() + out.len()).ok_or(SqueezeError::Outside)?;
        last_end = from + len;
        copy(base, &mut out, from, len);
    }
    if input.is_empty() { Ok(out) } else { Err(SqueezeError::Long) }
}

/// `from` is inside of base and output; what the copy itself appends may be read again (a run).
fn copy(base: &[u8], out: &mut Vec<u8>, from: usize, len: usize) {
    let of_base = base.get(from..).map_or(0, |rest| rest.len().min(len));
    if of_base > 0 {
        out.extend_from_slice(&base[from..from + of_base]);
    }
    let at = (from + of_base) - base.len().min(from + of_base);
    let left = len - of_base;
    if at + left <= out.len() {
        return out.extend_from_within(at..at + left);
    }
    for at in (at..).take(left) {
        let byte = out.get(at).copied().unwrap_or_default();
        out.push(byte);
    }
}

fn literals(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        varint(out, bytes.len() << 1);
        out.extend_from_slice(bytes);
    }
}

struct Space<'a> {
    base: &'a [u8],
    data: &'a [u8],
}

impl Space<'_> {
    fn byte(&self, at: usize) -> Option<u8> {
        if at < self.base.len() { self.base.get(at).copied() } else { self.data.get(at - self.base.len()).copied() }
    }

    /// Whether what stands at `from` is long enough for a copy to `here`, where at least as much is left; `from < here`.
    fn begins(&self, from: usize, here: usize) -> bool {
        let chunk = |bytes: &[u8]| bytes.first_chunk::<COPY_MIN>().copied();
        let data = |at: usize| self.data.get(at..).and_then(chunk);
        let there = match from.checked_sub(self.base.len()) {
            Some(at) => data(at),
            None => chunk(&self.base[from..]),
        };
        let want = data(here - self.base.len());
        match there {
            Some(there) => want == Some(there),
            // Across the end of the base.
            None => want.is_some_and(|want| (from..).zip(want).all(|(at, byte)| self.byte(at) == Some(byte))),
        }
    }

    /// How many bytes from `from` on are the same as those from `here` on; `from < here`.
    fn same(&self, from: usize, here: usize) -> usize {
        let want = self.data.get(here - self.base.len()..).unwrap_or_default();
        let of_base = self.base.get(from..).unwrap_or_default();
        let len = common(of_base, want);
        if len < of_base.len() {
            return len;
        }
        let of_data = self.data.get((from + len).saturating_sub(self.base.len())..).unwrap_or_default();
        len + common(of_data, &want[len..])
    }
}

/// How many bytes two slices begin with that are the same.
fn common(a: &[u8], b: &[u8]) -> usize {
    let (wide, others) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    for (at, (a, b)) in wide.iter().zip(others).enumerate() {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return at * 8 + differ.trailing_zeros() as usize / 8;
        }
    }
    let wide = wide.len().min(others.len()) * 8;
    wide + a[wide..].iter().zip(&b[wide..]).take_while(|(a, b)| a == b).count()
}

const fn hash(four: [u8; COPY_MIN], bits: u32) -> usize {
    (u32::from_le_bytes(four).wrapping_mul(2_654_435_761) >> (32 - bits)) as usize
}

/// The newest position of each hash of four bytes.
struct Table<'a> {
    slots: Vec<u32>,
    bits: u32,
    /// Of a base that was prepared.
    known: Option<&'a [u16; 1 << PREPARED_BITS]>,
}

impl Table<'_> {
    fn new(bytes: usize) -> Table<'static> {
        let bits = (usize::BITS - bytes.leading_zeros()).clamp(8, TABLE_BITS);
        Table { slots: vec![u32::MAX; 1 << bits], bits, known: None }
    }

    fn note(&mut self, bytes: &[u8], at: usize) {
        if let (Some(four), Ok(at)) = (bytes.first_chunk(), u32::try_from(at)) {
            self.slots[hash(*four, self.bits)] = at;
        }
    }

    /// Where the four bytes may have been before, and where in a base that was prepared.
    fn find(&self, bytes: &[u8]) -> [Option<usize>; 2] {
        let Some(four) = bytes.first_chunk() else { return [None; 2] };
        let found = self.slots[hash(*four, self.bits)];
        let known = self.known.map_or(0, |slots| slots[hash(*four, PREPARED_BITS)]);
        [(found != u32::MAX).then_some(found as usize), usize::from(known).checked_sub(1)]
    }
}

fn zigzag(n: i64) -> usize {
    ((n << 1) ^ (n >> 63)) as usize
}

fn unzigzag(n: usize) -> i64 {
    ((n >> 1) as i64) ^ -((n & 1) as i64)
}

fn varint(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// At most five bytes: 35 bits, which is more than any bound here.
fn take_varint(input: &mut &[u8]) -> Result<usize, SqueezeError> {
    let mut n = 0u64;
    for shift in 0..5 {
        let (&byte, rest) = input.split_first().ok_or(SqueezeError::Short)?;
        *input = rest;
        n |= u64::from(byte & 0x7f) << (shift * 7);
        if byte & 0x80 == 0 {
            return usize::try_from(n).map_err(|_| SqueezeError::Long);
        }
    }
    Err(SqueezeError::Long)
}

#[cfg(test)]
mod tests;
