//! Crafted layers by the hundred: every way of naming a place outside, with every kind of entry.
//!
//! In: the products of lists. Out: for each, a host that is unchanged, a layer that stays within its bounds, and for those
//! that must be refused an error with words in it.

use super::*;

/// Names that lead outside of a directory if one lets them.
const OUTSIDE: [&str; 17] = [
    "../witness",
    "../host/etc/passwd",
    "../../etc/limpet-escaped",
    "./../witness",
    "a/../../witness",
    "a/b/../../../witness",
    "/../witness",
    "//../witness",
    "/./../witness",
    "a/./../../witness",
    "a//../../witness",
    "..",
    "../",
    "/..",
    "a/..",
    "a/../..",
    "../../../../../../../../../../tmp/limpet-escaped",
];

/// Kinds of entries, by their flag in the header.
const KINDS: [(&str, u8); 7] = [
    ("file", b'0'),
    ("old file", 0),
    ("hard link", b'1'),
    ("link", b'2'),
    ("character device", b'3'),
    ("directory", b'5'),
    ("fifo", b'6'),
];

fn entry(layer: Layer, path: &str, kind: u8) -> Layer {
    let link: &[u8] = match kind {
        b'1' => b"inside",
        b'2' => b"/etc/passwd",
        _ => b"",
    };
    let data: &[u8] = if matches!(kind, b'0' | 0) { b"evil" } else { b"" };
    let with = Attributes { type_flag: kind, mode: 0o4777, link, device: (1, 3), ..Attributes::default() };
    layer.entry(path, data, &with)
}

/// Everything in the layer's root is in it: no mount, no name that leads out, no more than was archived.
fn check_inside(what: &str, scratch: &Scratch, before: &BTreeMap<PathBuf, (u32, u64, i64, Vec<u8>)>) {
    assert!(scratch.outside() == *before, "{what} changed the host");
    let device = fs::metadata(scratch.root()).unwrap().dev();
    let mut todo = vec![scratch.root()];
    let mut count = 0;
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            assert_eq!(meta.dev(), device, "{what}");
            count += 1;
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    assert!(count < 600, "{what}: {count} entries");
}

fn refused(what: &str, layer: Layer) {
    let scratch = Scratch::new();
    let before = scratch.outside();
    let done = unpack_layer(&scratch, layer);
    match done {
        Ok(done) => panic!("{what} was taken: {done:?}"),
        Err(error) => assert!(error.to_string().len() > 20, "{what}: {error}"),
    }
    check_inside(what, &scratch, &before);
}

fn harmless(what: &str, layer: Layer) {
    let scratch = Scratch::new();
    let before = scratch.outside();
    let _ = unpack_layer(&scratch, layer);
    check_inside(what, &scratch, &before);
}

#[test]
fn every_kind_under_every_name_outside() {
    let mut count = 0;
    for name in OUTSIDE {
        for (kind, flag) in KINDS {
            if flag == b'3' && !is_root() {
                continue;
            }
            let layer = Layer::new().directory("a/b", 0o755).file("inside", 0o644, b"x");
            refused(&format!("{kind} {name:?}"), entry(layer, name, flag));
            count += 1;
        }
        // The same names by way of a PAX header, and as the place that a whiteout or a hard link names.
        let pax = pax_then("x", &pax_record("path", name.as_bytes()), b"evil");
        refused(&format!("pax path {name:?}"), pax);
        refused(&format!("hard link to {name:?}"), Layer::new().hard_link("x", name));
        harmless(&format!("whiteout {name:?}"), Layer::new().file(&format!("{name}/.wh.x"), 0, b""));
        count += 3;
    }
    println!("{count} crafted layers");
    assert!(count >= 150);
}

#[test]
fn every_kind_through_every_link() {
    let targets = ["..", "../host", "/", "/etc", "../../../../../..", "/proc/self/root", "/proc/self/cwd", "link", "self/.."];
    let mut count = 0;
    for target in targets {
        for (kind, flag) in KINDS {
            if flag == b'3' && !is_root() {
                continue;
            }
            for below in ["witness", "etc/passwd", "host/etc/passwd", "new/limpet-escaped"] {
                let layer = Layer::new().file("inside", 0o644, b"x").symlink("link", target);
                harmless(&format!("{kind} link/{below} by {target}"), entry(layer, &format!("link/{below}"), flag));
                // The link comes to stand where a directory was opened a moment before.
                let layer = Layer::new().file("inside", 0o644, b"x").directory("link", 0o755).symlink("link", target);
                harmless(&format!("{kind} swapped/{below} by {target}"), entry(layer, &format!("link/{below}"), flag));
                count += 2;
            }
        }
        for whiteout in ["link/.wh.witness", "link/.wh..wh..opq", "link/etc/.wh.passwd", ".wh.link"] {
            harmless(&format!("{whiteout} by {target}"), Layer::new().symlink("link", target).file(whiteout, 0, b""));
            count += 1;
        }
    }
    println!("{count} crafted layers");
    assert!(count >= 200);
}

