//! Layers, friendly and hostile, unpacked into a directory with witnesses beside it.
//!
//! In: archives made by `builder`. Out: what is on disk, and the host tree unchanged after every hostile one.
//! Whiteouts and devices need root; without it those cases say so and pass.

mod hostile;

use super::*;
use crate::builder::{self, Attributes, Layer, gzip, pax_record};
use crate::limits::PAX_BYTES_MAX;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A scratch directory with the layer's root inside, and witnesses outside that must never change.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("limpet-oci-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("layer")).unwrap();
        fs::create_dir_all(dir.join("host/etc")).unwrap();
        fs::write(dir.join("host/etc/passwd"), "host").unwrap();
        fs::write(dir.join("witness"), "witness").unwrap();
        Scratch(dir)
    }

    fn root(&self) -> PathBuf {
        self.0.join("layer")
    }

    /// Everything but the layer: names, contents, modes, times, links.
    fn outside(&self) -> BTreeMap<PathBuf, (u32, u64, i64, Vec<u8>)> {
        let mut all = BTreeMap::new();
        let mut todo = vec![self.0.clone()];
        while let Some(path) = todo.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            if path == self.root() {
                continue;
            }
            let data = if meta.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            all.insert(path.clone(), (meta.mode(), meta.nlink(), meta.mtime(), data));
            if meta.is_dir() {
                todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            }
        }
        all
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn expect(blob: &[u8], tar: &[u8]) -> Expect {
    Expect { digest: Digest::of(blob), size: blob.len() as u64, diff_id: Digest::of(tar) }
}

fn unpack_tar(scratch: &Scratch, tar: &[u8]) -> Result<Unpacked, UnpackError> {
    let limits = LayerLimits { file_bytes_max: 1 << 30, entries_max: 500, ..LayerLimits::default() };
    unpack(tar, &expect(tar, tar), &scratch.root(), &limits)
}

fn unpack_layer(scratch: &Scratch, layer: Layer) -> Result<Unpacked, UnpackError> {
    unpack_tar(scratch, &layer.tar())
}

fn read(scratch: &Scratch, path: &str) -> String {
    fs::read_to_string(scratch.root().join(path)).unwrap()
}

#[test]
fn a_friendly_layer_in_every_compression() {
    let layer = Layer::new()
        .directory("./", 0o755)
        .directory("./bin/", 0o755)
        .file("./bin/su", 0o4755, b"setuid")
        .symlink("bin/sh", "su")
        .hard_link("bin/again", "./bin/su")
        .file("made/on/the/way", 0o600, b"deep")
        .file("made/on/the/way", 0o640, b"last wins")
        .directory("tmp", 0o1777);
    let tar = layer.tar();
    let zstd = ruzstd::encoding::compress_to_vec(tar.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    for blob in [tar.clone(), gzip(&tar), zstd] {
        let scratch = Scratch::new();
        let done = unpack(blob.as_slice(), &expect(&blob, &tar), &scratch.root(), &LayerLimits::default()).unwrap();
        assert_eq!((done.entries, done.bytes, done.hides_all), (8, tar.len() as u64, false));
        assert_eq!(read(&scratch, "bin/sh"), "setuid");
        assert_eq!(read(&scratch, "made/on/the/way"), "last wins");
        let su = fs::metadata(scratch.root().join("bin/su")).unwrap();
        assert_eq!((su.mode() & 0o7777, su.nlink(), su.mtime()), (0o4755, 2, 0));
        let mode = |p: &str| fs::metadata(scratch.root().join(p)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("tmp"), mode("made/on"), mode("made/on/the/way")), (0o1777, 0o755, 0o640));
        assert_eq!(fs::metadata(scratch.root().join("bin")).unwrap().mtime(), 0);
    }
}

#[test]
fn owners_long_names_and_times_from_pax() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let long = format!("{}/file", "directory-with-a-name".repeat(6));
    let with = Attributes { uid: 3_000_000, gid: i32::MAX as u64, mode: 0o600, mtime: 1234, ..Attributes::default() };
    unpack_layer(&scratch, Layer::new().entry(&long, b"x", &with)).unwrap();
    let meta = fs::metadata(scratch.root().join(&long)).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mtime()), (3_000_000, i32::MAX as u32, 1234));
}

