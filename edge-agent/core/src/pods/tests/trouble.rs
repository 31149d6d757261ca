//! Missing things, failing probes, images that do not come.

use super::super::*;
use super::world::*;
use limpet_protocol::ItemKind;
use serde_json::{Value, json};

#[test]
fn a_missing_config_map_holds_the_container_until_it_comes() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({"envFrom": [{"configMapRef": {"name": "cfg"}}]})));
    w.run(1000);
    assert_eq!(w.state("p", "c"), "CreateContainerConfigError");
    let message = w.container("p", "c")["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "configmap \"cfg\" not found");
    assert!(w.has_event("Failed", "Error: configmap \"cfg\" not found"));
    w.put(ItemKind::ConfigMap, "cfg", json!({"data": {"A": "1"}}));
    w.run(0);
    assert_eq!(w.state("p", "c"), "running");
    assert!(w.plans[0].env.contains(&("A".into(), "1".into())));
}

/// Variables in a file that an init container writes: read anew for each attempt.
#[test]
fn variables_are_read_from_files_before_each_attempt() {
    let source = |optional: bool| {
        json!({"fileKeyRef": {"volumeName": "v", "path": "f", "key": "A", "optional": optional}})
    };
    let env = |optional| json!([{"name": "X", "valueFrom": source(optional)}, {"name": "Y", "value": "$(X)!"}]);
    let mut spec = one("Always", json!({"env": env(false)}));
    spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    let mut w = World::new();
    w.pod("p", spec);
    w.run(1000);
    assert_eq!(w.state("p", "c"), "CreateContainerConfigError");
    assert!(w.has_event("Failed", "Error: environment variable file \"f\" not found in volume \"v\""));
    w.env_file = Some("A='one'".into());
    w.run(30_000);
    assert_eq!(w.state("p", "c"), "running");
    w.behave.insert("c".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
    let value = |w: &World, name: &str| {
        let last = w.plans.last().unwrap();
        last.env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    };
    assert_eq!((value(&w, "X").as_deref(), value(&w, "Y").as_deref()), (Some("one"), Some("one!")));
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
    let mut spec = one("Always", json!({"env": env(true)}));
    spec["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
    w.pod("p", spec);
    w.run(500);
    assert_eq!((w.plans.len(), value(&w, "X"), value(&w, "Y").as_deref()), (1, None, Some("$(X)!")));
    w.env_file = Some("A='two'".into());
    w.run(15_000);
    assert_eq!(value(&w, "X").as_deref(), Some("two"));
    assert_eq!(w.log.iter().filter(|l| *l == "read for c").count(), w.plans.len(), "one look for each attempt");
}

/// What a node cannot do for a pod it says: as kubelet's refusal, or as an Event where the pod can run without.
#[test]
fn what_this_node_cannot_do_is_said() {
    let mut w = World::new();
    let mut spec = one("Always", json!({"securityContext": {"seLinuxOptions": {"level": "s0"}}}));
    spec["securityContext"] = json!({"windowsOptions": {"runAsUserName": "x"}, "seLinuxChangePolicy": "Recursive"});
    w.pod("p", spec.clone());
    w.run(1000);
    assert_eq!(w.state("p", "c"), "running");
    assert!(w.has_event("FieldWithoutEffect", "securityContext.seLinuxOptions has no effect"));
    assert!(w.has_event("FieldWithoutEffect", "securityContext.windowsOptions has no effect"));
    assert!(w.has_event("FieldWithoutEffect", "securityContext.seLinuxChangePolicy has no effect"));
    let said = w.events.len();
    w.pod("p", spec);
    w.run(1000);
    assert_eq!(w.events.len(), said, "once is enough");
    let mut spec = one("Always", json!({}));
    spec["os"] = json!({"name": "windows"});
    w.pod("w", spec);
    w.run(1000);
    assert_eq!((w.phase("w"), &w.status["w"]["reason"]), ("Failed", &json!("PodOSNotSupported")));
    for source in ["clusterTrustBundle", "podCertificate"] {
        let mut spec = one("Always", json!({}));
        spec["volumes"] = json!([{"name": "v", "projected": {"sources": [{source: {}}]}}]);
        w.pod(source, spec);
        w.run(1000);
        assert_eq!(w.state(source, "c"), "ContainerCreating");
        assert!(w.has_event("FailedMount", &format!("projected source {source} is not supported by this node's agent")));
    }
}

/// Two pods cannot have one port of the board.
#[test]
fn a_port_of_the_host_is_given_once() {
    let port = |ip: &str, port: u16, protocol: &str| {
        one("Always", json!({"ports": [{"containerPort": 80, "hostPort": port, "hostIP": ip, "protocol": protocol}]}))
    };
    let mut w = World::new();
    w.pod("first", port("192.0.2.1", 8080, "TCP"));
    for (name, spec, fits) in [
        ("other-port", port("", 8081, "TCP"), true),
        ("other-protocol", port("", 8080, "UDP"), true),
        ("other-ip", port("192.0.2.2", 8080, "TCP"), true),
        ("same", port("192.0.2.1", 8080, "TCP"), false),
        ("any-ip", port("0.0.0.0", 8080, "TCP"), false),
    ] {
        w.pod(name, spec);
        w.run(1000);
        let (phase, reason) = (w.phase(name), w.status[name]["reason"].clone());
        let want = if fits { ("Running", json!(null)) } else { ("Failed", json!("NodePorts")) };
        assert_eq!((phase, reason), want, "{name}");
    }
}

#[test]
fn a_missing_secret_volume_holds_the_pod_and_a_changed_one_is_swapped() {
    let mut spec = one("Always", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    spec["volumes"] = json!([{"name": "v", "secret": {"secretName": "sec"}}]);
    let mut w = World::new();
    w.pod("p", spec);
    w.run(1000);
    assert_eq!(w.state("p", "c"), "ContainerCreating");
    assert!(w.has_event("FailedMount", "MountVolume.SetUp failed for volume \"v\" : secret \"sec\" not found"));
    w.put(ItemKind::Secret, "sec", json!({"data": {"k": "YQ=="}}));
    w.run(0);
    assert_eq!(w.state("p", "c"), "running");
    w.put(ItemKind::Secret, "sec", json!({"data": {"k": "Yg=="}}));
    assert_eq!(w.log.iter().filter(|l| *l == "update volumes").count(), 1);
    w.put(ItemKind::Secret, "sec", json!({"data": {"k": "Yg=="}, "metadata": {"labels": {"x": "y"}}}));
    assert_eq!(w.log.iter().filter(|l| *l == "update volumes").count(), 1, "same content");
    w.remove(ItemKind::Secret, "sec");
    assert_eq!(w.log.iter().filter(|l| *l == "update volumes").count(), 1, "what is mounted stays");
    assert_eq!(w.plans.len(), 1, "no restart");
}

#[test]
fn a_token_that_is_on_its_way_is_no_news() {
    let mut spec = one("Always", json!({}));
    spec["volumes"] = json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]);
    let mut w = World::new();
    w.pod("p", spec);
    w.run(1000);
    assert_eq!((w.state("p", "c").as_str(), w.events.len()), ("ContainerCreating", 0));
    w.put(ItemKind::Token, "uid-p.v.0", json!({"token": "x"}));
    w.run(0);
    assert_eq!(w.state("p", "c"), "running");
    assert!(!w.has_event("FailedMount", ""));
}

#[test]
fn a_host_name_that_the_kernel_does_not_take() {
    let mut spec = one("Always", json!({}));
    (spec["hostname"], spec["subdomain"]) = ("h".repeat(60).into(), "s".into());
    spec["setHostnameAsFQDN"] = true.into();
    let mut w = World::new();
    w.pod("p", spec);
    w.run(1000);
    assert_eq!((w.phase("p"), w.sandboxes.len()), ("Pending", 0));
    assert!(w.has_event("FailedCreatePodSandBox", "is too long (64 characters is the max"));
}

/// A Job waits for that word before it lets the pod go.
#[test]
fn a_pod_that_is_deleted_before_anything_ran_has_failed() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { image_fails: Some(ImageError::Pull), ..Behaviour::default() });
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    assert_eq!(w.phase("p"), "Pending");
    w.delete("p", one("Always", json!({})), 1);
    w.run(5000);
    assert_eq!((w.phase("p"), w.gone.as_slice()), ("Failed", ["p".to_string()].as_slice()));
}

