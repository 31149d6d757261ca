//! Protobuf of every built-in kind, spoilt: bits flipped, cut, lengths that lie, pieces of other kinds in the middle.
//!
//! In: objects as this hub writes them, and upstream's own round-trip files where `cargo xtask setup` has fetched them; a seed.
//! `LIMPET_FUZZ_ROUNDS` says how many of each. Out: an error or a value that can be written again; never a panic.
//! Never: more out than in by more than a bound.
#![allow(clippy::unwrap_used)]

use super::*;
use limpet_objects::resource::registry;
use std::path::Path;

const ROUNDS: u64 = 300;
/// A field of two bytes becomes a member with its name.
const GROWTH_MAX: usize = 64;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

fn samples() -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/k8s-golden");
    let mut all = Vec::new();
    for resource in registry().resources() {
        let (version, kind) = (resource.api_version(), &resource.kind);
        let labels: Map<String, Value> = (0..20).map(|n| (format!("key-{n}"), json!("value"))).collect();
        let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x", "labels": labels}});
        all.extend(encode(&object));
        let group = if resource.group.is_empty() { "core" } else { &resource.group };
        all.extend(std::fs::read(golden.join(format!("{group}.{}.{kind}.pb", resource.version))));
    }
    all
}

fn spoil(bytes: &mut Vec<u8>, others: &[Vec<u8>], chance: &mut Chance) {
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len());
        match chance.below(8) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, chance.below(256) as u8),
            // A length, or a number, that goes on and on.
            2 => drop(bytes.splice(at..at, std::iter::repeat_n(0xff, 1 + chance.below(12)))),
            3 => {
                let end = bytes.len().min(at + chance.below(200));
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = &others[chance.below(others.len())];
                let from = chance.below(other.len());
                let to = other.len().min(from + chance.below(200));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            5 => drop(bytes.drain(at..bytes.len().min(at + 1 + chance.below(20)))),
            _ if bytes.is_empty() => {}
            _ => bytes[at] ^= 1 << chance.below(8),
        }
    }
}

#[test]
fn every_kind_spoilt_is_an_error_or_an_object() {
    let rounds = std::env::var("LIMPET_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let samples = samples();
    assert!(samples.len() > 60, "{}", samples.len());
    let (mut good, mut bad) = (0, 0);
    for (number, sample) in samples.iter().enumerate() {
        assert!(decode(sample).is_ok(), "sample {number}");
        for round in 0..rounds {
            let mut chance = Chance(number as u64 * 1_000_003 + round);
            let mut bytes = sample.clone();
            spoil(&mut bytes, &samples, &mut chance);
            let Ok(value) = decode(&bytes) else {
                bad += 1;
                continue;
            };
            good += 1;
            let text = value.to_string();
            let (length, most) = (text.len(), bytes.len() * GROWTH_MAX + 4096);
            assert!(length <= most, "sample {number}, round {round}: {length} of {}", bytes.len());
            // What was read can be written, or is refused.
            let _ = encode(&value);
        }
    }
    assert!(good > 0 && bad > 0, "{good} were objects, {bad} were not");
}

#[test]
fn nesting_without_end_and_lists_of_nothing_are_bounded() {
    // A JSONSchemaProps in a JSONSchemaProps …: each level is a length and a number.
    let mut inner = Vec::new();
    for _ in 0..5000 {
        let mut outer = vec![0x9a, 0x01];
        let mut length = inner.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend_from_slice(&inner);
        inner = outer;
    }
    let object = |kind: &[u8], raw: &[u8]| {
        let mut meta = vec![0x0a, 0x02];
        meta.extend_from_slice(b"v1");
        meta.extend_from_slice(&[0x12, kind.len() as u8]);
        meta.extend_from_slice(kind);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0x0a, meta.len() as u8]);
        bytes.extend_from_slice(&meta);
        bytes.push(0x12);
        let mut length = raw.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.extend_from_slice(raw);
        bytes
    };
    for kind in [&b"Pod"[..], b"ConfigMap", b"Endpoints", b"Node", b"Secret"] {
        // Deep: whatever the numbers mean to the kind.
        let _ = decode(&object(kind, &inner));
        let wide = decode(&object(kind, &[0x12, 0x00].repeat(500_000)));
        if let Ok(value) = wide {
            assert!(value.to_string().len() <= 1_000_000 * GROWTH_MAX, "{}", String::from_utf8_lossy(kind));
        }
    }
}
