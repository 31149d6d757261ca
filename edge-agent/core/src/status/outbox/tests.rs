//! The outbox: what stays until it is confirmed, in which order, and what the journal learns.

use super::*;

fn now(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: ms }
}

fn drain(outbox: &mut Outbox, ms: u64) -> Vec<Up> {
    let mut all = Vec::new();
    while let Some(out) = outbox.poll(now(ms)) {
        if let OutboxOutput::Send(_, up) = out {
            all.push(up);
        }
    }
    all
}

fn versions(all: &[Up]) -> Vec<u64> {
    let version = |up: &Up| match up {
        Up::PodReport(r) => Some(r.version),
        Up::PodGone(r) => Some(r.version),
        Up::NodeReport(r) => Some(r.version),
        _ => None,
    };
    all.iter().filter_map(version).collect()
}

#[test]
fn latest_wins_and_stays_until_it_is_confirmed() {
    let mut o = Outbox::new(0);
    assert!(o.poll(now(0)).is_none());
    for n in 0..3 {
        o.pod("u".into(), "d".into(), "p".into(), vec![n]);
    }
    assert!(matches!(o.poll(now(0)), Some(OutboxOutput::Persist(Record::VersionCeiling(_)))));
    assert!(drain(&mut o, 0).is_empty(), "nothing before a session");
    o.connected(3);
    let sent = drain(&mut o, 0);
    assert!(matches!(&sent[..], [Up::PodReport(r)] if r.status == [2] && r.version == 3));
    assert!(drain(&mut o, 1).is_empty());
    o.disconnected();
    o.connected(3);
    assert_eq!(versions(&drain(&mut o, 2)), [3]);
    assert_eq!(versions(&drain(&mut o, 60_002)), [3], "asked again");
    o.reported("u", 2);
    assert!(!o.idle());
    o.reported("u", 3);
    assert!(o.idle());
}

#[test]
fn versions_never_fall_across_restarts() {
    let mut o = Outbox::new(0);
    o.connected(3);
    o.node(vec![1]);
    let Some(OutboxOutput::Persist(Record::VersionCeiling(ceiling))) = o.poll(now(0)) else { panic!() };
    let before = versions(&drain(&mut o, 0));
    let mut again = Outbox::new(ceiling);
    again.connected(3);
    again.node(vec![1]);
    assert!(versions(&drain(&mut again, 0)) > before);
}

#[test]
fn the_last_status_goes_before_the_farewell() {
    let mut o = Outbox::new(0);
    o.connected(3);
    o.pod("u".into(), "d".into(), "p".into(), vec![1]);
    o.gone("u".into(), "d".into(), "p".into());
    let sent = drain(&mut o, 0);
    assert!(matches!(&sent[..], [Up::PodReport(_), Up::PodGone(_)]), "{sent:?}");
    assert_eq!(versions(&sent), [1, 2]);
    // The connection is lost: both again, for somebody may wait for the last status. And again when nothing is heard.
    o.disconnected();
    o.connected(3);
    let sent = drain(&mut o, 0);
    assert!(matches!(&sent[..], [Up::PodReport(_), Up::PodGone(_)]), "{sent:?}");
    let sent = drain(&mut o, AGAIN_MS);
    assert!(matches!(&sent[..], [Up::PodReport(_), Up::PodGone(_)]), "{sent:?}");
    o.reported("u", 1);
    assert!(!o.idle());
    o.reported("u", 2);
    assert!(o.idle());
}

#[test]
fn events_are_bounded_and_last() {
    let mut o = Outbox::new(0);
    for n in 0..2000u32 {
        o.event(n.to_le_bytes().to_vec());
    }
    o.pod("u".into(), "d".into(), "p".into(), vec![1]);
    o.connected(3);
    let sent = drain(&mut o, 0);
    assert!(matches!(sent[0], Up::PodReport(_)));
    assert_eq!(sent.len(), 1 + EVENTS_IN_FLIGHT_MAX);
}

fn numbers(all: &[Up]) -> Vec<(u64, u64)> {
    let number = |up: &Up| match up {
        Up::NumberedEvent(e) => Some((e.number, e.after)),
        _ => None,
    };
    all.iter().filter_map(number).collect()
}

#[test]
fn events_stay_until_the_hub_has_them() {
    let mut o = Outbox::new(0);
    o.connected(3);
    for n in 0..3 {
        o.event(vec![n]);
    }
    assert_eq!(numbers(&drain(&mut o, 0)), [(1, 0), (2, 1), (3, 2)]);
    o.events_taken(1);
    o.connected(3);
    assert_eq!(numbers(&drain(&mut o, 5)), [(2, 0), (3, 2)], "a new connection, a new row");
    assert!(drain(&mut o, 6).is_empty());
    assert_eq!(numbers(&drain(&mut o, 60_006)), [(2, 0), (3, 2)], "not confirmed, said again");
    o.events_taken(3);
    assert!(o.idle());
    o.connected(2);
    o.event(vec![9]);
    assert!(matches!(&drain(&mut o, 7)[..], [Up::Event(_)]), "an older hub gets them as it knows them");
    assert!(o.idle());
}

#[test]
fn events_outlive_a_reboot_and_do_not_wear_out_the_flash() {
    let mut o = Outbox::new(0);
    for n in 0..200u8 {
        o.event(vec![n]);
    }
    let mut kept = Vec::new();
    for ms in [1, 2, HOUR_MS + 5] {
        while let Some(out) = o.poll(now(ms)) {
            match out {
                OutboxOutput::Keep(Record::Event(number, json)) => kept.push((number, json)),
                OutboxOutput::Persist(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(kept.len() as u32, 2 * KEPT_PER_HOUR_MAX);
    let mut again = Outbox::new(5000);
    again.remember(kept.clone());
    again.event(vec![1]);
    again.connected(3);
    let sent = numbers(&drain(&mut again, 0));
    assert_eq!(sent[..2], [(1, 0), (2, 1)]);
    again.events_taken(sent.last().unwrap().0);
    let taken = again.poll(now(1));
    assert_eq!(taken, Some(OutboxOutput::Keep(Record::EventsTaken(sent.last().unwrap().0))));
    assert_eq!(again.snapshot().count(), 1 + kept.len() - sent.len());
}
