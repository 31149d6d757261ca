//! Devices given to pods and kept: plain nodes, CDI, claims.
//!
//! In: offers, files of a directory of its own. Out: what a container would get. Never: a device of this machine.

use super::*;

fn owner(pod: &str) -> Owner {
    (pod.into(), "main".into())
}

/// Containers of the tests run.
fn all() -> BTreeSet<String> {
    ["main".to_string()].into()
}

fn nodes(given: &Given) -> Vec<&str> {
    given.devices.iter().map(|d| d.host_path.to_str().unwrap()).collect()
}

#[test]
fn devices_are_given_once_and_kept() {
    let nodes_of = vec!["/dev/zer?".into(), "/dev/nul*".into()];
    let offer = Offer { resource: "board.example/mem".into(), nodes: nodes_of, ..Offer::default() };
    offer.check().unwrap();
    let mut devices = Devices::new(vec![offer.clone()], Vec::new());
    assert_eq!(devices.capacity(), [("board.example/mem".to_string(), 2)].into());
    let mut given = Given::default();
    devices.give(&owner("a"), &all(), "board.example/mem", 1, &mut given).unwrap();
    assert_eq!(nodes(&given), ["/dev/null"]);
    let mut again = Given::default();
    devices.give(&owner("a"), &all(), "board.example/mem", 1, &mut again).unwrap();
    assert_eq!(nodes(&again), ["/dev/null"], "the same after a restart of the container");
    let mut other = Given::default();
    devices.give(&owner("b"), &all(), "board.example/mem", 1, &mut other).unwrap();
    assert_eq!(nodes(&other), ["/dev/zero"]);
    let err = devices.give(&owner("c"), &all(), "board.example/mem", 1, &mut Given::default()).unwrap_err();
    assert!(err.contains("Requested: 1, Available: 0"), "{err}");
    devices.release("a");
    devices.give(&owner("c"), &all(), "board.example/mem", 1, &mut Given::default()).unwrap();
    // A new agent learns what is taken from the containers that run.
    let mut successor = Devices::new(vec![offer.clone()], Vec::new());
    successor.held(&owner("b"), &["/dev/zero".into()], &BTreeMap::new());
    let mut rest = Given::default();
    successor.give(&owner("d"), &all(), "board.example/mem", 1, &mut rest).unwrap();
    assert_eq!(nodes(&rest), ["/dev/null"]);
    let shared = Offer { shared: Some(3), together: true, access: Some("r".into()), ..offer };
    let mut devices = Devices::new(vec![shared], Vec::new());
    assert_eq!(devices.capacity()["board.example/mem"], 3);
    for pod in ["a", "b", "c"] {
        let mut given = Given::default();
        devices.give(&owner(pod), &all(), "board.example/mem", 1, &mut given).unwrap();
        assert_eq!((given.devices.len(), given.devices[0].access.as_str()), (2, "r"));
    }
    assert!(devices.give(&owner("d"), &all(), "board.example/mem", 1, &mut Given::default()).is_err());
}

