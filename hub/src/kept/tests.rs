//! Pieces in every order, through restarts, and from nodes that mean no good.

use super::*;

fn place(lines: u64) -> LogPlace {
    LogPlace { attempt: 0, file: 1, offset: lines * 40, lines }
}

fn piece(uid: &str, from: u64, to: u64) -> LogPiece {
    let text: String = (from..to).map(|n| format!("2026-11-25T10:00:00.000000001Z stdout F {n:05}\n")).collect();
    LogPiece {
        namespace: "d".into(),
        pod: "p".into(),
        uid: uid.into(),
        container: "c".into(),
        bytes_max: 4096,
        from: place(from),
        to: place(to),
        lost: 0,
        text: text.into_bytes(),
    }
}

fn shown(kept: &KeptLogs, uid: &str, previous: bool) -> String {
    let lines = kept.lines(uid, "c", previous).unwrap_or_default();
    String::from_utf8(select(&lines, &Options::default())).unwrap()
}

#[test]
fn pieces_make_one_log_whatever_comes_twice_or_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let kept = KeptLogs::open(dir.path());
    let take = |kept: &KeptLogs, p: &LogPiece| kept.take(("n", "a"), p, 1000, |_, _| true).unwrap().place.lines;
    assert_eq!(take(&kept, &piece("u", 0, 0)), 0, "asked");
    assert_eq!(take(&kept, &piece("u", 0, 3)), 3);
    assert_eq!(take(&kept, &piece("u", 0, 3)), 3, "twice");
    assert_eq!(take(&kept, &piece("u", 5, 6)), 3, "a gap: the hub says where it is");
    // Half a piece was written when the power went.
    let log = dir.path().join("logs/u/c.0.log");
    OpenOptions::new().append(true).open(&log).unwrap().write_all(b"2026 half").unwrap();
    let kept = KeptLogs::open(dir.path());
    assert!(kept.is_known("n", "u") && !kept.is_known("m", "u"));
    assert_eq!(shown(&kept, "u", false), "00000\n00001\n00002\n");
    assert_eq!(take(&kept, &piece("u", 3, 4)), 4);
    let lossy = LogPiece { lost: 6, ..piece("u", 10, 11) };
    assert_eq!(take(&kept, &lossy), 11);
    let text = shown(&kept, "u", false);
    assert!(text.starts_with("00000\n00001\n00002\n00003\n[limpet: 6 lines are missing here"), "{text}");
    assert!(text.ends_with("\n00010\n"));
    // The next attempt is a log of its own; the one before it stays, older ones do not.
    for attempt in 1..4u64 {
        let mut next = piece("u", 10 + attempt, 11 + attempt);
        next.to.attempt = attempt as u32;
        assert_eq!(take(&kept, &next), 11 + attempt);
    }
    assert_eq!((shown(&kept, "u", false).as_str(), shown(&kept, "u", true).as_str()), ("00013\n", "00012\n"));
    assert!(!log.exists());
}

/// A card that was written anew has the same pod, whose attempts and lines begin at nothing.
#[test]
fn another_device_begins_its_logs_anew() {
    let dir = tempfile::tempdir().unwrap();
    let kept = KeptLogs::open(dir.path());
    let take = |kept: &KeptLogs, device: &str, p: &LogPiece| kept.take(("n", device), p, 1000, |_, _| true).unwrap().place;
    let of_attempt = |attempt: u32, from: u64, to: u64| {
        let mut piece = piece("u", from, to);
        (piece.from.attempt, piece.to.attempt) = (attempt, attempt);
        piece
    };
    take(&kept, "first", &of_attempt(0, 0, 2));
    take(&kept, "first", &of_attempt(4, 2, 4));
    assert_eq!(take(&kept, "first", &piece("u", 0, 0)).lines, 4);
    assert_eq!(take(&kept, "second", &piece("u", 0, 0)), LogPlace::default(), "asked");
    let text = "2026-11-26T10:00:00.000000001Z stdout F anew\n";
    let anew = LogPiece { text: text.into(), ..piece("u", 0, 1) };
    // Written twice, as when the power goes before the end is noted.
    let end = dir.path().join("logs/u/c.end");
    let before = std::fs::read(&end).unwrap();
    assert_eq!(take(&kept, "second", &anew).lines, 1);
    std::fs::write(&end, before).unwrap();
    let kept = KeptLogs::open(dir.path());
    assert_eq!(take(&kept, "second", &anew).lines, 1);
    assert_eq!(shown(&kept, "u", false), "00002\n00003\nanew\n");
    assert_eq!(take(&kept, "second", &piece("u", 1, 2)).lines, 2);
    assert_eq!((shown(&kept, "u", false), shown(&kept, "u", true)), ("00002\n00003\nanew\n00001\n".into(), String::new()));
    // Written by an older hub: anybody's.
    let old = r#"{"attempt":0,"file":1,"offset":80,"lines":2,"bytes":0}"#;
    std::fs::write(&end, old).unwrap();
    assert_eq!(take(&kept, "third", &piece("u", 0, 0)).lines, 2);
}

#[test]
fn a_log_stays_within_its_bound_and_keeps_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let kept = KeptLogs::open(dir.path());
    for n in 0..60 {
        kept.take(("n", "a"), &piece("u", n * 10, n * 10 + 10), 1000, |_, _| true).unwrap();
    }
    let bytes = kept.lines("u", "c", false).unwrap();
    assert!((4096 / 2..=8192 + 1000).contains(&bytes.len()), "{}", bytes.len());
    assert!(bytes.ends_with(b" 00599\n") && bytes.starts_with(b"2026-"));
}

#[test]
fn nodes_keep_to_themselves_and_to_their_room() {
    let dir = tempfile::tempdir().unwrap();
    let kept = KeptLogs::open(dir.path());
    let take = |node: &str, p: &LogPiece, now: u64, lives: bool| kept.take((node, "a"), p, now, |_, _| lives).unwrap().refused;
    assert!(!take("n", &piece("u", 0, 1), 1, true));
    assert!(take("m", &piece("u", 1, 2), 1, true), "another node's pod");
    for uid in ["", "..", "a/b", "a.b"] {
        assert!(take("n", &piece(uid, 0, 1), 1, true), "{uid}");
    }
    for container in ["", "..", "a/../../b", "C"] {
        let hostile = LogPiece { container: container.into(), ..piece("u", 0, 1) };
        assert!(take("n", &hostile, 1, true), "{container}");
    }
    for n in 0..PODS_PER_NODE_MAX - 1 {
        assert!(!take("n", &piece(&format!("u{n}"), 0, 1), 2, true));
    }
    assert!(take("n", &piece("more", 0, 1), 3, true), "all of them live");
    assert!(!take("m", &piece("other", 0, 1), 3, true), "another node has room");
    assert!(!take("n", &piece("more", 0, 1), 3, false), "the oldest of the gone makes room");
    assert!(kept.find("d", "p", Some("u")).is_none());
    assert_eq!(kept.find("d", "p", None).unwrap().1.at_ms, 3);
    // A week later all that is gone makes room.
    assert!(!take("n", &piece("late", 0, 1), GONE_MS_MAX + 10, false));
    assert_eq!(kept.pods().len(), 1);
    assert_eq!(std::fs::read_dir(dir.path().join("logs")).unwrap().count(), 1);
}