#[test]
fn an_image_that_does_not_come() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { image_fails: Some(ImageError::Pull), ..Behaviour::default() });
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    assert_eq!(w.state("p", "c"), "ErrImagePull");
    assert_eq!(w.phase("p"), "Pending");
    w.run(2000);
    assert_eq!(w.state("p", "c"), "ImagePullBackOff");
    assert!(w.has_event("Failed", "Failed to pull image \"i:1\": no route"));
    assert!(w.has_event("Failed", "Error: ImagePullBackOff"));
    assert!(w.has_event("BackOff", "Back-off pulling image \"i:1\""));
    w.told.clear();
    w.run(30_000);
    let [error, waits] = ["ErrImagePull", "ImagePullBackOff"];
    assert_eq!(w.told, [error, waits, error, waits], "it does not flap with each try");
    w.behave.clear();
    w.run(40_000);
    assert_eq!(w.state("p", "c"), "running");
    // Nor while it crashes.
    w.behave.insert("c".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
    w.told.clear();
    w.pod("q", one("Always", json!({})));
    w.run(15_000);
    w.told.dedup();
    let seen = ["ContainerCreating", "running", "Error", "running", "CrashLoopBackOff", "running", "CrashLoopBackOff"];
    assert_eq!(w.told, seen);
}

