//! The coder against data like ours and data like nobody's.

use super::*;
use alloc::{format, string::String};

fn round(base: &[u8], data: &[u8]) -> usize {
    let folded = fold(base, data);
    assert_eq!(unfold(base, &folded, data.len()).as_deref(), Ok(data), "{} of {}", folded.len(), data.len());
    if !data.is_empty() {
        assert_eq!(unfold(base, &folded, data.len() - 1), Err(SqueezeError::Long));
    }
    folded.len()
}

/// xorshift; chance with a seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn config(changed: usize) -> String {
    let line = |n: usize| format!("\"key-{n}\":\"value {} of {n}\"", if n == changed { 7 } else { 1 });
    let lines: Vec<String> = (0..50).map(line).collect();
    format!("{{\"apiVersion\":\"v1\",\"data\":{{{}}},\"kind\":\"ConfigMap\"}}", lines.join(","))
}

#[test]
fn one_changed_key_costs_a_few_bytes() {
    let (old, new) = (config(99), config(20));
    let cost = round(old.as_bytes(), new.as_bytes());
    assert!(cost <= 16, "{cost} bytes for one changed byte in {}", new.len());
    // A key that comes or goes, at either end and in the middle.
    for cut in [15, 400, new.len() - 30] {
        let shorter = [&new[..cut], &new[cut + 9..]].concat();
        assert!(round(new.as_bytes(), shorter.as_bytes()) <= 16);
        assert!(round(shorter.as_bytes(), new.as_bytes()) <= 32);
    }
}

#[test]
fn a_large_object_is_no_problem() {
    let mut old = noise(1, 1 << 20);
    let cost = round(&[], &old);
    assert!(cost < old.len() + old.len() / 64 + 16);
    let before = old.clone();
    old[700_000] ^= 1;
    old.insert(12, 3);
    assert!(round(&before, &old) <= 32);
}

#[test]
fn anything_comes_back_as_it_was() {
    for seed in 0..300u64 {
        let len = (seed as usize * 37) % 700;
        let mut data = noise(seed, len);
        // Few letters make many matches, runs and overlaps.
        if seed % 3 == 0 {
            data.iter_mut().for_each(|b| *b %= 3);
        }
        let base: Vec<u8> = match seed % 4 {
            0 => Vec::new(),
            1 => data.iter().rev().copied().collect(),
            2 => data.iter().skip(5).copied().chain(noise(seed + 1, 40)).collect(),
            _ => noise(seed + 2, 300).iter().map(|b| b % 3).collect(),
        };
        round(&base, &data);
    }
    round(b"", b"");
    round(b"aaaaaaa", &[b'a'; 5000]);
}

#[test]
fn a_prepared_base_is_as_good() {
    let words = crate::dictionary::WORDS;
    let golden = include_str!("../../golden.txt").lines().filter_map(|line| line.split(' ').nth(2));
    let bytes = |hex: &str| -> Vec<u8> {
        hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(core::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    };
    let shuffled = |seed: usize| (0..40).flat_map(move |n| words[(n * seed * 7919) % (words.len() - 60)..][..10 + n].to_vec());
    let ours = [config(1).into_bytes(), words.iter().rev().copied().collect(), words.to_vec()];
    let all = golden.map(bytes).chain(ours).chain((1..40).map(|seed| shuffled(seed).collect()));
    let (mut fresh, mut prepared) = (0, 0);
    for data in all {
        let folded = crate::dictionary::PREPARED.fold(&data);
        assert_eq!(unfold(words, &folded, data.len()).as_deref(), Ok(&data[..]));
        fresh += fold(words, &data).len();
        prepared += folded.len();
    }
    assert!(prepared <= fresh + fresh / 100, "{prepared} bytes instead of {fresh}");
}

#[test]
fn hostile_bytes_are_refused_within_bounds() {
    // 4 GiB are announced: nothing of that is allocated.
    assert_eq!(unfold(&[], &[0xff, 0xff, 0xff, 0xff, 0x0f], 100), Err(SqueezeError::Long));
    // Copy from nothing; copy from behind the end; literal without bytes; endless varint; an empty literal for ever.
    assert_eq!(unfold(&[], &[5, 3, 0], 100), Err(SqueezeError::Outside));
    assert_eq!(unfold(b"abcdefgh", &[4, 1, 16], 100), Err(SqueezeError::Outside));
    assert_eq!(unfold(b"abcdefgh", &[4, 1, 1], 100), Err(SqueezeError::Outside));
    assert_eq!(unfold(&[], &[4, 8, 1], 100), Err(SqueezeError::Short));
    assert_eq!(unfold(&[], &[0x80; 9], 100), Err(SqueezeError::Long));
    assert_eq!(unfold(&[], &[4, 0, 0, 0, 0], 100), Err(SqueezeError::Long));
    for seed in 0..3000u64 {
        let mut bytes = fold(b"some words that both have", &noise(seed, 64).iter().map(|b| b % 5).collect::<Vec<_>>());
        let at = (seed as usize * 7) % bytes.len();
        bytes[at] ^= 1 << (seed % 8);
        if let Ok(out) = unfold(b"some words that both have", &bytes, 4096) {
            assert!(out.len() <= 4096);
        }
        let _ = unfold(&noise(seed, 20), &noise(seed + 9, 40), 4096);
    }
}
