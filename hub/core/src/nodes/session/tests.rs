//! Conversations between a session and a pretend node.

use super::*;
use crate::limits;
use limpet_protocol::{Ack, Inventory, InventoryEntry, ItemHash, PodGone, PodReport, SetDigest};
use serde_json::{Value, json};
use std::collections::BTreeMap;

struct Talk {
    view: ObjectStore,
    session: Session,
    revision: u64,
    /// What the node holds.
    held: BTreeMap<ItemKey, (u64, Vec<u8>)>,
}

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap()
}

fn pod(name: &str, node: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a", "uid": name}, "spec": {"nodeName": node,
        "serviceAccountName": "default", "containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": "m"}}]}],
        "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}})
}

impl Talk {
    fn new() -> Talk {
        let mut talk = Talk {
            view: ObjectStore::new(),
            session: Session::new("n1"),
            revision: 0,
            held: BTreeMap::new(),
        };
        talk.put("/nodes", json!({"metadata": {"name": "n1", "uid": "n1"}}));
        talk.put(
            "/configmaps",
            json!({"metadata": {"name": "m", "namespace": "a", "uid": "m"}, "data": {"k": "1"}}),
        );
        talk.put("/pods", pod("p", "n1"));
        talk
    }

    fn put(&mut self, resource: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let at = |p: &str| object.pointer(p).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (ns, name) = (at("/metadata/namespace"), at("/metadata/name"));
        self.view.apply(self.revision, resource, &ns, &name, Some(object.to_string().into_bytes().into()));
    }

    fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        self.revision += 1;
        self.view.apply(self.revision, resource, namespace, name, None);
    }

    fn give(&mut self, input: SessionInput) -> Vec<SessionOutput> {
        self.session.handle(now(), &self.view, input);
        std::iter::from_fn(|| self.session.poll()).collect()
    }

    fn say(&mut self, message: Up) -> Vec<SessionOutput> {
        let envelope = Envelope { session: 9, message };
        self.give(SessionInput::Message { connection: 1, envelope })
    }

    fn digest(&self) -> SetDigest {
        let mut digest = SetDigest::default();
        for (key, (_, body)) in &self.held {
            digest.add(key, ItemHash::of(body));
        }
        digest
    }

    fn connect(&mut self) -> Vec<SessionOutput> {
        self.give(SessionInput::Connected { connection: 1 });
        let digest = self.digest();
        self.say(Up::Hello(Hello { digest, speaks: (1, 3), ..Hello::default() }))
    }

    fn inventory(&self) -> Up {
        let entry = |(key, (generation, body)): (&ItemKey, &(u64, Vec<u8>))| InventoryEntry {
            key: key.clone(),
            generation: *generation,
            hash: ItemHash::of(body),
        };
        Up::Inventory(Inventory { entries: self.held.iter().map(entry).collect() })
    }

    /// Takes in and acknowledges; returns how many items travelled.
    fn take(&mut self, outputs: Vec<SessionOutput>) -> usize {
        let mut queue = VecDeque::from(outputs);
        let mut travelled = 0;
        while let Some(output) = queue.pop_front() {
            match output {
                SessionOutput::Send { envelope: Envelope { message: Down::Step(step), .. }, .. } => {
                    let SetStep { seq, puts, removals, digest } = step;
                    travelled += puts.len() + removals.len();
                    for removal in removals {
                        self.held.remove(&removal.key);
                    }
                    for put in puts {
                        let held = self.held.get(&put.key).map(|(_, body)| body.clone()).unwrap_or_default();
                        let body = match put.base {
                            0 => put.body,
                            base => {
                                assert_eq!(base, ItemHash::of(&held).prefix());
                                limpet_protocol::squeeze::unfold(&held, &put.body, 1 << 20).unwrap()
                            }
                        };
                        self.held.insert(put.key, (put.generation, body));
                    }
                    assert_eq!(self.digest(), digest, "the digest tells the truth");
                    queue.extend(self.say(Up::Ack(Ack { seq })));
                }
                SessionOutput::Token(wanted) => {
                    let generation = self.view.revision();
                    let body = b"{\"token\":\"x\"}".to_vec();
                    queue.extend(self.give(SessionInput::Token { key: wanted.key, generation, body }));
                }
                _ => {}
            }
        }
        travelled
    }

    fn sync(&mut self) -> usize {
        let outputs = self.connect();
        let mut travelled = self.take(outputs);
        if !self.session.in_sync() {
            let inventory = self.inventory();
            let outputs = self.say(inventory);
            travelled += self.take(outputs);
        }
        assert!(self.session.in_sync());
        travelled
    }
}

