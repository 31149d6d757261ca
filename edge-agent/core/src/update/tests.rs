//! Updates under power cuts: whatever happens between two steps, a sound program runs in the end.
//!
//! In: a board as a model (a disk with files and a state, programs that are good or bad). Out: which program runs.

use super::*;

const INSTALLED: &str = "1.0.0";

fn fetched(version: &str) -> Fetched {
    Fetched { version: version.into(), sha256: version.into(), over: INSTALLED.into() }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Good,
    EndsAtOnce,
    /// Runs, and the hub never hears of it.
    Mute,
    /// Its file is gone.
    Missing,
}

/// A board whose power is cut after so many durable steps, once; and that goes on after it.
struct Board {
    disk: State,
    cut_after: u32,
    steps: u32,
    cuts: u32,
}

struct Cut;

impl Board {
    fn new(cut_after: u32) -> Board {
        Board { disk: State::default(), cut_after, steps: 0, cuts: 0 }
    }

    /// Power may go before the state is replaced, or after.
    fn save(&mut self, state: &State) -> Result<(), Cut> {
        for before in [true, false] {
            self.steps += 1;
            if self.steps == self.cut_after {
                self.cuts += 1;
                if !before {
                    self.disk = state.clone();
                }
                return Err(Cut);
            }
        }
        self.disk = state.clone();
        Ok(())
    }

    /// From the keeper's start until a program runs for good; its version.
    fn keeper(&mut self, kind: impl Fn(&str) -> Kind, wanted: &str) -> Result<String, Cut> {
        let mut overdue = false;
        for _ in 0..20 {
            let mut state = State::parse(&self.disk.bytes());
            if std::mem::take(&mut overdue) && state.on_trial() {
                state.overdue(INSTALLED);
            }
            let mut choice = state.start(INSTALLED);
            if choice.as_ref().is_some_and(|f| kind(&f.version) == Kind::Missing) {
                state.broken("its file is damaged".into(), INSTALLED);
                choice = state.start(INSTALLED);
            }
            if state != self.disk {
                self.save(&state)?;
            }
            let version = choice.map_or(INSTALLED.to_string(), |f| f.version);
            match kind(&version) {
                Kind::EndsAtOnce | Kind::Missing => continue,
                Kind::Mute => {
                    overdue = true;
                    continue;
                }
                Kind::Good => {}
            }
            let mut state = self.disk.clone();
            if state.confirm() {
                self.save(&state)?;
            }
            match state.wish(wanted, INSTALLED) {
                Wish::Nothing => return Ok(version),
                Wish::Take(choice) => state.stage(choice),
                Wish::Fetch => state.stage(Some(fetched(wanted))),
            }
            self.save(&state)?;
        }
        panic!("no program stays up: {:?}", self.disk)
    }

    fn run(&mut self, kind: impl Fn(&str) -> Kind + Copy, wanted: &str) -> String {
        loop {
            if let Ok(version) = self.keeper(kind, wanted) {
                return version;
            }
        }
    }
}

/// Cut at every step, one after the other; the outcome is always the same.
fn at_every_cut(wanted: &str, kind: impl Fn(&str) -> Kind + Copy, outcome: &str, refused: Option<&str>) {
    for cut in 0..200 {
        let mut board = Board::new(cut);
        let ran = board.run(kind, wanted);
        assert_eq!(ran, outcome, "cut after step {cut}");
        assert_eq!(board.disk.refused().map(|r| r.version.as_str()), refused, "cut after step {cut}");
        assert!(!board.disk.on_trial());
        if cut > 0 && board.cuts == 0 {
            return;
        }
    }
    panic!("the steps have no end");
}

#[test]
fn a_good_update_runs_in_the_end_wherever_power_is_cut() {
    at_every_cut("1.1.0", |_| Kind::Good, "1.1.0", None);
}

#[test]
fn a_bad_update_is_left_wherever_power_is_cut() {
    for bad in [Kind::EndsAtOnce, Kind::Mute, Kind::Missing] {
        let kind = |v: &str| if v == "1.1.0" { bad } else { Kind::Good };
        at_every_cut("1.1.0", kind, "1.0.0", Some("1.1.0"));
    }
}