/// It is looked for on this board: nobody is spared by waiting long.
#[test]
fn an_image_that_may_not_be_pulled_is_looked_for_again_and_again() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { image_fails: Some(ImageError::NeverPull), ..Behaviour::default() });
    w.pod("p", one("Always", json!({"imagePullPolicy": "Never"})));
    w.run(600_000);
    assert_eq!(w.state("p", "c"), "ErrImageNeverPull");
    w.behave.clear();
    w.run(21_000);
    assert_eq!(w.state("p", "c"), "running");
}

/// What is over wakes nobody, whatever it was waiting for.
#[test]
fn a_pod_that_fails_while_an_image_is_missing_is_at_rest() {
    let mut spec = one("Always", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    spec["volumes"] = json!([{"name": "v", "image": {"reference": "v:1"}}]);
    spec["activeDeadlineSeconds"] = json!(1);
    let mut w = World::new();
    w.imageless = Some("v".into());
    w.pod("p", spec);
    w.run(5000);
    assert_eq!((w.phase("p"), w.manager.wake_at()), ("Failed", None));
}

#[test]
fn a_volume_whose_image_does_not_come() {
    let mut spec = one("Always", json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    spec["volumes"] = json!([{"name": "v", "image": {"reference": "v:1"}}]);
    spec["containers"].as_array_mut().unwrap().push(json!({"name": "other", "image": "i:1"}));
    let mut w = World::new();
    w.imageless = Some("v".into());
    w.pod("p", spec);
    w.run(1000);
    assert_eq!((w.state("p", "c"), w.state("p", "other")), ("ErrImagePull".into(), "ContainerCreating".into()));
    assert_eq!(w.container("p", "c")["state"]["waiting"]["message"], "no route");
    w.run(2000);
    assert_eq!(w.state("p", "c"), "ImagePullBackOff");
    let words = "Back-off pulling image \"v:1\": ErrImagePull: no route";
    assert_eq!(w.container("p", "c")["state"]["waiting"]["message"], words);
    assert!(w.has_event("Pulling", "Pulling image \"v:1\"") && w.has_event("Failed", "Error: ErrImagePull"));
    assert!(w.has_event("BackOff", "Back-off pulling image \"v:1\"") && !w.has_event("FailedMount", ""));
    assert_eq!(w.volumes.len(), 1);
    w.run(10_000);
    assert_eq!(w.volumes.len(), 2, "again after ten seconds, then after twenty");
    w.run(10_000);
    assert_eq!(w.volumes.len(), 2);
    w.imageless = None;
    w.run(15_000);
    assert_eq!((w.state("p", "c"), w.state("p", "other")), ("running".into(), "running".into()));
}

#[test]
fn a_program_that_cannot_be_started() {
    for (stage, policy, state, restarts) in [
        (StartStage::Run, "Always", "CrashLoopBackOff", 2),
        (StartStage::Run, "Never", "StartError", 0),
        (StartStage::Create, "Always", "CreateContainerError", 0),
        (StartStage::Config, "Always", "CreateContainerConfigError", 0),
    ] {
        let mut w = World::new();
        w.behave.insert("c".into(), Behaviour { start_fails: Some(stage), ..Behaviour::default() });
        w.pod("p", one(policy, json!({})));
        w.run(12_000);
        assert_eq!(w.state("p", "c"), state, "{stage:?} {policy}");
        assert_eq!(w.has_event("Created", ""), stage == StartStage::Run, "{stage:?}: made, and not run");
        assert_eq!(w.container("p", "c")["restartCount"], restarts);
        // What came of each try is told before the waiting for the next one.
        let of_it: Vec<_> = w.told.iter().filter(|t| *t == "RunContainerError").collect();
        assert_eq!(of_it.len(), if restarts == 0 { 0 } else { 3 }, "{stage:?} {policy}: {:?}", w.told);
        if policy == "Never" {
            assert_eq!(w.phase("p"), "Failed");
            assert_eq!(w.container("p", "c")["state"]["terminated"]["exitCode"], 128);
            assert_eq!(w.container("p", "c")["imageID"], "i@sha256:1");
        }
    }
}

/// A kubelet's worker waits for the hook: until then nobody is told that it runs, and one whose hook failed was never ready.
#[test]
fn a_hook_at_the_start_is_waited_for() {
    let hooked = || one("Always", json!({"lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}));
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { hook_takes_ms: 3000, ..Behaviour::default() });
    w.pod("p", hooked());
    w.run(2000);
    assert_eq!((w.state("p", "c").as_str(), w.phase("p")), ("ContainerCreating", "Pending"));
    w.run(2000);
    assert_eq!((w.state("p", "c").as_str(), w.phase("p")), ("running", "Running"));
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { hook_takes_ms: 500, hook_fails: true, ignores_term: true, ..Behaviour::default() });
    w.pod("p", hooked());
    for _ in 0..400 {
        w.run(100);
        assert_eq!(w.container("p", "c")["ready"], false);
        if w.state("p", "c") == "PostStartHookError" {
            assert_eq!(w.container("p", "c")["lastState"]["terminated"]["exitCode"], 137);
        }
    }
    assert!(w.told.contains(&"PostStartHookError".into()), "{:?}", w.told);
    assert!(w.has_event("FailedPostStartHook", "PostStartHook failed: command exited with 1"));
}

#[test]
fn what_never_ran_is_not_waited_for_when_its_pod_is_over() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { image_fails: Some(ImageError::Pull), ..Behaviour::default() });
    let mut spec = one("Always", json!({}));
    spec["activeDeadlineSeconds"] = json!(4);
    w.pod("p", spec);
    w.run(6000);
    assert_eq!((w.phase("p"), &w.status["p"]["reason"]), ("Failed", &json!("DeadlineExceeded")));
    let ended = &w.container("p", "c")["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("ContainerStatusUnknown"), &json!(137)));
    assert_eq!((&ended["startedAt"], &ended["containerID"]), (&json!(null), &json!(null)));
    // What was not let in has nothing to show.
    let mut spec = one("Always", json!({}));
    spec["os"] = json!({"name": "windows"});
    w.pod("w", spec);
    w.run(1000);
    assert_eq!((w.phase("w"), &w.status["w"]["reason"]), ("Failed", &json!("PodOSNotSupported")));
    assert!(w.status["w"].get("containerStatuses").is_none() && w.status["w"].get("hostIP").is_none());
    assert!(w.status["w"]["message"].as_str().unwrap().starts_with("Pod was rejected: "));
    assert!(!w.events.iter().any(|(_, words)| words.starts_with("Pod was rejected")));
}

#[test]
fn liveness_restarts_after_its_threshold() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({"livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2,
        "failureThreshold": 3, "initialDelaySeconds": 1}})));
    w.run(20_000);
    assert_eq!(w.container("p", "c")["restartCount"], 0);
    w.behave.insert("c".into(), Behaviour { probe_fails: Some(ProbeKind::Liveness), ..Behaviour::default() });
    w.run(7000);
    w.behave.clear();
    w.run(2000);
    assert_eq!(w.container("p", "c")["restartCount"], 1);
    assert!(w.has_event("Unhealthy", "Liveness probe failed: HTTP probe failed with statuscode: 500"));
    assert!(w.has_event("Killing", "Container c failed liveness probe, will be restarted"));
    assert_eq!(w.container("p", "c")["lastState"]["terminated"]["exitCode"], 143);
}

