//! Starting, running, ending, being deleted.

use super::world::*;
use limpet_protocol::ItemKind;
use serde_json::json;

#[test]
fn runs_and_reports_as_kubelet() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(0);
    assert_eq!(w.phase("p"), "Running");
    let status = &w.status["p"];
    assert_eq!(status["podIP"], "10.42.0.5");
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["startTime"], "2026-11-23T11:00:00Z");
    let c = w.container("p", "c");
    assert_eq!((&c["ready"], &c["started"], &c["restartCount"]), (&json!(true), &json!(true), &json!(0)));
    assert_eq!(c["imageID"], "i@sha256:1");
    assert!(c["containerID"].as_str().unwrap().starts_with("limpet://"));
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(w.condition("p", kind).0, "True", "{kind}");
    }
    let reasons: Vec<&str> = w.events.iter().map(|(r, _)| r.as_str()).collect();
    assert_eq!(reasons, ["Pulled", "Created", "Started"]);
    let reports = w.status.len();
    w.run(3_600_000);
    assert_eq!((w.status.len(), w.events.len()), (reports, 3), "an idle pod says nothing");
    assert_eq!(w.manager.wake_at(), None, "an idle pod wakes nobody");
}

#[test]
fn restart_policies() {
    for (policy, code, phase, starts) in [
        ("Always", 0, "Running", 4),
        ("Always", 1, "Running", 4),
        ("OnFailure", 1, "Running", 4),
        ("OnFailure", 0, "Succeeded", 1),
        ("Never", 0, "Succeeded", 1),
        ("Never", 3, "Failed", 1),
    ] {
        let mut w = World::new();
        w.behave.insert("c".into(), Behaviour { exits: Some((1000, code)), ..Behaviour::default() });
        w.pod("p", one(policy, json!({})));
        // Ends at 1; at once to 2; 10 s to 13; 20 s to 34.
        w.run(34_500);
        assert_eq!(w.phase("p"), phase, "{policy} {code}");
        assert_eq!(w.plans.len(), starts, "{policy} {code}");
        if starts == 1 {
            assert_eq!(w.state("p", "c"), if code == 0 { "Completed" } else { "Error" });
            assert!(w.log.contains(&"remove sandbox".to_string()));
            let reason = if code == 0 { "PodCompleted" } else { "PodFailed" };
            assert_eq!(w.condition("p", "Ready"), ("False".into(), reason.into()));
        } else {
            assert_eq!(w.state("p", "c"), "CrashLoopBackOff");
            let text = w.container("p", "c")["state"]["waiting"]["message"].as_str().unwrap();
            assert_eq!(text, "back-off 40s restarting failed container=c pod=p_default(uid-p)");
            assert_eq!(w.container("p", "c")["restartCount"], 3);
            assert!(w.has_event("BackOff", "Back-off restarting failed container c in pod p_default(uid-p)"));
        }
    }
}

/// Which attempt's log `kubectl logs` shows, without and with `--previous`, and kubelet's words where there is none.
#[test]
fn whose_log_is_meant() {
    let logged = |w: &World, previous| w.manager.logged("uid-p", "c", previous);
    let waits = |why: &str| Err(format!("container \"c\" in pod \"p\" is waiting to start: {why}"));
    let none = Err("previous terminated container \"c\" in pod \"p\" not found".to_string());
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { image_fails: Some(super::super::ImageError::Pull), ..Behaviour::default() });
    w.pod("p", one("Always", json!({})));
    assert_eq!((logged(&w, false), logged(&w, true)), (waits("ContainerCreating"), none.clone()));
    w.run(1000);
    assert_eq!(logged(&w, false), waits("image can't be pulled"));
    w.run(2000);
    assert_eq!((logged(&w, false), logged(&w, true)), (waits("trying and failing to pull image"), none.clone()));
    w.behave.insert("c".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
    w.run(10_000);
    // It ended, began again at once, and ended: what waits is the third, and the second is the one before.
    assert_eq!(w.state("p", "c"), "CrashLoopBackOff");
    assert_eq!((logged(&w, false), logged(&w, true)), (Ok(1), Ok(1)));
    w.behave.clear();
    w.run(10_000);
    assert_eq!((w.state("p", "c").as_str(), logged(&w, false), logged(&w, true)), ("running", Ok(2), Ok(1)));

    let mut w = World::new();
    w.pod("p", json!({"initContainers": [{"name": "i", "image": "i:1"}], "containers": [{"name": "c", "image": "i:1"}]}));
    w.run(1000);
    assert_eq!(logged(&w, false), waits("PodInitializing"));
    assert_eq!((w.manager.logged("uid-p", "i", false), w.manager.logged("uid-p", "i", true).is_err()), (Ok(0), true));
}

#[test]
fn a_long_run_resets_the_back_off() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
    w.pod("p", one("Always", json!({})));
    w.run(200_000);
    w.behave.insert("c".into(), Behaviour { exits: Some((700_000, 1)), ..Behaviour::default() });
    w.run(1_000_000);
    let before = w.plans.len();
    w.run(700_000);
    assert_eq!(w.plans.len(), before + 1);
    assert_eq!(w.state("p", "c"), "running", "restarted at once");
}