#[test]
fn from_one_fetched_program_to_the_next_and_back() {
    let mut board = Board::new(0);
    assert_eq!(board.run(|_| Kind::Good, "1.1.0"), "1.1.0");
    let bad = |v: &str| if v == "1.2.0" { Kind::EndsAtOnce } else { Kind::Good };
    assert_eq!(board.run(bad, "1.2.0"), "1.1.0");
    assert_eq!(board.disk.wish("1.2.0", INSTALLED), Wish::Nothing, "it is not tried again");
    assert_eq!(board.run(|_| Kind::Good, "1.3.0"), "1.3.0");
    // What ran before is here and needs no signature to return to; what ran before that does.
    assert_eq!(board.disk.wish("1.1.0", INSTALLED), Wish::Take(Some(fetched("1.1.0"))));
    assert_eq!(board.disk.wish("0.9.0", INSTALLED), Wish::Fetch);
    assert_eq!(board.disk.wish(INSTALLED, INSTALLED), Wish::Take(None));
    assert_eq!(board.run(|_| Kind::Good, "1.1.0"), "1.1.0");
    assert_eq!(board.disk.files().collect::<Vec<_>>(), ["1.1.0", "1.3.0"]);
}

#[test]
fn a_good_program_that_breaks_later_is_left_too() {
    let mut board = Board::new(0);
    board.run(|_| Kind::Good, "1.1.0");
    board.run(|_| Kind::Good, "1.2.0");
    let rotten = |v: &str| if v == "1.2.0" { Kind::Missing } else { Kind::Good };
    assert_eq!(board.run(rotten, "1.2.0"), "1.1.0");
    let all_rotten = |v: &str| if v == INSTALLED { Kind::Good } else { Kind::Missing };
    assert_eq!(board.run(all_rotten, "1.2.0"), "1.0.0");
}

#[test]
fn a_newer_installed_program_wins_but_not_over_what_was_meant() {
    let mut state = State::default();
    state.stage(Some(fetched("1.1.0")));
    state.confirm();
    assert_eq!(state.start("1.0.0"), Some(fetched("1.1.0")));
    let mut updated_card = state.clone();
    assert_eq!(updated_card.start("1.2.0"), None);
    assert_eq!(updated_card, State::default());
    let mut older_card = state.clone();
    assert_eq!(older_card.start("0.9.0"), Some(fetched("1.1.0")));
    // Signed to go back to: the installed one is newer, and was so when it came.
    let mut back = State::default();
    back.stage(Some(fetched("0.8.0")));
    back.confirm();
    assert_eq!(back.start(INSTALLED), Some(fetched("0.8.0")));
}

#[test]
fn the_way_to_the_hub_may_be_bad_for_a_while_a_program_not() {
    let mut state = State::default();
    for tries in 1..=TRIES_MAX {
        assert_eq!(state.wish("1.1.0", INSTALLED), Wish::Fetch);
        state.stage(Some(fetched("1.1.0")));
        state.start(INSTALLED);
        state.overdue(INSTALLED);
        assert_eq!(state.refused().map(|r| r.tries), Some(tries));
    }
    assert_eq!(state.wish("1.1.0", INSTALLED), Wish::Nothing);
    assert_eq!(state.wish("1.2.0", INSTALLED), Wish::Fetch);
    assert!(state.news().is_some_and(|r| r.ran) && state.news().is_none());
    assert!(state.wanted(None) && state.refused().is_none());
    state.refuse("1.1.0", "no such version".into(), true);
    assert_eq!(state.wish("1.1.0", INSTALLED), Wish::Fetch);
    state.refuse("1.1.0", "forged".into(), false);
    assert_eq!(state.wish("1.1.0", INSTALLED), Wish::Nothing);
}

#[test]
fn what_is_on_the_disk_may_be_anything() {
    for bytes in [&b""[..], b"{", b"null", b"[]", b"{\"current\":7}", &[0xff; 100]] {
        assert_eq!(State::parse(bytes).start(INSTALLED), None);
    }
}
