//! Static pods: manifests that lie on the board itself, and their mirrors at the hub.
//!
//! In: texts of manifests, the node's name. Out: pods as kubelet makes them of files, and mirror pods for the hub.
//! Source: Kubernetes "Create static Pods". Never: a reference to an object of the API: the board may not know it.

use crate::{api, yaml};
use limpet_protocol::{ItemHash, ItemKey, ItemKind};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

pub const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SOURCE: &str = "kubernetes.io/config.source";

/// Fields of a spec that name objects which only the API has.
const FOREIGN: [&str; 9] = [
    "secretName", "secretRef", "secretKeyRef", "configMap", "configMapRef", "configMapKeyRef", "persistentVolumeClaim",
    "imagePullSecrets", "resourceClaims",
];

/// One static pod: the object that runs here.
#[derive(Clone, Debug, PartialEq)]
pub struct StaticPod {
    pub key: ItemKey,
    pub uid: String,
    pub object: api::Pod,
    /// What the hub shall show.
    pub mirror: Value,
}

/// `file`: its name, for messages and the pod's identity. The error is a sentence for the log.
pub fn static_pod(text: &str, file: &str, node: &str) -> Result<StaticPod, String> {
    let mut pod = yaml::parse(text)?;
    if pod["kind"] != "Pod" || pod["apiVersion"] != "v1" {
        return Err("it is not a v1 Pod".into());
    }
    let name = pod["metadata"]["name"].as_str().filter(|n| valid_name(n)).ok_or("metadata.name is missing or no name")?;
    let name = format!("{name}-{node}");
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default").to_string();
    if !valid_name(&namespace) {
        return Err("metadata.namespace is no name".into());
    }
    if pod["spec"]["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err("spec.containers is empty".into());
    }
    if let Some(field) = foreign(&pod["spec"]) {
        return Err(format!("a static pod may not use `{field}`: the board may not know the object that it names"));
    }
    let hash = ItemHash::of(format!("{node}/{file}/{namespace}/{name}/{}", pod["spec"]).as_bytes());
    let uid: String = hash.0.iter().map(|b| format!("{b:02x}")).collect();
    if !pod["metadata"]["annotations"].is_object() {
        pod["metadata"]["annotations"] = json!({});
    }
    pod["metadata"]["name"] = name.clone().into();
    pod["metadata"]["namespace"] = namespace.clone().into();
    pod["metadata"]["uid"] = uid.clone().into();
    pod["metadata"]["annotations"][HASH] = uid.clone().into();
    pod["metadata"]["annotations"][SOURCE] = "file".into();
    pod["spec"]["nodeName"] = node.into();
    pod["spec"]["enableServiceLinks"] = false.into();
    pod["spec"]["automountServiceAccountToken"] = false.into();
    let every = json!({"operator": "Exists", "effect": "NoExecute"});
    match pod["spec"]["tolerations"].as_array_mut() {
        Some(list) => list.push(every),
        None => pod["spec"]["tolerations"] = json!([every]),
    }
    let object = api::parse(pod.to_string().as_bytes())?;
    let mut mirror = pod;
    mirror["metadata"]["annotations"][MIRROR] = uid.clone().into();
    if let Some(meta) = mirror["metadata"].as_object_mut() {
        meta.remove("uid");
    }
    Ok(StaticPod { key: ItemKey::new(ItemKind::Pod, &namespace, &name), uid, object, mirror })
}

fn valid_name(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=200).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with(['-', '.'])
}

fn foreign(value: &Value) -> Option<&str> {
    match value {
        Value::Object(map) => map.iter().find_map(|(key, inner)| {
            let named = FOREIGN.contains(&key.as_str()) && !inner.is_null();
            if named { Some(key.as_str()) } else { foreign(inner) }
        }),
        Value::Array(list) => list.iter().find_map(foreign),
        _ => None,
    }
}

/// Which static pods there are and which mirrors the hub has of them.
#[derive(Debug, Default)]
pub(super) struct Statics {
    pods: BTreeMap<ItemKey, StaticPod>,
    /// Uids of mirrors by the pods' keys.
    mirrors: BTreeMap<ItemKey, Arc<str>>,
}