#[test]
fn init_containers_one_by_one_and_sidecars_beside() {
    let mut w = World::new();
    for c in ["i1", "i2"] {
        w.behave.insert(c.into(), Behaviour { exits: Some((1000, 0)), ..Behaviour::default() });
    }
    w.pod(
        "p",
        json!({"restartPolicy": "Always", "initContainers": [{"name": "i1", "image": "i:1"},
            {"name": "side", "image": "i:1", "restartPolicy": "Always"}, {"name": "i2", "image": "i:1"}],
            "containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]}),
    );
    w.run(500);
    assert_eq!(w.phase("p"), "Pending");
    assert_eq!(w.state("p", "a"), "PodInitializing");
    assert_eq!(w.condition("p", "Initialized"), ("False".into(), "ContainersNotInitialized".into()));
    w.run(5000);
    assert_eq!(w.log_without_volumes(), ["sandbox", "start i1 0", "start side 0", "start i2 0", "start a 0", "start b 0"]);
    assert_eq!(w.phase("p"), "Running");
    assert_eq!(w.state("p", "i1"), "Completed");
    assert_eq!(w.container("p", "i1")["ready"], true);
    assert_eq!(w.state("p", "side"), "running");
}

#[test]
fn a_failing_init_container_is_tried_again_or_fails_the_pod() {
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "initContainers": [{"name": "i", "image": "i:1"}],
            "containers": [{"name": "c", "image": "i:1"}]})
    };
    for (policy, phase, starts) in [("Always", "Pending", 3), ("OnFailure", "Pending", 3), ("Never", "Failed", 1)] {
        let mut w = World::new();
        w.behave.insert("i".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
        w.pod("p", spec(policy));
        w.run(20_000);
        assert_eq!((w.phase("p"), w.plans.len()), (phase, starts), "{policy}");
    }
}

#[test]
fn a_job_with_a_sidecar_ends() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { exits: Some((1000, 0)), ..Behaviour::default() });
    w.pod(
        "p",
        json!({"restartPolicy": "Never", "initContainers": [{"name": "side", "image": "i:1", "restartPolicy": "Always"}],
            "containers": [{"name": "c", "image": "i:1"}]}),
    );
    w.run(5000);
    assert_eq!(w.phase("p"), "Succeeded");
    assert!(w.log.contains(&"SIGTERM side".to_string()));
    assert!(w.running.is_empty());
}

#[test]
fn deletion_asks_waits_kills_and_says_goodbye() {
    let spec = || one("Always", json!({}));
    for (ignores, grace, log) in [
        (false, 30, vec!["SIGTERM c", "remove pod"]),
        (true, 5, vec!["SIGTERM c", "SIGKILL c", "remove pod"]),
        // Kubernetes asks always, and waits two seconds at the least.
        (true, 0, vec!["SIGTERM c", "SIGKILL c", "remove pod"]),
        (true, -7, vec!["SIGTERM c", "SIGKILL c", "remove pod"]),
        (false, 0, vec!["SIGTERM c", "remove pod"]),
        (false, i64::MAX, vec!["SIGTERM c", "remove pod"]),
    ] {
        let mut w = World::new();
        w.behave.insert("c".into(), Behaviour { ignores_term: ignores, ..Behaviour::default() });
        w.pod("p", spec());
        w.run(1000);
        w.log.clear();
        w.delete("p", spec(), grace);
        w.run(1900);
        assert_eq!(w.gone.is_empty(), ignores, "{grace}");
        w.run(2100);
        assert_eq!(w.gone.is_empty(), ignores && grace == 5);
        w.run(10_000);
        assert_eq!(w.log_without_volumes(), log);
        assert_eq!(w.gone, ["p"]);
        assert!(w.has_event("Killing", "Stopping container c"));
        assert_eq!(w.state("p", "c"), "Error");
        w.remove(ItemKind::Pod, "p");
        w.run(1000);
        assert!(w.memories.is_empty());
        assert_eq!(w.gone.len(), 1);
    }
}

#[test]
fn pre_stop_runs_first_and_forced_deletion_shortens_it() {
    let spec = || one("Always", json!({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}));
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { hook_takes_ms: 3000, ..Behaviour::default() });
    w.pod("p", spec());
    w.run(1000);
    w.log.clear();
    w.delete("p", spec(), 30);
    w.run(2000);
    assert_eq!(w.log_without_volumes(), ["PreStop c"]);
    w.run(2000);
    assert_eq!(w.log_without_volumes(), ["PreStop c", "SIGTERM c", "remove pod"]);
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { hook_takes_ms: 3_000_000, ignores_term: true, ..Behaviour::default() });
    w.pod("p", spec());
    w.run(1000);
    w.delete("p", spec(), 3600);
    w.run(2000);
    assert!(w.gone.is_empty());
    w.delete("p", spec(), 0);
    w.run(3000);
    assert_eq!(w.gone, ["p"]);
}