#[test]
fn readiness_follows_the_probe_without_restarts() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { probe_fails: Some(ProbeKind::Readiness), ..Behaviour::default() });
    w.pod("p", one("Always", json!({"readinessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 5}})));
    w.run(1000);
    assert_eq!(w.condition("p", "Ready"), ("False".into(), "ContainersNotReady".into()));
    w.behave.clear();
    w.run(5000);
    assert_eq!(w.condition("p", "Ready").0, "True");
    w.behave.insert("c".into(), Behaviour { probe_fails: Some(ProbeKind::Readiness), ..Behaviour::default() });
    w.run(16_000);
    assert_eq!(w.condition("p", "Ready").0, "False");
    assert_eq!(w.container("p", "c")["restartCount"], 0);
}

#[test]
fn startup_holds_the_other_probes() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { probe_fails: Some(ProbeKind::Startup), ..Behaviour::default() });
    let probe = json!({"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 5});
    w.pod("p", one("Always", json!({"startupProbe": probe, "livenessProbe": probe, "readinessProbe": probe})));
    w.run(3500);
    assert_eq!(w.probes, 4, "startup only");
    assert_eq!(w.container("p", "c")["started"], false);
    w.behave.clear();
    w.run(2000);
    assert_eq!(w.container("p", "c")["started"], true);
    assert_eq!(w.condition("p", "Ready").0, "True");
}

#[test]
fn noise_is_bounded() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({"livenessProbe": {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1}})));
    w.behave.insert("c".into(), Behaviour { probe_fails: Some(ProbeKind::Liveness), ..Behaviour::default() });
    w.run(3_600_000);
    assert!(w.events.len() < 25 + 13, "{}", w.events.len());
}

