//! The binaries that people get: small, static, for every architecture a board may have.
//!
//! In: the workspace, `--target` for each architecture (none: this machine's). Out: `target/dist[/TARGET]/`, and their
//! sizes, which `--check` compares with xtask/sizes.txt. Never: a binary that needs a library of the device.

mod debian;
mod emulated;
mod host;
mod library;
pub mod musl;
mod sizes;

pub use emulated::PACKAGES as EMULATED_PACKAGES;
pub use host::{agent, board, hub};

use std::path::Path;

#[derive(clap::Args)]
pub struct Args {
    /// A static musl target, such as aarch64-unknown-linux-musl; may be repeated. Without it: this machine's own
    #[arg(long, value_name = "TRIPLE", value_parser = musl::parse)]
    target: Vec<musl::Target>,
    /// Only what runs on boards, not `limpet`
    #[arg(long)]
    agent_only: bool,
    /// Only this program: limpet-agent, limpet-init or limpet
    #[arg(long, value_name = "NAME", requires = "target", conflicts_with = "agent_only")]
    program: Option<musl::Program>,
    /// Runs unit tests of what a board runs under QEMU's user emulation instead of building binaries
    #[arg(long, requires = "target")]
    test: bool,
    /// Fails when a binary has grown beyond xtask/sizes.txt
    #[arg(long, conflicts_with = "update_sizes")]
    check: bool,
    /// Writes the sizes to xtask/sizes.txt
    #[arg(long)]
    update_sizes: bool,
}

pub fn run(args: &Args) -> Result<(), String> {
    if args.target.is_empty() {
        tell(&agent()?)?;
        return if args.agent_only { Ok(()) } else { tell(&hub()?).map(|_| ()) };
    }
    let toolchain = musl::Toolchain::prepare()?;
    let mut measured = Vec::new();
    for target in &args.target {
        if args.test {
            toolchain.test(*target)?;
            continue;
        }
        let mut programs = vec![musl::Program::Init, musl::Program::Agent];
        if let Some(only) = args.program {
            programs = vec![only];
        } else if target.runs_hub() && !args.agent_only {
            programs.push(musl::Program::Limpet);
        }
        for program in programs {
            let path = toolchain.build(*target, program)?;
            measured.push((format!("{} {}", target.triple(), program.name()), tell(&path)?));
        }
    }
    match (args.update_sizes, args.check) {
        (true, _) => sizes::update(&measured),
        (_, true) => sizes::check(&measured),
        _ => Ok(()),
    }
}

/// Programs for the boards of most people, of 64 bits and of 32, in `dir/TARGET`, built quickly rather than small, and compared
/// with the sizes that are checked in: what makes them grow makes those that people get grow, too. `LIMPET_UPDATE=1` checks in
/// the sizes of now.
pub fn emulated_builds(dir: &Path) -> Result<(), String> {
    let mut measured = Vec::new();
    for (processor, tested) in [(emulated::WIDE, false), (emulated::NARROW, true)] {
        for path in processor.programs(tested, dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            measured.push((format!("{} {name} {}", processor.board, processor.kind()), tell(&path)?));
        }
    }
    match std::env::var_os("LIMPET_UPDATE") {
        Some(_) => sizes::update(&measured),
        None => sizes::check(&measured),
    }
}

/// Unit tests on the narrow processor, emulated; those of others are for `dist --test`.
pub fn emulated_tests() -> Result<(), String> {
    emulated::NARROW.test()
}

fn tell(path: &Path) -> Result<u64, String> {
    let bytes = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.len();
    println!("{}: {bytes} bytes ({:.2} MiB)", path.display(), bytes as f64 / 1_048_576.0);
    Ok(bytes)
}
