//! An object's key and value in etcd.
//!
//! In: keys, drafts. Out: bytes for etcd, and records from them. etcd gives the revision only when it has written, so a value
//! holds the object without it, and where it goes; the revision is the one at which etcd says that the key was changed.
//! A sealed value is bound to its key. Never: returns a value whose checksum does not match.

use crate::{Draft, Key, ResourceId, seal::Sealer};

/// Format, flags, place of the revision, CRC-32.
const HEAD: usize = 1 + 1 + 4 + 4;
const FORMAT: u8 = 1;
const SEALED: u8 = 1;
const NO_PLACE: u32 = u32::MAX;
/// Group of a resource that has none, and namespace of what has none: neither can be a name.
const CORE: &str = "core";
const CLUSTER: &str = "-";

/// `<prefix>/objects/<group>/<resource>/<namespace>/<name>`; `None` for a key that cannot be told apart there.
pub(super) fn key(prefix: &str, key: &Key) -> Option<String> {
    let (group, resource) = key.resource.split_once('/')?;
    let is_plain = group != CORE && !resource.is_empty() && !resource.contains('/');
    if !is_plain || key.namespace.contains('/') || key.namespace == CLUSTER {
        return None;
    }
    let group = if group.is_empty() { CORE } else { group };
    let namespace = if key.namespace.is_empty() { CLUSTER } else { &key.namespace };
    Some(format!("{prefix}/objects/{group}/{resource}/{namespace}/{}", key.name))
}

/// The parts behind `<prefix>/objects/`.
pub(super) fn parse(rest: &str) -> Option<Key> {
    let mut parts = rest.splitn(4, '/');
    let (group, resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let group = if group == CORE { "" } else { group };
    let namespace = if namespace == CLUSTER { "" } else { namespace };
    (!name.is_empty()).then(|| Key::new(ResourceId::from(format!("{group}/{resource}")), namespace, name))
}

fn crc(key: &str, parts: [&[u8]; 3]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// What a sealed value opens with only.
fn bound(key: &str, place: u32) -> Vec<u8> {
    [key.as_bytes(), &place.to_le_bytes()].concat()
}

/// The value of an object under an etcd key.
pub(super) fn encode(key: &str, draft: &Draft, sealer: Option<&Sealer>) -> Result<Vec<u8>, crate::StoreError> {
    let (head, tail) = draft.parts();
    let place = match tail {
        Some(_) => u32::try_from(head.len()).map_err(|_| crate::StoreError::TooLarge("object"))?,
        None => NO_PLACE,
    };
    let mut body = [head, tail.unwrap_or_default()].concat();
    if let Some(sealer) = sealer {
        body = sealer.seal(&bound(key, place), &body)?;
    }
    let flags = if sealer.is_some() { SEALED } else { 0 };
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend_from_slice(&[FORMAT, flags]);
    out.extend_from_slice(&place.to_le_bytes());
    let sum = crc(key, [&out[..2], &out[2..6], &body]);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(&body);
    Ok(out)
}

/// The draft that was written, or why the value is not one.
pub(super) fn decode(key: &str, value: &[u8], sealer: Option<&Sealer>) -> Result<Draft, String> {
    let (head, body) = value.split_at_checked(HEAD).ok_or("a value is cut short")?;
    if head[0] != FORMAT {
        return Err(format!("a value has format {}, this version knows {FORMAT}; use a newer limpet", head[0]));
    }
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if crc(key, [&head[..2], &head[2..6], body]) != number(6) {
        return Err("a value's checksum does not match".into());
    }
    let place = number(2);
    let body = match head[1] & SEALED {
        0 => body.to_vec(),
        _ => sealer.ok_or("a value is sealed, and there is no key file")?.open_sealed(&bound(key, place), body)?,
    };
    if place == NO_PLACE {
        return Ok(Draft::opaque(body));
    }
    let (head, tail) = body.split_at_checked(place as usize).ok_or("the place of the revision is outside the value")?;
    Ok(Draft::from_parts(head.to_vec(), tail.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_they_were() {
        for (resource, namespace, name, text) in [
            ("/pods", "default", "web", "/p/objects/core/pods/default/web"),
            ("apps/deployments", "a", "b", "/p/objects/apps/deployments/a/b"),
            ("/nodes", "", "n", "/p/objects/core/nodes/-/n"),
            ("/pods", "a", "b/c", "/p/objects/core/pods/a/b/c"),
        ] {
            let own = Key::new(resource, namespace, name);
            let made = super::key("/p", &own).expect("a key");
            assert_eq!(made, text);
            assert_eq!(made.strip_prefix("/p/objects/").and_then(parse), Some(own));
        }
        for bad in [Key::new("pods", "", "a"), Key::new("core/x", "", "a"), Key::new("/a", "x/y", "a"), Key::new("/a", "-", "a")]
        {
            assert_eq!(super::key("/p", &bad), None, "{bad}");
        }
        assert_eq!(parse("a/b"), None);
    }

    #[test]
    fn every_flipped_bit_of_a_value_is_noticed_sealed_or_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let sealer = Sealer::open(&dir.path().join("store.keys"), &["/secrets"]).expect("a key");
        let drafts = [Draft::from_parts(b"{\"rv\":\"".to_vec(), b"\"}".to_vec()), Draft::opaque(b"x".to_vec())];
        for (draft, sealer) in drafts.iter().flat_map(|d| [(d, None), (d, Some(&sealer))]) {
            let good = encode("/k", draft, sealer).expect("encoded");
            assert_eq!(decode("/k", &good, sealer).as_ref(), Ok(draft));
            assert!(decode("/other", &good, sealer).is_err(), "bound to its key");
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode("/k", &bad, sealer).is_err(), "bit {bit}");
            }
            assert!((0..good.len()).all(|at| decode("/k", &good[..at], sealer).is_err()));
        }
    }
}
