//! Where variables and files come from: files that init containers write, sources that may be absent or never change.
//!
//! In: a world with one board. Out: environments and files as programs find them; refusals in Kubernetes' words.

use limpet_e2e::pods::{apply, becomes, container, delete, has, hasnt, inside, is, ready, sleeper, waits};
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

/// `fileKeyRef`, command and arguments, working directory, the place of last words, no token.
pub fn variables(world: &World) -> Result<()> {
    let from = |key: &str, path: &str, optional: bool| {
        json!({"fileKeyRef": {"volumeName": "v", "path": path, "key": key, "optional": optional}})
    };
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let writes = |line: &str| container("writes", line, json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    // The container that uses the variables does not see the volume.
    let uses = |env: Value| container("c", "exec sleep 1000000", json!({"env": env}));
    let good = r##"mkdir /v/d; printf "# words\nDB = 'one two'\nMULTI='a\nb'\n" > /v/d/env"##;
    let env = json!([{"name": "DB", "valueFrom": from("DB", "d/env", false)},
        {"name": "M", "valueFrom": from("MULTI", "d/env", false)},
        {"name": "NO_KEY", "valueFrom": from("NONE", "d/env", true)}, {"name": "NO_FILE", "valueFrom": from("DB", "none", true)},
        {"name": "BUILT", "value": "$(DB)!"}]);
    let spec = |line: &str, env: Value| {
        json!({"initContainers": [writes(line)], "containers": [uses(env)], "volumes": volumes.clone()})
    };
    apply(world, "env", spec(good, env))?;
    ready(world, "env")?;
    is(
        &inside(world, "env", "echo \"$DB $M $BUILT ${NO_KEY-none} ${NO_FILE-none}\"; ls /v 2>&1 | head -c 3")?,
        "one two a\nb one two! none none\nls:",
    )?;
    for (name, line, words) in [
        ("no-key", good, "environment variable key \"X\" not found in file \"d/env\""),
        ("no-file", "true", "environment variable file \"d/env\" not found in volume \"v\""),
        ("no-quotes", "mkdir /v/d; echo X=1 > /v/d/env", "the value in line 1 is not in single quotes"),
        ("link", "mkdir /v/d; ln -s /etc/hostname /v/d/env", "file \"d/env\" of the volume"),
        ("large", "mkdir /v/d; head -c 70000 /dev/zero > /v/d/env", "is larger than 65536 bytes"),
    ] {
        apply(world, name, spec(line, json!([{"name": "X", "valueFrom": from("X", "d/env", false)}])))?;
        waits(world, name, "CreateContainerConfigError", words)?;
    }
    let mut other = spec("true", json!([{"name": "X", "valueFrom": from("X", "d/env", false)}]));
    other["volumes"] = json!([{"name": "v", "configMap": {"name": "none", "optional": true}}]);
    apply(world, "other", other)?;
    waits(world, "other", "CreateContainerConfigError", "which is no emptyDir")?;
    let last = json!({"command": ["sh", "-c", "pwd > /tmp/last; echo $0 $1 >> /tmp/last; exit 3"], "args": ["a", "$(W)"],
        "env": [{"name": "W", "value": "b"}], "workingDir": "/etc", "terminationMessagePath": "/tmp/last"});
    sleeper(world, "last", last, json!({"restartPolicy": "Never", "automountServiceAccountToken": false}))?;
    let status = becomes(world, "last", "ended", |s| s["phase"] == "Failed")?;
    let said = &status["containerStatuses"][0]["state"]["terminated"];
    wait::yes(said["message"] == "/etc\na b\n" && said["exitCode"] == 3, || said.to_string())?;
    sleeper(world, "tokenless", json!({}), json!({"automountServiceAccountToken": false}))?;
    ready(world, "tokenless")?;
    hasnt(&inside(world, "tokenless", "cat /proc/mounts")?, &["serviceaccount"])?;
    delete(world, &["env", "no-key", "no-file", "no-quotes", "link", "large", "other", "last", "tokenless"])
}

/// Sources that are not there yet, sources that never change, and kinds of sources that this node does not have.
pub fn optional_and_immutable(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    kubectl.say("create configmap fixed --from-literal=a=one")?;
    kubectl.say("create secret generic sealed --from-literal=b=two")?;
    for (kind, name) in [("configmap", "fixed"), ("secret", "sealed")] {
        kubectl.run(&["patch", kind, name, "-p", r#"{"immutable": true}"#])?;
    }
    let volumes = json!([
        {"name": "m", "configMap": {"name": "later", "optional": true}},
        {"name": "s", "secret": {"secretName": "later", "optional": true}},
        {"name": "p", "projected": {"sources": [{"configMap": {"name": "fixed", "optional": true,
                "items": [{"key": "a", "path": "a"}, {"key": "none", "path": "none"}]}},
            {"secret": {"name": "sealed", "items": [{"key": "b", "path": "deep/b", "mode": 0o400}]}},
            {"configMap": {"name": "later", "optional": true}}]}}]);
    let mounts =
        json!([{"name": "m", "mountPath": "/m"}, {"name": "s", "mountPath": "/s"}, {"name": "p", "mountPath": "/p"}]);
    let env = json!([{"configMapRef": {"name": "later", "optional": true}}, {"secretRef": {"name": "later", "optional": true}},
        {"prefix": "F_", "configMapRef": {"name": "fixed"}}]);
    sleeper(world, "patient", json!({"volumeMounts": mounts, "envFrom": env}), json!({"volumes": volumes}))?;
    ready(world, "patient")?;
    let look = "ls /m /s | tr '\\n' ' '; cat /p/a /p/deep/b; stat -Lc ' %a' /p/deep/b; env";
    let text = inside(world, "patient", look)?;
    wait::yes(text.starts_with("/m: /s: ") || text.starts_with("/m:  /s: "), || text.clone())?;
    has(&text, &["onetwo 400\n", "F_a=one\n"])?;
    kubectl.say("create configmap later --from-literal=x=1")?;
    kubectl.say("create secret generic later --from-literal=y=2")?;
    until("what came later", Duration::from_secs(90), || is(&inside(world, "patient", "cat /m/x /s/y /p/x")?, "121"))?;
    // Nobody changes what is immutable; a pod that comes after a new one of the name has the new.
    for (kind, name, patch) in [
        ("configmap", "fixed", r#"{"data": {"a": "changed"}}"#),
        ("secret", "sealed", r#"{"stringData": {"b": "changed"}}"#),
    ] {
        let output = kubectl.output(&["patch", kind, name, "-p", patch])?;
        has(&output.stderr, &["field is immutable when `immutable` is set"])?;
    }
    for (name, source, words) in [
        (
            "bundle",
            json!({"clusterTrustBundle": {"name": "x", "path": "ca"}}),
            "projected source clusterTrustBundle is not supported",
        ),
        (
            "certificate",
            json!({"podCertificate": {"signerName": "a.example/b", "keyType": "ED25519", "credentialBundlePath": "c"}}),
            "projected source podCertificate is not supported",
        ),
    ] {
        let volumes = json!([{"name": "v", "projected": {"sources": [source]}}]);
        sleeper(world, name, json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}), json!({"volumes": volumes}))?;
        limpet_e2e::pods::has_event(world, name, "FailedMount", words)?;
    }
    let volumes = json!([{"name": "v", "nfs": {"server": "192.0.2.9", "path": "/x"}}]);
    sleeper(world, "far", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}), json!({"volumes": volumes}))?;
    limpet_e2e::pods::has_event(world, "far", "FailedMount", "this volume type is not supported by this node's agent")?;
    delete(world, &["patient", "bundle", "certificate", "far"])
}
