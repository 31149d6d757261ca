//! A small encoder, and what the decoder makes of its bytes.
#![allow(clippy::unwrap_used)]

use super::*;

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(field: u64, value: i64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3, &mut out);
    varint(value as u64, &mut out);
    out
}

fn bytes(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(field << 3 | 2, &mut out);
    varint(value.len() as u64, &mut out);
    out.extend_from_slice(value);
    out
}

fn envelope(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), bytes(1, &type_meta), bytes(2, object), bytes(3, b""), bytes(4, b"")].concat()
}

#[test]
fn a_config_map_as_kubectl_sends_it() {
    let metadata = [
        bytes(1, b"a"),
        bytes(2, b""),
        number(7, 0),
        bytes(8, b""),
        bytes(11, &[bytes(1, b"k"), bytes(2, b"v")].concat()),
    ]
    .concat();
    let object = [
        bytes(1, &metadata),
        bytes(2, &[bytes(1, b"x"), bytes(2, b"1")].concat()),
        bytes(3, &[bytes(1, b"y"), bytes(2, &[0, 255])].concat()),
        bytes(99, b"of a later version"),
    ]
    .concat();
    assert_eq!(
        decode(&envelope("v1", "ConfigMap", &object)).unwrap(),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"k": "v"}},
            "data": {"x": "1"}, "binaryData": {"y": "AP8="}})
    );
}

#[test]
fn optional_zeros_stay_and_plain_ones_go() {
    let spec = [number(1, 0), bytes(2, &[]), bytes(4, b""), number(5, 0)].concat();
    let value = decode(&envelope("apps/v1", "Deployment", &bytes(2, &spec))).unwrap();
    assert_eq!(value["spec"], json!({"replicas": 0, "selector": {}}));
}

#[test]
fn special_forms() {
    let budget = [bytes(1, &[number(1, 1), number(2, 0), bytes(3, b"50%")].concat())].concat();
    let value = decode(&envelope("policy/v1", "PodDisruptionBudget", &bytes(2, &budget))).unwrap();
    assert_eq!(value["spec"]["minAvailable"], "50%");
    let metadata = bytes(9, &[number(1, 1_700_000_000), number(2, 0)].concat());
    let value = decode(&envelope("v1", "Pod", &bytes(1, &metadata))).unwrap();
    assert_eq!(value["metadata"]["deletionTimestamp"], "2023-11-14T22:13:20Z");
    let negative = decode(&envelope("v1", "Pod", &bytes(2, &number(4, -1)))).unwrap();
    assert_eq!(negative["spec"]["terminationGracePeriodSeconds"], -1);
}

#[test]
fn hostile_bytes_are_refused() {
    let good = envelope("v1", "ConfigMap", &bytes(1, &bytes(1, b"a")));
    for end in 4..good.len() {
        // Cut anywhere it is an error or an object with less in it, never a panic.
        let _ = decode(&good[..end]);
    }
    for (bad, expect) in [
        (b"{}".to_vec(), ProtobufError::Magic),
        (envelope("v1", "Nothing", b""), ProtobufError::Kind("v1, Kind=Nothing".into())),
        (envelope("v1", "ConfigMap", &[0xff; 12]), ProtobufError::Wire(WireError::Varint)),
        (envelope("v1", "ConfigMap", &number(1, 5)), ProtobufError::Wire(WireError::Type)),
        (envelope("v1", "ConfigMap", &bytes(1, &bytes(1, &[0xff]))), ProtobufError::Wire(WireError::Text)),
    ] {
        assert_eq!(decode(&bad), Err(expect));
    }
    let mut deep = Vec::new();
    for _ in 0..5000 {
        deep = bytes(28, &deep);
    }
    let crd = bytes(2, &bytes(7, &bytes(4, &bytes(1, &deep))));
    let outcome = decode(&envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", &crd));
    assert!(matches!(outcome, Err(ProtobufError::Depth)), "{outcome:?}");
}
