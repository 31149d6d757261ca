//! Thousands of boards against one real hub: the agent's own link and its own cores, with pretend runtimes.
//!
//! In: the path of a `limpet` binary, a number of boards. Out: a table of what the hub bore, with its marks.
//! Each board (`limpet-board`) has a key, a certificate and a connection of its own; all of them share this process.
//! Never: a figure that was not measured just now; a hub that outlives this program.
#![allow(clippy::disallowed_methods)]

mod pods;
mod steps;

use clap::Parser;
use limpet_load::figures::Figures;
use std::{path::PathBuf, process::ExitCode};

#[derive(Parser)]
#[command(name = "limpet-fleet", about = "Figures of a hub with many boards")]
struct Args {
    /// The `limpet` binary of the hub to start and measure
    #[arg(long, value_name = "FILE")]
    hub: PathBuf,
    #[arg(long, default_value_t = 1_000)]
    boards: usize,
    /// Pods that are made at the same time
    #[arg(long, default_value_t = 1_000)]
    batch: usize,
    /// How often the hub is killed, and how often the ConfigMap changes
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Waits before the end with everything running, seconds: somebody wants to look
    #[arg(long, default_value_t = 0)]
    hold: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = files(args.boards).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.map_err(|e| e.to_string())?.block_on(steps::run(&args))
    });
    match outcome {
        Ok(figures) => {
            Figures::print(&figures);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("limpet-fleet: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Room for a socket a board; the hub inherits it.
fn files(boards: usize) -> Result<(), String> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let want = boards as u64 + 500;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| e.to_string())?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.max(want), hard.max(want))
        .map_err(|e| format!("{boards} boards need {want} open files, {hard} are allowed (ulimit -n): {e}"))
}