#[test]
fn places_that_the_runtime_needs_stay_directories() {
    for place in ["dev", "proc", "sys", "run", "etc", "./dev", "/proc", "dev/", "a/../dev", "//sys"] {
        for (kind, flag) in KINDS.iter().filter(|(_, flag)| *flag != b'5') {
            if *flag == b'3' && !is_root() {
                continue;
            }
            refused(&format!("{kind} as {place}"), entry(Layer::new().file("inside", 0o644, b"x"), place, *flag));
        }
        let links = Layer::new().symlink("top", "/").symlink(&format!("top/{}", place.trim_matches('/')), "/tmp");
        harmless(&format!("{place} by a link"), links);
    }
}

#[test]
fn names_and_numbers_that_lie() {
    let plain = Attributes::default();
    let long = |count: usize| "x".repeat(count);
    let sparse = |map: &[u8]| [pax_record("GNU.sparse.map", map), pax_record("GNU.sparse.size", b"200")].concat();
    let fifo = Attributes { type_flag: b'6', ..plain.clone() };
    let over_full = Layer::new().file("a/b/c", 0o644, b"x");
    let numbers: [(&str, std::ops::Range<usize>, &[u8]); 8] = [
        ("a negative size", 124..136, b"-0000000001\0"),
        ("a size that is no number", 124..136, b"zzzzzzzzzzz\0"),
        ("a size past the end", 124..136, b"00077777777\0"),
        ("a size of 2^63", 124..136, &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("a negative binary size", 124..136, &[0xff; 12]),
        ("a mode that is no number", 100..108, b"zzzzzzz\0"),
        ("an owner that is no number", 108..116, b"zzzzzzz\0"),
        ("a time that is no number", 136..148, b"zzzzzzzzzzz\0"),
    ];
    for (what, place, bytes) in numbers {
        let mut head = builder::header(b"x", 4, &plain);
        head[place].copy_from_slice(bytes);
        builder::seal(&mut head);
        let layer = Layer::new().raw(&head, b"evil");
        match what.contains("time") || what.contains("mode") || what.contains("owner") {
            true => harmless(what, layer),
            false => refused(what, layer),
        }
    }
    for (what, records) in [
        ("a path with a zero byte", pax_record("path", b"a\0b")),
        ("an empty path", pax_record("path", b"")),
        ("a path that is too long", pax_record("path", long(5000).as_bytes())),
        ("a record whose length lies", b"99 path=x\n".to_vec()),
        ("a record without an end", b"9 path=xx".to_vec()),
        ("a record of length zero", b"0 path=x\n".to_vec()),
        ("a record that is no text", b"\xff\xff path=x\n".to_vec()),
        ("a size that disagrees", pax_record("size", b"99999999999999999999")),
        ("an owner past what there is", pax_record("uid", b"4294967296")),
        ("a negative owner", pax_record("gid", b"-1")),
        ("a sparse map that goes back", sparse(b"100,5,50,5")),
        ("a sparse map past the file", sparse(b"100,500")),
        ("an odd sparse map", sparse(b"1,2,3")),
    ] {
        refused(what, pax_then("x", &records, b"evil"));
    }
    for (what, layer) in [
        ("a link target that is too long", Layer::new().symlink("x", &long(5000))),
        ("a hard link to itself", Layer::new().hard_link("x", "x")),
        ("a hard link to a device", Layer::new().entry("d", b"", &fifo).hard_link("x", "d/")),
        ("a name of dots", Layer::new().file("...", 0o644, b"x").file("..../...", 0o644, b"x")),
        ("a name with a line break", Layer::new().file("a\nb", 0o644, b"x")),
        ("a thousand levels", Layer::new().file(&"d/".repeat(1000), 0o644, b"x")),
        ("a whiteout of a whiteout", Layer::new().file(".wh..wh.x", 0, b"").file(".wh..wh..wh..opq", 0, b"")),
        ("a whiteout of nothing", Layer::new().file(".wh.", 0, b"")),
        ("an opaque directory twice", Layer::new().file("a/.wh..wh..opq", 0, b"").file("a/.wh..wh..opq", 0, b"")),
        ("a file over a full directory", Layer::new().file("a/b/c", 0o644, b"x").file("a", 0o644, b"x")),
        ("a link over a full directory", over_full.symlink("a", "../host").file("a/etc/passwd", 0o644, b"x")),
        ("hard links to links", Layer::new().symlink("l", "../witness").hard_link("x", "l").file("x", 0o644, b"evil")),
        ("a set-user program over a link", Layer::new().symlink("su", "/host").file("su", 0o6777, b"x")),
    ] {
        harmless(what, layer);
    }
}

/// What a blob says it is does not matter; what it is does.
#[test]
fn compressions_that_lie() {
    let tar = Layer::new().file("a", 0o644, &[1; 5000]).tar();
    let zip = gzip(&tar);
    let cut = |bytes: &[u8], n: usize| bytes[..n].to_vec();
    let flipped = |bytes: &[u8], at: usize| {
        let mut copy = bytes.to_vec();
        copy[at] ^= 0xff;
        copy
    };
    let nested = gzip(&zip);
    let zeros = gzip(&vec![0; 64 << 20]);
    for (what, blob) in [
        ("gzip of gzip", nested),
        ("gzip without its end", cut(&zip, zip.len() - 4)),
        ("gzip with a wrong checksum", flipped(&zip, zip.len() - 6)),
        ("gzip with wrong data", flipped(&zip, 40)),
        ("a gzip head alone", cut(&zip, 10)),
        ("zeros without end", zeros),
        ("a zstd head alone", vec![0x28, 0xb5, 0x2f, 0xfd]),
        ("a zstd window of terabytes", vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0, 0, 0, 0]),
        ("skippable frames without end", vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff]),
        ("bzip2", b"BZh91AY&SY".to_vec()),
        ("xz", vec![0xfd, b'7', b'z', b'X', b'Z', 0]),
        ("a script", b"#!/bin/sh\necho evil\n".to_vec()),
        ("JSON", b"{\"errors\":[]}".to_vec()),
    ] {
        let scratch = Scratch::new();
        let before = scratch.outside();
        let limits = LayerLimits { ratio_free_bytes: 1 << 20, ratio_max: 50, ..LayerLimits::default() };
        let done = unpack(blob.as_slice(), &expect(&blob, &tar), &scratch.root(), &limits);
        assert!(done.is_err(), "{what}: {done:?}");
        check_inside(what, &scratch, &before);
    }
}

