//! Tables of claims, devices and what comes out.
//!
//! In: slices, classes, claims. Out: where pods go and which devices their claims get. Never: a driver.

use crate::world::World;
use serde_json::{Value, json};

const CLAIMS: &str = "resource.k8s.io/resourceclaims";
const SLICES: &str = "resource.k8s.io/resourceslices";

/// Two boards: n0 has two cameras, n1 has a camera and two accelerators on two buses.
fn world() -> World {
    let mut w = World::with_nodes(2);
    let camera = |name: &str, lines: i64| {
        json!({"name": name, "attributes": {"kind": {"string": "camera"}, "lines": {"int": lines},
            "firmware": {"version": "1.2.0"}}, "capacity": {"buffer": {"value": format!("{}Mi", lines / 10)}}})
    };
    let board = |name: &str, bus: &str| {
        json!({"name": name, "attributes": {"kind": {"string": "npu"}, "hw.example.org/bus": {"string": bus}}})
    };
    let mut usb = camera("cam0", 720);
    usb["attributes"]["hw.example.org/bus"] = json!({"string": "b1"});
    slice(&mut w, "n0", 1, 1, json!([camera("cam0", 720), camera("cam1", 1080)]));
    slice(&mut w, "n1", 1, 1, json!([usb, board("npu0", "b0"), board("npu1", "b1")]));
    for (name, kind) in [("camera", "camera"), ("npu", "npu")] {
        let expression = format!("device.driver == 'dev.example.org' && device.attributes['dev.example.org'].kind == '{kind}'");
        w.create("resource.k8s.io/deviceclasses", json!({"metadata": {"name": name}, "spec": {
            "selectors": [{"cel": {"expression": expression}}],
            "config": [{"opaque": {"driver": "dev.example.org", "parameters": {"of": name}}}]}}));
    }
    w
}

fn slice(w: &mut World, node: &str, generation: i64, count: i64, devices: Value) {
    w.create(SLICES, json!({"metadata": {"name": format!("{node}-{generation}")}, "spec": {"driver": "dev.example.org",
        "pool": {"name": node, "generation": generation, "resourceSliceCount": count}, "nodeName": node,
        "devices": devices}}));
}

fn claim(w: &mut World, name: &str, devices: Value) {
    w.create(CLAIMS, json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"devices": devices}}));
}

fn pod(w: &mut World, name: &str, claim: &str) {
    w.create("/pods", json!({"metadata": {"name": name, "namespace": "a"}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "resourceClaims": [{"name": "d", "resourceClaimName": claim}]}}));
}

/// The node of a pod with a claim, and its devices as `request=device`; or why there is none.
fn outcome(w: &mut World, name: &str, devices: Value) -> String {
    claim(w, name, devices);
    pod(w, name, name);
    w.settle();
    said(w, name)
}

fn said(w: &World, name: &str) -> String {
    let p = w.view.pod("a", name).unwrap();
    if let Some(message) = &p.status.unscheduled {
        let message = message.strip_prefix("0/2 nodes are available: ").unwrap_or(message);
        return message.split(". preemption").next().unwrap_or_default().to_owned();
    }
    let status = w.get(CLAIMS, "a", name)["status"].clone();
    let results = status["allocation"]["devices"]["results"].as_array().cloned().unwrap_or_default();
    let text = |r: &Value, f: &str| r[f].as_str().unwrap_or_default().to_owned();
    let each: Vec<String> = results.iter().map(|r| text(r, "request") + "=" + &text(r, "device")).collect();
    format!("{}: {}", p.node.as_deref().unwrap_or_default(), each.join(" "))
}

fn exactly(class: &str, more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": 1});
    more.as_object().unwrap().iter().for_each(|(k, v)| exactly[k] = v.clone());
    json!([{"name": "r", "exactly": exactly}])
}

