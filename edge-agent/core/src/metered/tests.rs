//! Months, windows and budgets with a clock of this test's own.

use super::*;
use crate::clock::parse_rfc3339;

fn at(text: &str) -> i64 {
    i64::try_from(parse_rfc3339(text).unwrap() / 1000).unwrap()
}

fn now(text: &str) -> Now {
    Now { mono_ms: 5_000, wall_ms: parse_rfc3339(text).unwrap() }
}

/// Berlin: summer time ends on 2026-10-25T01:00Z and begins on 2027-03-28T01:00Z.
fn berlin() -> Policy {
    Policy::parse(
        r#"{"name": "NodePool tills", "bytesPerMonth": 1048576, "resetDay": 1, "keepaliveSeconds": 1200,
        "windows": [{"start": "02:00", "end": "05:00"}], "travels": {"images": "InWindow", "streams": "Never"},
        "offsets": [[1743296400, 7200], [1761440400, 3600], [1774746000, 7200], [1792890000, 3600], [1806195600, 7200]]}"#,
    )
    .unwrap()
}

#[test]
fn windows_open_by_the_walls_clock() {
    let policy = berlin();
    for (moment, open, until) in [
        // Winter: an hour ahead.
        ("2026-11-26T00:59:59Z", false, "2026-11-26T01:00:00Z"),
        ("2026-11-26T01:00:00Z", true, "2026-11-26T04:00:00Z"),
        ("2026-11-26T03:59:59Z", true, "2026-11-26T04:00:00Z"),
        ("2026-11-26T04:00:00Z", false, "2026-11-27T01:00:00Z"),
        // Summer: two hours.
        ("2026-07-01T00:00:00Z", true, "2026-07-01T03:00:00Z"),
        // 02:00 to 03:00 is skipped: the window is shorter by what is not there.
        ("2027-03-28T00:59:59Z", false, "2027-03-28T01:00:00Z"),
        ("2027-03-28T01:00:00Z", true, "2027-03-28T03:00:00Z"),
        // 02:00 to 03:00 comes twice.
        ("2026-10-25T00:30:00Z", true, "2026-10-25T04:00:00Z"),
        ("2026-10-25T03:59:00Z", true, "2026-10-25T04:00:00Z"),
    ] {
        assert_eq!(policy.window(at(moment)), (open, Some(at(until))), "{moment}");
    }
    let mut weekend = berlin();
    weekend.windows[0].days = vec!["Sat".into()];
    weekend.windows[0].start = "23:00".into();
    // A Thursday; the window of Saturday night ends on Sunday.
    assert_eq!(weekend.window(at("2026-11-26T12:00:00Z")), (false, Some(at("2026-11-28T22:00:00Z"))));
    assert_eq!(weekend.window(at("2026-11-29T03:00:00Z")), (true, Some(at("2026-11-29T04:00:00Z"))));
    assert_eq!(berlin().window(at("1970-01-02T02:30:00Z")), (false, None), "a clock that was never set");
}

#[test]
fn months_turn_by_the_walls_clock() {
    let mut policy = berlin();
    assert_eq!(policy.month(at("2026-11-30T22:59:59Z")), (at("2026-10-31T23:00:00Z"), at("2026-11-30T23:00:00Z")));
    assert_eq!(policy.month(at("2026-11-30T23:00:00Z")), (at("2026-11-30T23:00:00Z"), at("2026-12-31T23:00:00Z")));
    policy.reset_day = 15;
    assert_eq!(policy.month(at("2027-01-14T22:00:00Z")), (at("2026-12-14T23:00:00Z"), at("2027-01-14T23:00:00Z")));
    assert_eq!(policy.month(at("2026-07-20T22:00:00Z")).0, at("2026-07-14T22:00:00Z"));
}

