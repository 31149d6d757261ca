//! Pods and what they violate, in upstream's words.

use super::*;
use serde_json::{Value, json};

fn at(level: Level) -> LevelVersion {
    LevelVersion { level, version: Version::Latest }
}

fn check(level: Level, spec: &Value, expect: &str) {
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    assert_eq!(sentence(&evaluate(at(level), &pod)), expect, "{spec}");
}

fn restricted_container(name: &str) -> Value {
    json!({"name": name, "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}})
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let plain = json!({"containers": [{"name": "c", "image": "i"}]});
    check(Level::Privileged, &plain, "");
    check(Level::Baseline, &plain, "");
    check(
        Level::Restricted,
        &plain,
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")",
    );
    check(Level::Restricted, &json!({"containers": [restricted_container("c")]}), "");
}

#[test]
fn what_baseline_forbids() {
    let container = |fields: Value| {
        let mut container = json!({"name": "c"});
        for (key, value) in fields.as_object().unwrap() {
            container[key] = value.clone();
        }
        json!({"containers": [container]})
    };
    let cases: [(Value, &str); 17] = [
        (
            json!({"hostNetwork": true, "hostPID": true, "containers": []}),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            container(json!({"ports": [{"hostPort": 80}, {"hostPort": 0}, {"containerPort": 1}]})),
            "hostPort (container \"c\" uses hostPort 80)",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 2}]}],
                "initContainers": [{"name": "b", "ports": [{"hostPort": 1}]}]}),
            "hostPort (containers \"b\", \"a\" use hostPorts 1, 2)",
        ),
        (
            json!({"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "e", "emptyDir": {}}]}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            container(json!({"securityContext": {"privileged": true}})),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            container(json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN", "KILL", "SYS_TIME"]}}})),
            "non-default capabilities (container \"c\" must not include \"NET_ADMIN\", \"SYS_TIME\" in \
             securityContext.capabilities.add)",
        ),
        (
            container(json!({"securityContext": {"procMount": "Unmasked"}})),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": []}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_syncookies"}]},
                "containers": []}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_keepalive_time"}]}, "containers": []}), ""),
        (
            container(json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}})),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}, "containers": []}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
        ),
        (
            container(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
            "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1"}}})),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")",
        ),
        (container(json!({"livenessProbe": {"httpGet": {"host": "127.0.0.1"}}})), ""),
        (container(json!({"securityContext": {"runAsUser": 0}})), ""),
        (json!({"containers": [], "volumes": [{"name": "v", "nfs": {}}]}), ""),
    ];
    for (spec, expect) in cases {
        check(Level::Baseline, &spec, expect);
    }
}

#[test]
fn what_restricted_forbids_beyond() {
    let with = |more: Value| {
        let mut spec = json!({"containers": [restricted_container("c")]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    check(
        Level::Restricted,
        &with(
            json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "nfs": {}}, {"name": "c", "secret": {}}]}),
        ),
        "restricted volume types (volumes \"a\", \"b\" use restricted volume types \"hostPath\", \"nfs\")",
    );
    check(
        Level::Restricted,
        &with(
            json!({"initContainers": [{"name": "i", "securityContext": {"allowPrivilegeEscalation": false, "runAsUser": 0,
            "runAsNonRoot": false, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
            "seccompProfile": {"type": "Unconfined"}}}]}),
        ),
        "unrestricted capabilities (container \"i\" must not include \"CHOWN\" in securityContext.capabilities.add), \
         runAsNonRoot != true (container \"i\" must not set securityContext.runAsNonRoot=false), \
         runAsUser=0 (container \"i\" must not set runAsUser=0), \
         seccompProfile (container \"i\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    check(
        Level::Restricted,
        &json!({"securityContext": {"runAsNonRoot": false, "seccompProfile": {"type": "Localhost"}}, "hostUsers": true,
            "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]}}}]}),
        "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
    );
}

#[test]
fn older_versions_ask_less() {
    let plain = json!({"spec": {"containers": [{"name": "c"}]}});
    let old = |minor| LevelVersion { level: Level::Restricted, version: Version::Minor(minor) };
    assert_eq!(reasons(&evaluate(old(7), &plain)), "runAsNonRoot != true");
    assert_eq!(reasons(&evaluate(old(8), &plain)), "allowPrivilegeEscalation != false, runAsNonRoot != true");
    assert_eq!(evaluate(old(22), &plain).len(), 4);
}

#[test]
fn labels() {
    let policy = Policy::of(
        &json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30"}),
    );
    assert_eq!(policy.enforce.to_string(), "baseline:v1.30");
    assert_eq!(policy.warn.to_string(), "baseline:v1.30", "who enforces warns, too");
    assert_eq!(policy.audit.to_string(), "privileged:latest");
    assert!(Policy::of(&Value::Null).is_privileged());
    assert_eq!(Policy::of(&json!({"pod-security.kubernetes.io/enforce": "nonsense"})).enforce.level, Level::Restricted);
    let labels = json!({"pod-security.kubernetes.io/warn": "high", "pod-security.kubernetes.io/audit-version": "1.30"});
    let errors: Vec<String> = check_labels(&labels, &Value::Null).iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.30\": must be \"latest\" or \"v1.x\"",
            "metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"high\": must be one of privileged, baseline, \
             restricted",
        ]
    );
    assert!(check_labels(&labels, &labels).is_empty(), "what was there already is let be");
}
