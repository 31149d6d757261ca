//! Layers that changed a little, recipes that lie.

use super::recipe::{Piece, Recipe};
use super::*;
use crate::builder::{Layer, gzip};
use crate::digest::Digest;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("limpet-delta-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("layer/lib")).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes without a pattern, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().take(length).collect()
}

/// What came out, and how many bytes of the pack it took.
fn transfer(scratch: &Scratch, blob: &[u8]) -> (Vec<u8>, u64) {
    let mut pack = Vec::new();
    let (recipe, digest) = make(blob, &mut pack).unwrap();
    let recipe = Recipe::decode(&recipe.encode().unwrap()).unwrap();
    let base = Base::scan(&[scratch.0.join("layer")], &rebuild::names(&recipe)).unwrap();
    let parts = rebuild::missing(&recipe, &base);
    let fetched = scratch.0.join("fetched");
    let mut file = File::create(&fetched).unwrap();
    let mut bytes = 0;
    for part in &parts {
        file.write_all(&pack[part.offset as usize..(part.offset + part.length) as usize]).unwrap();
        bytes += part.length;
    }
    let mut out = Vec::new();
    let mut rebuild = Rebuild::new(recipe, base, File::open(&fetched).unwrap());
    rebuild.read_to_end(&mut out).unwrap();
    assert_eq!(rebuild.read(&mut [0; 10]).unwrap(), 0, "the end stays the end");
    assert_eq!(Digest::of(&out), digest);
    (out, bytes)
}

#[test]
fn only_what_changed_travels() {
    let scratch = Scratch::new();
    let big = noise(1, 6 << 20);
    let small: Vec<Vec<u8>> = (0..50).map(|n| noise(100 + n, 3000)).collect();
    fs::write(scratch.0.join("layer/lib/big"), &big).unwrap();
    for (n, file) in small.iter().enumerate() {
        fs::write(scratch.0.join(format!("layer/lib/{n}")), file).unwrap();
    }
    // A byte put in near the beginning, some overwritten in the middle, a file moved, a file that is there twice.
    let mut changed = big.clone();
    changed.insert(1000, 7);
    changed[3 << 20..(3 << 20) + 10_000].copy_from_slice(&noise(9, 10_000));
    let mut layer = Layer::new().directory("lib", 0o755).file("lib/big", 0o644, &changed).file("again", 0o600, &changed);
    for (n, file) in small.iter().enumerate() {
        layer = layer.file(&format!("moved/{n}"), 0o644, file);
    }
    let tar = layer.file("tiny", 0o644, b"x").file("empty", 0o644, b"").tar();
    for blob in [tar.clone(), gzip(&tar)] {
        let (out, bytes) = transfer(&scratch, &blob);
        assert!(out == tar, "the same archive");
        assert!(bytes < 200_000, "{bytes} of {}", blob.len());
    }
    let nothing = Scratch::new();
    let (out, bytes) = transfer(&nothing, &tar);
    assert!(out == tar && bytes > 6 << 20, "without a base all of it travels");
}

#[test]
fn odd_archives_come_out_the_same() {
    let scratch = Scratch::new();
    let tar = Layer::new().file("a", 0o644, &noise(3, 70_000)).tar();
    for odd in [
        Vec::new(),
        vec![0; 512],
        noise(4, 100),
        noise(5, 100_000),
        tar[..tar.len() - 700].to_vec(),
        tar[..5000].to_vec(),
        [tar.clone(), noise(6, 333)].concat(),
    ] {
        if odd.is_empty() {
            continue;
        }
        let (out, _) = transfer(&scratch, &odd);
        assert!(out == odd, "{} bytes", odd.len());
    }
}