#[test]
fn a_budget_is_used_up_and_comes_back_with_the_month() {
    let mut metered = Metered::new(Use::default());
    let shut = |m: &Metered, t: Traffic| m.gates().holds(t).map(String::from);
    metered.look(now("2026-11-20T12:00:00Z"), Some(berlin()), 1000, 1000);
    assert_eq!(shut(&metered, Traffic::Events), None);
    assert_eq!(
        shut(&metered, Traffic::Streams).as_deref(),
        Some("the link policy of NodePool tills never lets streams travel")
    );
    assert_eq!(
        shut(&metered, Traffic::Images).as_deref(),
        Some(
            "the link policy of NodePool tills lets images travel in its windows only; the next one opens at \
             2026-11-21T01:00:00Z"
        )
    );
    assert_eq!(metered.wake_at(now("2026-11-20T12:00:00Z")), Some(5_000 + 13 * 3_600_000 + 1), "the window");
    let words = metered.condition().unwrap();
    assert_eq!((words.holds, words.reason), (false, "WithinBudget"));
    assert_eq!(
        words.message,
        "NodePool tills: less than 10 % of 1Mi used since 2026-11-01; in windows only: images; never: streams"
    );
    assert!(metered.look(now("2026-11-21T02:00:00Z"), Some(berlin()), 0, 0), "the window opened");
    assert_eq!(shut(&metered, Traffic::Images), None);
    assert!(metered.look(now("2026-11-21T02:00:01Z"), Some(berlin()), 1 << 20, 0));
    assert_eq!(
        shut(&metered, Traffic::Images).as_deref(),
        Some("the link policy of NodePool tills holds images back until 2026-11-30T23:00:00Z: the 1Mi of this month are used up")
    );
    assert!(shut(&metered, Traffic::Events).is_some());
    assert!(metered.condition().unwrap().holds && !metered.on_hold());
    let hold = Policy { when_used_up: UsedUp::Hold, ..berlin() };
    metered.look(now("2026-11-21T02:00:01Z"), Some(hold), 0, 0);
    assert!(metered.on_hold());
    assert!(metered.look(now("2026-11-30T23:00:00Z"), Some(berlin()), 10, 0), "a new month");
    assert_eq!((metered.used().bytes(), shut(&metered, Traffic::Events)), (0, None));
    assert!(metered.look(now("2026-11-30T23:00:01Z"), None, 10, 0), "no policy: no gates");
    assert_eq!((metered.used().bytes(), metered.condition(), shut(&metered, Traffic::Streams)), (10, None, None));
    metered.look(now("2026-11-30T23:00:01Z"), Some(berlin()), 0, 0);
    metered.to_report();
    metered.look(now("2026-11-30T23:00:01Z"), None, 0, 0);
    assert_eq!(metered.to_report().flatten().map(|c| c.reason), Some("NoPolicy"));
}

#[test]
fn wrong_clocks_do_not_give_bytes_away() {
    let mut metered = Metered::new(Use { month_s: at("2026-10-31T23:00:00Z"), sent: 500, received: 0 });
    // Booted without a clock: the use counts on, windows stay shut.
    metered.look(now("1970-01-01T00:10:00Z"), Some(berlin()), 100, 0);
    assert_eq!(metered.used().bytes(), 600);
    let why = metered.gates().holds(Traffic::Images).unwrap().to_string();
    assert!(why.ends_with("this board does not know the time yet"), "{why}");
    assert_eq!(metered.wake_at(now("1970-01-01T00:10:00Z")), None);
    metered.look(now("2026-11-20T12:00:00Z"), Some(berlin()), 100, 0);
    assert_eq!(metered.used().bytes(), 700, "the same month as before");
    // A clock that had been in the future: what was counted there is not forgotten.
    let mut future = Metered::new(Use { month_s: at("2050-01-01T00:00:00Z"), sent: 500, received: 0 });
    future.look(now("2026-11-20T12:00:00Z"), Some(berlin()), 1, 0);
    assert_eq!(future.used(), Use { month_s: at("2026-10-31T23:00:00Z"), sent: 501, received: 0 });
    // Without a policy months are UTC's.
    let mut none = Metered::new(Use::default());
    none.look(now("2026-11-20T12:00:00Z"), None, 5, 6);
    assert_eq!(none.used(), Use { month_s: at("2026-11-01T00:00:00Z"), sent: 5, received: 6 });
}

#[test]
fn the_use_is_written_seldom_and_reported_by_tenths() {
    let mut metered = Metered::new(Use::default());
    let mut writes = 0;
    let mut reports = 0;
    for _ in 0..1000 {
        metered.look(now("2026-11-20T12:00:00Z"), Some(berlin()), 512, 512);
        writes += usize::from(metered.to_write(false).is_some());
        reports += usize::from(metered.to_report().is_some());
    }
    assert_eq!((writes, reports), (4, 10));
    assert!(metered.bytes_until_look() <= STEP_BYTES_MIN);
    assert_eq!(metered.to_write(true), Some(Record::LinkUse(at("2026-10-31T23:00:00Z"), 512_000, 512_000)));
    assert_eq!(metered.to_write(true), None);
}