/// What an item of the set is to the static pods.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mirrored {
    /// No mirror: a pod of the set.
    No,
    /// A mirror that is as it was.
    Same,
    /// A new mirror: its pod is reported to it.
    New,
    /// Somebody deletes the mirror: it may go, and comes back.
    Deleted(Arc<str>),
}

impl Statics {
    pub fn get(&self, key: &ItemKey) -> Option<&StaticPod> {
        self.pods.get(key)
    }

    pub fn has(&self, uid: &str) -> bool {
        self.pods.values().any(|pod| pod.uid == uid)
    }

    pub fn keys(&self) -> impl Iterator<Item = &ItemKey> {
        self.pods.keys()
    }

    /// Takes over what lies on the board now; the keys that changed.
    pub fn replace(&mut self, pods: Vec<StaticPod>) -> Vec<ItemKey> {
        let new: BTreeMap<ItemKey, StaticPod> = pods.into_iter().map(|p| (p.key.clone(), p)).collect();
        let old = std::mem::replace(&mut self.pods, new);
        let mut changed: Vec<ItemKey> =
            old.iter().filter(|(key, pod)| self.pods.get(*key) != Some(*pod)).map(|(key, _)| key.clone()).collect();
        changed.extend(self.pods.keys().filter(|key| !old.contains_key(*key)).cloned());
        changed
    }

    /// An item of the set; `None`: it was removed.
    pub fn look(&mut self, key: &ItemKey, object: Option<&api::Pod>) -> Mirrored {
        let Some(mirror) = object.filter(|o| o.metadata.annotations.contains_key(MIRROR)) else {
            return match self.mirrors.remove(key) {
                Some(_) if object.is_none() => Mirrored::Same,
                _ => Mirrored::No,
            };
        };
        let uid: Arc<str> = Arc::from(mirror.metadata.uid.as_str());
        if mirror.metadata.deletion_timestamp.is_some() {
            return Mirrored::Deleted(uid);
        }
        match self.mirrors.insert(key.clone(), uid.clone()) {
            Some(before) if before == uid => Mirrored::Same,
            _ => Mirrored::New,
        }
    }

    /// Who a pod is to the hub: for a static pod its mirror, and nobody while there is none.
    pub fn name_at_hub(&self, key: &ItemKey, uid: &Arc<str>) -> Option<Arc<str>> {
        match self.pods.get(key) {
            Some(pod) if *pod.uid == **uid => self.mirrors.get(key).cloned(),
            _ => Some(uid.clone()),
        }
    }

    pub fn mirrors(&self) -> Vec<Value> {
        self.pods.values().map(|p| p.mirror.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: i}\n";

    #[test]
    fn a_file_becomes_a_pod_and_its_mirror() {
        let pod = static_pod(TEXT, "web.yaml", "n1").unwrap();
        assert_eq!((&*pod.key.name, &*pod.key.namespace), ("web-n1", "default"));
        assert_eq!(pod.uid.len(), 32);
        assert_eq!(pod.mirror["metadata"]["annotations"][MIRROR], pod.uid);
        assert!(pod.mirror["metadata"]["uid"].is_null() && pod.mirror["spec"]["nodeName"] == "n1");
        assert!(pod.object.metadata.annotations.contains_key(HASH) && !pod.object.metadata.annotations.contains_key(MIRROR));
        assert_eq!(static_pod(TEXT, "web.yaml", "n1").unwrap(), pod, "the same file is the same pod");
        assert_ne!(static_pod(&TEXT.replace("image: i", "image: j"), "web.yaml", "n1").unwrap().uid, pod.uid);
    }

    #[test]
    fn what_cannot_be_one() {
        for (text, want) in [
            ("kind: Pod", "it is not a v1 Pod"),
            ("a: [", "line 1:"),
            (&*TEXT.replace("name: web", "name: W"), "metadata.name"),
            (&*TEXT.replace("- {name: c, image: i}", ""), "spec.containers"),
            (
                &*TEXT.replace("image: i}", "image: i, envFrom: [{secretRef: {name: s}}]}"),
                "a static pod may not use `secretRef`",
            ),
        ] {
            let got = static_pod(text, "f", "n1").unwrap_err();
            assert!(got.starts_with(want), "{text}: {got}");
        }
    }
}