#[test]
fn requests_get_devices_or_reasons() {
    let cel = |e: &str| json!({"selectors": [{"cel": {"expression": e}}]});
    let own = "device.attributes['dev.example.org']";
    let none = "2 cannot allocate all claims";
    let cases: Vec<(Value, String)> = vec![
        (exactly("npu", json!({})), "n1: r=npu0".into()),
        (exactly("npu", json!({"count": 2})), "n1: r=npu0 r=npu1".into()),
        (exactly("npu", json!({"count": 3})), none.into()),
        (exactly("npu", json!({"allocationMode": "All"})), "n1: r=npu0 r=npu1".into()),
        (exactly("camera", cel(&format!("{own}.lines >= 1080"))), "n0: r=cam1".into()),
        (exactly("camera", cel(&format!("{own}.firmware.isGreaterThan(semver('1.0.0')) && {own}.lines > 1000"))),
            "n0: r=cam1".into()),
        (exactly("camera", cel("device.capacity['dev.example.org'].buffer.compareTo(quantity('100Mi')) > 0")),
            "n0: r=cam1".into()),
        // A domain that a device has not is empty, not an error.
        (exactly("camera", cel("'bus' in device.attributes['hw.example.org']")), "n1: r=cam0".into()),
        (exactly("camera", cel(&format!("{own}.colour == 'red'"))), "2 no such key: colour".into()),
        (exactly("camera", cel("device.nothing")), "claim c: request r: selector #0: CEL compile error".into()),
        (exactly("robot", json!({})), "request r: device class robot does not exist".into()),
    ];
    for (requests, expected) in cases {
        let mut w = world();
        let found = outcome(&mut w, "c", json!({"requests": requests}));
        assert!(found.contains(&expected), "{requests}: {found}, not {expected}");
    }
}

#[test]
fn alternatives_and_constraints_are_searched_together() {
    let sub = |name: &str, class: &str, count: i64| {
        json!({"name": name, "deviceClassName": class, "allocationMode": "ExactCount", "count": count})
    };
    let two = |constraint: Value| {
        let one = |name: &str, class: &str| json!({"name": name, "exactly": sub("", class, 1)});
        json!({"requests": [one("eye", "camera"), one("brain", "npu")], "constraints": [constraint]})
    };
    let first = |constraint: Value| {
        json!({"requests": [{"name": "r", "firstAvailable": [sub("best", "npu", 3), sub("good", "npu", 1)]},
            {"name": "eye", "exactly": sub("", "camera", 1)}], "constraints": constraint})
    };
    let bus = |requests: Value| json!({"requests": requests, "matchAttribute": "hw.example.org/bus"});
    let cases = [
        (two(bus(json!(["eye", "brain"]))), "n1: eye=cam0 brain=npu1"),
        (two(bus(json!([]))), "n1: eye=cam0 brain=npu1"),
        (two(bus(json!(["brain"]))), "n1: eye=cam0 brain=npu0"),
        (two(json!({"distinctAttribute": "hw.example.org/bus"})), "n1: eye=cam0 brain=npu0"),
        (two(json!({"matchAttribute": "hw.example.org/none"})), "2 cannot allocate all claims"),
        (first(json!([])), "n1: r/good=npu0 eye=cam0"),
        (first(json!([bus(json!(["r", "eye"]))])), "n1: r/good=npu1 eye=cam0"),
        (first(json!([bus(json!(["r/good", "eye"]))])), "n1: r/good=npu1 eye=cam0"),
    ];
    for (devices, expected) in cases {
        assert_eq!(outcome(&mut world(), "c", devices.clone()), expected, "{devices}");
    }
}

