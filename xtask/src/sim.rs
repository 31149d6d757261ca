//! The fleet simulator for as long as wanted, in an optimised build.
//!
//! In: seed, nodes, hours, runs. Out: node-hours a second, failing seeds; they are kept in tests/sim/seeds.txt. With
//! `--twice`: whether an optimised build and an unoptimised one live through the same to the byte.
//! Never: anything else that `limpet-sim` does not do itself.

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
    /// The same in minutes, as failures say it
    #[arg(long)]
    minutes: Option<u64>,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// The time between faults of the whole fleet, in multiples of about four seconds
    #[arg(long, default_value_t = 1)]
    every: u64,
    /// Pods of single boards only (0), the scheduler, all controllers and workloads (1), or also quotas, disruption
    /// budgets, drains, rollouts through the fleet and a hub whose clock is set (2)
    #[arg(long, default_value_t = 2)]
    control: u64,
    /// Run everything in two builds, and compare the hashes of all events and messages
    #[arg(long)]
    twice: bool,
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
        ("--minutes", args.minutes.unwrap_or((args.hours * 60.0).max(1.0) as u64).to_string()),
        ("--runs", args.runs.to_string()),
        ("--every", args.every.to_string()),
        ("--control", args.control.to_string()),
    ];
    let numbers: Vec<&str> = numbers.iter().flat_map(|(name, value)| [*name, value.as_str()]).collect();
    if args.twice {
        return twice(&numbers);
    }
    let (keep, mut words) = (keep.display().to_string(), vec!["run", "--profile", "sim", "--quiet", "-p", "limpet-sim", "--"]);
    words.extend(&numbers);
    words.extend(["--keep", keep.as_str()]);
    let texts = [("--follow", &args.follow), ("--show", &args.show)];
    words.extend(texts.iter().filter_map(|(name, text)| Some([*name, text.as_deref()?])).flatten());
    sh::run("cargo", &words)
}

/// The same seeds in a build with and in one without optimisation.
fn twice(numbers: &[&str]) -> Result<(), String> {
    let traces = |profile: &str| {
        let file = std::env::temp_dir().join(format!("limpet-sim-traces-{}-{profile}.txt", std::process::id()));
        let name = file.display().to_string();
        let words = ["run", "--profile", profile, "--quiet", "-p", "limpet-sim", "--", "--traces", name.as_str()];
        // A failing seed has to fail in both.
        let outcome = sh::run("cargo", &[&words[..], numbers].concat());
        let traces = std::fs::read_to_string(&file);
        // Without the file nothing ran, and then there is nothing to remove.
        let _ = std::fs::remove_file(&file);
        traces.map_err(|e| outcome.err().unwrap_or(format!("cannot read {name}: {e}")))
    };
    let (slow, fast) = (traces("dev")?, traces("sim")?);
    if slow.lines().count() != fast.lines().count() {
        return Err("one build ran more seeds than the other".into());
    }
    match slow.lines().zip(fast.lines()).find(|(a, b)| a != b) {
        Some((slow, fast)) => Err(format!("builds differ: without optimisation {slow}, with it {fast}")),
        None => {
            println!("{} seeds are the same in both builds", slow.lines().count());
            Ok(())
        }
    }
}
