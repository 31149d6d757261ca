//! The fleet simulator for as long as wanted, in an optimised build.
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
    /// The time between faults of the whole fleet, in multiples of about four seconds
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// With the scheduler, all controllers and workloads (1), or pods of single boards only (0)
    #[arg(long, default_value_t = 1)]
    control: u64,
    /// Print each change of objects whose key contains this
    #[arg(long)]
    follow: Option<String>,
    /// Print at the end the objects whose key contains this
    #[arg(long)]
    show: Option<String>,
}

pub fn run(args: &Args) -> Result<(), String> {
    let keep = sh::root().join("tests/sim/seeds.txt");
    let numbers = [
        ("--seed", args.seed.to_string()),
        ("--nodes", args.nodes.to_string()),
        ("--hours", args.hours.to_string()),
        ("--runs", args.runs.to_string()),
        ("--every", args.every.to_string()),
        ("--control", args.control.to_string()),
        ("--keep", keep.display().to_string()),
    ];
    let mut words: Vec<&str> = vec!["run", "--profile", "sim", "--quiet", "-p", "limpet-sim", "--"];
    words.extend(numbers.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    let texts = [("--follow", &args.follow), ("--show", &args.show)];
    words.extend(texts.iter().filter_map(|(name, text)| Some([*name, text.as_deref()?])).flatten());
    sh::run("cargo", &words)
}