#[test]
fn no_device_is_given_twice_and_it_comes_back() {
    let mut w = world();
    assert_eq!(outcome(&mut w, "a1", json!({"requests": exactly("npu", json!({}))})), "n1: r=npu0");
    assert_eq!(outcome(&mut w, "a2", json!({"requests": exactly("npu", json!({}))})), "n1: r=npu1");
    let none = "2 cannot allocate all claims";
    assert_eq!(outcome(&mut w, "a3", json!({"requests": exactly("npu", json!({}))})), none);
    assert_eq!(outcome(&mut w, "all", json!({"requests": exactly("npu", json!({"allocationMode": "All"}))})), none);
    let admin = json!({"allocationMode": "All", "adminAccess": true});
    assert_eq!(outcome(&mut w, "watch", json!({"requests": exactly("npu", admin)})), "n1: r=npu0 r=npu1");
    // A second pod of the same claim goes to where its devices are.
    pod(&mut w, "friend", "a1");
    w.settle();
    assert_eq!(w.view.pod("a", "friend").unwrap().node.as_deref(), Some("n1"));
    let claim = w.get(CLAIMS, "a", "a1");
    assert_eq!(claim["status"]["reservedFor"].as_array().unwrap().len(), 2);
    assert_eq!(claim["metadata"]["finalizers"], json!(["resource.kubernetes.io/delete-protection"]));
    assert_eq!(claim["status"]["allocation"]["devices"]["config"], json!([{"source": "FromClass", "requests": ["r"],
        "opaque": {"driver": "dev.example.org", "parameters": {"of": "npu"}}}]));
    let here = json!({"key": "metadata.name", "operator": "In", "values": ["n1"]});
    assert_eq!(claim["status"]["allocation"]["nodeSelector"], json!({"nodeSelectorTerms": [{"matchFields": [here]}]}));
    w.delete("/pods", "a", "a2");
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(600)).unwrap();
    w.settle();
    let freed = w.get(CLAIMS, "a", "a2");
    assert!(freed["status"]["allocation"].is_null() && freed["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(said(&w, "a3"), "n1: r=npu1", "who waited gets it");
}

#[test]
fn decisions_on_their_way_hold_their_devices() {
    let mut w = world();
    for name in ["x", "y", "z"] {
        claim(&mut w, name, json!({"requests": exactly("npu", json!({}))}));
        pod(&mut w, name, name);
    }
    // Three plans before any of them is carried out.
    let mut scheduler = std::mem::take(&mut w.scheduler);
    let mut devices = Vec::new();
    for name in ["x", "y", "z"] {
        let key = crate::Key::new("/pods", "a", name);
        let plan = scheduler.plan(&w.view, &key, w.now, 1);
        let patches = plan.changes.iter().filter_map(|c| match c {
            crate::Change::Patch { merge, .. } => merge.pointer("/status/allocation/devices/results/0/device").cloned(),
            _ => None,
        });
        devices.extend(patches);
    }
    assert_eq!(devices, ["npu0", "npu1"]);
    // One of them fails: its device is free again.
    scheduler.failed(&crate::Key::new("/pods", "a", "x"), w.now);
    let plan = scheduler.plan(&w.view, &crate::Key::new("/pods", "a", "z"), w.now, 1);
    assert!(plan.changes.iter().any(|c| matches!(c, crate::Change::Bind { .. })));
}

#[test]
fn pools_count_when_they_are_complete_and_new() {
    let mut w = World::with_nodes(1);
    w.create("resource.k8s.io/deviceclasses", json!({"metadata": {"name": "any"}, "spec": {}}));
    let device = |name: &str| json!([{"name": name}]);
    let gone = json!([{"name": "new", "taints": [{"key": "broken", "effect": "NoSchedule"}]}]);
    slice(&mut w, "n0", 1, 1, device("old"));
    w.create("/pods", json!({"metadata": {"name": "other", "namespace": "a"}, "spec": {}}));
    let said = |w: &mut World, name: &str, more: Value| {
        outcome(w, name, json!({"requests": exactly("any", more)})).replace("0/1 nodes are available: ", "")
    };
    slice(&mut w, "n0", 2, 2, gone);
    assert_eq!(said(&mut w, "c", json!({})), "1 cannot allocate all claims", "half of generation 2");
    w.patch(SLICES, "", "n0-2", json!({"spec": {"pool": {"resourceSliceCount": 1}}}));
    assert_eq!(said(&mut w, "d", json!({})), "1 cannot allocate all claims", "the taint");
    let tolerations = json!([{"key": "broken", "operator": "Exists"}]);
    assert_eq!(said(&mut w, "e", json!({"tolerations": tolerations})), "n0: r=new");
}

/// Partitions of a card: two halves and the whole take from the same memory.
#[test]
fn devices_that_share_counters_are_given_while_there_is_enough() {
    let card = |set: &str| {
        let part = |name: &str, memory: &str| {
            json!({"name": name, "attributes": {"kind": {"string": name.split('-').next()}},
                "consumesCounters": [{"counterSet": set, "counters": {"memory": {"value": memory}}}]})
        };
        json!([part("half-0", "20Gi"), part("half-1", "20Gi"), part("whole-0", "40Gi")])
    };
    let world = |set: &str, value: &str| {
        let mut w = World::with_nodes(1);
        for kind in ["half", "whole"] {
            let expression = format!("device.attributes['dev.example.org'].kind == '{kind}'");
            w.create("resource.k8s.io/deviceclasses", json!({"metadata": {"name": kind},
                "spec": {"selectors": [{"cel": {"expression": expression}}]}}));
        }
        // Counters and devices are in slices of their own.
        slice(&mut w, "n0", 1, 2, card(set));
        w.create(SLICES, json!({"metadata": {"name": "counters"}, "spec": {"driver": "dev.example.org", "nodeName": "n0",
            "pool": {"name": "n0", "generation": 1, "resourceSliceCount": 2},
            "sharedCounters": [{"name": "card", "counters": {"memory": {"value": value}}}]}}));
        w
    };
    let none = "0/1 nodes are available: 1 cannot allocate all claims";
    let mut w = world("card", "40Gi");
    let mut asks = |name: &str, class: &str, more: Value| {
        outcome(&mut w, name, json!({"requests": exactly(class, more)}))
    };
    assert_eq!(asks("three", "half", json!({"count": 3})), none);
    assert_eq!(asks("one", "half", json!({})), "n0: r=half-0");
    assert_eq!(asks("all", "whole", json!({})), none, "20Gi are left of 40");
    assert_eq!(asks("look", "whole", json!({"adminAccess": true})), "n0: r=whole-0", "who only looks takes nothing");
    assert_eq!(asks("two", "half", json!({})), "n0: r=half-1");
    for name in ["one", "two"] {
        w.delete("/pods", "a", name);
    }
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(600)).unwrap();
    w.settle();
    assert_eq!(said(&w, "all"), "n0: r=whole-0", "what comes back is there for others");
    // In one claim as well: what was chosen before counts.
    let both = json!({"requests": [exactly("whole", json!({}))[0].clone(),
        {"name": "s", "exactly": {"deviceClassName": "half", "allocationMode": "ExactCount", "count": 1}}]});
    assert_eq!(outcome(&mut world("card", "59Gi"), "c", both.clone()), none);
    assert_eq!(outcome(&mut world("card", "60Gi"), "c", both), "n0: r=whole-0 s=half-0");
    let half = json!({"requests": exactly("half", json!({}))});
    assert_eq!(outcome(&mut world("card", "20Gi"), "c", half.clone()), "n0: r=half-0");
    assert_eq!(outcome(&mut world("another", "40Gi"), "c", half), none, "a counter that nobody declared");
}

