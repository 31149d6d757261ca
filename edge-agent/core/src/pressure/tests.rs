//! The order of Kubernetes' documentation, and sentences.

use super::*;
use crate::api;
use serde_json::{Value, json};

fn spec(value: Value) -> PodSpec {
    let pod: api::Pod = api::parse(json!({"spec": value}).to_string().as_bytes()).unwrap();
    pod.spec
}

fn asks(memory: &str, priority: i64) -> PodSpec {
    spec(json!({"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]}))
}

const MIB: u64 = 1 << 20;

fn first<'a>(pods: &[(&'a str, &'a PodSpec, u64)]) -> Option<String> {
    let uids: Vec<Uid> = pods.iter().map(|(name, ..)| Uid::from(*name)).collect();
    let uses: Vec<PodUse<'_>> = pods
        .iter()
        .zip(&uids)
        .map(|((_, spec, mib), uid)| PodUse {
            uid,
            spec,
            memory_bytes: mib * MIB,
            disk_bytes: 0,
            inodes: 0,
            pids: mib / 10,
            containers: vec![("c", mib * MIB)],
        })
        .collect();
    let short = Shortage { signal: Signal::Memory, wanted: 100 * MIB, free: 50 * MIB };
    choose(short, &uses).map(|(uid, _)| uid.to_string())
}

#[test]
fn who_goes_first() {
    let (frugal, greedy) = (asks("200Mi", 0), asks("100Mi", 0));
    let (important, critical) = (asks("10Mi", 1000), asks("1Mi", CRITICAL_PRIORITY));
    let nothing = spec(json!({"containers": [{"name": "c"}]}));
    // More than requested goes before less, however much it is.
    assert_eq!(first(&[("frugal", &frugal, 190), ("greedy", &greedy, 110)]).as_deref(), Some("greedy"));
    // Among those the less important.
    assert_eq!(first(&[("important", &important, 500), ("greedy", &greedy, 110)]).as_deref(), Some("greedy"));
    // Then who is furthest above its request.
    assert_eq!(first(&[("greedy", &greedy, 150), ("nothing", &nothing, 60)]).as_deref(), Some("nothing"));
    // When nobody is above, priority counts, then what is nearest to its request.
    assert_eq!(first(&[("frugal", &frugal, 20), ("greedy", &greedy, 90)]).as_deref(), Some("greedy"));
    // What sidecars ask for is the pod's, and what an init container asks for where that is more.
    let sidecar = |policy: Option<&str>| {
        let mut init = json!({"name": "i", "resources": {"requests": {"memory": "150Mi"}}});
        init["restartPolicy"] = json!(policy);
        spec(json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "100Mi"}}}], "initContainers": [init]}))
    };
    let (sidecar, init) = (sidecar(Some("Always")), sidecar(None));
    assert_eq!(first(&[("sidecar", &sidecar, 240), ("greedy", &greedy, 110)]).as_deref(), Some("greedy"));
    assert_eq!(first(&[("init", &init, 140), ("greedy", &greedy, 110)]).as_deref(), Some("greedy"));
    assert_eq!(first(&[("init", &init, 200), ("sidecar", &sidecar, 240)]).as_deref(), Some("init"));
    assert_eq!(first(&[("critical", &critical, 900)]), None);
    assert_eq!(first(&[]), None);
}

#[test]
fn the_sentence_is_kubelets() {
    let uid = Uid::from("u");
    let spec = asks("100Mi", 0);
    let pod = PodUse {
        uid: &uid,
        spec: &spec,
        memory_bytes: 150 * MIB,
        disk_bytes: 0,
        inodes: 0,
        pids: 0,
        containers: vec![("c", 150 * MIB)],
    };
    let short = Shortage { signal: Signal::Memory, wanted: 100 * MIB, free: 50 * MIB };
    assert_eq!(
        choose(short, &[pod]).unwrap().1,
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using \
         150Mi, request is 100Mi, has larger consumption of memory. "
    );
}

#[test]
fn a_full_disk_names_what_is_in_the_containers() {
    let uid = Uid::from("u");
    let spec = spec(json!({"containers": [{"name": "c"},
        {"name": "modest", "resources": {"requests": {"ephemeral-storage": "90Mi"}}}]}));
    let pod = PodUse {
        uid: &uid,
        spec: &spec,
        memory_bytes: 0,
        disk_bytes: 200 * MIB,
        inodes: 9,
        pids: 0,
        containers: vec![("c", 120 * MIB), ("modest", 80 * MIB)],
    };
    let short = |signal| Shortage { signal, wanted: 100 * MIB, free: 50 * MIB };
    assert_eq!(
        choose(short(Signal::Disk), std::slice::from_ref(&pod)).unwrap().1,
        "The node was low on resource: ephemeral-storage. Threshold quantity: 100Mi, available: 50Mi. Container c was \
         using 120Mi, request is 0, has larger consumption of ephemeral-storage. "
    );
    let of_inodes = choose(short(Signal::Inodes), &[pod]).unwrap().1;
    assert!(of_inodes.starts_with("The node was low on resource: inodes. ") && !of_inodes.contains("Container"), "{of_inodes}");
}

