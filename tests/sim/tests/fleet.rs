//! The fleet under trouble, for many seeds; one seed with `LIMPET_SIM_SEED=N`.
//!
//! In: seeds. Out: convergence and quiet, or a sentence with the seed. Never: chance of its own.

use limpet_sim::{Settings, run};

fn settings(seed: u64, boards: usize, minutes: u64) -> Settings {
    Settings { seed, boards, trouble_ms: minutes * 60_000, fault_every: 1 }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_seed_converges_and_stays() {
    if let Some(seed) = number("LIMPET_SIM_SEED") {
        let boards = number("LIMPET_SIM_BOARDS").unwrap_or(3) as usize;
        println!("{:?}", run(&settings(seed, boards, number("LIMPET_SIM_MINUTES").unwrap_or(10))).unwrap());
        return;
    }
    let mut board_hours = 0.0;
    for seed in 0..number("LIMPET_SIM_SEEDS").unwrap_or(30) {
        let report = run(&settings(seed, 1 + seed as usize % 5, 10)).unwrap_or_else(|e| panic!("{e}"));
        board_hours += report.board_ms as f64 / 3_600_000.0;
        assert!(report.messages > 0 && report.containers_started > 0, "seed {seed}: nothing happened");
    }
    println!("{board_hours:.0} board-hours");
}

#[test]
fn old_bugs_stay_fixed() {
    for line in include_str!("../seeds.txt").lines() {
        let text = line.split('#').next().unwrap_or_default();
        let words: Vec<u64> = text.split_whitespace().map(|w| w.parse().unwrap()).collect();
        if let [seed, boards, minutes, every] = words[..] {
            let settings = Settings { fault_every: every, ..settings(seed, boards as usize, minutes) };
            run(&settings).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let once = run(&settings(7, 3, 5)).unwrap();
    assert_eq!(once, run(&settings(7, 3, 5)).unwrap());
    assert_ne!(once.trace, run(&settings(8, 3, 5)).unwrap().trace);
}