#[test]
fn shared_devices_are_given_while_there_is_capacity() {
    let mut w = World::with_nodes(1);
    w.create("resource.k8s.io/deviceclasses", json!({"metadata": {"name": "any"}, "spec": {}}));
    let policy = json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "1Gi"}});
    let shared = |name: &str, memory: &str| {
        json!({"name": name, "allowMultipleAllocations": true, "attributes": {"id": {"string": name}},
            "capacity": {"memory": {"value": memory, "requestPolicy": policy}}})
    };
    slice(&mut w, "n0", 1, 1, json!([shared("s0", "4Gi"), shared("s1", "2Gi")]));
    let memory = |amount: &str| json!({"capacity": {"requests": {"memory": amount}}});
    let none = "0/1 nodes are available: 1 cannot allocate all claims";
    let mut asks = |name: &str, more: Value| outcome(&mut w, name, json!({"requests": exactly("any", more)}));
    assert_eq!(asks("a", memory("2500Mi")), "n0: r=s0");
    assert_eq!(asks("b", memory("2Gi")), "n0: r=s1", "1Gi is left of the first");
    assert_eq!(asks("c", json!({})), "n0: r=s0", "the default");
    assert_eq!(asks("d", json!({})), none);
    assert_eq!(asks("e", memory("9Gi")), none);
    let result = |w: &World, name: &str| w.get(CLAIMS, "a", name)["status"]["allocation"]["devices"]["results"][0].clone();
    let (a, c) = (result(&w, "a"), result(&w, "c"));
    assert_eq!((&a["consumedCapacity"], &c["consumedCapacity"]), (&json!({"memory": "3Gi"}), &json!({"memory": "1Gi"})));
    assert!(a["shareID"].as_str().is_some_and(|id| id.len() == 36) && a["shareID"] != c["shareID"]);
    w.delete("/pods", "a", "a");
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(600)).unwrap();
    w.settle();
    assert_eq!(said(&w, "d"), "n0: r=s0");
    // Two of one request may be of the same device; a constraint says otherwise.
    let mut two = |name: &str, constraints: Value| {
        w.create(SLICES, json!({"metadata": {"name": name}, "spec": {"driver": name, "nodeName": "n0",
            "pool": {"name": "n0", "generation": 1, "resourceSliceCount": 1},
            "devices": [shared("t0", "4Gi"), shared("t1", "4Gi")]}}));
        let of = json!({"count": 2, "selectors": [{"cel": {"expression": format!("device.driver == '{name}'")}}]});
        outcome(&mut w, name, json!({"requests": exactly("any", of), "constraints": constraints}))
    };
    assert_eq!(two("x", json!([])), "n0: r=t0 r=t0");
    assert_eq!(two("y", json!([{"distinctAttribute": "y/id"}])), "n0: r=t0 r=t1");
    let sharing = json!({"selectors": [{"cel": {"expression": "!device.allowMultipleAllocations"}}]});
    assert_eq!(outcome(&mut w, "alone", json!({"requests": exactly("any", sharing)})), none);
}

