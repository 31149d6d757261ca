//! Scenarios of schedule in the test world.
//!
//! In: objects and disturbances. Out: what the cluster looks like at rest. Never: a clock or a network.

use super::*;
use crate::world::World;
use serde_json::json;

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "x"}}, "spec": spec})
}

fn decide(w: &mut World, spec: Value) -> Result<String, String> {
    w.create("/pods", pod(spec));
    let p = w.view.pod("a", "p").unwrap_or_else(|| panic!("cannot be read: {:?}", w.objects)).clone();
    let api: &mut crate::world::Api = w;
    let found = api.scheduler.decide(&api.view, &p, 3);
    w.delete("/pods", "a", "p");
    found.map(|p| p.node).map_err(|w| w.message)
}

fn no(reasons: &str, preemption: &str) -> Result<String, String> {
    Err(format!("0/2 nodes are available: {reasons}. preemption: 0/2 nodes are available: {preemption}."))
}

const HOPELESS: &str = "2 Preemption is not helpful for scheduling";

#[test]
fn nodes_are_chosen_or_refused_in_kubernetes_words() {
    let mut w = World::new();
    let spec = |s: Value| s;
    assert_eq!(decide(&mut w, json!({})), Err("no nodes available to schedule pods".into()));
    w.node("n0", json!({"disk": "ssd", "zone": "z0"}), json!([]));
    w.node("n1", json!({"zone": "z1"}), json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]));
    let taint = "1 node(s) had untolerated taint(s)";
    let tolerate = json!([{"key": "k", "operator": "Exists"}]);
    let container = |r: Value| json!([{"name": "c", "resources": {"requests": r}}]);
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "y"}}, "topologyKey": "zone"}]}});
    let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "y"}}, "topologyKey": "zone"}]}});
    let node = |names: Value| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]}]}}})
    };
    w.create(
        "/pods",
        json!({"metadata": {"name": "y", "namespace": "a", "labels": {"app": "y"}},
        "spec": {"nodeName": "n0", "containers": [{"name": "c", "resources": {"requests": {"cpu": "3"}},
            "ports": [{"containerPort": 80, "hostPort": 80}]}]}}),
    );
    let cases: Vec<(Value, Result<String, String>)> = vec![
        (json!({}), Ok("n0".into())),
        (json!({"tolerations": tolerate}), Ok("n1".into())),
        (json!({"nodeSelector": {"disk": "ssd"}}), Ok("n0".into())),
        (
            json!({"nodeSelector": {"disk": "none"}, "tolerations": tolerate}),
            no("2 node(s) didn't match Pod's node affinity/selector", HOPELESS),
        ),
        (
            json!({"nodeSelector": {"disk": "none"}}),
            no(&format!("1 node(s) didn't match Pod's node affinity/selector, {taint}"), HOPELESS),
        ),
        (
            json!({"containers": container(json!({"cpu": "2"}))}),
            no(
                &format!("1 Insufficient cpu, {taint}"),
                "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling",
            ),
        ),
        (
            json!({"containers": container(json!({"cpu": "20", "x.io/y": 1})), "tolerations": tolerate}),
            no("2 Insufficient cpu, 2 Insufficient x.io/y", HOPELESS),
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]}),
            no(
                &format!("1 node(s) didn't have free ports for the requested pod ports, {taint}"),
                "1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling",
            ),
        ),
        (json!({"affinity": anti, "tolerations": tolerate}), Ok("n1".into())),
        (json!({"affinity": near, "tolerations": tolerate}), Ok("n0".into())),
        (json!({"affinity": node(json!(["n1"])), "tolerations": tolerate}), Ok("n1".into())),
        (
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
            no("persistentvolumeclaim \"c\" not found", HOPELESS),
        ),
    ];
    for (s, expect) in cases {
        assert_eq!(decide(&mut w, spec(s.clone())), expect, "{s}");
    }
    w.patch("/nodes", "", "n0", json!({"spec": {"unschedulable": true}}));
    assert_eq!(decide(&mut w, json!({})), no(&format!("{taint}, 1 node(s) were unschedulable"), HOPELESS));
}

#[test]
fn constraints_spread_pods_over_zones() {
    let mut w = World::new();
    w.node("n0", json!({"zone": "z0"}), json!([]));
    w.node("n1", json!({"zone": "z1"}), json!([]));
    let running = |name: &str| {
        json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": "x"}},
        "spec": {"nodeName": "n0"}})
    };
    w.create("/pods", running("a1"));
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}]});
    assert_eq!(decide(&mut w, spread.clone()), Ok("n1".into()));
    w.patch("/nodes", "", "n1", json!({"spec": {"unschedulable": true}}));
    let message = decide(&mut w, spread).unwrap_err();
    assert!(message.contains("1 node(s) didn't match pod topology spread constraints"), "{message}");
}

