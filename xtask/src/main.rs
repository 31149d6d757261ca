//! `cargo xtask <wish>`: the one place for every chore of a developer; CI calls the same.
//!
//! In: a wish. Out: an exit code, and on failure a sentence that says what to do.
//! Never: a tool that is not installed without saying so first.

mod app_armor;
mod bench;
mod beside;
mod binaries;
mod cuts;
mod demo;
mod dist;
mod leaf;
mod protobuf_facts;
mod schema_facts;
mod setup;
mod sh;
mod sim;
mod test;
mod tidy;
mod v2;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The developer's one command", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    wish: Wish,
}

#[derive(Subcommand)]
enum Wish {
    /// One hub and two boards in network namespaces, with a Deployment; Ctrl-C cleans up
    Demo {
        /// The same tour unattended: prints each step with its time, fails when one fails
        #[arg(long)]
        check: bool,
    },
    /// Install what tests need, and run all of them
    Test {
        /// Only the tests of these packages, and nothing else
        packages: Vec<String>,
        /// Only the parts whose names contain this, such as ARM, which nothing else asks for; may be repeated
        #[arg(long, value_name = "WORD", conflicts_with = "packages")]
        part: Vec<String>,
    },
    /// What style a machine can check: door signs, widths, the cores' dependencies
    Tidy,
    /// Measure, and print a table
    Bench(bench::Args),
    /// Simulate a fleet under faults, from a seed
    Sim(sim::Args),
    /// Cut an emulated board's power at random points, again and again
    Cuts(cuts::Args),
    /// Build the binaries small and static, for this machine or for boards
    Dist(dist::Args),
    /// Tests on Debian's kernel with cgroup v2 alone, in an emulated machine: the runtime's, or hub and boards end to end
    V2(v2::Args),
    /// Install what tests and demo need; says what and why first
    Setup,
    /// Make hub/objects/schema/facts-*.json anew from the published package
    SchemaFacts,
    /// Compile the AppArmor profile of containers with Debian's parser
    AppArmor,
    /// Make the protobuf facts anew from the published packages
    ProtobufFacts,
}

fn main() -> ExitCode {
    let result = match Cli::parse().wish {
        Wish::Demo { check } => demo::run(check),
        Wish::Test { packages, part } => test::run(&packages, &part),
        Wish::Tidy => tidy::run(),
        Wish::Bench(args) => bench::run(&args),
        Wish::Sim(args) => sim::run(&args),
        Wish::Cuts(args) => cuts::run(&args),
        Wish::Dist(args) => dist::run(&args),
        Wish::V2(args) => v2::run(&args),
        Wish::Setup => setup::run(),
        Wish::SchemaFacts => schema_facts::run(),
        Wish::AppArmor => app_armor::run(),
        Wish::ProtobufFacts => protobuf_facts::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