fn asking(w: &mut World, name: &str, resource: &str, count: i64) {
    let container = |name: &str| json!({"name": name, "image": "i", "resources": {"limits": {resource: count.to_string()}}});
    w.create("/pods", json!({"metadata": {"name": name, "namespace": "a"},
        "spec": {"containers": [container("one"), {"name": "none", "image": "i"}]}}));
    w.settle();
}

#[test]
fn a_class_answers_an_extended_resource() {
    let mut w = world();
    asking(&mut w, "early", "example.org/npu", 1);
    let waits = w.view.pod("a", "early").unwrap().status.unscheduled.clone().unwrap();
    assert!(waits.starts_with("0/2 nodes are available: 2 Insufficient example.org/npu."), "{waits}");
    w.patch("resource.k8s.io/deviceclasses", "", "npu", json!({"spec": {"extendedResourceName": "example.org/npu"}}));
    w.settle();
    let pod = w.get("/pods", "a", "early").clone();
    assert_eq!(pod["spec"]["nodeName"], "n1");
    let told = &pod["status"]["extendedResourceClaimStatus"];
    assert_eq!(told["requestMappings"], json!([{"containerName": "one", "resourceName": "example.org/npu",
        "requestName": "container-0-request-0"}]));
    let claim = w.get(CLAIMS, "a", told["resourceClaimName"].as_str().unwrap()).clone();
    assert_eq!(claim["metadata"]["annotations"]["resource.kubernetes.io/extended-resource-claim"], "true");
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["device"], "npu0");
    assert_eq!(claim["status"]["reservedFor"][0]["name"], "early");
    // The class's own name works as well; two of it are not left.
    asking(&mut w, "two", "deviceclass.resource.kubernetes.io/npu", 2);
    let waits = w.view.pod("a", "two").unwrap().status.unscheduled.clone().unwrap();
    assert!(waits.starts_with("0/2 nodes are available: 2 cannot allocate all claims."), "{waits}");
    // A node that has the resource itself needs no claim.
    w.patch("/nodes", "", "n0", json!({"status": {"allocatable": {"example.org/npu": "1"}}}));
    asking(&mut w, "plugin", "example.org/npu", 1);
    asking(&mut w, "last", "example.org/npu", 1);
    let places = ["plugin", "last"].map(|n| w.get("/pods", "a", n)["spec"]["nodeName"].clone());
    assert!(places.contains(&json!("n0")) && places.contains(&json!("n1")), "{places:?}");
    assert_eq!(w.list(CLAIMS).len(), 2);
    // It comes back with its pod.
    for name in ["early", "plugin", "last"] {
        w.delete("/pods", "a", name);
    }
    w.now = w.now.checked_add(jiff::SignedDuration::from_secs(600)).unwrap();
    w.settle();
    assert_eq!(w.get("/pods", "a", "two")["spec"]["nodeName"], "n1");
    assert_eq!(w.list(CLAIMS).len(), 1);
}