#[test]
fn whiteouts_in_overlay_form() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let layer = Layer::new()
        .file("a/.wh.gone", 0, b"")
        .file("a/.wh.replaced", 0, b"")
        .file("a/replaced/new", 0o644, b"new")
        .file("a/kept", 0o644, b"kept")
        .file("a/.wh.kept", 0, b"")
        .file("b/.wh..wh..opq", 0, b"")
        .file("b/own", 0o644, b"own")
        .file(".wh..wh.plnk/12.34", 0o644, b"")
        .file(".wh.etc", 0, b"");
    let done = unpack_layer(&scratch, layer.clone());
    // An implicit directory cannot be made where a whiteout stands; the archive must name it.
    assert!(matches!(done, Err(UnpackError::Refused { .. })), "{done:?}");

    let scratch = Scratch::new();
    let layer = Layer::new()
        .file("a/.wh.gone", 0, b"")
        .file("a/.wh.replaced", 0, b"")
        .directory("a/replaced", 0o755)
        .file("a/replaced/new", 0o644, b"new")
        .file("a/kept", 0o644, b"kept")
        .file("a/.wh.kept", 0, b"")
        .file("b/.wh..wh..opq", 0, b"")
        .file("b/own", 0o644, b"own")
        .file(".wh..wh.plnk/12.34", 0o644, b"")
        .file(".wh.etc", 0, b"");
    let done = unpack_layer(&scratch, layer).unwrap();
    assert!(!done.hides_all);
    let gone = fs::symlink_metadata(scratch.root().join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(read(&scratch, "a/kept"), "kept");
    assert_eq!(read(&scratch, "b/own"), "own");
    let opaque = |p: &str| {
        let mut value = [0; 4];
        rustix::fs::lgetxattr(scratch.root().join(p), "trusted.overlay.opaque", &mut value[..]).is_ok()
    };
    assert!(opaque("b") && opaque("a/replaced") && opaque("etc"));
    assert!(!opaque("a"));
    assert!(!scratch.root().join(".wh..wh.plnk").exists());
    let scratch = Scratch::new();
    assert!(unpack_layer(&scratch, Layer::new().file(".wh..wh..opq", 0, b"")).unwrap().hides_all);
}

#[test]
fn devices_and_attributes() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let null = Attributes { type_flag: b'3', mode: 0o666, device: (1, 3), ..Attributes::default() };
    let fifo = Attributes { type_flag: b'6', mode: 0o622, ..Attributes::default() };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let xattrs: &[(&str, &[u8])] = &[
        ("security.capability", &capability),
        ("trusted.overlay.redirect", b"/etc"),
        ("trusted.overlay.opaque", b"y"),
        ("user.overlay.opaque", b"y"),
        ("security.selinux", b"x"),
    ];
    let layer = Layer::new()
        .entry("dev/null", b"", &null)
        .entry("fifo", b"", &fifo)
        .entry("ping", b"elf", &Attributes { mode: 0o755, xattrs, ..Attributes::default() });
    unpack_layer(&scratch, layer).unwrap();
    let meta = fs::metadata(scratch.root().join("dev/null")).unwrap();
    assert!(meta.file_type().is_char_device());
    assert_eq!((meta.rdev(), meta.mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o666));
    assert!(fs::metadata(scratch.root().join("fifo")).unwrap().file_type().is_fifo());
    let mut names = vec![0; 1024];
    let got = rustix::fs::listxattr(scratch.root().join("ping"), names.as_mut_slice()).unwrap();
    assert_eq!(&names[..got], b"security.capability\0");
}

#[test]
fn sparse_files_of_every_writing() {
    let map = pax_record("GNU.sparse.map", b"0,3,1000000,3");
    let size = pax_record("GNU.sparse.size", b"2000000");
    let old_style = pax_then("sparse", &[map, size].concat(), b"abcxyz");

    let head = [
        pax_record("GNU.sparse.major", b"1"),
        pax_record("GNU.sparse.minor", b"0"),
        pax_record("GNU.sparse.name", b"sparse"),
        pax_record("GNU.sparse.realsize", b"2000000"),
    ]
    .concat();
    let mut data = b"2\n0\n3\n1000000\n3\n".to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abcxyz");
    let new_style = pax_then("GNUSparseFile.0/sparse", &head, &data);

    let mut gnu = builder::header(b"sparse", 6, &Attributes { type_flag: b'S', ..Attributes::default() });
    gnu[257..265].copy_from_slice(b"ustar  \0");
    let numbers = "00000000000\x0000000000003\x0000003641100\x0000000000003\0";
    gnu[386..386 + 48].copy_from_slice(numbers.as_bytes());
    gnu[483..495].copy_from_slice(b"00007502200\0");
    builder::seal(&mut gnu);
    let gnu_style = Layer::new().raw(&gnu, b"abcxyz");

    for layer in [old_style, new_style, gnu_style] {
        let scratch = Scratch::new();
        unpack_layer(&scratch, layer).unwrap();
        let bytes = fs::read(scratch.root().join("sparse")).unwrap();
        assert_eq!((bytes.len(), &bytes[..3], &bytes[1_000_000..1_000_003]), (2_000_000, &b"abc"[..], &b"xyz"[..]));
        assert!(bytes[3..1_000_000].iter().all(|b| *b == 0));
    }
    let huge = [pax_record("GNU.sparse.map", b"0,1"), pax_record("GNU.sparse.size", b"9000000000000")].concat();
    let scratch = Scratch::new();
    assert!(unpack_layer(&scratch, pax_then("bomb", &huge, b"x")).is_err());
}

