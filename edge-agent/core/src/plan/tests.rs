//! Plans from small manifests, beside what kubelet makes of them.

use super::*;
use crate::api;
use limpet_protocol::{ItemKey, ItemKind};
use serde_json::{Value, json};

fn pod(spec: Value) -> Pod {
    let object = json!({
        "metadata": {"name": "web-1", "namespace": "default", "uid": "u1", "labels": {"app": "web", "b": "x\"y"}},
        "spec": spec,
    });
    api::parse(object.to_string().as_bytes()).unwrap()
}

fn items() -> Items {
    let mut items = Items::default();
    let mut put = |kind, name: &str, body: Value| {
        items.put(ItemKey::new(kind, "default", name), 1, body.to_string().as_bytes());
    };
    put(ItemKind::ConfigMap, "cfg", json!({"data": {"A": "1", "b.c": "2"}}));
    put(ItemKind::Secret, "sec", json!({"data": {"P": "cGFzcw=="}}));
    items
}

fn host() -> HostFacts {
    HostFacts {
        node_name: "n1".into(),
        ips: vec!["192.0.2.1".into()],
        memory_bytes: 1 << 30,
        allocatable_cpu_milli: 4000,
        allocatable_memory_bytes: 1 << 29,
        api: None,
        cluster_domain: "cluster.local".into(),
        ..HostFacts::default()
    }
}

fn plan_of(spec: Value) -> Result<ContainerPlan, String> {
    let pod = pod(spec);
    let (host, ips) = (host(), ["10.42.0.5".to_string()]);
    let context = Context { pod: &pod, host: &host, pod_ips: &ips, env_files: &NO_ENV_FILES };
    let image = ImageFacts {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["cmd".into()],
        env: vec!["PATH=/bin".into(), "A=image".into()],
        user: "1000".into(),
        ..ImageFacts::default()
    };
    container(&context, &items(), &pod.spec.containers[0], &image, 0)
}

fn env_of(spec: Value) -> Vec<(String, String)> {
    plan_of(spec).unwrap().env
}

#[test]
fn resources_of_the_whole_pod() {
    let spec = |value: Value| pod(value).spec;
    let whole = spec(json!({
        "resources": {
            "requests": {"cpu": "500m", "memory": "100Mi"},
            "limits": {"cpu": "1", "memory": "200Mi", "hugepages-2Mi": "8Mi"}},
        "containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"memory": "50Mi", "hugepages-2Mi": "4Mi"}}}],
    }));
    let got = pod_resources(&whole);
    assert_eq!((got.cpu_shares, got.cpu_quota_us, got.memory_limit_bytes), (512, Some(100_000), Some(200 << 20)));
    assert_eq!(got.hugepages, [("2MB".to_string(), 8 << 20)].into());
    assert_eq!(qos(&whole), Qos::Burstable);
    // What a container does not limit itself, its pod limits for it.
    let own = |at: usize| container_resources(&whole, &whole.containers[at], &host());
    assert_eq!((own(0).cpu_quota_us, own(0).memory_limit_bytes), (Some(100_000), Some(200 << 20)));
    assert_eq!((own(1).cpu_quota_us, own(1).memory_limit_bytes), (Some(100_000), Some(50 << 20)));
    assert_eq!((own(0).hugepages["2MB"], own(1).hugepages["2MB"]), (8 << 20, 4 << 20));
    let equal = json!({"cpu": "1", "memory": "64Mi"});
    let guaranteed = spec(json!({"resources": {"requests": equal, "limits": equal}, "containers": [{"name": "a"}]}));
    assert_eq!(qos(&guaranteed), Qos::Guaranteed);
    let limits = json!({"hugepages-1Gi": "2Gi", "hugepages-64Ki": "64Ki"});
    let single = spec(json!({"containers": [{"name": "a", "resources": {"limits": limits}}]}));
    assert_eq!(pod_resources(&single).hugepages, [("1GB".to_string(), 2 << 30), ("64KB".to_string(), 64 << 10)].into());
    assert_eq!(qos(&single), Qos::BestEffort);
    // What the runtime of a class takes comes on top, of the limits only where there are some.
    let mut with = whole.clone();
    with.overhead = spec(json!({"overhead": {"cpu": "250m", "memory": "8Mi"}})).overhead;
    let got = pod_resources(&with);
    assert_eq!((got.cpu_shares, got.cpu_quota_us, got.memory_limit_bytes), (768, Some(125_000), Some(208 << 20)));
    assert_eq!((requests(&with).cpu_milli, requests(&with).memory_bytes), (750, 108 << 20));
    let mut open = spec(json!({"containers": [{"name": "a"}]}));
    open.overhead = with.overhead;
    assert_eq!((pod_resources(&open).memory_limit_bytes, requests(&open).memory_bytes), (None, 8 << 20));
}

