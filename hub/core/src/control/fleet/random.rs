//! Random fleets: whatever boards do meanwhile, the budget holds and the rollout ends.
//!
//! In: a seed. Out: a panic that names it. Never: a history that cannot be run again.

use super::{
    decide::{Phase, decide},
    programs::Kept,
    units::{State, Unit},
};
use crate::{
    Timestamp,
    clocks::Even,
    view::{FleetRolloutData, IntOrString, Labels, Wave},
};
use std::collections::BTreeMap;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn unit(i: u64, d: &mut Dice) -> Unit {
    let labels: Labels = [("shop".to_owned(), format!("s{}", d.roll(3)))].into_iter().collect();
    Unit {
        name: format!("n{i}"),
        labels,
        state: State::Old,
        ok: d.roll(8) > 0,
        away: d.roll(8) == 0,
        lock: (d.roll(8) == 0).then(|| "busy".into()),
        going_back: false,
        kept: Kept::Nothing,
    }
}

fn down(units: &[Unit]) -> BTreeMap<String, i32> {
    let mut out = BTreeMap::new();
    for u in units {
        let is_down = u.away || !u.ok || matches!(u.state, State::Changed { .. });
        *out.entry(u.labels.get("shop").unwrap().to_owned()).or_insert(0) += i32::from(is_down);
    }
    out
}

/// What the world does between two looks.
fn live(units: &mut [Unit], d: &mut Dice, calm: bool) {
    for u in units {
        match (&u.state, d.roll(10)) {
            (State::Changed { .. }, 0..6) if !u.away => (u.state, u.ok) = (State::Healthy, true),
            _ if calm => (u.away, u.lock) = (false, None),
            (_, 6) => u.away = !u.away,
            (_, 7) => u.lock = if u.lock.is_some() { None } else { Some("busy".into()) },
            _ => {}
        }
    }
}

fn history(seed: u64) {
    let mut d = Dice(seed);
    let mut units: Vec<Unit> = (0..=d.roll(19)).map(|i| unit(i, &mut d)).collect();
    let mut rollout = FleetRolloutData::default();
    let most = d.roll(3) as i32 + 1;
    rollout.spec.budget.group_by = "shop".into();
    rollout.spec.budget.max_unavailable = IntOrString::Int(most);
    rollout.spec.budget.max_concurrent = d.roll(4) as i32;
    let wave = Wave { percent: 30, soak: "5s".into(), ..Wave::default() };
    rollout.spec.waves = (0..d.roll(3)).map(|_| wave.clone()).collect();
    for step in 0..600i64 {
        let now = Timestamp::from_second(1_795_000_000 + step).unwrap();
        let decision = decide(&rollout, 1, &units, (now, Even::ALWAYS));
        let before = down(&units);
        for i in &decision.start {
            let u = &mut units[*i];
            assert!(matches!(u.state, State::Old) && !u.away && u.lock.is_none(), "seed {seed}: {u:?} was changed");
            // Its time is not what this test is about: no deadline.
            u.state = State::Changed { since: None };
        }
        for (shop, n) in down(&units) {
            assert!(n <= most.max(before[&shop]), "seed {seed}: {n} of shop {shop} are down, {most} may be");
        }
        if decision.phase == Phase::Complete {
            assert!(units.iter().all(|u| matches!(u.state, State::Healthy)), "seed {seed}");
            return;
        }
        rollout.status.wave_index = decision.wave_index;
        rollout.status.wave_reached_at = decision.wave_reached_at;
        live(&mut units, &mut d, step > 300);
    }
    panic!("seed {seed}: never complete: {units:?}");
}

#[test]
fn budgets_hold_and_rollouts_end() {
    (0..400).for_each(history);
}
