//! The fleet simulator for as long as wanted, in a release build.
//!
//! In: seed, nodes, hours, runs. Out: node-hours a second, failing seeds; they are kept in tests/sim/seeds.txt.
//! Never: anything that `limpet-sim` does not do itself.

use crate::sh;

#[derive(clap::Args)]
pub struct Args {
    /// The first seed; the same seed gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Boards in each run
    #[arg(long, default_value_t = 5)]
    nodes: u64,
    /// Simulated hours of trouble in each run
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// The time between faults, in multiples of about four seconds
    #[arg(long, default_value_t = 1)]
    every: u64,
}

pub fn run(args: &Args) -> Result<(), String> {
    let keep = sh::root().join("tests/sim/seeds.txt");
    let numbers = [
        ("--seed", args.seed.to_string()),
        ("--nodes", args.nodes.to_string()),
        ("--hours", args.hours.to_string()),
        ("--runs", args.runs.to_string()),
        ("--every", args.every.to_string()),
        ("--keep", keep.display().to_string()),
    ];
    let mut words: Vec<&str> = vec!["run", "--release", "--quiet", "-p", "limpet-sim", "--"];
    words.extend(numbers.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    sh::run("cargo", &words)
}