#[test]
fn a_new_node_gets_everything_and_a_known_one_nothing() {
    let mut talk = Talk::new();
    assert_eq!(talk.sync(), 4, "node, pod, config map, token");
    assert_eq!(talk.sync(), 0);
    // The hub restarts: it remembers no token, but the node still has it.
    talk.session = Session::new("n1");
    assert_eq!(talk.sync(), 0);
}

#[test]
fn a_token_that_was_lost_before_the_hub_restarted_is_issued_again() {
    let mut talk = Talk::new();
    talk.sync();
    let all = talk.held.len();
    // The step with the token never arrived, and the hub that comes back does not know that there was one.
    talk.held.retain(|key, _| key.kind != limpet_protocol::ItemKind::Token);
    assert_eq!(talk.held.len(), all - 1);
    talk.session = Session::new("n1");
    assert_eq!(talk.sync(), 1);
    assert!(talk.session.in_sync());
    assert_eq!(talk.held.len(), all);
}

#[test]
fn changes_and_deletions_travel_also_after_an_absence() {
    let mut talk = Talk::new();
    talk.sync();
    talk.put(
        "/configmaps",
        json!({"metadata": {"name": "m", "namespace": "a", "uid": "m"}, "data": {"k": "2"}}),
    );
    let outputs = talk.give(SessionInput::Dirty);
    assert_eq!(talk.take(outputs), 1);
    talk.give(SessionInput::Disconnected { connection: 1 });
    talk.delete("/pods", "a", "p");
    assert!(talk.give(SessionInput::Dirty).is_empty());
    assert_eq!(talk.sync(), 3, "pod, config map and token go");
    assert_eq!(talk.held.len(), 1);
}

#[test]
fn nothing_of_an_old_connection_or_session_counts() {
    let mut talk = Talk::new();
    talk.sync();
    talk.give(SessionInput::Connected { connection: 2 });
    assert!(!talk.session.is_open());
    let late = talk.say(Up::Inventory(Inventory::default()));
    assert!(late.is_empty());
    talk.give(SessionInput::Disconnected { connection: 1 });
    let envelope = Envelope { session: 5, message: Up::Hello(Hello { speaks: (1, 3), ..Hello::default() }) };
    talk.give(SessionInput::Message { connection: 2, envelope });
    assert!(talk.session.is_open());
    let envelope = Envelope { session: 4, message: Up::Inventory(Inventory::default()) };
    assert!(talk.give(SessionInput::Message { connection: 2, envelope }).is_empty());
}

fn report(version: u64, phase: &str) -> Up {
    let (uid, namespace, name) = ("p".into(), "a".into(), "p".into());
    let status = json!({"phase": phase}).to_string().into_bytes();
    Up::PodReport(PodReport { uid, namespace, name, version, status })
}

fn ticket(outputs: &[SessionOutput]) -> Option<u64> {
    outputs.iter().find_map(|o| match o {
        SessionOutput::Write { ticket, .. } => Some(*ticket),
        _ => None,
    })
}

fn confirmed(outputs: &[SessionOutput]) -> Vec<u64> {
    let version = |o: &SessionOutput| match o {
        SessionOutput::Send {
            envelope: Envelope { message: Down::Reported { version, .. }, .. }, ..
        } => Some(*version),
        _ => None,
    };
    outputs.iter().filter_map(version).collect()
}

#[test]
fn a_report_is_confirmed_when_it_is_durable_and_the_latest_wins() {
    let mut talk = Talk::new();
    talk.sync();
    let first = talk.say(report(1, "Pending"));
    let t1 = ticket(&first).unwrap();
    assert!(confirmed(&first).is_empty());
    assert!(talk.say(report(2, "Running")).is_empty(), "waits for the first");
    assert!(talk.say(report(3, "Succeeded")).is_empty(), "takes the place of the second");
    let second = talk.give(SessionInput::Durable { ticket: t1 });
    assert_eq!(confirmed(&second), [1]);
    let t2 = ticket(&second).unwrap();
    let refused = SessionInput::Refused { ticket: t2, again_ms: Some(2000), reason: "full".into() };
    assert!(confirmed(&talk.give(refused)).is_empty());
    let (at, _) = talk.session.wake_at().unwrap();
    talk.session.handle(at, &talk.view, SessionInput::Tick);
    let again: Vec<_> = std::iter::from_fn(|| talk.session.poll()).collect();
    let t3 = ticket(&again).unwrap();
    assert_eq!(confirmed(&talk.give(SessionInput::Durable { ticket: t3 })), [3]);
    assert_eq!(confirmed(&talk.say(report(2, "Running"))), [2], "old news needs no write");
}