fn pax_then(name: &str, records: &[u8], data: &[u8]) -> Layer {
    let pax = Attributes { type_flag: b'x', ..Attributes::default() };
    Layer::new()
        .raw(&builder::header(b"pax", records.len() as u64, &pax), records)
        .raw(&builder::header(name.as_bytes(), data.len() as u64, &Attributes::default()), data)
}

/// Every hostile archive is refused (or harmless), and nothing outside the layer's directory changes.
#[test]
fn hostile_layers_leave_the_host_unchanged() {
    let file = |l: Layer, path: &str| l.file(path, 0o644, b"evil");
    let of_kind = |type_flag, device| Attributes { type_flag, device, ..Attributes::default() };
    let refused: Vec<(&str, Layer)> = vec![
        ("parent", file(Layer::new(), "../witness")),
        ("parent inside", file(Layer::new(), "a/../../witness")),
        ("absolute with parent", file(Layer::new(), "/../witness")),
        ("hard link out by ..", Layer::new().hard_link("x", "../witness")),
        ("hard link to a missing file", Layer::new().hard_link("x", "nothing")),
        ("hard link to a host file", Layer::new().hard_link("x", "/etc/passwd")),
        ("hard link through a link", Layer::new().symlink("up", "../host").hard_link("x", "up/etc/passwd")),
        ("hard link to a directory", Layer::new().directory("d", 0o755).hard_link("x", "d")),
        ("hard link to the root", Layer::new().hard_link("x", "/")),
        ("a file as directory", file(file(Layer::new(), "a"), "a/b")),
        ("link loop", file(Layer::new().symlink("a", "b").symlink("b", "a"), "a/x")),
        ("link chain", file(chain(60), "l59/x")),
        ("root is a file", file(Layer::new(), "./.")),
        ("root is a link", Layer::new().symlink(".", "../host")),
        ("dev is a link", Layer::new().symlink("dev", "/host")),
        ("proc is a link", Layer::new().symlink("./proc", "..")),
        ("sys is a file", file(Layer::new(), "/sys")),
        ("run is a hard link", file(Layer::new(), "f").hard_link("run", "f")),
        ("etc is a fifo", Layer::new().entry("etc", b"", &of_kind(b'6', (0, 0)))),
        ("etc by way of a link", Layer::new().symlink("top", ".").symlink("top/etc", "../host/etc")),
        ("dev replaced later", Layer::new().directory("dev", 0o755).symlink("dev", "/host")),
        ("device 0:0", Layer::new().entry("x", b"", &of_kind(b'3', (0, 0)))),
        ("owner past i32", Layer::new().entry("x", b"", &Attributes { uid: 1 << 31, ..Attributes::default() })),
        ("group past u32", Layer::new().entry("x", b"", &Attributes { gid: 1 << 40, ..Attributes::default() })),
        ("whiteout of ..", file(Layer::new(), "a/.wh...")),
        ("whiteout as directory", file(Layer::new(), ".wh.a/b")),
        ("empty link", Layer::new().symlink("x", "")),
        ("too deep", file(Layer::new(), &"d/".repeat(200))),
        ("too deep by a link", file(deep_by_link(), "deep/e/e/e/e/e/e/e/e")),
        ("long component", file(Layer::new(), &"n".repeat(300))),
        ("unknown type", Layer::new().entry("x", b"", &of_kind(b'Z', (0, 0)))),
        ("data for a link", Layer::new().entry("x", b"data", &Attributes { link: b"y", ..of_kind(b'2', (0, 0)) })),
        ("too many entries", (0..501).fold(Layer::new(), |l, n| file(l, &format!("f{n}")))),
    ];
    for (name, layer) in refused {
        let scratch = Scratch::new();
        let before = scratch.outside();
        let done = unpack_layer(&scratch, layer);
        assert!(done.is_err(), "{name} was not refused: {done:?}");
        assert_eq!(scratch.outside(), before, "{name} changed the host");
    }
}