#[test]
fn a_pod_without_a_node_says_why_once_and_is_woken() {
    let mut w = World::with_nodes(1);
    w.create("/pods", pod(json!({"nodeSelector": {"disk": "ssd"}})));
    w.settle();
    let p = w.get("/pods", "a", "p");
    assert_eq!(p["status"]["conditions"][0]["reason"], "Unschedulable");
    assert_eq!(w.events.iter().filter(|e| e.2 == "FailedScheduling").count(), 1);
    w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"disk": "ssd"}}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "p")["spec"]["nodeName"], "n0");
    assert!(w.events.iter().any(|e| e.3 == "Successfully assigned a/p to n0"));
}

#[test]
fn gates_hold_a_pod_back() {
    let mut w = World::with_nodes(1);
    w.create("/pods", pod(json!({"schedulingGates": [{"name": "g"}]})));
    w.settle();
    assert_eq!(w.get("/pods", "a", "p")["status"]["conditions"][0]["reason"], "SchedulingGated");
    w.patch("/pods", "a", "p", json!({"spec": {"schedulingGates": null}}));
    w.settle();
    assert_eq!(w.get("/pods", "a", "p")["spec"]["nodeName"], "n0");
}

/// A pod with a priority that asks for so much CPU.
fn wants(name: &str, priority: i64, cpu: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": name}}, "spec": {"priority": priority,
        "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn node_of(w: &World, name: &str) -> Option<String> {
    w.view.pod("a", name).and_then(|p| p.node.as_ref().map(|n| n.to_string()))
}

