//! A node with a good certificate and bad intentions, over the real broker, into a real store.
//!
//! In: a hundred thousand messages about what is not its own, by chance. Out: nothing of anybody else's is changed, nothing
//! of anybody else's is heard, and the other node's session goes on. The session core alone: `hub/core`.

use super::*;
use limpet_protocol::{
    BoardMessage, InventoryEntry, ItemHash, ItemKey, LogPiece, LogPlace, NodeReport, NumberedEvent, PodGone, PodReport, SetDigest,
    TokenAsk,
};

const MESSAGES: u64 = 100_000;
/// The session that begins after all of them.
const LAST: u64 = u64::MAX / 2;

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn pick(&mut self, of: &[&str]) -> String {
        of[self.below(of.len() as u64) as usize].to_owned()
    }
}

/// What a forger may know: names and uids.
struct Known {
    uids: Vec<String>,
}

impl Known {
    fn key(&self, chance: &mut Chance) -> ItemKey {
        let kinds = [ItemKind::Node, ItemKind::Pod, ItemKind::Secret, ItemKind::Token, ItemKind::ConfigMap];
        let kind = kinds[chance.below(5) as usize];
        let token = format!("{}.t.0", self.uid(chance));
        let name = if kind == ItemKind::Token { token } else { chance.pick(&NAMES) };
        ItemKey::new(kind, "default", &name)
    }

    fn uid(&self, chance: &mut Chance) -> String {
        self.uids[chance.below(self.uids.len() as u64) as usize].clone()
    }

    fn forgery(&self, chance: &mut Chance, n: u64) -> Up {
        let (uid, name, namespace) = (self.uid(chance), chance.pick(&NAMES), chance.pick(&["default", "default", "kube-system"]));
        match chance.below(12) {
            0 => Up::Hello(Hello {
                digest: SetDigest { count: chance.below(9) as u32, sum: chance.below(99).into() },
                speaks: (1, 4),
                ..Hello::default()
            }),
            1 => {
                let hash = ItemHash([chance.below(3) as u8; 16]);
                let entry = InventoryEntry { key: self.key(chance), generation: chance.below(20), hash };
                Up::Inventory(Inventory { entries: vec![entry] })
            }
            2 => Up::Ack(Ack { seq: chance.below(30) }),
            3 => {
                let status = json!({"phase": chance.pick(&["Running", "Succeeded", "Failed"]), "podIP": "6.6.6.6"});
                Up::PodReport(PodReport { uid, namespace, name, version: n, status: status.to_string().into_bytes() })
            }
            4 => Up::PodGone(PodGone { uid, namespace, name, version: n }),
            5 => {
                let labels = json!({"kubernetes.io/hostname": "good", "limpet.dev/pool": "others"});
                let body = json!({"metadata": {"name": "good"}, "labels": labels, "status": {"capacity": {"cpu": "999"}}});
                Up::NodeReport(NodeReport { version: n, body: body.to_string().into_bytes() })
            }
            6 => {
                let about = json!({"kind": chance.pick(&["Pod", "Node", "Secret"]), "namespace": namespace, "name": name});
                let json = json!({"metadata": {"name": format!("e{n}")}, "involvedObject": about, "reason": "Forged"});
                Up::NumberedEvent(NumberedEvent { number: n, after: 0, json: json.to_string().into_bytes() })
            }
            7 => Up::TokenAsk(TokenAsk { key: self.key(chance) }),
            8 => {
                let container = chance.pick(&["c", "../../../store", "a/b", ""]);
                let to = LogPlace { file: 1, offset: 40, lines: 1, attempt: chance.below(3) as u32 };
                let text = b"2026-11-26T10:00:00.000000001Z stdout F forged\n".to_vec();
                let from = LogPlace::default();
                Up::LogPiece(LogPiece { namespace, pod: name, uid, container, bytes_max: u32::MAX, from, to, lost: 0, text })
            }
            9 => Up::Message(BoardMessage {
                number: n,
                namespace,
                pod: name,
                topic: "up/forged".into(),
                payload: b"forged".to_vec(),
                ..BoardMessage::default()
            }),
            10 => Up::Stream(StreamFrame::Data { id: chance.below(4) as u32, lane: 1, bytes: b"forged".to_vec() }),
            _ => Up::Stream(StreamFrame::End { id: chance.below(4) as u32, exit_code: Some(0), error: String::new() }),
        }
    }
}

const NAMES: [&str; 6] = ["mine", "yours", "nobodys", "evil", "good", "secret-of-good"];

async fn make(hub: &Hub) -> Known {
    let mut uids = vec![String::new(), "x".into()];
    for node in ["evil", "good"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("secret-of-{node}")},
            "data": {"k": format!("KNOWNONLYTO{node}")}});
        hub.api.create("test", "/secrets".into(), "default".into(), secret).await.unwrap();
    }
    for (name, node) in [("mine", "evil"), ("yours", "good"), ("nobodys", "")] {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [
            {"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": format!("secret-of-{node}")}}]}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        hub.api.create("test", "/pods".into(), "default".into(), pod).await.unwrap();
        uids.push(hub.get("/pods", "default", name).unwrap()["metadata"]["uid"].as_str().unwrap().to_owned());
    }
    Known { uids }
}

