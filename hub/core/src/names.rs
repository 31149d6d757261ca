//! Names and hashes in the alphabet that Kubernetes uses for generated names.
//!
//! In: a seed or a number. Out: text without vowels, safe in every name and label.
//! Never: random by itself; the seed is the shell's.

use limpet_objects::names::suffix;
use serde_json::Value;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Bytes before the suffix of a generated name, as upstream.
pub const PREFIX_BYTES_MAX: usize = 58;

/// Five characters from a seed, the place it is for and a counter.
pub fn random_suffix(seed: u64, salt: &str, n: u64) -> String {
    let mut h = Sha256::new();
    h.update(seed.to_le_bytes());
    h.update(n.to_le_bytes());
    h.update(salt.as_bytes());
    let b = h.finalize();
    suffix([b[0], b[1], b[2], b[3], b[4]])
}

/// `base` (usually with a trailing dash), cut so that a suffix fits, and the suffix.
pub fn generated(base: &str, seed: u64, n: u64) -> String {
    limpet_objects::names::generated(base, &random_suffix(seed, base, n))
}

/// A number as text that holds no accidental words.
pub fn safe_encode(number: u32) -> String {
    number.to_string().bytes().map(|b| ALPHABET[b as usize % ALPHABET.len()] as char).collect()
}

/// Hash of a pod template for `pod-template-hash` and `controller-revision-hash`.
pub fn template_hash(template_sha256: &[u8; 32], collision_count: Option<i32>) -> String {
    let mut h = Sha256::new();
    h.update(template_sha256);
    if let Some(c) = collision_count {
        h.update(c.to_le_bytes());
    }
    let b = h.finalize();
    safe_encode(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Canonical hash of a pod template without the labels that controllers add to it.
pub fn template_digest(template: &Value) -> [u8; 32] {
    let mut t = template.clone();
    if let Some(meta) = t.get_mut("metadata").and_then(Value::as_object_mut) {
        if let Some(labels) = meta.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove("pod-template-hash");
            labels.remove("controller-revision-hash");
            if labels.is_empty() {
                meta.remove("labels");
            }
        }
        meta.remove("creationTimestamp");
    }
    if t.get("metadata").and_then(Value::as_object).is_some_and(|m| m.is_empty())
        && let Some(m) = t.as_object_mut()
    {
        m.remove("metadata");
    }
    crate::canonical::sha256(&t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_stable_and_short() {
        assert_eq!(generated("web-", 1, 0), generated("web-", 1, 0));
        assert_ne!(generated("web-", 1, 0), generated("web-", 1, 1));
        assert_ne!(generated("web-", 1, 0), generated("web-", 2, 0));
        assert_eq!(generated(&"x".repeat(90), 1, 0).len(), 63);
        assert_eq!(generated("web-", 7, 0).len(), 9);
        assert!(safe_encode(1234567890).bytes().all(|b| ALPHABET.contains(&b)));
    }

    #[test]
    fn template_digest_passes_over_added_labels() {
        let a = json!({"metadata": {"labels": {"app": "x"}}, "spec": {}});
        let b = json!({"metadata": {"creationTimestamp": null,
            "labels": {"app": "x", "pod-template-hash": "abc"}}, "spec": {}});
        assert_eq!(template_digest(&a), template_digest(&b));
        assert_ne!(template_digest(&a), template_digest(&json!({"spec": {}})));
    }
}
