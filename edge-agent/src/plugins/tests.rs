//! What plugins say, who gets what, and what is refused. The whole protocol, with gRPC of another make, is an end-to-end test.

use super::messages;
use super::table::{Choice, Plugin, Table};
use super::*;
use crate::grpc::wire;

const DONGLE: &str = "vendor.example/dongle";

fn owner(pod: &str, container: &str) -> Owner {
    (pod.into(), container.into())
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn set(list: &[&str]) -> BTreeSet<String> {
    names(list).into_iter().collect()
}

fn list(all: &[(&str, bool)]) -> BTreeMap<String, bool> {
    all.iter().map(|(id, healthy)| (id.to_string(), *healthy)).collect()
}

fn plugin(endpoint: &str) -> Plugin {
    Plugin { endpoint: endpoint.into(), ..Plugin::default() }
}

fn chosen(table: &Table, who: &Owner, live: &[&str], count: u64) -> Result<Vec<String>, String> {
    table.choose(who, &set(live), DONGLE, count).map(|choice| choice.chosen)
}

#[test]
fn devices_are_given_once_kept_and_come_back() {
    let mut table = Table::new(Vec::new(), BTreeSet::new());
    let (generation, is_new) = table.register(DONGLE, plugin("a.sock")).unwrap();
    assert!(is_new && table.listed(DONGLE, generation, list(&[("d0", true), ("d1", true), ("d2", false)])));
    assert_eq!(table.counts()[DONGLE], (3, 2));
    let (a, b) = (owner("a", "main"), owner("b", "main"));
    assert_eq!(chosen(&table, &a, &["main"], 1).unwrap(), ["d0"]);
    table.take(&a, DONGLE, &names(&["d0"]));
    assert_eq!(chosen(&table, &b, &["main"], 1).unwrap(), ["d1"]);
    let error = chosen(&table, &b, &["main"], 2).unwrap_err();
    assert!(error.contains("Requested: 2, Available: 1"), "{error}");
    // It keeps its device when that falls ill; nobody else gets an ill one.
    table.listed(DONGLE, generation, list(&[("d0", false), ("d1", true), ("d2", true)]));
    assert_eq!(chosen(&table, &a, &["main"], 1).unwrap(), ["d0"]);
    let Choice { kept, free, .. } = table.choose(&a, &set(&["main"]), DONGLE, 2).unwrap();
    assert_eq!((kept, free), (names(&["d0"]), names(&["d1", "d2"])));
    // Another container of the pod gets it when the first has ended, and not before.
    table.listed(DONGLE, generation, list(&[("d0", true)]));
    let next = owner("a", "next");
    assert!(chosen(&table, &next, &["main", "next"], 1).is_err());
    assert_eq!(chosen(&table, &next, &["next"], 1).unwrap(), ["d0"]);
    table.put_back(&a, DONGLE, &[]);
    table.take(&b, DONGLE, &names(&["d0"]));
    assert!(chosen(&table, &a, &[], 1).is_err());
    table.release("b");
    assert_eq!(chosen(&table, &a, &[], 1).unwrap(), ["d0"]);
}

#[test]
fn plugins_go_and_come_back() {
    let mut table = Table::new(names(&["old.example/one", "not a name"]), set(&["own.example/gpio"]));
    // A name of before the reboot: its pods wait.
    assert!(table.knows("old.example/one") && !table.knows("not a name"));
    let error = table.choose(&owner("a", "main"), &set(&[]), "old.example/one", 1).unwrap_err();
    assert!(error.contains("has registered"), "{error}");
    for wrong in ["gpu", "kubernetes.io/gpu", "a.kubernetes.io/gpu", "x/", "/x", "a/b/c", "own.example/gpio", "requests.a/b"] {
        assert!(table.register(wrong, plugin("a.sock")).is_err(), "{wrong}");
    }
    let (first, _) = table.register(DONGLE, plugin("a.sock")).unwrap();
    table.listed(DONGLE, first, list(&[("d0", true)]));
    let (second, is_new) = table.register(DONGLE, plugin("b.sock")).unwrap();
    assert!(!is_new && !table.is_current(DONGLE, first) && table.is_current(DONGLE, second));
    // What the first says now, or that it has gone, means nothing.
    assert!(!table.listed(DONGLE, first, list(&[("d9", true)])) && !table.lost(DONGLE, first));
    assert_eq!(table.counts()[DONGLE], (1, 0), "not before the second has said what there is");
    table.listed(DONGLE, second, list(&[("d0", true)]));
    table.take(&owner("a", "main"), DONGLE, &names(&["d0"]));
    assert!(table.lost(DONGLE, second));
    assert_eq!(table.counts()[DONGLE], (1, 0));
    assert!(chosen(&table, &owner("a", "main"), &["main"], 1).is_err(), "nobody can say how it is used");
    assert!(!table.forget_devices(DONGLE, first) && table.forget_devices(DONGLE, second));
    assert_eq!(table.counts()[DONGLE], (0, 0));
    let (third, _) = table.register(DONGLE, plugin("c.sock")).unwrap();
    table.listed(DONGLE, third, list(&[("d0", true)]));
    assert!(chosen(&table, &owner("b", "main"), &["main"], 1).is_err(), "a still has it");
    for n in 0..100 {
        let _ = table.register(&format!("many.example/n{n}"), plugin("a.sock"));
    }
    assert_eq!(table.counts().len(), 64);
}

fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|(field, bytes)| wire::put_bytes(&mut out, *field, bytes));
    out
}