/// What lies in the hub's own files of logs and messages: nothing of a pod that is another node's, or nobody's.
fn kept_files(hub: &Hub, mine: &str) -> usize {
    let names = |dir: &str| -> Vec<String> {
        let entries = std::fs::read_dir(hub.dir.path().join(dir)).into_iter().flatten().flatten();
        entries.map(|e| e.file_name().into_string().unwrap()).collect()
    };
    assert!(names("logs").iter().all(|uid| uid == mine), "{:?}", names("logs"));
    assert!(names("messages").iter().all(|name| name.starts_with("evil.log")), "{:?}", names("messages"));
    let mut lines = 0;
    for name in names("messages") {
        let text = std::fs::read_to_string(hub.dir.path().join("messages").join(name)).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let others = line["namespace"] == "default" && (line["pod"] == "yours" || line["pod"] == "nobodys");
            assert!(!others && line["node"] == "evil", "{line}");
            lines += 1;
        }
    }
    lines
}

/// Everything that the forger must not change.
fn others(hub: &Hub) -> Vec<Option<Value>> {
    let (pods, secrets) = ("/pods", "/secrets");
    let mut all: Vec<_> = [(pods, "yours"), (pods, "nobodys"), (secrets, "secret-of-good"), (secrets, "secret-of-evil")]
        .map(|(resource, name)| hub.get(resource, "default", name))
        .to_vec();
    let node = hub.get("/nodes", "", "good").unwrap();
    all.extend(["spec", "status"].map(|part| node.get(part).cloned()));
    all.extend(["labels", "annotations", "uid"].map(|part| node["metadata"].get(part).cloned()));
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_forgeries_over_the_broker_gain_nothing() {
    let hub = hub().await;
    let known = make(&hub).await;
    let mine = known.uids[2].clone();
    let mut good = Device::new(&hub, "good", &hub.join("good").await);
    good.hello().await;
    good.hear(|d| matches!(d, Down::Welcome(_))).await.unwrap();
    good.say(Channel::State, Up::Inventory(Inventory::default())).await;
    let has_secret = |d: &Down| matches!(d, Down::Step(s) if s.puts.iter().any(|p| p.key.kind == ItemKind::Secret));
    let Ok(Down::Step(step)) = good.hear(has_secret).await else { panic!() };
    good.say(Channel::State, Up::Ack(Ack { seq: step.seq })).await;
    let report = NodeReport { version: 1, body: json!({"status": {"capacity": {"cpu": "4"}}}).to_string().into_bytes() };
    good.say(Channel::Status, Up::NodeReport(report)).await;
    good.hear(|d| matches!(d, Down::Reported { .. })).await.unwrap();
    // What the hub itself makes of that report comes a moment later.
    let is_marked = || {
        let taints = hub.get("/nodes", "", "good").map(|n| n["spec"]["taints"].clone()).unwrap_or_default();
        taints.as_array().is_some_and(|t| t.iter().any(|t| t["key"] == "node.kubernetes.io/not-ready"))
    };
    tokio::time::timeout(Duration::from_secs(60), async {
        while !is_marked() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the hub marks a node that does not say that it is ready");
    let before = others(&hub);

    let mut evil = Device::new(&hub, "evil", &hub.join("evil").await);
    let client = evil.client.clone();
    let sender = tokio::spawn(async move {
        let mut chance = Chance(0xbad);
        for n in 1..=MESSAGES {
            let message = known.forgery(&mut chance, n);
            let channel = Channel::ALL[chance.below(4) as usize];
            let bytes = Envelope { session: 1 + n / 5000, message }.encode(4);
            client.publish(topic::up("evil", channel), QoS::AtMostOnce, false, bytes).await.unwrap();
        }
        loop {
            let last = Envelope { session: LAST, message: Up::Hello(Hello { speaks: (1, 3), ..Hello::default() }) };
            let bytes = last.encode(3);
            client.publish(topic::up("evil", Channel::State), QoS::AtMostOnce, false, bytes).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    let (mut heard, mut ends) = (0, 0);
    loop {
        match timeout(LONG, evil.events.poll()).await.expect("the hub goes on") {
            Ok(Event::Incoming(Packet::Publish(p))) => {
                heard += 1;
                let envelope = Envelope::<Down>::decode(&p.payload).unwrap();
                let text = format!("{:?}", envelope.message);
                let plain = envelope.encode(1);
                assert!(!plain.windows(15).any(|w| w == b"KNOWNONLYTOgood"), "{text}");
                if let Down::Step(step) = &envelope.message {
                    let own = |name: &str| name == "evil" || name == "mine" || name == "secret-of-evil";
                    assert!(step.puts.iter().all(|put| own(&put.key.name)), "{text}");
                }
                if envelope.session == LAST && matches!(envelope.message, Down::Welcome(_)) {
                    break;
                }
            }
            Ok(_) => {}
            // Whoever reads too slowly or speaks nonsense is cut off, and comes again.
            Err(_) => ends += 1,
        }
    }
    sender.abort();
    assert!(heard > 1000, "the hub answered {heard} times and ended {ends} connections");
    assert_eq!(others(&hub), before);
    assert!(kept_files(&hub, &mine) > 0, "its own messages are taken");
    for record in hub.store.list("/events", None).records {
        let event: Value = serde_json::from_slice(&record.bytes).unwrap();
        let about = &event["involvedObject"];
        let (kind, name) = (about["kind"].as_str().unwrap(), about["name"].as_str().unwrap());
        // Of a pod that is not there nobody knows whose it was.
        let elsewhere = about["namespace"] == "kube-system";
        let others = matches!((kind, name), ("Node", "good") | ("Pod", "yours" | "nobodys")) && !elsewhere;
        assert!(!others && kind != "Secret", "{event}");
        assert_eq!(event["source"]["host"], "evil");
    }
    // The other node's session never ended.
    let report = NodeReport { version: 2, body: json!({"status": {"capacity": {"cpu": "5"}}}).to_string().into_bytes() };
    good.say(Channel::Status, Up::NodeReport(report)).await;
    good.hear(|d| matches!(d, Down::Reported { version: 2, .. })).await.unwrap();
}