/// The same layers do harm where nobody guards: tar, told to believe names, changes what is beside its directory. Only names and
/// targets that stay within the scratch directory.
#[test]
fn these_layers_bite() {
    if std::process::Command::new("tar").arg("--version").output().is_err() {
        eprintln!("skipped: needs tar");
        return;
    }
    let mut layers = Vec::new();
    let within = OUTSIDE.iter().filter(|name| name.ends_with("../witness") || **name == "../host/etc/passwd");
    for name in within.filter(|name| !name.starts_with('/')) {
        for (kind, flag) in KINDS.iter().filter(|(_, flag)| matches!(flag, b'0' | 0 | b'1' | b'2')) {
            let base = Layer::new().directory("a/b", 0o755).file("inside", 0o644, b"x");
            layers.push((format!("{kind} {name:?}"), entry(base, name, *flag)));
        }
        layers.push((format!("pax path {name:?}"), pax_then("x", &pax_record("path", name.as_bytes()), b"evil")));
    }
    for (target, below) in [("..", "witness"), ("../host", "etc/passwd"), ("../host", "new")] {
        for (kind, flag) in KINDS.iter().filter(|(_, flag)| matches!(flag, b'0' | 0 | b'1' | b'2' | b'6')) {
            let base = Layer::new().file("inside", 0o644, b"x").symlink("link", target);
            layers.push((format!("{kind} link/{below} by {target}"), entry(base, &format!("link/{below}"), *flag)));
        }
    }
    let (mut bites, count) = (Vec::new(), layers.len());
    for (what, layer) in layers {
        let tar = layer.tar();
        let scratch = Scratch::new();
        let before = scratch.outside();
        let mut command = std::process::Command::new("tar");
        command.args(["--absolute-names", "--overwrite", "-xf", "-", "-C"]).arg(scratch.root());
        let mut child = command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar).unwrap();
        child.wait().unwrap();
        if scratch.outside() != before {
            bites.push(what.clone());
        }
        // Ours, with the very same bytes.
        let scratch = Scratch::new();
        let before = scratch.outside();
        let _ = unpack_tar(&scratch, &tar);
        check_inside(&what, &scratch, &before);
    }
    println!("{} of {count} layers harm tar", bites.len());
    assert!(bites.len() * 3 > count * 2, "only these bite: {bites:?}");
}
