//! `limpet update`: new versions of the agent for boards that have joined.
//!
//! In: programs as files. Out: a signed release in the hub's registry. Never: tells a board to take it; a node's annotation, or a
//! FleetRollout, does.

use super::{Dir, Outcome};
use crate::agents;
use clap::Subcommand;
use limpet_hub::operate::release::{self, Wish};
use std::{collections::BTreeMap, fs, path::PathBuf};

/// Publish and list versions of the agent; boards fetch them over the air.
///
/// A published version runs nowhere until a node is told: `kubectl annotate node NAME limpet.dev/agent-version=V`, or a
/// FleetRollout for waves (docs/guides/agent-updates.md).
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sign programs and put them into the registry of the running hub
    #[command(disable_version_flag = true)]
    Publish {
        /// limpet-agent binaries, one a processor
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Three numbers, as in 1.4.0, perhaps with -rc.1 behind them
        #[arg(long, value_name = "V")]
        version: String,
        /// Boards that run a newer version may take it, too
        #[arg(long)]
        allow_downgrade: bool,
        /// The private key, when it is not kept in the hub's pki/update.key
        #[arg(long, value_name = "FILE")]
        update_key: Option<PathBuf>,
        #[command(flatten)]
        dir: Dir,
    },
    /// List published versions
    List {
        #[command(flatten)]
        dir: Dir,
    },
    /// Print the public key that boards check releases with
    Key {
        #[command(flatten)]
        dir: Dir,
    },
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        Command::Publish { files, version, allow_downgrade, update_key, dir } => {
            let mut programs = BTreeMap::new();
            for file in &files {
                let bytes = fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
                let architecture = agents::architecture(&bytes).map_err(|e| format!("{}: {e}", file.display()))?;
                if programs.insert(architecture.to_string(), bytes).is_some() {
                    return Err(format!("{}: there are two programs for {architecture}", file.display()));
                }
            }
            let names: Vec<String> = programs.keys().cloned().collect();
            let wish = Wish { version: version.clone(), allow_downgrade, programs, key: update_key };
            release::publish(&dir.data_dir, &wish).map_err(|e| e.to_string())?;
            println!("version {version} for {} is published", names.join(", "));
            println!("a board takes it with: kubectl annotate --overwrite node NAME limpet.dev/agent-version={version}");
            Ok(())
        }
        Command::List { dir } => {
            let all = release::list(&dir.data_dir).map_err(|e| e.to_string())?;
            all.iter().for_each(|version| println!("{version}"));
            Ok(())
        }
        Command::Key { dir } => {
            let path = dir.data_dir.join("pki/update.pub");
            let key = fs::read_to_string(&path).map_err(|e| format!("{}: {e}; the hub's first start makes it", path.display()))?;
            println!("{}", key.trim());
            Ok(())
        }
    }
}