/// `l0 -> l1 -> …`: longer than anybody needs.
fn chain(length: usize) -> Layer {
    (0..length).fold(Layer::new().directory("end", 0o755), |layer, n| {
        let target = if n == 0 { "end".to_string() } else { format!("l{}", n - 1) };
        layer.symlink(&format!("l{n}"), &target)
    })
}

fn deep_by_link() -> Layer {
    let path = "d/".repeat(125);
    Layer::new().directory(&path, 0o755).symlink("deep", &path)
}

/// Links that point out of the image are followed inside it, as in a chroot: never outside.
#[test]
fn links_out_of_the_root_end_inside() {
    for target in ["../host", "/host", "../../../../host", "/../host", "a/../../host"] {
        let scratch = Scratch::new();
        let before = scratch.outside();
        let layer = Layer::new()
            .directory("a", 0o755)
            .directory("host/etc", 0o755)
            .symlink("link", target)
            .file("link/etc/passwd", 0o644, b"inside")
            .directory("link/made", 0o755);
        unpack_layer(&scratch, layer).unwrap();
        assert_eq!(read(&scratch, "host/etc/passwd"), "inside", "{target}");
        assert!(scratch.root().join("host/made").is_dir());
        assert_eq!(scratch.outside(), before, "{target}");
    }
}

/// A directory that was opened for one entry and then swapped for a link is not written through.
#[test]
fn a_directory_swapped_for_a_link() {
    let scratch = Scratch::new();
    let before = scratch.outside();
    let layer = Layer::new()
        .file("d/one", 0o644, b"1")
        .symlink("d", "../host")
        .file("d/two", 0o644, b"2")
        .directory("d", 0o777)
        .symlink("d/etc", "../../host/etc")
        .file("d/etc/passwd", 0o644, b"3");
    unpack_layer(&scratch, layer).unwrap();
    assert_eq!(scratch.outside(), before);
    assert_eq!(read(&scratch, "host/two"), "2");
    assert_eq!(read(&scratch, "host/etc/passwd"), "3");
    // Replacing a link, a fifo or a setuid file replaces the name, not what it points to.
    let scratch = Scratch::new();
    let before = scratch.outside();
    let layer = Layer::new().symlink("x", "../witness").file("x", 0o4755, b"own").directory("x", 0o755);
    unpack_layer(&scratch, layer).unwrap();
    assert_eq!(scratch.outside(), before);
}

#[test]
fn malformed_archives_are_refused() {
    let plain = Attributes::default();
    let good = Layer::new().file("a", 0o644, b"data").tar();
    let mut bad_sum = good.clone();
    bad_sum[0] = b'b';
    let size_zero_header = {
        // CVE-2025-62518: header says 0, PAX says 512; a reader that believes the header sees a second entry.
        let hidden = builder::header(b"hidden", 0, &plain);
        let records = pax_record("size", b"512");
        let pax = Attributes { type_flag: b'x', ..Attributes::default() };
        Layer::new()
            .raw(&builder::header(b"pax", records.len() as u64, &pax), &records)
            .raw(&builder::header(b"outer", 0, &plain), &hidden)
            .tar()
    };
    let scratch = Scratch::new();
    unpack_tar(&scratch, &size_zero_header).unwrap();
    assert_eq!(fs::metadata(scratch.root().join("outer")).unwrap().len(), 512);
    assert!(!scratch.root().join("hidden").exists());

    let differing = pax_then("x", &pax_record("size", b"512"), b"data").tar();
    let huge_pax = Layer::new()
        .raw(&builder::header(b"p", PAX_BYTES_MAX + 1, &Attributes { type_flag: b'x', ..plain.clone() }), b"")
        .tar();
    let only_pax = {
        let records = pax_record("path", b"x");
        let pax = Attributes { type_flag: b'x', ..Attributes::default() };
        Layer::new().raw(&builder::header(b"p", records.len() as u64, &pax), &records).tar()
    };
    let mut gap = builder::header(b"a", 0, &plain).to_vec();
    gap.extend([0; 512]);
    gap.extend(builder::header(b"b", 0, &plain));
    let many_pax = (0..20)
        .fold(Layer::new(), |l, _| {
            l.raw(&builder::header(b"g", 0, &Attributes { type_flag: b'g', ..Attributes::default() }), b"")
        })
        .file("x", 0o644, b"")
        .tar();
    let truncated = good[..700].to_vec();
    let half_header = good[..100].to_vec();
    for (name, tar) in [
        ("checksum", bad_sum),
        ("two sizes", differing),
        ("huge pax", huge_pax),
        ("pax without entry", only_pax),
        ("single zero block", gap),
        ("endless extended headers", many_pax),
        ("truncated data", truncated),
        ("truncated header", half_header),
        ("no archive at all", b"<html>not found</html>".to_vec()),
    ] {
        let scratch = Scratch::new();
        let before = scratch.outside();
        let done = unpack_tar(&scratch, &tar);
        assert!(done.is_err(), "{name}: {done:?}");
        assert_eq!(scratch.outside(), before, "{name}");
    }
    // An archive without its two final blocks is fine, and so is an empty one.
    let scratch = Scratch::new();
    unpack_tar(&scratch, &good[..1024]).unwrap();
    assert_eq!(unpack_tar(&scratch, b"").unwrap().entries, 0);
}