#[test]
fn conditions_stay_for_a_while() {
    let thresholds = vec![
        (Signal::Disk, Threshold::parse("10%").unwrap()),
        (Signal::Memory, Threshold::parse("100Mi").unwrap()),
    ];
    let mut pressure = Pressure::new(thresholds, 300_000);
    let all = 1000 * MIB;
    let left = |disk: u64, memory: u64| {
        move |signal| match signal {
            Signal::Disk => Left { all, free: disk * MIB },
            _ => Left { all, free: memory * MIB },
        }
    };
    assert_eq!(pressure.look(0, left(100, 100)), []);
    assert_eq!(pressure.problems(), []);
    let short = pressure.look(1000, left(99, 99));
    assert_eq!(short.iter().map(|s| s.signal).collect::<Vec<_>>(), [Signal::Memory, Signal::Disk]);
    assert_eq!((short[0].wanted, short[1].wanted), (100 * MIB, 100 * MIB));
    assert_eq!(pressure.problems().len(), 2);
    assert_eq!(pressure.look(2000, left(500, 99)).len(), 1);
    assert_eq!(pressure.problems().len(), 2, "the disk's condition stays for five minutes");
    assert_eq!(pressure.wake_at(), Some(301_000));
    assert_eq!(pressure.look(301_000, left(500, 500)), []);
    assert_eq!(pressure.problems().len(), 1);
    assert_eq!(pressure.look(302_000, left(500, 500)), []);
    assert_eq!(pressure.problems(), []);
    assert_eq!(pressure.memory_kept_free(all), 100 * MIB);
    assert_eq!(pressure.look(1, |_| Left::default()), [], "what cannot be read is not short");
}

#[test]
fn thresholds_are_amounts_or_shares() {
    for (text, of, want) in [
        ("100Mi", 0, Some(100 * MIB)),
        ("10%", 1000, Some(100)),
        ("7.5%", 1000, Some(75)),
        ("0%", 1000, Some(0)),
        ("101%", 1000, None),
        ("-5%", 1000, None),
        ("much", 1000, None),
        ("-5", 1000, None),
    ] {
        assert_eq!(Threshold::parse(text).map(|t| t.of(of)), want, "{text}");
    }
}

#[test]
fn storage_limits() {
    let limited = spec(json!({
        "volumes": [
            {"name": "v", "emptyDir": {"sizeLimit": "10Mi"}},
            {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        "containers": [
            {"name": "a", "resources": {"limits": {"ephemeral-storage": "20Mi"}}},
            {"name": "b", "resources": {"limits": {"ephemeral-storage": "30Mi"}}}],
    }));
    let used = |a: u64, b: u64, v: u64| StorageUse {
        containers: [("a".to_string(), a * MIB), ("b".to_string(), b * MIB)].into(),
        volumes: [("v".to_string(), v * MIB)].into(),
    };
    assert!(storage::is_limited(&limited));
    for (usage, want) in [
        (used(20, 20, 10), None),
        (used(1, 1, 11), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"10Mi\". ")),
        (used(21, 1, 1), Some("Container a exceeded its local ephemeral storage limit \"20Mi\". ")),
        (used(20, 25, 6), Some("Pod ephemeral local storage usage exceeds the total limit of containers 50Mi. ")),
    ] {
        assert_eq!(excess(&limited, &usage).as_deref(), want);
    }
    let nought = json!({"limits": {"ephemeral-storage": "0"}});
    for (size, resources) in [(Value::Null, json!({})), (json!("0"), nought)] {
        let volume = json!({"name": "v", "emptyDir": {"sizeLimit": size}});
        let free = spec(json!({"volumes": [volume], "containers": [{"name": "a", "resources": resources}]}));
        assert!(!storage::is_limited(&free));
        assert_eq!(excess(&free, &used(9000, 1, 9000)), None);
    }
    // One without a limit lives from the others'.
    let some = spec(json!({"containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "20Mi"}}}, {"name": "b"}],
        "initContainers": [{"name": "i", "resources": {"limits": {"ephemeral-storage": "30Mi"}}}]}));
    assert_eq!(excess(&some, &used(10, 20, 0)), None);
    let words = "Pod ephemeral local storage usage exceeds the total limit of containers 30Mi. ";
    assert_eq!(excess(&some, &used(10, 21, 0)).as_deref(), Some(words));
}
