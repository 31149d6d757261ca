//! From the annotation to a system that stays up, and every way in which it does not.
//!
//! In: what the board looks like, step by step. Out: what the agent does and says.

use super::*;
use limpet_protocol::os_update::FailedUpdate;

fn said(running: &str, good: bool, failed: Option<(&str, &str, &str)>) -> Said {
    let failed = failed.map(|(file, version, why)| FailedUpdate { file: file.into(), version: version.into(), why: why.into() });
    Said { running: running.into(), good, failed }
}

/// One look: wanted, running, boot, whether the file waits, what the first process says.
fn look(state: &mut State, wanted: Option<&str>, (running, boot, waits): (&str, &str, bool), said: Option<&Said>) -> Step {
    // Through the disk each time: nothing may depend on what only memory has.
    *state = State { since_ms: state.since_ms, ..State::parse(&state.bytes()) };
    state.look(wanted, Seen { said, running, boot, waits, now_ms: 1_000 })
}

#[test]
fn a_new_system_is_fetched_handed_over_tried_and_runs() {
    let mut state = State::default();
    let old = said("0.1.0", true, None);
    assert_eq!(look(&mut state, None, ("0.1.0", "1", false), Some(&old)), Step::Nothing);
    assert_eq!(look(&mut state, Some("0.2.0"), ("0.1.0", "1", false), Some(&old)), Step::Fetch);
    state.hand("0.2.0", "1");
    let waits = look(&mut state, Some("0.2.0"), ("0.1.0", "1", true), Some(&old));
    assert_eq!(waits, Step::Underway("waits for the board to install it"));
    assert!(matches!(look(&mut state, Some("0.2.0"), ("0.1.0", "1", false), Some(&old)), Step::Underway(_)));
    let trial = said("0.2.0", false, None);
    assert_eq!(look(&mut state, Some("0.2.0"), ("0.2.0", "2", false), Some(&trial)), Step::Underway("runs, and is on trial"));
    let good = said("0.2.0", true, None);
    assert_eq!(look(&mut state, Some("0.2.0"), ("0.2.0", "2", false), Some(&good)), Step::Runs);
    assert_eq!(state, State::default());
    // Another name of the same version is not another version.
    assert_eq!(look(&mut state, Some("0.2"), ("0.2.0", "2", false), Some(&good)), Step::Runs);
}

#[test]
fn what_the_first_process_left_or_refused_is_told_once_and_not_tried_again() {
    let why = "it was started 3 times and did not stay up";
    for (words, boot, ran) in [(("", "0.2.0", why), "2", true), (("limpet-0.2.0.update", "", why), "1", false)] {
        let mut state = State::default();
        state.hand("0.2.0", "1");
        let told = said("0.1.0", true, Some(words));
        for _ in 0..3 {
            assert_eq!(look(&mut state, Some("0.2.0"), ("0.1.0", boot, false), Some(&told)), Step::Refused);
        }
        let news = state.news().unwrap();
        assert_eq!((news.version.as_str(), news.why.as_str(), news.ran), ("0.2.0", why, ran));
        assert_eq!(look(&mut state, Some("0.2.0"), ("0.1.0", boot, false), Some(&told)), Step::Refused);
        assert!(state.news().is_none(), "told once");
        // The next version has nothing to do with it, and a way back to the same one only where it was not run.
        assert_eq!(look(&mut state, Some("0.3.0"), ("0.1.0", boot, false), Some(&told)), Step::Fetch);
        let again = look(&mut state, Some("0.2.0"), ("0.1.0", boot, false), Some(&told));
        assert_eq!(again, if ran { Step::Refused } else { Step::Fetch });
    }
}

#[test]
fn a_first_process_that_says_nothing_is_understood_by_what_it_does() {
    let mut state = State::default();
    state.hand("0.2.0", "1");
    assert!(matches!(look(&mut state, Some("0.2.0"), ("0.1.0", "1", false), None), Step::Underway(_)));
    // Power went before it had taken the file: it is still there after the restart.
    assert!(matches!(look(&mut state, Some("0.2.0"), ("0.1.0", "2", true), None), Step::Underway(_)));
    assert_eq!(look(&mut state, Some("0.2.0"), ("0.1.0", "3", false), None), Step::Refused);
    assert!(state.news().is_some_and(|r| r.ran && r.why.contains("came back with 0.1.0")));
    let mut state = State::default();
    state.hand("0.2.0", "1");
    assert_eq!(look(&mut state, Some("0.2.0"), ("0.2.0", "2", false), None), Step::Runs);
}

#[test]
fn a_file_that_nobody_takes_is_not_waited_for_for_ever() {
    let mut state = State::default();
    state.hand("0.2.0", "1");
    let mut at = |now_ms| state.look(Some("0.2.0"), Seen { said: None, running: "0.1.0", boot: "1", waits: true, now_ms });
    assert!(matches!(at(5), Step::Underway(_)));
    assert!(matches!(at(5 + TAKEN_WITHIN_MS), Step::Underway(_)));
    assert_eq!(at(6 + TAKEN_WITHIN_MS), Step::Refused);
    assert!(state.news().is_some_and(|r| r.why.contains("within 10 minutes")));
}

#[test]
fn another_wish_forgets_what_was_handed_over_and_a_bad_way_is_tried_again() {
    let mut state = State::default();
    state.hand("0.2.0", "1");
    assert_eq!(look(&mut state, Some("0.3.0"), ("0.1.0", "1", false), None), Step::Fetch);
    assert_eq!(state.handed(), None);
    state.refuse("0.3.0", "the registry is away".into(), (false, true));
    assert!(state.news().is_some());
    assert_eq!(look(&mut state, Some("0.3.0"), ("0.1.0", "1", false), None), Step::Fetch);
    state.refuse("0.3.0", "the registry is away".into(), (false, true));
    assert!(state.news().is_none(), "the same again is no news");
    state.refuse("0.3.0", "forged".into(), (false, false));
    assert_eq!(look(&mut state, Some("0.3.0"), ("0.1.0", "1", false), None), Step::Refused);
    assert!(state.news().is_some_and(|r| r.why == "forged"));
    assert_eq!(look(&mut state, None, ("0.1.0", "1", false), None), Step::Nothing);
    assert_eq!(state.refused(), None);
    for bytes in [&b""[..], b"{", b"null", b"[]", b"{\"handed\":7}", &[0xff; 100]] {
        assert_eq!(State::parse(bytes), State::default());
    }
}
