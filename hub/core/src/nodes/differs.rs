//! Whether a new version of an object says anything that nodes are told, by its bytes alone.
//!
//! In: the bytes of two versions. Out: yes where no more than a status differs that nodes are not told of.
//! Never: yes in doubt; reading the objects would say so, too (`desired::looks_the_same`).

use crate::view::pick::fields;

/// Name and value, as they are written.
type Field<'a> = (&'a [u8], &'a [u8]);

/// Whether the bytes of two versions say that nodes need not be told of the later one: no more than the status differs,
/// and it says nothing of what nodes are told (`told`). False where reading them would show it, too.
pub(super) fn only_in_status(old: &[u8], new: &[u8]) -> bool {
    const OWN_TIME: [&[u8]; 3] = [b"\"managedFields\"", b"\"resourceVersion\"", b"\"selfLink\""];
    // An end, claims, and anything at all about pods that others open.
    const TOLD: [&str; 4] = ["\"Succeeded\"", "\"Failed\"", "\"resourceClaimStatuses\"", "\"extendedResourceClaimStatus\""];
    let says_nothing = |status: &[u8]| std::str::from_utf8(status).is_ok_and(|s| TOLD.iter().all(|word| !s.contains(word)));
    let gated = |spec: &[u8]| std::str::from_utf8(spec).is_ok_and(|s| s.contains("\"readinessGates\""));
    let mut parts: [(Vec<Field<'_>>, Vec<Field<'_>>); 2] = Default::default();
    for (raw, (metadata, rest)) in [old, new].into_iter().zip(&mut parts) {
        for (name, value) in fields(raw) {
            match name {
                b"\"status\"" if says_nothing(value) => {}
                b"\"metadata\"" => metadata.extend(fields(value).filter(|(name, _)| !OWN_TIME.contains(name))),
                b"\"spec\"" if gated(value) => return false,
                _ => rest.push((name, value)),
            }
        }
    }
    let [old, new] = parts;
    !new.1.is_empty() && old == new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nodes::desired::shape, view::ObjectStore};
    use serde_json::{Value, json};

    /// What is decided by the bytes is what reading them would decide.
    #[test]
    fn a_status_that_nodes_are_not_told_of_makes_no_difference() {
        let base = json!({"metadata": {"name": "p", "namespace": "a", "uid": "p", "resourceVersion": "7", "managedFields": [{}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]}, "status": {"phase": "Pending"}});
        let with = |pointer: &str, value: Value| {
            let (mut other, (parent, name)) = (base.clone(), pointer.rsplit_once('/').unwrap());
            other.pointer_mut(parent).unwrap()[name] = value;
            other
        };
        let gate = with("/spec/readinessGates", json!([{"conditionType": "open"}]));
        let cases = [
            (base.clone(), true),
            (with("/status/phase", json!("Running")), true),
            (with("/status/message", json!("it said \"Pending\", {[")), true),
            (with("/metadata/resourceVersion", json!("8")), true),
            (with("/metadata/managedFields", json!([{"time": "later"}, {}])), true),
            (with("/status/phase", json!("Failed")), false),
            (with("/status/resourceClaimStatuses", json!([{"name": "c"}])), false),
            (with("/metadata/labels", json!({"a": "b"})), false),
            (with("/spec/nodeName", json!("n2")), false),
            (with("/kind", json!("Pod")), false),
            (gate, false),
        ];
        let read = |value: &Value| {
            let (mut view, raw) = (ObjectStore::new(), value.to_string());
            view.apply(1, "/pods", "a", "p", Some(raw.into_bytes().into()));
            view.pod("a", "p").unwrap().clone()
        };
        let one = read(&base);
        for (other, told) in cases {
            let two = read(&other);
            assert_eq!(only_in_status(&one.raw, &two.raw), told, "{other}");
            assert!(!told || shape(&*one) == shape(&*two), "{other}");
        }
        assert!(!only_in_status(b"", b"") && !only_in_status(b"{}", b"{}"));
    }
}