/// A new agent learns of CDI devices, too, whose nodes may be anybody's.
#[test]
fn cdi_devices_are_remembered_by_the_containers_that_have_them() {
    let dir = std::env::temp_dir().join(format!("limpet-cdi-held-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let device = |name: &str| json!({"name": name, "containerEdits": {"env": [format!("NPU={name}")]}});
    let document = json!({"kind": "v.example/npu", "devices": [device("0"), device("1")]});
    std::fs::write(dir.join("npu.json"), document.to_string()).unwrap();
    let names = vec!["v.example/npu=0".into(), "v.example/npu=1".into()];
    let offers = vec![Offer { resource: "board.example/npu".into(), cdi: names, ..Offer::default() }];
    let mut devices = Devices::new(offers.clone(), vec![dir.clone()]);
    let mut first = Given::default();
    devices.give(&owner("a"), &all(), "board.example/npu", 1, &mut first).unwrap();
    let mut successor = Devices::new(offers, vec![dir.clone()]);
    successor.held(&owner("a"), &[], &first.notes);
    let mut second = Given::default();
    successor.give(&owner("b"), &all(), "board.example/npu", 1, &mut second).unwrap();
    assert_eq!((first.env, second.env), (vec!["NPU=0".to_string()], vec!["NPU=1".to_string()]));
    assert!(successor.give(&owner("c"), &all(), "board.example/npu", 1, &mut Given::default()).is_err());
    let _ = std::fs::remove_dir_all(dir);
}

/// An init container that is done does not keep the only device from the container after it.
#[test]
fn devices_go_from_init_containers_to_those_after_them() {
    let resource = "board.example/null";
    let offer = Offer { resource: resource.into(), nodes: vec!["/dev/null".into()], ..Offer::default() };
    let mut devices = Devices::new(vec![offer], Vec::new());
    let init = ("a".to_string(), "init".to_string());
    let running = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    devices.give(&init, &running(&["init"]), resource, 1, &mut Given::default()).unwrap();
    // A sidecar that runs on keeps it; another pod gets nothing of what has ended.
    assert!(devices.give(&owner("a"), &running(&["init", "main"]), resource, 1, &mut Given::default()).is_err());
    assert!(devices.give(&owner("b"), &running(&["main"]), resource, 1, &mut Given::default()).is_err());
    let mut given = Given::default();
    devices.give(&owner("a"), &running(&["main"]), resource, 1, &mut given).unwrap();
    assert_eq!(nodes(&given), ["/dev/null"]);
    assert!(devices.give(&init, &running(&["init", "main"]), resource, 1, &mut Given::default()).is_err());
}

#[test]
fn claimed_devices_have_names_and_are_no_numbers() {
    let resource = "board.example/mem".to_string();
    let offer = Offer { resource: resource.clone(), nodes: vec!["/dev/zer?".into(), "/dev/null".into()], claims: true,
        ..Offer::default() };
    let cdi = Offer { resource: "v.example/npu".into(), cdi: vec!["V.com/npu=0".into(), "v-com/npu=0".into()], claims: true,
        shared: Some(2), ..Offer::default() };
    let mut devices = Devices::new(vec![offer, cdi], Vec::new());
    assert!(devices.capacity().is_empty() && !devices.offers(&resource));
    assert!(devices.give(&owner("a"), &all(), &resource, 1, &mut Given::default()).is_err());
    let claimable = devices.claimable();
    let names: Vec<&str> = claimable.iter().map(|d| d["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["null", "zero", "v-com-npu-0", "v-com-npu-0-2"]);
    assert_eq!(claimable[1], json!({"name": "zero", "resource": resource, "path": "/dev/zero", "shared": 1}));
    assert_eq!((&claimable[2]["cdi"], &claimable[2]["shared"]), (&json!("V.com/npu=0"), &json!(2)));
    let mut given = Given::default();
    devices.give_claimed("zero", &mut given).unwrap();
    assert_eq!(nodes(&given), ["/dev/zero"]);
    let err = devices.give_claimed("gone", &mut Given::default()).unwrap_err();
    assert!(err.contains("not there any more"), "{err}");
}

#[test]
fn configurations_are_checked() {
    let offer = |resource: &str, node: &str| {
        let nodes = vec![node.into()];
        Offer { resource: resource.into(), nodes, ..Offer::default() }
    };
    for (offer, words) in [
        (offer("gpio", "/dev/x"), "must be named"),
        (offer("kubernetes.io/gpio", "/dev/x"), "must be named"),
        (offer("a.b/c", "/etc/x"), "not below /dev"),
        (offer("a.b/c", "/dev/../etc/x"), "not below /dev"),
        (Offer { resource: "a.b/c".into(), ..Offer::default() }, "either"),
        (Offer { shared: Some(0), ..offer("a.b/c", "/dev/x") }, "at least 1"),
        (Offer { access: Some("rx".into()), ..offer("a.b/c", "/dev/x") }, "rwm"),
        (Offer { nodes: vec![], cdi: vec!["gpu".into()], ..offer("a.b/c", "") }, "CDI device"),
    ] {
        let err = offer.check().unwrap_err();
        assert!(err.contains(words), "{err}");
    }
    assert!(matching("/dev/no-such-*").is_empty() && matching("/dev/fd").is_empty());
    assert!(fits(b"video*", b"video10") && fits(b"*", b"") && !fits(b"video?", b"video10"));
}
