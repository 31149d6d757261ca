//! A node with a good certificate and bad intentions: a hundred thousand messages about what is not its own.
//!
//! In: chance. Out: no write to another node's objects, and not a byte of what only others may know.

use super::*;
use limpet_protocol::{
    Ack, Inventory, InventoryEntry, ItemHash, NodeReport, NumberedEvent, PodGone, PodReport, SetDigest, TokenAsk,
};
use serde_json::{Value, json};

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }
}

fn pod(name: &str, node: &str) -> Value {
    let secret = format!("secret-of-{node}");
    json!({"metadata": {"name": name, "namespace": "a", "uid": format!("uid-{name}")}, "spec": {"nodeName": node,
        "serviceAccountName": "default", "containers": [{"name": "c", "envFrom": [{"secretRef": {"name": secret}}]}],
        "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]},
        "status": {"phase": "Running"}})
}

fn world() -> ObjectStore {
    let mut view = ObjectStore::new();
    let mut put = |resource: &str, namespace: &str, object: Value| {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let revision = view.revision() + 1;
        view.apply(revision, resource, namespace, &name, Some(object.to_string().into_bytes().into()));
    };
    for node in ["evil", "good"] {
        put("/nodes", "", json!({"metadata": {"name": node, "uid": format!("uid-{node}")}}));
        let meta = json!({"name": format!("secret-of-{node}"), "namespace": "a", "uid": node});
        put("/secrets", "a", json!({"metadata": meta, "data": {"k": format!("KNOWN-ONLY-TO-{node}")}}));
    }
    put("/pods", "a", pod("mine", "evil"));
    put("/pods", "a", pod("yours", "good"));
    put("/pods", "a", pod("nobodys", ""));
    view
}

const NAMES: &[&str] = &["mine", "yours", "nobodys", "gone", "evil", "good", "secret-of-good", "secret-of-evil", "", "../a"];
const UIDS: &[&str] = &["uid-mine", "uid-yours", "uid-nobodys", "uid-good", "uid-evil", "", "x"];
const NAMESPACES: &[&str] = &["a", "b", "kube-system", ""];

fn key(chance: &mut Chance) -> ItemKey {
    let kinds = [ItemKind::Node, ItemKind::Pod, ItemKind::ConfigMap, ItemKind::Secret, ItemKind::Service, ItemKind::Token];
    let kind = kinds[chance.below(6) as usize];
    let name = if kind == ItemKind::Token { "uid-yours.t.0" } else { chance.pick(NAMES) };
    ItemKey::new(kind, chance.pick(NAMESPACES), name)
}

fn forgery(chance: &mut Chance, n: u64) -> Up {
    let text = |c: &mut Chance, of: &[&str]| c.pick(of).to_owned();
    let (uid, namespace, name) = (text(chance, UIDS), text(chance, NAMESPACES), text(chance, NAMES));
    let version = n + chance.below(64);
    match chance.below(9) {
        0 => Up::Hello(Hello {
            digest: SetDigest { count: chance.below(9) as u32, sum: chance.below(99).into() },
            speaks: (1, 1 + chance.below(5) as u8),
            ..Hello::default()
        }),
        1 => {
            let entry = |c: &mut Chance| InventoryEntry {
                key: key(c),
                generation: c.below(20),
                hash: ItemHash([c.below(3) as u8; 16]),
            };
            Up::Inventory(Inventory { entries: (0..chance.below(6)).map(|_| entry(chance)).collect() })
        }
        2 => Up::Ack(Ack { seq: chance.below(30) }),
        3 => {
            let status = json!({"phase": text(chance, &["Running", "Succeeded", "Failed"]), "podIP": "6.6.6.6"});
            Up::PodReport(PodReport { uid, namespace, name, version, status: status.to_string().into_bytes() })
        }
        4 => Up::PodGone(PodGone { uid, namespace, name, version }),
        5 => {
            let body = json!({"status": {"capacity": {"cpu": "999"}}, "metadata": {"name": "good"}, "spec": {"taints": []},
                "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/hostname": "good"}});
            Up::NodeReport(NodeReport { version, body: body.to_string().into_bytes() })
        }
        6 => {
            let about = json!({"kind": text(chance, &["Pod", "Node", "Secret"]), "namespace": namespace, "name": name});
            let json = json!({"metadata": {"name": "e", "namespace": "kube-system"}, "involvedObject": about});
            Up::NumberedEvent(NumberedEvent { number: version, after: 0, json: json.to_string().into_bytes() })
        }
        7 => Up::TokenAsk(TokenAsk { key: key(chance) }),
        _ => Up::Event(b"{\"involvedObject\":null}".to_vec()),
    }
}

