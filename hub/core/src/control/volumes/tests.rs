//! Claims and volumes in the test world.
//!
//! In: classes, claims, volumes, pods. Out: who is bound to whom at rest. Never: a disk.

use crate::{Key, Propagation, world::World};
use serde_json::{Value, json};

const CLASSES: &str = "storage.k8s.io/storageclasses";
const CLAIMS: &str = "/persistentvolumeclaims";
const VOLUMES: &str = "/persistentvolumes";

fn class(w: &mut World, name: &str, more: Value) {
    let mut class = json!({"metadata": {"name": name}, "provisioner": "limpet.dev/local", "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true});
    crate::canonical::merge(&mut class, &more);
    w.create(CLASSES, class);
}

fn claim(w: &mut World, name: &str, class: Value, size: &str) {
    w.create(CLAIMS, json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": class, "resources": {"requests": {"storage": size}}}}));
}

fn volume(w: &mut World, name: &str, class: &str, size: &str, more: Value) {
    let mut volume = json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce", "ReadWriteMany"],
        "capacity": {"storage": size}, "storageClassName": class, "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": "/x"}}});
    crate::canonical::merge(&mut volume, &more);
    w.create(VOLUMES, volume);
}

fn select(w: &mut World, claim: &str, node: &str) {
    let annotations = json!({"volume.kubernetes.io/selected-node": node});
    w.patch(CLAIMS, "a", claim, json!({"metadata": {"annotations": annotations}}));
}

/// (phase, volume) of a claim.
fn of(w: &World, claim: &str) -> (String, String) {
    let c = w.get(CLAIMS, "a", claim);
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    (text(&c["status"]["phase"]), text(&c["spec"]["volumeName"]))
}

fn phase(w: &World, volume: &str) -> String {
    w.get(VOLUMES, "", volume)["status"]["phase"].as_str().unwrap_or_default().to_owned()
}

fn is(phase: &str, volume: &str) -> (String, String) {
    (phase.into(), volume.into())
}

#[test]
fn the_smallest_that_fits_is_bound() {
    let mut w = World::new();
    volume(&mut w, "small", "", "1Gi", json!({}));
    volume(&mut w, "large", "", "10Gi", json!({}));
    volume(&mut w, "other-class", "gold", "5Gi", json!({}));
    volume(&mut w, "labelled", "", "50Gi", json!({"metadata": {"labels": {"disk": "fast"}}}));
    volume(&mut w, "block", "", "4Gi", json!({"spec": {"volumeMode": "Block"}}));
    claim(&mut w, "c", json!(""), "2Gi");
    claim(&mut w, "huge", json!(""), "1Ti");
    w.create(CLAIMS, json!({"metadata": {"name": "fast", "namespace": "a"}, "spec": {"accessModes": ["ReadWriteMany"],
        "storageClassName": "", "selector": {"matchLabels": {"disk": "fast"}},
        "resources": {"requests": {"storage": "1Gi"}}}}));
    w.settle();
    assert_eq!(of(&w, "c"), is("Bound", "large"));
    assert_eq!(of(&w, "fast"), is("Bound", "labelled"));
    assert_eq!(of(&w, "huge"), is("Pending", ""));
    assert_eq!((phase(&w, "large"), phase(&w, "small")), ("Bound".into(), "Available".into()));
    let status = &w.get(CLAIMS, "a", "c")["status"];
    assert_eq!(status["capacity"]["storage"], "10Gi");
    assert!(w.events.iter().any(|e| e.1 == "huge" && e.2 == "FailedBinding"));
    volume(&mut w, "late", "", "2Ti", json!({}));
    w.settle();
    assert_eq!(of(&w, "huge"), is("Bound", "late"));
}