#[test]
fn the_less_important_make_room_for_the_more_important() {
    let mut w = World::with_nodes(1);
    for (name, priority) in [("low", 1), ("lower", 0), ("mid", 5)] {
        w.create("/pods", wants(name, priority, "1"));
    }
    w.settle();
    w.create("/pods", wants("same", 5, "3"));
    w.settle();
    assert!(node_of(&w, "same").is_some(), "the two least important gave way");
    assert!(!w.exists("/pods", "a", "low") && !w.exists("/pods", "a", "lower") && w.exists("/pods", "a", "mid"));
    let preempted: Vec<_> = w.events.iter().filter(|e| e.2 == "Preempted").map(|e| e.1.clone()).collect();
    assert_eq!(preempted, ["low", "lower"], "the more important of the victims is named first");
    let mut polite = wants("polite", 100, "4");
    polite["spec"]["preemptionPolicy"] = json!("Never");
    w.create("/pods", polite);
    w.settle();
    let message = w.view.pod("a", "polite").unwrap().status.unscheduled.clone().unwrap();
    assert_eq!(
        &*message,
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
    w.create("/pods", wants("equal", 5, "2"));
    w.settle();
    assert!(w.exists("/pods", "a", "mid") && node_of(&w, "equal").is_none(), "equals are left alone");
}

#[test]
fn room_that_was_made_is_kept_for_whom_it_was_made() {
    let mut w = World::with_nodes(1);
    w.create("/pods", wants("low", 0, "3"));
    w.settle();
    w.kubelet = false;
    w.create("/pods", wants("high", 9, "3"));
    w.settle();
    let high = w.get("/pods", "a", "high");
    assert_eq!(high["status"]["nominatedNodeName"], "n0");
    assert_eq!(high["status"]["conditions"][0]["message"], "0/1 nodes are available: 1 Insufficient cpu.");
    assert!(w.get("/pods", "a", "low")["metadata"]["deletionTimestamp"].is_string(), "gracefully");
    let conditions = w.get("/pods", "a", "low")["status"]["conditions"].to_string();
    assert!(conditions.contains("PreemptionByScheduler"), "{conditions}");
    w.create("/pods", wants("thief", 3, "3"));
    w.settle();
    let key = Key::new("/pods", "a", "low");
    w.delete_with(&key, Some(0), None);
    w.settle();
    assert_eq!((node_of(&w, "high"), node_of(&w, "thief")), (Some("n0".into()), None));
}

#[test]
fn budgets_are_respected_where_there_is_a_choice() {
    let mut w = World::with_nodes(2);
    for (name, node) in [("guarded", "n0"), ("free", "n1")] {
        let mut pod = wants(name, 0, "4");
        pod["spec"]["nodeName"] = json!(node);
        w.create("/pods", pod);
    }
    w.create("policy/poddisruptionbudgets", json!({"metadata": {"name": "b", "namespace": "a"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
        "status": {"disruptionsAllowed": 0}}));
    w.settle();
    w.create("/pods", wants("high", 9, "4"));
    w.settle();
    assert_eq!(node_of(&w, "high"), Some("n1".into()));
    assert!(w.exists("/pods", "a", "guarded") && !w.exists("/pods", "a", "free"));
}

#[test]
fn preemption_helps_against_anti_affinity_and_ports() {
    let mut w = World::with_nodes(1);
    let mut low = wants("low", 0, "1");
    low["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
    w.create("/pods", low);
    w.create("/pods", wants("other", 0, "1"));
    w.settle();
    let mut high = wants("high", 5, "1");
    high["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "low"}}, "topologyKey": "kubernetes.io/hostname"}]}});
    w.create("/pods", high);
    w.settle();
    assert_eq!(node_of(&w, "high"), Some("n0".into()));
    assert!(!w.exists("/pods", "a", "low") && w.exists("/pods", "a", "other"), "only who is in the way goes");
}

#[test]
fn other_schedulers_pods_are_left_to_them_and_profiles_pack_or_spread() {
    let mut w = World::with_nodes(2);
    let mut foreign = wants("foreign", 0, "1");
    foreign["spec"]["schedulerName"] = json!("somebody-else");
    w.create("/pods", foreign);
    w.settle();
    assert!(node_of(&w, "foreign").is_none() && w.get("/pods", "a", "foreign")["status"]["conditions"].is_null());
    let config = json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "profiles": [{"schedulerName": "packs", "plugins": {"score": {"disabled": [{"name": "*"}],
            "enabled": [{"name": "NodeResourcesFit"}]}}, "pluginConfig": [{"name": "NodeResourcesFit",
            "args": {"scoringStrategy": {"type": "MostAllocated"}}}]}]});
    w.scheduler = Scheduler::new(Config::parse(&config).unwrap());
    let mut first = wants("first", 0, "1");
    first["spec"]["nodeName"] = json!("n1");
    w.create("/pods", first);
    for name in ["x", "y"] {
        let mut pod = wants(name, 0, "1");
        pod["spec"]["schedulerName"] = json!("packs");
        w.create("/pods", pod);
    }
    w.settle();
    assert_eq!((node_of(&w, "x"), node_of(&w, "y")), (Some("n1".into()), Some("n1".into())));
}

#[test]
fn pods_of_one_owner_spread_over_nodes_by_themselves() {
    let mut w = World::with_nodes(4);
    w.create("apps/deployments", json!({"metadata": {"name": "web", "namespace": "a"}, "spec": {"replicas": 8,
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
    w.settle();
    for n in 0..4 {
        assert_eq!(w.view.pods_on(&format!("n{n}")).count(), 2);
    }
}

#[test]
fn volumes_say_where_a_pod_can_be() {
    let mut w = World::new();
    w.node("n0", json!({}), json!([]));
    w.node("n1", json!({}), json!([]));
    let on = |node: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}});
    w.create("/persistentvolumes", json!({"metadata": {"name": "v1"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "late", "nodeAffinity": on("n1")}}));
    w.create("storage.k8s.io/storageclasses", json!({"metadata": {"name": "late"},
        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer"}));
    let claim = |name: &str, size: &str| json!({"metadata": {"name": name, "namespace": "a"},
        "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}}}, "status": {"phase": "Pending"}});
    w.create("/persistentvolumeclaims", claim("c", "1Gi"));
    w.create("/persistentvolumeclaims", claim("big", "9Gi"));
    let uses = |name: &str, claim: &str| {
        let mut pod = wants(name, 0, "1");
        pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
        pod
    };
    w.create("/pods", uses("p", "c"));
    w.create("/pods", uses("q", "big"));
    w.scheduler_only();
    assert_eq!(w.get("/persistentvolumes", "", "v1")["spec"]["claimRef"]["name"], "c", "chosen with the node");
    assert!(node_of(&w, "p").is_none(), "not before the claim is bound");
    let message = w.view.pod("a", "q").unwrap().status.unscheduled.clone().unwrap();
    assert!(message.contains("2 node(s) didn't find available persistent volumes to bind"), "{message}");
    w.patch("/persistentvolumeclaims", "a", "c", json!({"spec": {"volumeName": "v1"}, "status": {"phase": "Bound"}}));
    w.scheduler_only();
    assert_eq!(node_of(&w, "p"), Some("n1".into()));
}

#[test]
fn device_claims_are_waited_for_and_reserved() {
    let mut w = World::with_nodes(2);
    let mut pod = wants("p", 0, "1");
    pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimName": "c"}]);
    w.create("/pods", pod);
    w.scheduler_only();
    let message = |w: &World| w.view.pod("a", "p").unwrap().status.unscheduled.clone().unwrap_or_default();
    assert!(message(&w).contains("resourceclaim.resource.k8s.io \"c\" not found"), "{}", message(&w));
    w.create("resource.k8s.io/deviceclasses", json!({"metadata": {"name": "gpu"}, "spec": {}}));
    w.create("resource.k8s.io/resourceclaims", json!({"metadata": {"name": "c", "namespace": "a"}, "spec": {
        "devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}));
    w.scheduler_only();
    assert!(message(&w).contains("2 cannot allocate all claims"), "{}", message(&w));
    let node = json!({"nodeSelectorTerms": [{"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
    w.patch("resource.k8s.io/resourceclaims", "a", "c", json!({"status": {"allocation": {"nodeSelector": node}}}));
    w.scheduler_only();
    assert_eq!(node_of(&w, "p"), Some("n1".into()));
    let claim = w.get("resource.k8s.io/resourceclaims", "a", "c");
    assert_eq!(claim["status"]["reservedFor"][0]["name"], "p");
}

#[test]
fn pods_wake_for_what_could_cure_them_and_for_nothing_else() {
    let mut w = World::with_nodes(1);
    w.scheduler = Scheduler::default();
    w.create("/pods", pod(json!({"nodeSelector": {"disk": "ssd"}})));
    w.create("/pods", wants("big", 0, "9"));
    w.settle();
    assert_eq!(w.scheduler.waiting().unschedulable, 2);
    w.create("/pods", json!({"metadata": {"name": "b", "namespace": "a"}, "spec": {"nodeName": "n0"}}));
    w.patch("/nodes", "", "n0", json!({"metadata": {"annotations": {"x": "y"}}}));
    w.delete_with(&Key::new("/pods", "a", "b"), Some(0), None);
    let waiting = w.scheduler.waiting();
    assert_eq!((waiting.unschedulable, waiting.backoff), (1, 1), "a pod that went could make room, no label");
    w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"disk": "hdd"}}}));
    assert_eq!(w.scheduler.waiting().unschedulable, 1, "not the label that is wanted");
    w.patch("/nodes", "", "n0", json!({"metadata": {"labels": {"disk": "ssd"}}}));
    assert_eq!(w.scheduler.waiting().unschedulable, 0);
}

/// A board whose agent is too old for what a pod's rules ask is passed over, until it says that it can.
#[test]
fn pods_go_where_their_features_are_declared() {
    let mut w = World::with_nodes(2);
    let rules = |action: &str| {
        let rule = json!({"action": action, "exitCodes": {"operator": "In", "values": [7]}});
        json!({"containers": [{"name": "c", "restartPolicy": "Never", "restartPolicyRules": [rule]}]})
    };
    let lacking = "2 node declared features check failed - unsatisfied requirements: RestartAllContainersOnContainerExits";
    assert_eq!(decide(&mut w, rules("RestartAllContainers")), no(lacking, HOPELESS));
    assert!(decide(&mut w, rules("Restart")).is_ok(), "every node knows that one");
    w.scheduler = Scheduler::default();
    w.create("/pods", pod(rules("RestartAllContainers")));
    w.settle();
    assert_eq!(w.scheduler.waiting().unschedulable, 1);
    w.patch("/nodes", "", "n1", json!({"status": {"declaredFeatures": ["Other"]}}));
    w.settle();
    assert_eq!(w.view.pod("a", "p").unwrap().node, None);
    w.patch("/nodes", "", "n1", json!({"status": {"declaredFeatures": ["RestartAllContainersOnContainerExits"]}}));
    assert_eq!(w.scheduler.waiting().unschedulable, 0, "it is tried again");
    w.pass(20);
    assert_eq!(w.view.pod("a", "p").unwrap().node.as_deref(), Some("n1"));
}

/// Counts that are kept from event to event are what a fresh count gives.
#[test]
fn a_scheduler_that_remembers_decides_as_one_that_does_not() {
    let mut w = World::new();
    for n in 0..6 {
        w.node(&format!("n{n}"), json!({"topology.kubernetes.io/zone": format!("z{}", n % 3)}), json!([]));
    }
    let spec = json!({"containers": [{"name": "c", "image": "i"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "x"}}}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10,
            "podAffinityTerm": {"labelSelector": {"matchLabels": {"app": "x"}},
                "topologyKey": "kubernetes.io/hostname"}}]}}});
    for i in 0..30u64 {
        let mut one = pod(spec.clone());
        one["metadata"]["name"] = json!(format!("p{i}"));
        w.create("/pods", one);
        let p = w.view.pod("a", &format!("p{i}")).unwrap().clone();
        let mut remembers = w.scheduler.clone();
        assert_eq!(remembers.decide(&w.view, &p, i), Scheduler::default().decide(&w.view, &p, i), "pod {i}");
        w.settle();
        if i % 4 == 3 {
            w.delete("/pods", "a", &format!("p{}", i - 2));
            w.settle();
        }
    }
    let zone = |z: usize| (0..6).filter(|n| n % 3 == z).map(|n| w.view.pods_on(&format!("n{n}")).count()).sum::<usize>();
    let zones = [zone(0), zone(1), zone(2)];
    assert!(zones.iter().max().unwrap() - zones.iter().min().unwrap() <= 2, "{zones:?}");
}