#[test]
fn command_and_args_override_the_image() {
    for (more, want) in [
        (json!({}), vec!["/entry", "cmd"]),
        (json!({"args": ["x"]}), vec!["/entry", "x"]),
        (json!({"command": ["c"]}), vec!["c"]),
        (json!({"command": ["c"], "args": ["$(E)", "$$(E)"], "env": [{"name": "E", "value": "v"}]}), vec!["c", "v", "$(E)"]),
    ] {
        let mut c = json!({"name": "c", "image": "i"});
        c.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(plan_of(json!({"containers": [c]})).unwrap().args, want);
    }
}

#[test]
fn environment_from_everywhere() {
    let env = env_of(json!({"containers": [{"name": "c", "image": "i",
        "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}},
        "envFrom": [{"prefix": "X_", "configMapRef": {"name": "cfg"}}, {"configMapRef": {"name": "no", "optional": true}}],
        "env": [
            {"name": "A", "value": "own"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "A"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "P"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "Q", "optional": true}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu"}}},
            {"name": "LIM", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
            {"name": "URL", "value": "http://$(IP):$(X_A)/$(NOPE)"}]}]}));
    let get = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    for (name, want) in [
        ("PATH", Some("/bin")),
        ("HOSTNAME", Some("web-1")),
        ("A", Some("own")),
        ("X_A", Some("1")),
        ("X_b.c", Some("2")),
        ("NODE", Some("n1")),
        ("IP", Some("10.42.0.5")),
        ("APP", Some("web")),
        ("KEY", Some("1")),
        ("PW", Some("pass")),
        ("NONE", None),
        ("MEM", Some("64")),
        ("CPU", Some("1")),
        ("LIM", Some("4000")),
        ("URL", Some("http://10.42.0.5:1/$(NOPE)")),
    ] {
        assert_eq!(get(name), want, "{name}");
    }
    // Who names its image's variable like that listens there: the pod's name for itself gives way, the manifest's word does not.
    let named = |image: &[&str], own: &[(&str, &str)]| {
        let own: Vec<(String, String)> = own.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let all = env::merge_image(&image.iter().map(|e| e.to_string()).collect::<Vec<_>>(), &own, "web-1");
        all.into_iter().filter(|(k, _)| k == "HOSTNAME").map(|(_, v)| v).collect::<Vec<_>>()
    };
    assert_eq!(named(&["HOSTNAME=0.0.0.0"], &[]), ["0.0.0.0"]);
    assert_eq!(named(&["HOSTNAME=0.0.0.0"], &[("HOSTNAME", "own")]), ["own"]);
}

#[test]
fn limits_of_the_pod_before_those_of_the_node() {
    let of = |pod: Value, own: Value, resource: &str| {
        let env = json!([{"name": "X", "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "1"}}}]);
        let spec = json!({"resources": {"limits": pod}, "containers": [{"name": "c", "resources": {"limits": own}, "env": env}]});
        env_of(spec).into_iter().find(|(name, _)| name == "X").unwrap().1
    };
    let whole = || json!({"cpu": "2", "memory": "64Mi"});
    assert_eq!(of(whole(), json!({}), "limits.memory"), (64 << 20).to_string());
    assert_eq!(of(whole(), json!({"memory": "0"}), "limits.memory"), (64 << 20).to_string());
    assert_eq!(of(whole(), json!({"memory": "16Mi"}), "limits.memory"), (16 << 20).to_string());
    assert_eq!(of(whole(), json!({}), "limits.cpu"), "2");
    assert_eq!(of(json!({}), json!({"cpu": "0"}), "limits.cpu"), "4", "nought is no limit");
}

#[test]
fn refuses_in_kubelets_words() {
    for (container, want) in [
        (json!({"envFrom": [{"configMapRef": {"name": "no"}}]}), "configmap \"no\" not found"),
        (json!({"envFrom": [{"secretRef": {"name": "no"}}]}), "secret \"no\" not found"),
        (
            json!({"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "Z"}}}]}),
            "couldn't find key Z in ConfigMap default/cfg",
        ),
        (
            json!({"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "Z"}}}]}),
            "couldn't find key Z in Secret default/sec",
        ),
        (
            json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}),
            "container's runAsUser breaks non-root policy (pod: \"web-1_default(u1)\", container: c)",
        ),
        (
            json!({"securityContext": {"runAsUser": 4294967296i64}}),
            "runAsUser 4294967296 must be between 0 and 2147483647",
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "../y"}]}),
            "unable to provision SubPath `../y`: must not contain '..'",
        ),
        (
            json!({"env": [{"name": "E", "value": "/tmp"}],
                "volumeMounts": [{"name": "v", "mountPath": "/x", "subPathExpr": "$(E)"}]}),
            "error SubPath `/tmp` must not be an absolute path",
        ),
        // Without a name in it, it would be the whole volume, and so everybody's.
        (
            json!({"env": [{"name": "E", "value": ""}],
                "volumeMounts": [{"name": "v", "mountPath": "/x", "subPathExpr": "$(Z)$(E)$(A)"}]}),
            "missing value for A, E, Z",
        ),
    ] {
        let mut c = json!({"name": "c", "image": "i"});
        c.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        let got = plan_of(json!({"containers": [c], "volumes": [{"name": "v", "emptyDir": {}}]}));
        assert_eq!(got.unwrap_err(), want);
    }
}

#[test]
fn classes_shares_and_scores() {
    let r = |limits: Value, requests: Value| json!({"containers": [{"name": "c", "image": "i",
        "resources": {"limits": limits, "requests": requests}}]});
    for (spec, class, shares, quota, score) in [
        (r(json!({}), json!({})), Qos::BestEffort, 2, None, 1000),
        (r(json!({"cpu": "500m", "memory": "64Mi"}), json!({})), Qos::Guaranteed, 512, Some(50_000), -997),
        (r(json!({"memory": "64Mi"}), json!({"cpu": "100m", "memory": "64Mi"})), Qos::Burstable, 102, None, 938),
        (r(json!({}), json!({"cpu": "1m"})), Qos::Burstable, 2, None, 999),
    ] {
        let pod = pod(spec.clone());
        assert_eq!(qos(&pod.spec), class, "{spec}");
        let plan = plan_of(spec).unwrap().resources;
        assert_eq!((plan.cpu_shares, plan.cpu_quota_us, plan.oom_score_adj), (shares, quota, score));
    }
    // Of a node with 1 GiB: (the pod's words, the score of its first container, of its sidecar).
    let asks = |memory: &str| json!({"requests": {"memory": memory}});
    let side = |resources: Value| json!([{"name": "s", "restartPolicy": "Always", "resources": resources}]);
    let c = |resources: Value| json!([{"name": "c", "resources": resources}, {"name": "d", "resources": asks("512Mi")}]);
    for (spec, first, sidecar) in [
        (json!({"containers": [{"name": "c"}], "priority": 2_000_001_000}), -997, None),
        (json!({"containers": [{"name": "c"}], "priority": 2_000_000_000}), 1000, None),
        (json!({"containers": c(asks("256Mi")), "initContainers": side(json!({}))}), 750, Some(750)),
        (json!({"containers": c(asks("256Mi")), "initContainers": side(asks("512Mi"))}), 750, Some(500)),
        (json!({"containers": c(json!({})), "initContainers": side(asks("128Mi"))}), 999, Some(875)),
        // 64 of the 192 MiB that are left are for each of the three.
        (
            json!({"resources": asks("960Mi"), "containers": c(asks("128Mi")), "initContainers": side(asks("128Mi"))}),
            813,
            Some(813),
        ),
    ] {
        let pod = pod(spec.clone());
        let score = |c: &Container| container_resources(&pod.spec, c, &host()).oom_score_adj;
        let got = (score(&pod.spec.containers[0]), pod.spec.init_containers.first().map(|c| score(c)));
        assert_eq!(got, (first, sidecar), "{spec}");
    }
}

#[test]
fn a_block_device_that_is_read() {
    let claim = |name: &str, only: bool| json!({"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": only}});
    let plan = plan_of(json!({"volumes": [claim("a", true), claim("b", false)], "containers": [{"name": "c",
        "volumeDevices": [{"name": "a", "devicePath": "/dev/a"}, {"name": "b", "devicePath": "/dev/b"}]}]}))
    .unwrap();
    assert_eq!((plan.block_devices.len(), plan.blocks_read), (2, vec!["a".to_string()]));
}

#[test]
fn mounts_come_parents_first_with_the_pods_own_files() {
    let plan = plan_of(json!({"containers": [{"name": "c", "image": "i", "volumeMounts": [
        {"name": "v", "mountPath": "/etc/hosts", "subPath": "hosts"}, {"name": "v", "mountPath": "/a/b/c"},
        {"name": "v", "mountPath": "/a", "readOnly": true}]}], "volumes": [{"name": "v", "emptyDir": {}}]}))
    .unwrap();
    let paths: Vec<&str> = plan.mounts.iter().map(|m| m.destination.as_str()).collect();
    assert_eq!(
        paths,
        ["/a", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/dev/termination-log", "/a/b/c"]
    );
    assert!(plan.mounts[0].read_only);
    // What the agent keeps up to date nobody else writes.
    for (source, read_only) in [
        (json!({"configMap": {"name": "cfg"}}), true),
        (json!({"secret": {"secretName": "sec"}}), true),
        (json!({"downwardAPI": {}}), true),
        (json!({"projected": {"sources": []}}), true),
        (json!({"image": {"reference": "x"}}), true),
        (json!({"emptyDir": {}}), false),
        (json!({"hostPath": {"path": "/x"}}), false),
    ] {
        let mut volume = json!({"name": "v"});
        volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let plan = plan_of(json!({"volumes": [volume], "containers": [{"name": "c", "volumeMounts": [
            {"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/w", "subPath": "a"}]}]}))
        .unwrap();
        let own = plan.mounts.iter().filter(|m| ["/v", "/w"].contains(&&*m.destination));
        assert_eq!(own.map(|m| m.read_only).collect::<Vec<_>>(), [read_only; 2], "{source}");
    }
}

#[test]
fn names_and_resolvers() {
    let p = pod(json!({"containers": [{"name": "c", "image": "i"}], "hostname": "h", "subdomain": "s"}));
    let plan = sandbox(&p, &host());
    assert_eq!(plan.fqdn.as_deref(), Some("h.s.default.svc.cluster.local"));
    let conf = resolv_conf(&plan.dns, Some("10.42.0.1"), "nameserver 9.9.9.9\nsearch lan\n");
    assert_eq!(
        conf,
        "search default.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.42.0.1\noptions ndots:5\n"
    );
    let hosts = etc_hosts(&plan, &["10.42.0.5".into()], "");
    assert!(hosts.ends_with("10.42.0.5\th.s.default.svc.cluster.local\th\n"), "{hosts}");
    let p = pod(json!({"containers": [], "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true}));
    let plan = sandbox(&p, &host());
    let hosts = etc_hosts(&plan, &["10.42.0.5".into()], "");
    assert!(hosts.ends_with("10.42.0.5\th.s.default.svc.cluster.local\th\n"), "{hosts}");
    assert_eq!(plan.hostname, "h.s.default.svc.cluster.local");
    let p = pod(json!({"containers": [], "hostname": "h", "subdomain": "s", "hostnameOverride": "mine.example"}));
    let plan = sandbox(&p, &host());
    assert_eq!((plan.hostname.as_str(), plan.fqdn), ("mine.example", None));
    let p = pod(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"],
        "options": [{"name": "ndots", "value": "2"}]}}));
    let conf = resolv_conf(&sandbox(&p, &host()).dns, Some("10.42.0.1"), "nameserver 9.9.9.9\n");
    assert_eq!(conf, "nameserver 1.1.1.1\noptions ndots:2\n");
    // What a pod adds comes after what its policy gives, and has the last word on an option.
    let own = json!({"nameservers": ["1.1.1.1", "9.9.9.9"], "searches": ["own.test", "lan"],
        "options": [{"name": "ndots", "value": "2"}]});
    let of_host = "nameserver 9.9.9.9\nsearch lan\noptions ndots:1 rotate\n";
    for (policy, want) in [
        ("Default", "search lan own.test\nnameserver 9.9.9.9\nnameserver 1.1.1.1\noptions rotate ndots:2\n"),
        (
            "ClusterFirst",
            "search default.svc.cluster.local svc.cluster.local cluster.local lan own.test\n\
             nameserver 10.42.0.1\nnameserver 1.1.1.1\nnameserver 9.9.9.9\noptions ndots:2\n",
        ),
    ] {
        let p = pod(json!({"containers": [], "dnsPolicy": policy, "dnsConfig": own}));
        assert_eq!(resolv_conf(&sandbox(&p, &host()).dns, Some("10.42.0.1"), of_host), want, "{policy}");
    }
    let p = pod(json!({"containers": [], "hostNetwork": true}));
    let conf = resolv_conf(&sandbox(&p, &host()).dns, Some("10.42.0.1"), "nameserver 9.9.9.9\n");
    assert_eq!(conf, "nameserver 9.9.9.9\n");
}

#[test]
fn ids_are_stable_and_different() {
    let id = container_id("u", "c", 0);
    assert_eq!(id.len(), 64);
    assert_eq!(id, container_id("u", "c", 0));
    assert_ne!(id, container_id("u", "c", 1));
}