#[test]
fn a_hook_has_a_second_of_no_time_at_all() {
    let spec = || {
        let mut spec = one("Always", json!({"lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}));
        spec["terminationGracePeriodSeconds"] = 0.into();
        spec
    };
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { hook_takes_ms: 500, ..Behaviour::default() });
    w.pod("p", spec());
    w.run(1000);
    w.log.clear();
    w.remove(ItemKind::Pod, "p");
    w.run(2000);
    assert_eq!(w.log_without_volumes(), ["PreStop c", "SIGTERM c", "remove pod"]);
}

#[test]
fn removal_without_deletion_stops_it_quietly() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    w.remove(ItemKind::Pod, "p");
    w.run(60_000);
    assert!(w.running.is_empty() && w.gone.is_empty() && w.memories.is_empty());
    assert_eq!(w.manager.pods().count(), 0);
}

#[test]
fn a_pod_of_the_same_name_waits_for_nobody() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { ignores_term: true, ..Behaviour::default() });
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    let mut other = object("p", one("Always", json!({})), None);
    other["metadata"]["uid"] = "second".into();
    w.put(ItemKind::Pod, "p", other);
    w.run(1000);
    assert_eq!(w.running.len(), 2);
    w.run(40_000);
    assert_eq!(w.running.iter().map(|r| &*r.uid).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn active_deadline_fails_the_pod() {
    let mut w = World::new();
    let mut spec = one("Always", json!({}));
    spec["activeDeadlineSeconds"] = 60.into();
    w.pod("p", spec);
    w.run(59_000);
    assert_eq!(w.phase("p"), "Running");
    w.run(5000);
    assert_eq!(w.phase("p"), "Failed");
    assert_eq!(w.status["p"]["reason"], "DeadlineExceeded");
    assert!(w.running.is_empty());
}

/// A board begins in the past and is told the time when it reaches its hub.
#[test]
fn a_deadline_is_no_matter_of_the_clocks_hands() {
    let mut w = World::new();
    let mut spec = one("Always", json!({}));
    spec["activeDeadlineSeconds"] = 60.into();
    w.pod("p", spec.clone());
    w.run(10_000);
    w.now.wall_ms += 365 * 86_400_000;
    w.pod("p", spec.clone());
    w.run(49_000);
    assert_eq!(w.phase("p"), "Running");
    spec["activeDeadlineSeconds"] = i64::MAX.into();
    w.pod("p", spec.clone());
    w.run(100_000);
    assert_eq!(w.phase("p"), "Running");
    spec["activeDeadlineSeconds"] = 30.into();
    w.pod("p", spec);
    w.run(1000);
    assert_eq!(w.status["p"]["reason"], "DeadlineExceeded");
}

#[test]
fn a_new_image_restarts_the_container() {
    let mut w = World::new();
    w.pod("p", one("Always", json!({})));
    w.run(1000);
    w.pod("p", json!({"restartPolicy": "Always", "containers": [{"name": "c", "image": "i:2"}]}));
    w.run(1000);
    assert_eq!(w.state("p", "c"), "running");
    assert_eq!(w.container("p", "c")["restartCount"], 1);
    assert_eq!(w.container("p", "c")["image"], "i:2");
    assert!(w.has_event("Killing", "Container c definition changed, will be restarted"));
    // Whatever is said of ends: this is none.
    let mut w = World::new();
    w.pod("p", one("Never", json!({})));
    w.run(1000);
    w.pod("p", one("Never", json!({"image": "i:2"})));
    w.run(1000);
    assert_eq!((w.phase("p"), w.state("p", "c").as_str()), ("Running", "running"));
    assert_eq!(w.container("p", "c")["restartCount"], 1);
}

/// Whoever mends a pod that crashes sees it run, not wait.
#[test]
fn what_is_mended_does_not_wait() {
    let sized = |cpu: &str| one("Always", json!({"resources": {"requests": {"cpu": cpu}}}));
    let mut image = sized("100m");
    image["containers"][0]["image"] = "i:2".into();
    for mended in [image, sized("200m")] {
        let mut w = World::new();
        w.behave.insert("c".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
        w.pod("p", sized("100m"));
        w.run(60_000);
        assert_eq!(w.state("p", "c"), "CrashLoopBackOff");
        w.behave.clear();
        w.pod("p", mended);
        w.run(1000);
        assert_eq!(w.state("p", "c"), "running");
    }
}

/// Who watches a pod that crashes sees it run, not begin.
#[test]
fn a_restart_is_no_new_beginning() {
    let mut w = World::new();
    w.behave.insert("c".into(), Behaviour { exits: Some((1000, 1)), ..Behaviour::default() });
    w.pod("p", one("Always", json!({})));
    w.run(60_000);
    assert_eq!(w.container("p", "c")["restartCount"], 3);
    let first = w.phases.iter().position(|p| p == "Running").unwrap();
    assert!(w.phases[first..].iter().all(|p| p == "Running"), "{:?}", w.phases);
}