/// The objects that the node may have written.
fn own(change: &Change) -> bool {
    match change {
        Change::Patch { resource, name, namespace, .. } | Change::Delete { resource, name, namespace, .. } => {
            (resource == "/pods" && namespace == "a" && name == "mine") || (resource == "/nodes" && name == "evil")
        }
        Change::Create { resource, object, .. } => {
            let about = &object["involvedObject"];
            let name = about["name"].as_str().unwrap_or_default();
            // A pod that is nobody's any more may have been this node's: its last Events are welcome.
            let others = match about["kind"].as_str() {
                Some("Pod") => about["namespace"] == "a" && ["yours", "nobodys"].contains(&name),
                _ => name != "evil",
            };
            resource == "/events" && !others
        }
        _ => false,
    }
}

#[test]
fn a_hundred_thousand_forgeries_gain_nothing() {
    let view = world();
    let mut chance = Chance(0xbad);
    let mut session = Session::new("evil");
    let at = |n: u64| Timestamp::from_second(1_795_000_000 + n as i64 / 10).unwrap();
    session.handle(at(0), &view, SessionInput::Connected { connection: 1 });
    let (mut writes, mut sent) = (0, 0);
    for n in 0..100_000u64 {
        let envelope = Envelope { session: 1 + n / 5000, message: forgery(&mut chance, n) };
        session.handle(at(n), &view, SessionInput::Message { connection: 1, envelope });
        while let Some(output) = session.poll() {
            match output {
                SessionOutput::Write { ticket, changes } => {
                    writes += 1;
                    assert!(changes.iter().all(own), "message {n}: {changes:?}");
                    let verdict = match chance.below(3) {
                        0 => SessionInput::Refused { ticket, again_ms: (n % 2 == 0).then_some(2000), reason: "no".into() },
                        _ => SessionInput::Durable { ticket },
                    };
                    session.handle(at(n), &view, verdict);
                }
                SessionOutput::Send { envelope, .. } => {
                    sent += 1;
                    let bytes = envelope.encode(1);
                    let knows = |word: &[u8]| bytes.windows(word.len()).any(|w| w == word);
                    assert!(!knows(b"KNOWN-ONLY-TO-good"), "message {n}");
                    // Confirmations and removals repeat what the node said; what is put is what it may learn.
                    let put: Vec<&ItemKey> = match &envelope.message {
                        Down::Change(change) => change.puts.iter().map(|p| &p.key).collect(),
                        Down::Step(step) => step.puts.iter().map(|p| &p.key).collect(),
                        _ => Vec::new(),
                    };
                    let own = ["evil", "mine", "secret-of-evil", "uid-mine.t.0"];
                    assert!(put.iter().all(|key| own.contains(&key.name.as_str())), "message {n}: {put:?}");
                }
                SessionOutput::Token(wanted) => {
                    assert_eq!((wanted.pod_name.as_str(), &*wanted.namespace), ("mine", "a"), "message {n}");
                    let (key, body) = (wanted.key, b"{\"token\":\"t\"}".to_vec());
                    session.handle(at(n), &view, SessionInput::Token { key, generation: 9, body });
                }
                SessionOutput::Close { .. } => session.handle(at(n), &view, SessionInput::Connected { connection: 1 }),
                // The shell judges whose logs and messages these are.
                SessionOutput::Log(_)
                | SessionOutput::Message(_)
                | SessionOutput::Stream(_)
                | SessionOutput::Opened { .. }
                | SessionOutput::Closed { .. }
                | SessionOutput::Notice { .. } => {}
            }
        }
    }
    assert!(writes > 100 && sent > 1000, "the node was heard at all: {writes} writes, {sent} messages");
}
