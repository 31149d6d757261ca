//! Names in an archive, made harmless.
//!
//! In: a path as the archive has it. Out: plain components below the root, and what a whiteout name means.
//! Never: a component that is empty, `.`, `..`, or has a slash or NUL byte.

use crate::limits::{PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// Directories that the runtime mounts on or writes into: at the top of an image they are real directories or absent.
pub const FORCED: [&[u8]; 5] = [b"dev", b"etc", b"proc", b"run", b"sys"];

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

#[derive(PartialEq, Eq, Debug)]
pub enum Meaning<'a> {
    /// The root directory itself.
    Root,
    Plain { parent: &'a [&'a [u8]], name: &'a [u8] },
    /// `name` of lower layers is hidden.
    Whiteout { parent: &'a [&'a [u8]], name: &'a [u8] },
    /// Everything of lower layers in `directory` is hidden.
    Opaque { directory: &'a [&'a [u8]] },
    /// Bookkeeping of aufs that means nothing here.
    Ignored,
}

/// Splits a path; a leading slash is dropped (the root is the image's), `.` too, `..` is refused.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    if path.is_empty() {
        return Err("the path is empty");
    }
    if path.len() > PATH_BYTES_MAX || path.contains(&0) {
        return Err("the path is too long or has a NUL byte");
    }
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err("the path has .. in it");
    }
    match parts.len() > PATH_DEPTH_MAX {
        true => Err("the path is too deep"),
        false => Ok(parts),
    }
}

pub fn meaning<'a>(parts: &'a [&'a [u8]]) -> Result<Meaning<'a>, &'static str> {
    let Some((name, parent)) = parts.split_last() else { return Ok(Meaning::Root) };
    if parent.iter().any(|p| p.starts_with(WHITEOUT_META)) {
        return Ok(Meaning::Ignored);
    }
    if parent.iter().any(|p| p.starts_with(WHITEOUT)) {
        return Err("a whiteout is used as a directory");
    }
    if *name == OPAQUE {
        return Ok(Meaning::Opaque { directory: parent });
    }
    if name.starts_with(WHITEOUT_META) {
        return Ok(Meaning::Ignored);
    }
    match name.strip_prefix(WHITEOUT) {
        Some(b"" | b"." | b"..") => Err("a whiteout of nothing"),
        Some(hidden) => Ok(Meaning::Whiteout { parent, name: hidden }),
        None => Ok(Meaning::Plain { parent, name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (path, expect) in [
            ("a", Some("a")),
            ("./", Some("")),
            ("/", Some("")),
            (".", Some("")),
            ("/etc//passwd", Some("etc/passwd")),
            ("./a/./b/", Some("a/b")),
            ("...", Some("...")),
            ("..a/b..", Some("..a/b..")),
            ("..", None),
            ("a/../b", None),
            ("a/..", None),
            ("/../../etc/passwd", None),
            ("", None),
            ("a\0b", None),
        ] {
            let joined = components(path.as_bytes()).ok().map(|p| p.join(&b'/'));
            assert_eq!(joined.as_deref(), expect.map(str::as_bytes), "{path:?}");
        }
        assert!(components("a/".repeat(PATH_DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(components(&[b'a'; PATH_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn whiteouts() {
        let of = |path: &'static str| -> Vec<&'static [u8]> { path.split('/').map(str::as_bytes).collect() };
        let a: &[&[u8]] = &[b"a"];
        assert_eq!(meaning(&[]), Ok(Meaning::Root));
        assert_eq!(meaning(&of("a/b")), Ok(Meaning::Plain { parent: a, name: b"b" }));
        assert_eq!(meaning(&of("a/.wh.b")), Ok(Meaning::Whiteout { parent: a, name: b"b" }));
        assert_eq!(meaning(&of("a/.wh..wh..opq")), Ok(Meaning::Opaque { directory: a }));
        assert_eq!(meaning(&of(".wh..wh.plnk")), Ok(Meaning::Ignored));
        assert_eq!(meaning(&of(".wh..wh.plnk/1.2")), Ok(Meaning::Ignored));
        assert_eq!(meaning(&of(".wh.x/b")), Err("a whiteout is used as a directory"));
        for nothing in [".wh.", ".wh..", ".wh..."] {
            assert_eq!(meaning(&of(nothing)), Err("a whiteout of nothing"), "{nothing}");
        }
    }
}
