//! What volumes hold, and what is refused.

use super::*;
use crate::plan::HostFacts;
use serde_json::{Value, json};

fn items() -> Items {
    let mut items = Items::default();
    let mut put = |kind, name: &str, body: Value| {
        items.put(ItemKey::new(kind, "default", name), 1, body.to_string().as_bytes());
    };
    put(ItemKind::ConfigMap, "cfg", json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}}));
    put(ItemKind::ConfigMap, "kube-root-ca.crt", json!({"data": {"ca.crt": "PEM"}}));
    put(ItemKind::Secret, "sec", json!({"data": {"k": "cGFzcw=="}}));
    put(ItemKind::Token, "u1.kube-api-access.0", json!({"token": "JWT", "expirationTimestamp": "2020-01-01T00:00:00Z"}));
    items
}

fn plan_of(volume: Value) -> Result<VolumeContent, String> {
    let object = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"volumes": [volume], "containers": [{"name": "c", "image": "i"}]}});
    let pod: api::Pod = api::parse(object.to_string().as_bytes()).unwrap();
    let host = HostFacts::default();
    let context = Context { pod: &pod, host: &host, pod_ips: &[], env_files: &crate::plan::NO_ENV_FILES };
    let (mut plans, mut problems) = plan(&context, &items());
    match problems.pop() {
        Some(problem) => Err(problem.message),
        None => Ok(plans.remove(0).content),
    }
}

fn files(volume: Value) -> Vec<(String, u32, String)> {
    match plan_of(volume).unwrap() {
        VolumeContent::Files { files, .. } => files
            .into_iter()
            .map(|f| (f.path, f.mode, String::from_utf8_lossy(&f.bytes).into_owned()))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn claims_are_the_volumes_behind_them() {
    let mut items = Items::default();
    let mut put = |name: &str, spec: Value| {
        let key = ItemKey::new(ItemKind::Claim, "default", name);
        items.put(key, 1, json!({"spec": spec}).to_string().as_bytes());
    };
    put("made", json!({"hostPath": {"path": "/v/made", "type": "DirectoryOrCreate"}, "volumeMode": "Filesystem"}));
    put("plain", json!({"hostPath": {"path": "/v/plain"}}));
    put("local", json!({"local": {"path": "/v/local"}}));
    put("block", json!({"local": {"path": "/dev/x"}, "volumeMode": "Block"}));
    put("p-own", json!({"local": {"path": "/v/own"}}));
    put("far", json!({"nfs": {"server": "x"}}));
    let spec = |volume: Value| json!({"volumes": [volume], "securityContext": {"fsGroupChangePolicy": "OnRootMismatch"}});
    let content = |volume: Value| {
        let object = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": spec(volume)});
        let pod: api::Pod = api::parse(object.to_string().as_bytes()).unwrap();
        let host = crate::plan::HostFacts::default();
        let context = Context { pod: &pod, host: &host, pod_ips: &[], env_files: &crate::plan::NO_ENV_FILES };
        let (mut plans, mut problems) = plan(&context, &items);
        plans.pop().map(|p| p.content).ok_or_else(|| problems.remove(0).message)
    };
    let claim = |name: &str| json!({"name": "own", "persistentVolumeClaim": {"claimName": name}});
    let persistent = |path: &str, make| VolumeContent::Persistent { path: path.into(), make, owned_always: false };
    assert_eq!(content(claim("made")), Ok(persistent("/v/made", true)));
    assert_eq!(content(claim("local")), Ok(persistent("/v/local", false)));
    assert_eq!(content(claim("plain")), Ok(VolumeContent::HostPath { path: "/v/plain".into(), kind: String::new() }));
    assert_eq!(content(claim("block")), Ok(VolumeContent::Block { path: "/dev/x".into() }));
    assert_eq!(content(json!({"name": "own", "ephemeral": {"volumeClaimTemplate": {}}})), Ok(persistent("/v/own", false)));
    let volume = |name: &str, claim: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": claim}});
    let object = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": {"volumes": [volume("a", "made"),
        volume("b", "local"), volume("c", "block"), volume("d", "none"), volume("e", "far"), {"name": "f", "emptyDir": {}}]}});
    let told = claimed(&api::parse(object.to_string().as_bytes()).unwrap(), &items);
    let told: Vec<(&str, &str, &str)> = told.iter().map(|c| (&*c.volume, &*c.claim, &*c.path)).collect();
    assert_eq!(told, [("a", "made", "/v/made"), ("b", "local", "/v/local")]);
    assert!(content(claim("none")).unwrap_err().contains("is not bound"));
    assert!(content(claim("far")).unwrap_err().contains("cannot mount"));
}

