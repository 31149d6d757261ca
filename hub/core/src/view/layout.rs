//! Where an object's metadata and spec stand in its bytes.
//!
//! In: canonical JSON, and the layout of the version before. Out: places, and whether two versions say the same there. Nearly
//! every write is one of a status: then the spec is found by comparing, without a look at what is in it.
//! Never: an answer in doubt.

use super::pick::fields;
use std::ops::Range;

/// The fields `metadata` and `spec`, one right behind the other, of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    metadata: (u32, u32),
    /// Where the spec ends.
    end: u32,
}

const STATUS: &[u8] = b",\"status\":";

impl Layout {
    /// By reading.
    pub(crate) fn of(raw: &[u8]) -> Option<Layout> {
        let mut all = fields(raw).skip_while(|(name, _)| *name != b"\"metadata\"");
        let (metadata, spec) = (all.next()?.1, all.next().filter(|(name, _)| *name == b"\"spec\"")?.1);
        Some(Layout { metadata: place(raw, metadata)?, end: place(raw, spec)?.1 })
    }

    /// Of the next version, where it has the same spec to the byte; and its status.
    pub(crate) fn next<'a>(self, old: &[u8], new: &'a [u8]) -> Option<(Layout, &'a [u8])> {
        let metadata = fields(new).find(|(name, _)| *name == b"\"metadata\"")?.1;
        let metadata = place(new, metadata)?;
        let spec = self.spec(old)?;
        let rest = new.get(metadata.1 as usize..)?.strip_prefix(spec)?;
        let status = rest.strip_prefix(STATUS)?.strip_suffix(b"}")?;
        Some((Layout { metadata, end: metadata.1 + spec.len() as u32 }, status))
    }

    /// The spec with its name.
    pub(crate) fn spec(self, raw: &[u8]) -> Option<&[u8]> {
        raw.get(range((self.metadata.1, self.end)))
    }

    /// What stands before the metadata, the metadata, the spec with its name, and what stands behind it.
    pub(crate) fn parts(self, raw: &[u8]) -> Option<[&[u8]; 4]> {
        let (from, to) = self.metadata;
        let places = [(0, from), (from, to), (to, self.end), (self.end, u32::try_from(raw.len()).ok()?)];
        let [head, metadata, spec, rest] = places.map(|place| raw.get(range(place)));
        Some([head?, metadata?, spec?, rest?])
    }
}

fn range((from, to): (u32, u32)) -> Range<usize> {
    from as usize..to as usize
}

/// Where a part of some bytes stands in them.
fn place(raw: &[u8], part: &[u8]) -> Option<(u32, u32)> {
    let from = (part.as_ptr() as usize).checked_sub(raw.as_ptr() as usize)?;
    Some((u32::try_from(from).ok()?, u32::try_from(from + part.len()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"kind":"Pod","metadata":{"name":"p","resourceVersion":"9"},"spec":{"a":{"}":1}},"status":{"x":1}}"#;

    #[test]
    fn the_next_version_with_the_same_spec_is_found_by_comparing() {
        let layout = Layout::of(OLD.as_bytes()).unwrap();
        let texts = layout.parts(OLD.as_bytes()).unwrap().map(|part| std::str::from_utf8(part).unwrap());
        let metadata = r#"{"name":"p","resourceVersion":"9"}"#;
        assert_eq!(texts, [r#"{"kind":"Pod","metadata":"#, metadata, r#","spec":{"a":{"}":1}}"#, r#","status":{"x":1}}"#]);
        let next = OLD.replace("\"9\"", "\"10\"").replace("\"x\":1", "\"x\":[2]");
        let (found, status) = layout.next(OLD.as_bytes(), next.as_bytes()).unwrap();
        assert_eq!((Some(found), status), (Layout::of(next.as_bytes()), &br#"{"x":[2]}"#[..]));
    }

    #[test]
    fn what_is_not_so_is_not_found() {
        let layout = Layout::of(OLD.as_bytes()).unwrap();
        let others = [
            OLD.replace("}\":1", "}\":2"),
            OLD.replace(",\"status\":{\"x\":1}", ""),
            OLD.replace("spec", "data"),
            OLD.replace("metadata", "meta"),
            String::new(),
        ];
        for other in others {
            assert_eq!(layout.next(OLD.as_bytes(), other.as_bytes()), None, "{other}");
        }
        // What ends too early has a status that cannot be read.
        let short = layout.next(OLD.as_bytes(), &OLD.as_bytes()[..OLD.len() - 1]).unwrap().1;
        assert!(serde_json::from_slice::<serde_json::Value>(short).is_err());
        for raw in ["", "{}", "[]", r#"{"metadata":{}}"#, r#"{"metadata":{},"data":1,"spec":{}}"#, r#"{"spec":{}}"#] {
            assert_eq!(Layout::of(raw.as_bytes()), None, "{raw}");
        }
    }
}
