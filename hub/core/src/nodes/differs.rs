//! What nodes are told of an object, and whether a new version says anything of it, by the bytes alone.
//!
//! In: the bytes of a version, or of two. Out: those without what nodes are not told; yes where no more than that differs.
//! Never: an answer in doubt; reading the objects gives the same (`desired::looks_the_same`, `desired::shape`).

use crate::view::{Obj, pick::fields};
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// Name and value, as they are written.
type Field<'a> = (&'a [u8], &'a [u8]);

/// Whether the bytes of two versions say that nodes need not be told of the later one: no more than the status differs,
/// and it says nothing of what nodes are told (`told`). False where reading them would show it, too.
pub(super) fn only_in_status<T>(old: &Obj<T>, new: &Obj<T>) -> bool {
    fn parts<T>(object: &Obj<T>) -> Option<[&[u8]; 4]> {
        object.layout?.parts(&object.raw)
    }
    match (parts(old), parts(new)) {
        (Some(old), Some(new)) => only_behind(old, new),
        _ => only_in_status_of(&old.raw, &new.raw),
    }
}

/// By what stands before the metadata, the metadata, the spec and the status of both.
fn only_behind(old: [&[u8]; 4], new: [&[u8]; 4]) -> bool {
    fn told(metadata: &[u8]) -> impl Iterator<Item = Field<'_>> {
        fields(metadata).filter(|(name, _)| !OWN_TIME.contains(name))
    }
    let same = old[0] == new[0] && old[2] == new[2] && told(old[1]).eq(told(new[1]));
    same && GATES.find(new[2]).is_none() && says_nothing(old[3]) && says_nothing(new[3])
}

fn only_in_status_of(old: &[u8], new: &[u8]) -> bool {
    let mut parts: [Told<'_>; 2] = Default::default();
    for (raw, told) in [old, new].into_iter().zip(&mut parts) {
        for (name, value) in fields(raw) {
            match name {
                b"\"status\"" => told.status = value,
                b"\"metadata\"" => told.metadata.extend(fields(value).filter(|(name, _)| !OWN_TIME.contains(name))),
                _ => told.rest.push((name, value)),
            }
        }
    }
    let [old, new] = &parts;
    let same = !new.rest.is_empty() && (&old.metadata, &old.rest) == (&new.metadata, &new.rest);
    same && !is_gated(&new.rest) && [old, new].into_iter().all(|told| says_nothing(told.status))
}

#[derive(Default)]
struct Told<'a> {
    metadata: Vec<Field<'a>>,
    rest: Vec<Field<'a>>,
    status: &'a [u8],
}

/// Fields of the metadata that nodes are not told.
pub(super) const OWN_TIME: [&[u8]; 3] = [b"\"managedFields\"", b"\"resourceVersion\"", b"\"selfLink\""];

/// Whether a status has nothing that nodes are told of: no end, no claims.
pub(super) fn says_nothing(status: &[u8]) -> bool {
    const TOLD: [&str; 4] = ["\"Succeeded\"", "\"Failed\"", "\"resourceClaimStatuses\"", "\"extendedResourceClaimStatus\""];
    static FINDERS: LazyLock<[Finder<'static>; 4]> = LazyLock::new(|| TOLD.map(Finder::new));
    FINDERS.iter().all(|finder| finder.find(status).is_none())
}

static GATES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"readinessGates\""));

/// Whether others open the pod: nodes are told of their conditions.
pub(super) fn is_gated(fields: &[Field<'_>]) -> bool {
    fields.iter().any(|(name, value)| *name == b"\"spec\"" && GATES.find(value).is_some())
}

/// An object as nodes get it; `None` where that is more than some fields left out. `is_pod`: its status may tell them something.
pub(super) fn cut(raw: &[u8], is_pod: bool) -> Option<Vec<u8>> {
    static APPLIED: LazyLock<Finder<'static>> =
        LazyLock::new(|| Finder::new("kubectl.kubernetes.io/last-applied-configuration"));
    let mut out = Vec::with_capacity(raw.len());
    let mut top = Row::begin(&mut out);
    for field @ (name, value) in fields(raw) {
        match name {
            b"\"status\"" if !is_pod || says_nothing(value) => {}
            b"\"status\"" => return None,
            b"\"spec\"" if is_pod && is_gated(&[field]) => return None,
            b"\"metadata\"" => {
                top.name(&mut out, name);
                let mut inner = Row::begin(&mut out);
                for (name, value) in fields(value).filter(|(name, _)| !OWN_TIME.contains(name)) {
                    if name == b"\"annotations\"" && APPLIED.find(value).is_some() {
                        return None;
                    }
                    inner.name(&mut out, name);
                    out.extend_from_slice(value);
                }
                out.push(b'}');
            }
            _ => {
                top.name(&mut out, name);
                out.extend_from_slice(value);
            }
        }
    }
    out.push(b'}');
    (out.len() > 2).then_some(out)
}

/// Fields that are written one after the other.
struct Row {
    is_empty: bool,
}

impl Row {
    fn begin(out: &mut Vec<u8>) -> Row {
        out.push(b'{');
        Row { is_empty: true }
    }

    fn name(&mut self, out: &mut Vec<u8>, name: &[u8]) {
        if !std::mem::replace(&mut self.is_empty, false) {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.push(b':');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{nodes::desired::{shape, written_anew}, view::{Layout, ObjectStore, Pod}};
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
            let applied = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"});
            let applied = with("/metadata/annotations", applied);
            for pod in [&two, &read(&applied)] {
                assert_eq!(String::from_utf8_lossy(&shape(&**pod)), String::from_utf8_lossy(&written_anew(&**pod)));
            }
            assert_eq!(only_in_status_of(&one.raw, &two.raw), told, "{other}");
            let layout = |pod: &Pod| Layout::of(&pod.raw).unwrap().parts(&pod.raw).unwrap().map(<[u8]>::to_vec);
            let (a, b) = (layout(&one), layout(&two));
            assert_eq!(only_behind(a.each_ref().map(|p| &**p), b.each_ref().map(|p| &**p)), told, "{other}");
            assert!(!told || shape(&*one) == shape(&*two), "{other}");
        }
        assert!(!only_in_status_of(b"", b"") && !only_in_status_of(b"{}", b"{}"));
    }
}