#[test]
fn a_reserved_volume_is_for_its_claim_only() {
    let mut w = World::new();
    let reserve = |name: &str| json!({"spec": {"claimRef": {"namespace": "a", "name": name}}});
    volume(&mut w, "mine", "", "10Gi", reserve("c"));
    claim(&mut w, "other", json!(""), "1Gi");
    w.settle();
    assert_eq!(of(&w, "other").0, "Pending");
    assert_eq!(phase(&w, "mine"), "Available");
    claim(&mut w, "c", json!(""), "1Gi");
    w.settle();
    assert_eq!(of(&w, "c"), is("Bound", "mine"));
    // A claim that names its volume.
    volume(&mut w, "named", "", "10Gi", json!({}));
    w.create(CLAIMS, json!({"metadata": {"name": "d", "namespace": "a"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "", "volumeName": "named", "resources": {"requests": {"storage": "1Gi"}}}}));
    w.settle();
    assert_eq!(of(&w, "d"), is("Bound", "named"));
}

#[test]
fn a_local_volume_waits_for_its_node_and_goes_with_its_claim() {
    let mut w = World::with_nodes(2);
    class(&mut w, "local", json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}));
    claim(&mut w, "c", Value::Null, "1Gi");
    w.settle();
    assert_eq!(w.get(CLAIMS, "a", "c")["spec"]["storageClassName"], "local", "the default class, also afterwards");
    assert_eq!(of(&w, "c").0, "Pending");
    assert!(w.events.iter().any(|e| e.2 == "WaitForFirstConsumer"));
    select(&mut w, "c", "n1");
    w.settle();
    let (phase_of, name) = of(&w, "c");
    assert_eq!(phase_of, "Bound");
    let spec = w.get(VOLUMES, "", &name)["spec"].clone();
    let term = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    assert_eq!(term["values"], json!(["n1"]));
    assert_eq!(spec["hostPath"]["path"], format!("/var/lib/limpet/volumes/{name}_a_c"));
    assert_eq!(phase(&w, &name), "Bound");
    w.patch(CLAIMS, "a", "c", json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}}));
    w.settle();
    assert_eq!(w.get(CLAIMS, "a", "c")["status"]["capacity"]["storage"], "3Gi");
    w.delete(CLAIMS, "a", "c");
    w.settle();
    assert!(!w.exists(CLAIMS, "a", "c"));
    // The board has not said yet that the directory is gone.
    let left = &w.get(VOLUMES, "", &name)["metadata"];
    assert_eq!(left["finalizers"], json!([super::local::FINALIZER]));
    assert!(left["deletionTimestamp"].is_string());
    w.pass(31);
    w.settle();
    let message = w.get(VOLUMES, "", &name)["status"]["message"].clone();
    assert!(message.as_str().is_some_and(|m| m.starts_with("waiting for node n1 to remove")), "{message}");
    w.delete("/nodes", "", "n1");
    w.settle();
    assert!(!w.exists(VOLUMES, "", &name), "a board that was removed is not waited for");
}

#[test]
fn retained_volumes_stay_released_and_lost_ones_are_said() {
    let mut w = World::with_nodes(1);
    class(&mut w, "keep", json!({"reclaimPolicy": "Retain", "volumeBindingMode": "Immediate", "parameters": {"path": "/data"}}));
    claim(&mut w, "c", json!("keep"), "1Gi");
    claim(&mut w, "d", json!("keep"), "1Gi");
    w.settle();
    let (c, d) = (of(&w, "c").1, of(&w, "d").1);
    assert!(w.get(VOLUMES, "", &c)["spec"]["hostPath"]["path"].as_str().unwrap().starts_with("/data/pvc-"));
    w.delete(CLAIMS, "a", "c");
    w.settle();
    assert_eq!(phase(&w, &c), "Released");
    claim(&mut w, "c", json!("keep"), "1Gi");
    w.settle();
    assert_ne!(of(&w, "c").1, c, "a new claim of the same name gets another volume");
    w.delete(VOLUMES, "", &c);
    w.settle();
    assert!(!w.exists(VOLUMES, "", &c), "what is retained is nothing that a board has to remove");
    w.delete(VOLUMES, "", &d);
    w.settle();
    assert!(w.exists(VOLUMES, "", &d), "protected while bound");
    w.patch(VOLUMES, "", &d, json!({"metadata": {"finalizers": null}}));
    w.settle();
    assert_eq!(of(&w, "d").0, "Lost");
    assert!(w.events.iter().any(|e| e.2 == "ClaimLost"));
}

