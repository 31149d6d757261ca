//! Power cuts of an emulated board with Limpet OS, as many as wanted.
//!
//! In: how many, in series of how many, the first seed. Out: one line a series as it ends; the seeds of those that failed, each
//! with the command that does the same again. Each series begins with a new card and ends with a look at all its file systems.
//! Never: two emulated machines at a time.

use crate::{setup, sh};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What tests/e2e/tests/os/power.rs says at its end.
const SURVIVED: &str = "power cuts survived, all file systems whole";

#[derive(clap::Args)]
pub struct Args {
    /// How many in all
    #[arg(long, default_value_t = 500)]
    cuts: u64,
    /// How many with the same card
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(3..))]
    series: u64,
    /// Of the first series; the next ones count on
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// qemu-x86_64, or qemu-arm64 after `cargo xtask dist --agent-only --target aarch64-unknown-linux-musl`
    #[arg(long, default_value = "qemu-x86_64")]
    board: String,
}

/// (seed, cuts) of each series.
fn series(args: &Args) -> Vec<(u64, u64)> {
    let count = args.cuts.div_ceil(args.series);
    (0..count).map(|n| (args.seed.saturating_add(n), args.series.min(args.cuts - n * args.series))).collect()
}

pub fn run(args: &Args) -> Result<(), String> {
    setup::run()?;
    let (mut survived, mut failed) = (0, Vec::new());
    for (seed, cuts) in series(args) {
        let begun = Instant::now();
        let mut test = Command::new("cargo");
        test.args(["test", "--quiet", "-p", "limpet-e2e", "--test", "os", "power_cuts_at_random", "--", "--nocapture"]);
        test.current_dir(sh::root()).env("LIMPET_POWER_BOARD", &args.board);
        test.env("LIMPET_POWER_SEED", seed.to_string()).env("LIMPET_POWER_CUTS", cuts.to_string());
        let outcome = told(&mut test);
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        match &outcome {
            Ok(()) => survived += cuts,
            Err(_) => failed.push(seed),
        }
        let word = if outcome.is_ok() { "survived" } else { "FAILED" };
        println!("seed {seed}: {cuts} power cuts {word}, {minutes:.1} min");
    }
    println!("{survived} of {} power cuts survived", args.cuts);
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!("again, one of them: cargo xtask cuts --cuts {} --seed N; N of {failed:?}", args.series)),
    }
}

/// Its words as they come. A test that was skipped has survived nothing.
fn told(test: &mut Command) -> Result<(), String> {
    let mut child = test.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot run cargo: {e}"))?;
    let mut survived = false;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
        survived |= line.contains(SURVIVED);
        println!("{line}");
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() && survived { Ok(()) } else { Err(format!("the test ended with {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_is_in_one_series() {
        let args = |cuts, series| Args { cuts, series, seed: 7, board: String::new() };
        assert_eq!(series(&args(500, 25)).len(), 20);
        assert_eq!(series(&args(52, 25)), [(7, 25), (8, 25), (9, 2)]);
        assert_eq!(series(&args(3, 25)), [(7, 3)]);
        assert_eq!(series(&args(0, 25)), []);
    }
}
