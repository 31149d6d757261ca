//! The conversation about kept logs, with a hub and a log of this test's own.

use super::*;

fn now(mono_ms: u64) -> Now {
    Now { mono_ms, ..Now::default() }
}

fn whose(uid: &str) -> Whose {
    Whose { uid: uid.into(), container: "c".into() }
}

fn place(lines: u64) -> LogPlace {
    LogPlace { attempt: 0, file: 1, offset: lines * 10, lines }
}

fn taken(uid: &str, lines: u64) -> LogTaken {
    LogTaken { uid: uid.into(), container: "c".into(), place: place(lines), refused: false }
}

fn chunk(from: u64, to: u64) -> Option<Chunk> {
    Some(Chunk { from: place(from), to: place(to), lost: 0, text: vec![b'x'; 10] })
}

#[test]
fn the_hub_is_asked_then_given_piece_by_piece() {
    let mut kept = KeptLogs::default();
    kept.want(now(0), whose("u"), ("d", "p"), 4096);
    kept.connected(4);
    assert_eq!(kept.poll(now(PACE_MS - 1)), None);
    let Some(KeptOutput::Send(Up::LogPiece(ask))) = kept.poll(now(PACE_MS)) else { panic!() };
    assert!(ask.text.is_empty() && ask.uid == "u" && ask.bytes_max == 4096);
    assert_eq!(kept.poll(now(PACE_MS)), None, "one at a time");
    kept.taken(now(PACE_MS), &taken("u", 3));
    let wish = KeptOutput::Read { whose: whose("u"), from: place(3), bytes_max: 4096 };
    assert_eq!(kept.poll(now(PACE_MS)), Some(wish));
    let Some(Up::LogPiece(piece)) = kept.read(now(PACE_MS), &whose("u"), chunk(3, 5)) else { panic!() };
    assert_eq!((piece.from, piece.to), (place(3), place(5)));
    assert_eq!(kept.poll(now(PACE_MS + 1)), None);
    kept.taken(now(PACE_MS + 1), &taken("u", 5));
    assert!(matches!(kept.poll(now(PACE_MS + 1)), Some(KeptOutput::Read { from, .. }) if from == place(5)));
    assert_eq!(kept.read(now(PACE_MS + 1), &whose("u"), None), None);
    assert_eq!((kept.poll(now(9_999_999)), kept.wake_at()), (None, None), "a silent container costs nothing");
    kept.grown(now(20_000), &whose("u"));
    assert_eq!(kept.wake_at().map(|w| w.0), Some(20_000 + PACE_MS));
}

#[test]
fn what_is_not_confirmed_is_said_again_and_a_hub_that_forgot_gets_it_anew() {
    let mut kept = KeptLogs::default();
    kept.want(now(0), whose("u"), ("d", "p"), 4096);
    kept.connected(4);
    kept.poll(now(PACE_MS));
    assert_eq!(kept.poll(now(PACE_MS + AGAIN_MS - 1)), None);
    assert!(matches!(kept.poll(now(PACE_MS + AGAIN_MS)), Some(KeptOutput::Send(_))), "again");
    kept.taken(now(70_000), &taken("u", 5));
    kept.poll(now(70_000));
    kept.read(now(70_000), &whose("u"), chunk(5, 6));
    kept.disconnected();
    assert_eq!(kept.poll(now(80_000)), None, "nobody is there");
    kept.connected(4);
    assert!(matches!(kept.poll(now(80_000)), Some(KeptOutput::Read { from, .. }) if from == place(5)));
    kept.read(now(80_000), &whose("u"), chunk(5, 6));
    // A hub whose disk was lost has nothing.
    kept.taken(now(80_001), &taken("u", 0));
    assert!(matches!(kept.poll(now(80_001)), Some(KeptOutput::Read { from, .. }) if from == place(0)));
}

#[test]
fn the_log_of_a_gone_pod_is_kept_until_it_is_delivered() {
    let mut kept = KeptLogs::default();
    kept.want(now(0), whose("u"), ("d", "p"), 4096);
    kept.gone(now(1), "u");
    assert_eq!(kept.poll(now(1)), None, "offline");
    kept.connected(4);
    assert!(matches!(kept.poll(now(2)), Some(KeptOutput::Send(_))));
    kept.taken(now(2), &taken("u", 0));
    kept.poll(now(2));
    kept.read(now(2), &whose("u"), chunk(0, 2));
    kept.taken(now(3), &taken("u", 2));
    kept.poll(now(3));
    assert_eq!(kept.read(now(3), &whose("u"), None), None);
    assert_eq!(kept.poll(now(3)), Some(KeptOutput::Done(whose("u"))));
    assert!(kept.is_empty());
}

#[test]
fn an_older_hub_and_a_hold_get_nothing_and_a_refusal_ends_it() {
    let mut kept = KeptLogs::default();
    kept.want(now(0), whose("u"), ("d", "p"), 4096);
    kept.connected(3);
    assert_eq!((kept.poll(now(99_999)), kept.wake_at()), (None, None));
    kept.connected(4);
    kept.hold(true);
    assert_eq!((kept.poll(now(99_999)), kept.wake_at()), (None, None));
    kept.hold(false);
    assert!(kept.poll(now(99_999)).is_some());
    kept.taken(now(99_999), &LogTaken { refused: true, ..taken("u", 0) });
    assert_eq!(kept.poll(now(99_999)), Some(KeptOutput::Done(whose("u"))));
}