#[test]
fn config_maps_with_items_and_modes() {
    let all = files(json!({"name": "v", "configMap": {"name": "cfg"}}));
    assert_eq!(all[0], ("a".into(), 0o644, "1".into()));
    assert_eq!(all.len(), 3);
    let some = files(json!({"name": "v", "configMap": {"name": "cfg", "defaultMode": 256,
        "items": [{"key": "a", "path": "x/y", "mode": 511}, {"key": "b", "path": "z"}]}}));
    assert_eq!(some, [("x/y".into(), 0o777, "1".into()), ("z".into(), 0o400, "2".into())]);
    assert!(files(json!({"name": "v", "configMap": {"name": "no", "optional": true}})).is_empty());
    // Paths are what they mean.
    let odd = files(json!({"name": "v", "configMap": {"name": "cfg",
        "items": [{"key": "a", "path": "./conf/a"}, {"key": "b", "path": "x//./b/"}]}}));
    assert_eq!(odd.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(), ["conf/a", "x/b"]);
    for bad in [".", "./", "a/../b", "./..x", "..", "/a"] {
        let volume = json!({"name": "v", "configMap": {"name": "cfg", "items": [{"key": "a", "path": bad}]}});
        assert!(plan_of(volume).is_err(), "{bad}");
    }
}

#[test]
fn the_service_account_volume() {
    let all = files(json!({"name": "kube-api-access", "projected": {"sources": [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]}}));
    assert_eq!(
        all,
        [
            ("ca.crt".into(), 0o644, "PEM".into()),
            ("namespace".into(), 0o644, "default".into()),
            ("token".into(), 0o644, "JWT".into()),
        ]
    );
}

