//! Which directories of volumes are to be removed.
//!
//! In: the set; a PersistentVolume without a namespace in its key is one that nobody wants any more. Out: directories.
//! Never: a directory that does not carry its volume's name, or that nobody provisioned: such data is somebody else's.

use crate::{api::PersistentVolume, sync::Items};
use limpet_protocol::ItemKind;

const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const LOCAL: &str = "limpet.dev/local";

/// A volume whose directory is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    pub uid: String,
    pub name: String,
    pub path: String,
}

/// The directories, and a sentence for each volume whose directory is not ours to remove.
pub fn released(items: &Items) -> Vec<Result<Released, String>> {
    let unwanted = items.of(ItemKind::Claim).filter(|(key, _)| key.namespace.is_empty());
    let volume = |name: &str| Some(one(name, items.read(ItemKind::Claim, "", name)?));
    unwanted.filter_map(|(key, _)| volume(&key.name)).collect()
}

fn one(name: &str, volume: PersistentVolume) -> Result<Released, String> {
    let meta = volume.metadata;
    let no = |why: &str| Err(format!("the directory of volume {name} is not removed: {why}"));
    if meta.deletion_timestamp.is_none() || meta.annotations.get(PROVISIONED_BY).map(String::as_str) != Some(LOCAL) {
        return no("it is not a deleted volume that was provisioned on this node");
    }
    let Some(host) = volume.spec.host_path else { return no("it has no hostPath") };
    let plain = host.path.starts_with('/') && host.path.split('/').skip(1).all(|p| !matches!(p, "" | "." | ".."));
    let last = host.path.rsplit('/').next().unwrap_or_default();
    let named = name.starts_with("pvc-") && last.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
    if !plain || !named || host.type_ != "DirectoryOrCreate" {
        return no("its path does not carry the volume's name");
    }
    Ok(Released { uid: meta.uid, name: name.to_owned(), path: host.path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use limpet_protocol::ItemKey;
    use serde_json::{Value, json};

    fn volume() -> Value {
        json!({"metadata": {"name": "pvc-1", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"pv.kubernetes.io/provisioned-by": "limpet.dev/local"}},
            "spec": {"hostPath": {"path": "/v/pvc-1_a_c", "type": "DirectoryOrCreate"}}})
    }

    fn of(namespace: &str, name: &str, body: &Value) -> Vec<Result<Released, String>> {
        let mut items = Items::default();
        items.put(ItemKey::new(ItemKind::Claim, namespace, name), 1, body.to_string().as_bytes());
        released(&items)
    }

    #[test]
    fn only_what_was_provisioned_here_and_carries_its_name() {
        let good = Released { uid: "u".into(), name: "pvc-1".into(), path: "/v/pvc-1_a_c".into() };
        assert_eq!(of("", "pvc-1", &volume()), [Ok(good)]);
        assert!(of("a", "c", &volume()).is_empty(), "a claim in use");
        let bad = ["/etc", "/v/pvc-1", "/v/pvc-10_a_c", "/v/../pvc-1_a_c", "v/pvc-1_a_c", "/v/pvc-1_a_c/", "/pvc-1_a_c/etc", "/"];
        for path in bad {
            let mut body = volume();
            body["spec"]["hostPath"]["path"] = json!(path);
            assert!(matches!(&of("", "pvc-1", &body)[..], [Err(_)]), "{path}");
        }
        for (at, value) in [
            ("/metadata/deletionTimestamp", Value::Null),
            ("/metadata/annotations", json!({})),
            ("/spec/hostPath", Value::Null),
            ("/spec/hostPath/type", json!("")),
        ] {
            let mut body = volume();
            *body.pointer_mut(at).unwrap() = value;
            assert!(matches!(&of("", "pvc-1", &body)[..], [Err(_)]), "{at}");
        }
        let mut etc = volume();
        etc["spec"]["hostPath"]["path"] = json!("/etc_x");
        assert!(matches!(&of("", "etc", &etc)[..], [Err(_)]), "a name of somebody's choice");
    }
}