#[test]
fn an_older_report_that_waits_to_be_tried_again_is_not_written_after_a_newer_one() {
    let mut talk = Talk::new();
    talk.sync();
    let t1 = ticket(&talk.say(report(1, "Pending"))).unwrap();
    talk.give(SessionInput::Refused { ticket: t1, again_ms: Some(2000), reason: "full".into() });
    // The newer one comes when that time has come, and before the tick.
    let (at, _) = talk.session.wake_at().unwrap();
    let envelope = Envelope { session: 9, message: report(2, "Running") };
    talk.session.handle(at, &talk.view, SessionInput::Message { connection: 1, envelope });
    let second: Vec<_> = std::iter::from_fn(|| talk.session.poll()).collect();
    let t2 = ticket(&second).unwrap();
    let outputs = talk.give(SessionInput::Durable { ticket: t2 });
    assert_eq!((confirmed(&outputs), ticket(&outputs)), (vec![2], None));
}

#[test]
fn a_report_that_is_refused_for_good_lets_the_next_one_through() {
    let mut talk = Talk::new();
    talk.sync();
    let t1 = ticket(&talk.say(report(1, "Running"))).unwrap();
    assert!(talk.say(report(2, "Succeeded")).is_empty());
    let outputs = talk.give(SessionInput::Refused { ticket: t1, again_ms: None, reason: "too large".into() });
    assert_eq!(confirmed(&outputs), [1]);
    let t2 = ticket(&outputs).expect("the newer one is written");
    assert_eq!(confirmed(&talk.give(SessionInput::Durable { ticket: t2 })), [2]);
}

#[test]
fn a_verdict_on_a_write_of_before_confirms_nothing_of_another_installation() {
    let mut talk = Talk::new();
    talk.sync();
    let t1 = ticket(&talk.say(report(7, "Pending"))).unwrap();
    talk.give(SessionInput::Connected { connection: 1 });
    talk.say(Up::Hello(Hello { instance: [7; 16], speaks: (1, 3), ..Hello::default() }));
    let t2 = ticket(&talk.say(report(1, "Succeeded"))).unwrap();
    assert!(confirmed(&talk.give(SessionInput::Durable { ticket: t1 })).is_empty(), "that was the other one's");
    assert_eq!(confirmed(&talk.give(SessionInput::Durable { ticket: t2 })), [1]);
}

/// A copied card was the node for a while, and counted on; the first device comes back, is told of deletions, and tells of ends.
#[test]
fn another_device_of_one_installation_counts_by_itself() {
    let mut talk = Talk::new();
    talk.sync();
    let ours = ticket(&talk.say(report(900, "Running"))).unwrap();
    talk.give(SessionInput::Durable { ticket: ours });
    assert_eq!(confirmed(&talk.say(report(7, "Running"))), [7], "older, of the same device: said again, written never");
    talk.give(SessionInput::OtherDevice);
    talk.give(SessionInput::Connected { connection: 1 });
    talk.say(Up::Hello(Hello { speaks: (1, 3), ..Hello::default() }));
    let theirs = ticket(&talk.say(report(7, "Succeeded"))).expect("it is written");
    assert_eq!(confirmed(&talk.give(SessionInput::Durable { ticket: theirs })), [7]);
}