/// Owner and mode of a token with these securityContexts: of the pod, of an init container, of two containers.
fn token_of(pod: Value, init: Value, containers: [Value; 2], default_mode: Value) -> (Option<u32>, u32, Option<u32>) {
    let container = |name: &str, context: &Value| json!({"name": name, "image": "i", "securityContext": context});
    let [a, b] = &containers;
    let source = json!({"serviceAccountToken": {"path": "token"}});
    let volume = json!({"name": "kube-api-access", "projected": {"defaultMode": default_mode, "sources": [source]}});
    let object = json!({"metadata": {"name": "p", "namespace": "default", "uid": "u1"}, "spec": {"securityContext": pod,
        "volumes": [volume], "initContainers": [container("i", &init)], "containers": [container("a", a), container("b", b)],
        "ephemeralContainers": [container("e", &json!({}))]}});
    let pod: api::Pod = api::parse(object.to_string().as_bytes()).unwrap();
    let host = HostFacts::default();
    let context = Context { pod: &pod, host: &host, pod_ips: &[], env_files: &crate::plan::NO_ENV_FILES };
    let (plans, problems) = plan(&context, &items());
    assert_eq!(problems, []);
    match &plans[0].content {
        VolumeContent::Files { files, secret: true } => (files[0].owner, files[0].mode, plans[0].group),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_belongs_to_the_one_user_of_the_pod() {
    let user = |uid: i64| json!({"runAsUser": uid});
    let none = || json!({});
    let by_default = token_of(none(), none(), [none(), none()], Value::Null);
    assert_eq!(by_default, (None, 0o644, None));
    assert_eq!(token_of(none(), none(), [none(), none()], json!(0o440)), (None, 0o440, None));
    assert_eq!(token_of(user(1000), none(), [none(), none()], Value::Null), (Some(1000), 0o600, None));
    assert_eq!(token_of(none(), user(7), [user(7), user(7)], json!(0o440)), (Some(7), 0o600, None));
    assert_eq!(token_of(user(1000), user(7), [user(7), user(7)], Value::Null), (Some(7), 0o600, None));
    assert_eq!(token_of(user(0), none(), [none(), none()], Value::Null), (Some(0), 0o600, None));
    // One that differs, one that does not say: nobody's in particular.
    assert_eq!(token_of(user(1000), none(), [user(7), none()], Value::Null), (None, 0o644, None));
    assert_eq!(token_of(user(1000), user(7), [none(), none()], Value::Null), (None, 0o644, None));
    assert_eq!(token_of(none(), none(), [user(7), user(7)], Value::Null), (None, 0o644, None));
    // The group's right to read comes when the files are written.
    let grouped = |pod: Value| token_of(pod, none(), [none(), none()], Value::Null);
    assert_eq!(grouped(json!({"fsGroup": 10000})), (None, 0o600, Some(10000)));
    assert_eq!(grouped(json!({"fsGroup": 10000, "runAsUser": 1000})), (Some(1000), 0o600, Some(10000)));
}

#[test]
fn what_cannot_be_made_says_why() {
    for (volume, want) in [
        (json!({"name": "v", "configMap": {"name": "no"}}), "configmap \"no\" not found"),
        (json!({"name": "v", "secret": {"secretName": "no"}}), "secret \"no\" not found"),
        (
            json!({"name": "v", "configMap": {"name": "cfg", "items": [{"key": "q", "path": "q"}]}}),
            "configmap references non-existent config key: q",
        ),
        (
            json!({"name": "v", "secret": {"secretName": "sec", "items": [{"key": "k", "path": "../../etc/passwd"}]}}),
            "invalid path \"../../etc/passwd\" in volume: must be relative, without '..'",
        ),
    ] {
        assert_eq!(plan_of(volume).unwrap_err(), want);
    }
    assert!(plan_of(json!({"name": "v", "nfs": {}})).unwrap_err().contains("not supported"));
}

#[test]
fn knows_what_it_reads() {
    let object = json!({"metadata": {"namespace": "default", "uid": "u1"}, "spec": {"volumes": [
        {"name": "a", "configMap": {"name": "cfg"}}, {"name": "b", "projected": {"sources": [{"secret": {"name": "sec"}}]}}]}});
    let pod: api::Pod = api::parse(object.to_string().as_bytes()).unwrap();
    for (kind, namespace, name, want) in [
        (ItemKind::ConfigMap, "default", "cfg", true),
        (ItemKind::ConfigMap, "other", "cfg", false),
        (ItemKind::Secret, "default", "sec", true),
        (ItemKind::Secret, "default", "cfg", false),
        (ItemKind::Token, "default", "u1.x.0", true),
        (ItemKind::Token, "default", "u2.x.0", false),
    ] {
        assert_eq!(reads(&pod, &ItemKey::new(kind, namespace, name)), want, "{kind:?} {namespace}/{name}");
    }
}

#[test]
fn a_volume_in_memory_holds_what_its_pod_may_have() {
    for (medium, limit, pod_limit, want) in [
        ("Memory", Value::Null, Value::Null, Some(1 << 30)),
        ("Memory", Value::Null, json!("64Mi"), Some(64 << 20)),
        ("Memory", json!("16Mi"), json!("64Mi"), Some(16 << 20)),
        ("Memory", json!("128Mi"), json!("64Mi"), Some(64 << 20)),
        ("Memory", json!("4Gi"), Value::Null, Some(1 << 30)),
        ("", Value::Null, json!("64Mi"), None),
        ("", json!("4Gi"), json!("64Mi"), Some(4 << 30)),
    ] {
        let mut pod = json!({"metadata": {"uid": "u", "name": "p", "namespace": "default"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"medium": medium}}], "containers": [{"name": "c"}]}});
        if !limit.is_null() {
            pod["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] = limit;
        }
        if !pod_limit.is_null() {
            pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": pod_limit}});
        }
        let pod: api::Pod = api::parse(pod.to_string().as_bytes()).unwrap();
        let host = HostFacts { allocatable_memory_bytes: 1 << 30, ..HostFacts::default() };
        let context = Context { pod: &pod, host: &host, pod_ips: &[], env_files: &crate::plan::NO_ENV_FILES };
        let (plans, problems) = plan(&context, &Items::default());
        assert!(problems.is_empty());
        assert_eq!(plans[0].content, VolumeContent::EmptyDir { memory: medium == "Memory", limit_bytes: want });
    }
}
