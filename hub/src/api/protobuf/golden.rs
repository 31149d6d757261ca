//! Every built-in kind as upstream's own round-trip files have it: JSON and protobuf say the same, byte for byte.
//!
//! In: `target/tools/k8s-golden`, which `cargo xtask setup` takes from Debian's golang-k8s-api-dev. Without it
//! the test says so and is skipped.
#![allow(clippy::unwrap_used)]

use super::*;
use limpet_objects::resource::registry;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools/k8s-golden")
}

/// Go decodes what is no pointer and zero as zero, and leaves it out of JSON where it may: such values count as
/// absent on both sides.
fn without_zeros(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().map(|(k, v)| (k.clone(), without_zeros(v))).filter(|(_, v)| !is_zero(v));
            Value::Object(kept.collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_zeros).collect()),
        other => other.clone(),
    }
}

#[test]
fn every_kind_is_the_same_in_both_forms() {
    if !folder().is_dir() {
        eprintln!("skipped: no {}; `cargo xtask setup` fetches it", folder().display());
        return;
    }
    let (mut count, mut wrong) = (0, Vec::new());
    for resource in registry().resources() {
        let group = if resource.group.is_empty() { "core" } else { &resource.group };
        let file = folder().join(format!("{group}.{}.{}", resource.version, resource.kind));
        let with = |extension: &str| PathBuf::from(format!("{}.{extension}", file.display()));
        let (Ok(json), Ok(binary)) = (std::fs::read(with("json")), std::fs::read(with("pb"))) else { continue };
        let json: Value = serde_json::from_slice(&json).unwrap();
        count += 1;
        let decoded = decode(&binary).unwrap();
        if without_zeros(&decoded) != without_zeros(&json) {
            wrong.push(format!("{resource:?} is read in another way"));
        }
        if encode(&json).unwrap() != binary {
            wrong.push(format!("{resource:?} is written in another way"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 60, "only {count} kinds were found");
}
