//! Chance that can be had again: SplitMix64.
//!
//! In: a seed. Out: the same numbers each time. Never: a number from anywhere else.

pub struct Dice(pub u64);

impl Dice {
    /// One of `0..n`.
    pub fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        if list.is_empty() { None } else { list.get(self.roll(list.len() as u64) as usize) }
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.roll(one_in) == 0
    }
}

/// How many histories a test looks at: `SEEDS`, where it is set.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(usual)
}