#[test]
fn an_evicted_pod_fails_for_good() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    assert_eq!(w.phase("p"), "Running");
    w.input(Input::Evict { uid: "uid-p".into(), message: "The node was low on resource: memory. ".into() });
    w.run(3000);
    assert_eq!(w.phase("p"), "Failed");
    assert_eq!(w.condition("p", "DisruptionTarget"), ("True".into(), "TerminationByKubelet".into()));
    assert!(w.has_event("Evicted", "The node was low on resource: memory. "));
    w.run(600_000);
    assert_eq!(w.plans.len(), 1, "it is not started again");
    w.input(Input::Evict { uid: "uid-p".into(), message: "again".into() });
    w.run(1000);
    assert_eq!(w.phase("p"), "Failed");
}

#[test]
fn a_pod_that_the_node_must_not_run_fails_before_anything_is_made() {
    for (context, reason, words) in [
        (json!({"sysctls": [{"name": "kernel.panic", "value": "1"}]}), "SysctlForbidden", "\"kernel.panic\" not allowlisted"),
        (json!({"hostUsers": false}), "UserNamespacesNotSupported", "pods run with the users of the host: an old kernel"),
        (json!({"appArmorProfile": {"type": "RuntimeDefault"}}), "AppArmor", "AppArmor is not enabled on the host"),
    ] {
        let mut w = World::new();
        let mut spec = one("Always", json!({}));
        match context.get("hostUsers") {
            Some(value) => spec["hostUsers"] = value.clone(),
            None => spec["securityContext"] = context,
        }
        w.pod("p", spec);
        w.run(1000);
        assert_eq!(w.phase("p"), "Failed");
        assert!(w.has_event(reason, words), "{reason}");
        assert!(w.plans.is_empty());
    }
}