#[test]
fn cuts_are_bounded_and_find_themselves_again() {
    let bytes = noise(77, 3 << 20);
    let cuts = |bytes: &[u8]| {
        let mut lengths = Vec::new();
        cut::each(bytes, |piece| {
            lengths.push(piece.len());
            Ok(())
        })
        .unwrap();
        lengths
    };
    let lengths = cuts(&bytes);
    assert_eq!(lengths.iter().sum::<usize>(), bytes.len());
    assert!(lengths.iter().all(|l| *l <= cut::MAX) && lengths[..lengths.len() - 1].iter().all(|l| *l > cut::MIN));
    let mean = bytes.len() / lengths.len();
    assert!((8 << 10..32 << 10).contains(&mean), "{mean}");
    // The cut is part of the format: a hub and a device of different versions must agree.
    assert_eq!(lengths[..4], cuts(&noise(77, 1 << 20))[..4]);
    let shifted = cuts(&bytes[100_000..]);
    assert!(shifted.iter().rev().take(50).eq(lengths.iter().rev().take(50)), "boundaries follow the content");
    assert_eq!(cuts(&vec![0; 200_000]), [cut::MAX, cut::MAX, cut::MAX, 200_000 - 3 * cut::MAX]);
}

#[test]
fn recipes_that_lie_are_refused() {
    let named = |length, packed| Piece::Named { name: 1, length, packed };
    let recipe = |archive_bytes, pieces| Recipe { archive_bytes, pieces }.encode().unwrap();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("no gzip", b"LMPR1".to_vec()),
        ("other magic", gzip(b"LMPR2\0")),
        ("too short", recipe(10, vec![Piece::Plain(vec![1; 9])])),
        ("too long", recipe(8, vec![Piece::Plain(vec![1; 9])])),
        ("too large", recipe(u64::MAX >> 2, vec![])),
        ("a piece too large", recipe(1 << 20, vec![named(1 << 20, 10)])),
        ("packed too large", recipe(10, vec![named(10, 1 << 20)])),
        ("packed nothing", recipe(10, vec![named(10, 0)])),
        ("refers ahead", recipe(10, vec![Piece::Again(0), named(10, 10)])),
        ("unknown kind", gzip(b"LMPR1\x0a\x07")),
        ("endless number", gzip(b"LMPR1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
        ("cut", recipe(10, vec![named(10, 10)])[..20].to_vec()),
        ("plain is cut", gzip(b"LMPR1\x0a\x00\x0aabc")),
    ] {
        assert!(Recipe::decode(&bytes).is_err(), "{what}");
    }
    // A recipe that unfolds without end is read up to its bound.
    let bomb = recipe(200 << 20, (0..200).map(|_| Piece::Plain(vec![0; 1 << 20])).collect());
    assert!(bomb.len() < 1 << 20 && Recipe::decode(&bomb).is_err());
    // Every cut of a good one is an error, never a panic.
    let good = recipe(20, vec![named(10, 12), Piece::Again(0)]);
    assert!(Recipe::decode(&good).is_ok());
    for length in 0..good.len() {
        let _ = Recipe::decode(&good[..length]);
    }
}

#[test]
fn a_lying_pack_is_found_out() {
    let scratch = Scratch::new();
    let tar = Layer::new().file("a", 0o644, &noise(3, 70_000)).tar();
    let mut pack = Vec::new();
    let (recipe, digest) = make(tar.as_slice(), &mut pack).unwrap();
    let fetched = scratch.0.join("fetched");
    let rebuilt = |pack: &[u8]| {
        fs::write(&fetched, pack).unwrap();
        let mut out = Vec::new();
        let done = Rebuild::new(recipe.clone(), Base::default(), File::open(&fetched).unwrap()).read_to_end(&mut out);
        done.map(|_| Digest::of(&out))
    };
    assert_eq!(rebuilt(&pack).unwrap(), digest);
    assert!(rebuilt(&pack[..pack.len() - 1]).is_err(), "cut");
    assert!(rebuilt(&[]).is_err(), "nothing");
    for at in [0, 10, pack.len() / 2, pack.len() - 5] {
        let mut evil = pack.clone();
        evil[at] ^= 0x55;
        assert!(rebuilt(&evil).map_or(true, |got| got != digest), "byte {at}");
    }
}