#[test]
fn digests_and_sizes_are_checked() {
    let tar = Layer::new().file("a", 0o644, &[7; 5000]).tar();
    let blob = gzip(&tar);
    let right = expect(&blob, &tar);
    let with = |change: &dyn Fn(&mut Expect)| {
        let scratch = Scratch::new();
        let mut expect = right.clone();
        change(&mut expect);
        unpack(blob.as_slice(), &expect, &scratch.root(), &LayerLimits::default())
    };
    assert!(with(&|_| {}).is_ok());
    assert!(matches!(with(&|e| e.digest = Digest::of(b"")), Err(UnpackError::Digest { .. })));
    assert!(matches!(with(&|e| e.diff_id = Digest::of(b"")), Err(UnpackError::DiffId { .. })));
    assert!(matches!(with(&|e| e.size -= 1), Err(UnpackError::Size { .. })));
    assert!(matches!(with(&|e| e.size += 1), Err(UnpackError::Size { .. })));
    // Bytes behind the archive count for the digest of the blob as well.
    let scratch = Scratch::new();
    let longer = [blob.clone(), gzip(b"")].concat();
    assert!(unpack(longer.as_slice(), &right, &scratch.root(), &LayerLimits::default()).is_err());
    assert!(unpack(longer.as_slice(), &expect(&longer, &tar), &scratch.root(), &LayerLimits::default()).is_ok());
}

#[test]
fn bombs_are_stopped_early() {
    let tar = Layer::new().file("zeros", 0o644, &vec![0; 8 << 20]).tar();
    let blob = gzip(&tar);
    assert!(blob.len() < 64 << 10);
    let with = |limits: LayerLimits| {
        let scratch = Scratch::new();
        let done = unpack(blob.as_slice(), &expect(&blob, &tar), &scratch.root(), &limits);
        let written = fs::metadata(scratch.root().join("zeros")).map_or(0, |m| m.len());
        (done, written)
    };
    let plain = LayerLimits::default();
    assert!(with(plain).0.is_ok());
    let by_bytes = with(LayerLimits { unpacked_bytes_max: 1 << 20, ..plain });
    let by_ratio = with(LayerLimits { ratio_free_bytes: 1 << 20, ratio_max: 10, ..plain });
    let by_file = with(LayerLimits { file_bytes_max: 1 << 20, ..plain });
    for (done, written) in [by_bytes, by_ratio, by_file] {
        assert!(matches!(done, Err(UnpackError::TooLarge(_) | UnpackError::Refused { .. })), "{done:?}");
        assert!(written <= 2 << 20, "{written}");
    }
}

/// Archives with random damage end in a directory or an error, never in a panic or outside.
#[test]
fn damaged_archives_end() {
    let tar = Layer::new()
        .directory("a", 0o755)
        .file("a/b", 0o644, &[1; 700])
        .symlink("a/c", "../../host")
        .file("a/c/etc/passwd", 0o644, b"x")
        .hard_link("d", "a/b")
        .file(&"long/".repeat(30), 0o644, b"")
        .tar();
    let mut seed = 7u64;
    for _ in 0..400 {
        let mut bytes = tar.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 20) as u8;
            // A valid checksum lets the damage reach deeper.
            let block = at / 512 * 512;
            if let Ok(head) = <&mut [u8; 512]>::try_from(&mut bytes[block..block + 512]) {
                builder::seal(head);
            }
        }
        let scratch = Scratch::new();
        let before = scratch.outside();
        let _ = unpack_tar(&scratch, &bytes);
        assert_eq!(scratch.outside(), before);
    }
}
