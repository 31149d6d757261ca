//! The hall: who hears what, sessions over connections, QoS 2, and bounds.
//!
//! In: comings, goings, messages. Out: what each client is sent. Never: sockets.

use super::super::session::{IN_FLIGHT_MAX, QUEUE_BYTES_MAX, QUEUE_MAX, RECEIVED_MAX};
use super::*;

/// A client without a name, whose session ends with its connection.
fn enter(hall: &mut Hall, namespace: &str, pod: &str) -> u64 {
    hall.enter(namespace, pod, "", false).unwrap().0
}

/// Everything that comes, acknowledged at once.
fn heard(hall: &mut Hall, namespace: &str, client: u64) -> Vec<(String, Vec<u8>, u8, bool)> {
    let mut all = Vec::new();
    while let Some(step) = hall.next(namespace, client) {
        let Step::Say { id, delivery: d, .. } = step else { continue };
        if let Some(id) = id {
            let answers = [Answer::Acknowledged(id), Answer::Received(id), Answer::Completed(id)];
            answers.into_iter().for_each(|answer| hall.acknowledged(namespace, client, answer));
        }
        all.push((d.topic.to_string(), d.payload.to_vec(), d.qos, d.retain));
    }
    all
}

/// What is sent next: number, payload and whether it is said again; nothing is acknowledged.
fn said(hall: &mut Hall, client: u64) -> Vec<(Option<u16>, Vec<u8>, bool)> {
    let next = || match hall.next("a", client)? {
        Step::Say { id, delivery, again } => Some((id, delivery.payload.to_vec(), again)),
        Step::Release(id) => Some((Some(id), b"release".to_vec(), true)),
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn a_namespace_hears_itself_and_nobody_else() {
    let mut hall = Hall::default();
    let (a, b) = (enter(&mut hall, "a", "p"), enter(&mut hall, "b", "p"));
    for client in [("a", a), ("b", b)] {
        assert_eq!(hall.subscribe(client.0, client.1, "#", 1), Some(1));
    }
    assert_eq!(hall.publish("a", "t", b"1", 0, true), BTreeSet::from([a]));
    assert!(hall.publish("c", "t", b"1", 0, true).is_empty());
    assert_eq!(heard(&mut hall, "a", a), [("t".into(), b"1".to_vec(), 0, false)]);
    assert!(heard(&mut hall, "b", b).is_empty());
    assert!(heard(&mut hall, "b", a).is_empty(), "a number of another namespace");
    let late = enter(&mut hall, "a", "q");
    hall.subscribe("a", late, "+", 1);
    assert_eq!(heard(&mut hall, "a", late), [("t".into(), b"1".to_vec(), 0, true)]);
    hall.publish("a", "t", b"", 1, true);
    heard(&mut hall, "a", late);
    hall.unsubscribe("a", late, "+");
    hall.subscribe("a", late, "t", 1);
    assert!(heard(&mut hall, "a", late).is_empty(), "taken away");
    hall.leave("a", a);
    hall.leave("a", late);
    hall.leave("b", b);
    assert!(!hall.rooms.contains_key("a") && !hall.rooms.contains_key("b"), "nothing stays of those who left");
}

#[test]
fn a_session_waits_for_its_client() {
    let mut hall = Hall::default();
    let (first, known) = hall.enter("a", "p", "c", true).unwrap();
    assert!(!known);
    hall.subscribe("a", first, "t", 2);
    hall.publish("a", "t", b"1", 1, false);
    hall.publish("a", "t", b"2", 2, false);
    hall.publish("a", "t", b"0", 0, false);
    let all = [(Some(1), b"1".to_vec(), false), (Some(2), b"2".to_vec(), false), (None, b"0".to_vec(), false)];
    assert_eq!(said(&mut hall, first), all);
    hall.acknowledged("a", first, Answer::Received(2));
    hall.leave("a", first);
    // Away: what is acknowledged waits, the rest does not.
    assert!(hall.publish("a", "t", b"gone", 0, false).is_empty());
    hall.publish("a", "t", b"3", 1, false);
    let (second, known) = hall.enter("a", "p", "c", true).unwrap();
    assert!(known && second != first && hall.is_in("a", second) && !hall.is_in("a", first));
    let again = [(Some(1), b"1".to_vec(), true), (Some(2), b"release".to_vec(), true), (Some(3), b"3".to_vec(), false)];
    assert_eq!(said(&mut hall, second), again);
    // A second connection of the same name takes the session, the first one loses its place.
    let (third, known) = hall.enter("a", "p", "c", true).unwrap();
    assert!(known && !hall.is_in("a", second));
    for answer in [Answer::Acknowledged(1), Answer::Completed(2), Answer::Acknowledged(3)] {
        hall.acknowledged("a", second, answer);
        assert!(hall.next("a", second).is_none());
        hall.acknowledged("a", third, answer);
    }
    assert!(said(&mut hall, third).is_empty());
    assert_eq!(hall.rooms["a"].clients[&third].counted(), 0);
    // Of another pod, or namespace, the name is another client; without a name there is no session.
    assert!(!hall.enter("a", "q", "c", true).unwrap().1 && !hall.enter("b", "p", "c", true).unwrap().1);
    assert!(!hall.enter("a", "p", "", true).unwrap().1);
    // Who comes with a clean session loses what was.
    hall.leave("a", third);
    let (clean, known) = hall.enter("a", "p", "c", false).unwrap();
    assert!(!known);
    hall.publish("a", "t", b"4", 1, false);
    assert!(said(&mut hall, clean).is_empty());
    hall.forget_pod("a", "p");
    hall.forget_pod("a", "q");
    hall.forget_pod("b", "p");
    assert!(hall.rooms.is_empty());
}

#[test]
fn what_is_said_twice_with_qos_2_counts_once() {
    let mut hall = Hall::default();
    let client = enter(&mut hall, "a", "p");
    assert_eq!(hall.take("a", client, 7), Some(true));
    assert_eq!(hall.take("a", client, 7), Some(false));
    hall.acknowledged("a", client, Answer::Released(7));
    assert_eq!(hall.take("a", client, 7), Some(true));
    for id in 100..1000 {
        hall.take("a", client, id);
    }
    assert_eq!(hall.take("a", client, 5000), None, "a client that releases nothing");
    assert!(RECEIVED_MAX < 900);
    // An acknowledgement of another sort moves nothing.
    hall.subscribe("a", client, "#", 2);
    hall.publish("a", "t", b"x", 2, false);
    assert_eq!(said(&mut hall, client).len(), 1);
    hall.acknowledged("a", client, Answer::Acknowledged(1));
    hall.acknowledged("a", client, Answer::Completed(1));
    assert!(hall.rooms["a"].clients[&client].counted() > 0);
    hall.acknowledged("a", client, Answer::Received(1));
    hall.acknowledged("a", client, Answer::Received(1));
    hall.acknowledged("a", client, Answer::Completed(1));
    assert_eq!(hall.rooms["a"].clients[&client].counted(), 0);
}

#[test]
fn bounds_hold_whatever_a_client_tries() {
    let mut hall = Hall::default();
    let greedy = enter(&mut hall, "a", "p");
    for n in 0..100_000 {
        hall.publish("a", &format!("t/{n}"), b"x", 1, true);
    }
    assert_eq!(hall.rooms["a"].retained.len(), RETAINED_MAX);
    let granted = (0..1000).filter(|n| hall.subscribe("a", greedy, &format!("f/{n}/#"), 1).is_some()).count();
    assert_eq!(granted, FILTERS_MAX);
    assert_eq!(hall.subscribe("a", greedy, "a/#/b", 0), None);
    let slow = enter(&mut hall, "a", "q");
    hall.subscribe("a", slow, "#", 0);
    for n in 0..1000u32 {
        hall.publish("a", "t", &n.to_be_bytes(), 0, false);
    }
    let all = heard(&mut hall, "a", slow);
    assert_eq!((all.len(), all.last().unwrap().1.clone()), (QUEUE_MAX, 999u32.to_be_bytes().to_vec()));
    // The same with acknowledgements that never come, and with a session whose client is away.
    let (deaf, _) = hall.enter("a", "r", "deaf", true).unwrap();
    hall.subscribe("a", deaf, "#", 2);
    for round in 0..200 {
        hall.publish("a", "t", &[0; 10_000], 1 + round % 2, false);
        let _ = hall.next("a", deaf);
        assert!(hall.rooms["a"].clients[&deaf].counted() <= QUEUE_BYTES_MAX);
    }
    assert!(said(&mut hall, deaf).is_empty(), "no more than {IN_FLIGHT_MAX} are under way");
    hall.leave("a", deaf);
    for _ in 0..200 {
        hall.publish("a", "t", &[0; 10_000], 1, false);
    }
    assert!(hall.rooms["a"].clients[&deaf].counted() <= QUEUE_BYTES_MAX);
    assert!(heard(&mut hall, "a", slow).len() <= QUEUE_BYTES_MAX / 10_000);
    hall.forget_pod("a", "r");
    let more = (0..100).filter(|_| hall.enter("a", "p", "", false).is_ok()).count();
    assert_eq!(more, CLIENTS_PER_POD_MAX - 1);
    let others = (0..1000).filter(|n| hall.enter("b", &n.to_string(), "", false).is_ok()).count();
    assert_eq!(others + CLIENTS_PER_POD_MAX + 1, CLIENTS_MAX);
}

#[test]
fn sessions_of_those_who_are_away_keep_nobody_out() {
    let mut hall = Hall::default();
    for n in 0..1000 {
        let (client, _) = hall.enter("a", &format!("p{}", n % 20), &format!("c{n}"), true).unwrap();
        hall.leave("a", client);
    }
    let clients = |hall: &Hall| hall.rooms.values().map(|r| r.clients.len()).sum::<usize>();
    assert_eq!(clients(&hall), CLIENTS_MAX);
    let own = hall.rooms["a"].clients.values().filter(|c| c.pod == "p7").count();
    assert!(own <= CLIENTS_PER_POD_MAX);
    for n in 0..CLIENTS_MAX {
        assert!(hall.enter("b", &format!("q{n}"), "", false).is_ok(), "{n}");
        assert_eq!(clients(&hall), CLIENTS_MAX);
    }
    assert!(hall.enter("c", "late", "", false).is_err());
    assert!(!hall.rooms.contains_key("c"));
}