#[test]
fn a_claim_stays_while_a_placed_pod_uses_it() {
    let mut w = World::with_nodes(1);
    volume(&mut w, "v", "", "1Gi", json!({}));
    claim(&mut w, "c", json!(""), "1Gi");
    w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"volumes": [
        {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}}));
    w.settle();
    assert!(w.get("/pods", "a", "p")["spec"]["nodeName"].is_string());
    w.delete(CLAIMS, "a", "c");
    w.settle();
    assert!(w.exists(CLAIMS, "a", "c"));
    w.delete("/pods", "a", "p");
    w.settle();
    assert!(!w.exists(CLAIMS, "a", "c"));
    assert_eq!(phase(&w, "v"), "Released");
}

#[test]
fn what_cannot_be_made_says_why() {
    let mut w = World::with_nodes(1);
    let cases = [
        ("many", json!({}), json!({"accessModes": ["ReadWriteMany"]}), "ReadWriteMany cannot be provisioned"),
        ("block", json!({}), json!({"volumeMode": "Block"}), "Block cannot be provisioned"),
        ("path", json!({"parameters": {"path": "/a/../b"}}), json!({}), "must be an absolute path"),
        ("away", json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["z"]}]}]}), json!({}),
            "there is no node that the class allows"),
        ("csi", json!({"provisioner": "x.io/csi"}), json!({}), "external provisioner 'x.io/csi'"),
        ("none", json!({"provisioner": "kubernetes.io/no-provisioner"}), json!({}), "no persistent volumes available"),
    ];
    for (name, more, spec, words) in cases {
        let mut more = more;
        more["volumeBindingMode"] = json!("Immediate");
        class(&mut w, name, more);
        let mut claim = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": name,
            "resources": {"requests": {"storage": "1Gi"}}});
        crate::canonical::merge(&mut claim, &spec);
        w.create(CLAIMS, json!({"metadata": {"name": name, "namespace": "a"}, "spec": claim}));
        w.settle();
        assert_eq!(of(&w, name), is("Pending", ""), "{name}");
        assert!(w.events.iter().any(|e| e.1 == name && e.3.contains(words)), "{name}: {:?}", w.events);
    }
    claim(&mut w, "unknown", json!("gone"), "1Gi");
    w.settle();
    assert!(w.events.iter().any(|e| e.3 == "storageclass.storage.k8s.io \"gone\" not found"));
}

#[test]
fn ephemeral_claims_live_as_long_as_their_pod() {
    let mut w = World::with_nodes(1);
    class(&mut w, "local", json!({"volumeBindingMode": "Immediate"}));
    let template = json!({"metadata": {"labels": {"l": "1"}}, "spec": {"accessModes": ["ReadWriteOnce"],
        "storageClassName": "local", "resources": {"requests": {"storage": "1Gi"}}}});
    w.create("/pods", json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"volumes": [
        {"name": "tmp", "ephemeral": {"volumeClaimTemplate": template}}]}}));
    w.settle();
    assert_eq!(of(&w, "p-tmp").0, "Bound");
    assert_eq!(w.get(CLAIMS, "a", "p-tmp")["metadata"]["labels"]["l"], "1");
    w.delete_with(&Key::new("/pods", "a", "p"), None, Some(Propagation::Background));
    w.settle();
    assert!(!w.exists(CLAIMS, "a", "p-tmp"));
    let left = w.list(VOLUMES);
    assert!(left.iter().all(|v| v["metadata"]["finalizers"] == json!([super::local::FINALIZER])), "{left:?}");
}