#[test]
fn a_pod_goes_when_it_was_being_deleted() {
    let mut talk = Talk::new();
    let mut deleting = pod("p", "n1");
    deleting["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    talk.put("/pods", deleting);
    talk.sync();
    let gone = PodGone { uid: "p".into(), namespace: "a".into(), name: "p".into(), version: 4 };
    let outputs = talk.say(Up::PodGone(gone));
    let SessionOutput::Write { ticket, changes } = &outputs[0] else { panic!("{outputs:?}") };
    assert!(matches!(&changes[0], Change::Delete { grace: Some(0), uid, .. } if uid == "p"));
    let ticket = *ticket;
    talk.delete("/pods", "a", "p");
    assert_eq!(confirmed(&talk.give(SessionInput::Durable { ticket })), [4]);
}

#[test]
fn a_cloned_card_is_noticed() {
    let mut talk = Talk::new();
    talk.sync();
    talk.give(SessionInput::Connected { connection: 1 });
    let outputs = talk.say(Up::Hello(Hello { instance: [7; 16], speaks: (1, 3), ..Hello::default() }));
    assert!(matches!(&outputs[0], SessionOutput::Notice { reason: "DuplicateIdentity", .. }), "{outputs:?}");
}

#[test]
fn a_card_that_joined_anew_is_no_clone() {
    let mut talk = Talk::new();
    talk.sync();
    talk.give(SessionInput::OtherDevice);
    talk.give(SessionInput::Connected { connection: 1 });
    let outputs = talk.say(Up::Hello(Hello { instance: [7; 16], speaks: (1, 3), ..Hello::default() }));
    assert!(!outputs.iter().any(|o| matches!(o, SessionOutput::Notice { .. })), "{outputs:?}");
    // A copy of that one is.
    talk.give(SessionInput::Connected { connection: 2 });
    let hello = Up::Hello(Hello { instance: [8; 16], speaks: (1, 3), ..Hello::default() });
    let envelope = Envelope { session: 3, message: hello };
    let outputs = talk.give(SessionInput::Message { connection: 2, envelope });
    assert!(matches!(&outputs[0], SessionOutput::Notice { reason: "DuplicateIdentity", .. }), "{outputs:?}");
}

#[test]
fn a_removed_node_hears_why() {
    let mut talk = Talk::new();
    talk.sync();
    let outputs = talk.give(SessionInput::Removed { reason: "removed".into() });
    assert!(matches!(
        &outputs[0],
        SessionOutput::Send { envelope: Envelope { message: Down::Goodbye { .. }, .. }, .. }
    ));
    assert!(matches!(outputs.last(), Some(SessionOutput::Close { connection: 1, .. })));
    assert!(!talk.session.is_open());
}

#[test]
fn events_about_others_are_dropped() {
    let mut talk = Talk::new();
    talk.sync();
    talk.put("/pods", pod("other", "n2"));
    let event = |kind: &str, name: &str| {
        let about = json!({"kind": kind, "namespace": "a", "name": name});
        Up::Event(json!({"metadata": {"name": "e"}, "involvedObject": about}).to_string().into_bytes())
    };
    assert!(ticket(&talk.say(event("Pod", "p"))).is_some());
    for (kind, name) in [("Pod", "other"), ("Node", "n2"), ("Secret", "p")] {
        assert!(talk.say(event(kind, name)).is_empty(), "{kind} {name}");
    }
    // The name is another pod's by now, on another node; what happened to the one before is still to be heard.
    let of = |uid: &str| {
        let about = json!({"kind": "Pod", "namespace": "a", "name": "other", "uid": uid});
        Up::Event(json!({"metadata": {"name": "e"}, "involvedObject": about}).to_string().into_bytes())
    };
    assert!(ticket(&talk.say(of("the one before"))).is_some());
    assert!(talk.say(of("other")).is_empty());
}

#[test]
fn lost_steps_are_asked_after() {
    let mut talk = Talk::new();
    talk.sync();
    talk.put(
        "/configmaps",
        json!({"metadata": {"name": "m", "namespace": "a", "uid": "m"}, "data": {"k": "3"}}),
    );
    let lost = talk.give(SessionInput::Dirty);
    assert_eq!(lost.len(), 1);
    let (at, _) = talk.session.wake_at().unwrap();
    talk.session.handle(at, &talk.view, SessionInput::Tick);
    let probe: Vec<_> = std::iter::from_fn(|| talk.session.poll()).collect();
    let SessionOutput::Send { envelope: Envelope { message: Down::Step(change), .. }, .. } = &probe[0]
    else {
        panic!()
    };
    assert!(change.puts.is_empty() && change.digest != talk.digest());
    let inventory = talk.inventory();
    let outputs = talk.say(inventory);
    assert_eq!(talk.take(outputs), 1);
    assert!(talk.session.in_sync());
}

#[test]
fn a_flood_of_events_waits_for_the_store_within_bounds() {
    let mut talk = Talk::new();
    talk.connect();
    let event = |n: u64| {
        let json = json!({"metadata": {"name": format!("e{n}")}, "involvedObject": {"kind": "Node", "name": "n1"}});
        json.to_string().into_bytes()
    };
    let mut tickets: Vec<u64> = Vec::new();
    for n in 1..=3000 {
        // Numbered or not.
        let up = match n % 2 {
            0 => Up::Event(event(n)),
            _ => Up::NumberedEvent(limpet_protocol::NumberedEvent { number: n, after: 0, json: event(n) }),
        };
        tickets.extend(ticket(&talk.say(up)));
    }
    assert_eq!(tickets.len(), limits::EVENTS_PENDING_MAX);
    for ticket in tickets.drain(..) {
        talk.give(SessionInput::Durable { ticket });
    }
    assert!(ticket(&talk.say(Up::Event(event(4000)))).is_some(), "there is room again");
}