#[test]
fn a_node_that_runs_short_takes_no_more() {
    let asks = |more: Value| {
        let mut spec = one("Always", json!({"resources": {"requests": {"memory": "1Mi"}}}));
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let bears = |effect: &str| {
        let mut spec = one("Always", json!({}));
        spec["tolerations"] = json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": effect}]);
        spec
    };
    for (pressed, spec, taken) in [
        (vec!["MemoryPressure"], one("Always", json!({})), false),
        (vec!["MemoryPressure"], asks(json!({})), true),
        (vec!["MemoryPressure"], bears("NoSchedule"), true),
        (vec!["MemoryPressure"], bears("NoExecute"), false),
        (vec!["DiskPressure", "MemoryPressure"], asks(json!({})), false),
        (vec!["DiskPressure"], bears("NoSchedule"), false),
        (vec!["PIDPressure"], asks(json!({"priority": 1_999_999_999})), false),
        (vec!["PIDPressure"], asks(json!({"priority": 2_000_000_000})), true),
    ] {
        let mut w = World::new();
        w.pod("early", one("Always", json!({})));
        w.run(1000);
        let host = HostFacts { pressed: pressed.clone(), ..w.manager.host.clone() };
        w.input(Input::Host(host));
        w.pod("p", spec.clone());
        w.run(1000);
        assert_eq!(w.phase("p"), if taken { "Running" } else { "Failed" }, "{pressed:?} {spec}");
        assert_eq!(w.phase("early"), "Running", "who is here stays until it is evicted");
        if !taken {
            let words = format!("The node had condition: [{}]. ", pressed.join(" "));
            let status = &w.status["p"];
            assert_eq!(status["reason"], "Evicted");
            assert_eq!(status["message"], format!("Pod was rejected: {words}"));
            assert!(w.has_event("Evicted", &words));
            assert!(!status["conditions"].to_string().contains("DisruptionTarget"));
            assert!(!w.plans.iter().any(|plan| plan.pod_name == "p"));
        }
        // Static pods are the board's own, and what was here before a power cut is no newcomer.
        let mut w = w.successor(true);
        w.run(1000);
        assert_eq!(w.phase("early"), "Running");
    }
}

/// A command that the image does not have says nothing of how its container is: as on a kubelet, nobody is ended for it.
#[test]
fn a_probe_that_cannot_be_made_ends_nobody() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { probes_are_not_made: true, ..Behaviour::default() });
    let exec = json!({"exec": {"command": ["curl"]}, "periodSeconds": 1, "failureThreshold": 1});
    w.pod("p", one("Always", json!({"livenessProbe": exec, "readinessProbe": exec})));
    w.run(20_000);
    assert_eq!(w.container("p", "c")["restartCount"], 0);
    assert_eq!(w.condition("p", "Ready").0, "False");
    for kind in ["Liveness", "Readiness"] {
        assert!(w.has_event("Unhealthy", &format!("{kind} probe errored and resulted in unknown state: no such file")));
    }
    w.behave.clear();
    w.run(2000);
    assert_eq!(w.condition("p", "Ready").0, "True");
}