#[test]
fn answers_are_read_within_bounds() {
    let mut options = Vec::new();
    wire::put_number(&mut options, 1, 1);
    wire::put_number(&mut options, 9, 1);
    let request = message(&[(1, b"v1beta1"), (2, b"a.sock"), (3, DONGLE.as_bytes()), (4, &options)]);
    let request = messages::register(&request).unwrap();
    assert_eq!((request.endpoint.as_str(), request.options.unwrap().pre_start), ("a.sock", true));
    let device = |id: &[u8], health: &[u8]| message(&[(1, &message(&[(1, id), (2, health), (3, b"")]))]);
    let two = [device(b"a", b"Healthy"), device(b"b", b"Unhealthy")].concat();
    assert_eq!(messages::devices(&two).unwrap(), list(&[("a", true), ("b", false)]));
    for wrong in [device(b"", b"Healthy"), device(&[b'x'; 300], b"Healthy"), device(b"a\nb", b"Healthy"), b"\x0a\x05a".to_vec()] {
        assert_eq!(messages::devices(&wrong), None);
    }
    let many: Vec<u8> = (0..2000).flat_map(|n: u32| device(n.to_string().as_bytes(), b"Healthy")).collect();
    assert_eq!(messages::devices(&many), None);

    let mut mount = message(&[(1, b"/in"), (2, b"/out")]);
    wire::put_number(&mut mount, 3, 1);
    let container = message(&[
        (1, &message(&[(1, b"A"), (2, b"b")])),
        (2, &mount),
        (3, &message(&[(1, b"/dev/in"), (2, b"/dev/out"), (3, b"r")])),
        (4, &message(&[(1, b"cdi.k8s.io/x"), (2, b"v.example/c=1, v.example/c=2")])),
        (4, &message(&[(1, b"else"), (2, b"x")])),
        (5, &message(&[(1, b"v.example/c=3")])),
    ]);
    let got = messages::response(&message(&[(1, &container)])).unwrap();
    assert_eq!(got.envs, BTreeMap::from([("A".to_string(), "b".to_string())]));
    assert_eq!(got.mounts, [(PathBuf::from("/out"), PathBuf::from("/in"), true)]);
    assert_eq!((got.devices[0].host_path.to_str(), got.devices[0].access.as_str()), (Some("/dev/out"), "r"));
    assert_eq!(got.cdi, ["v.example/c=1", "v.example/c=2", "v.example/c=3"]);
    assert_eq!(messages::response(&message(&[(1, &container), (1, &container)])), None, "two answers to one question");
    assert_eq!(messages::response(b""), None);
}

#[tokio::test]
async fn registrations_are_judged() {
    let dir = std::env::temp_dir().join(format!("limpet-plugins-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    // What a kubelet or plugin before us left, and what is none of ours.
    drop(std::os::unix::net::UnixListener::bind(dir.join("stale.sock")).unwrap());
    std::fs::write(dir.join("kubelet_internal_checkpoint"), "x").unwrap();
    let plugins = Plugins::new(Some(dir.clone()), &dir, Vec::new(), BTreeSet::new());
    plugins.start().unwrap();
    assert!(!dir.join("stale.sock").exists() && dir.join("kubelet_internal_checkpoint").exists());
    let register = |version: &'static [u8], endpoint: &'static [u8], resource: &'static [u8]| {
        let dir = dir.clone();
        async move {
            let stream = socket::connect(&dir).await.unwrap();
            let request = message(&[(1, version), (2, endpoint), (3, resource)]);
            let mut call = Call::begin(Box::new(stream), "localhost", "/v1beta1.Registration/Register", &request).await.unwrap();
            call.next().await
        }
    };
    for (version, endpoint, words) in [
        (&b"v1alpha1"[..], &b"a.sock"[..], "is not supported"),
        (b"v1beta1", b"../../a.sock", "must be the name of a socket"),
        (b"v1beta1", b"kubelet.sock", "must be the name of a socket"),
        (b"v1beta1", b"", "must be the name of a socket"),
    ] {
        let error = register(version, endpoint, b"vendor.example/x").await.unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(register(b"v1beta1", b"a.sock", b"cpu").await.unwrap_err().contains("is invalid"));
    assert_eq!(register(b"v1beta1", b"a.sock", b"vendor.example/x").await, Ok(Some(Vec::new())));
    // A second agent does not take the place of the first, and the next one after it knows the name.
    let again = Plugins::new(Some(dir.clone()), &dir, Vec::new(), BTreeSet::new());
    assert!(again.start().unwrap_err().contains("answers at"));
    assert!(again.offers("vendor.example/x") && !again.offers("vendor.example/y"));
    let _ = std::fs::remove_dir_all(dir);
}
