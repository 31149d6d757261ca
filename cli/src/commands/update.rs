//! `limpet update`: new versions of the agent and of Limpet OS for boards that have joined.
//!
//! In: programs, or files of `limpet image update`. Out: signed releases in the hub's registry. Never: tells a board to take
//! it; a node's annotation, or a FleetRollout, does.

use super::{Dir, Outcome};
use crate::agents;
use clap::Subcommand;
use limpet_hub::operate::{
    os_release::{self, Update},
    release::{self, Wish},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Publish and list versions of the agent and of Limpet OS; boards fetch them over the air.
///
/// A published version runs nowhere until a node is told: `kubectl annotate node NAME limpet.dev/agent-version=V` or
/// `limpet.dev/os-version=V`, or a FleetRollout for waves (docs/guides/agent-updates.md).
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put programs, which it signs, or updates of `limpet image update` into the registry of the running hub
    #[command(disable_version_flag = true)]
    Publish {
        /// limpet-agent binaries, one a processor; or updates of Limpet OS, one a board
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Of agents: three numbers, as in 1.4.0, perhaps with -rc.1 behind them. An update of Limpet OS has its own
        #[arg(long, value_name = "V")]
        version: Option<String>,
        /// Boards that run a newer agent may take it, too
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
            let read = |file: PathBuf| match fs::read(&file) {
                Ok(bytes) => Ok((file, bytes)),
                Err(e) => Err(format!("{}: {e}", file.display())),
            };
            let files = files.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
            match files.iter().filter(|(_, bytes)| os_release::is_update(bytes)).count() {
                0 => agents_of(&files, version, allow_downgrade, update_key, &dir.data_dir),
                n if n == files.len() => {
                    systems(&files, version.is_some() || allow_downgrade, update_key.as_deref(), &dir.data_dir)
                }
                _ => Err("some of these are programs and some are updates of Limpet OS: publish the ones, then the others".into()),
            }
        }
        Command::List { dir } => {
            let all = release::list(&dir.data_dir).map_err(|e| e.to_string())?;
            all.iter().for_each(|version| println!("{version}"));
            for (board, versions) in os_release::list(&dir.data_dir).map_err(|e| e.to_string())? {
                versions.iter().for_each(|version| println!("Limpet OS {version} for {board}"));
            }
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

fn agents_of(
    files: &[(PathBuf, Vec<u8>)],
    version: Option<String>,
    allow_downgrade: bool,
    key: Option<PathBuf>,
    data_dir: &Path,
) -> Outcome {
    let mut programs = BTreeMap::new();
    for (file, bytes) in files {
        let architecture = agents::architecture(bytes).map_err(|e| format!("{}: {e}", file.display()))?;
        if programs.insert(architecture.to_string(), bytes.clone()).is_some() {
            return Err(format!("{}: there are two programs for {architecture}", file.display()));
        }
    }
    let version = version.ok_or("say --version, such as 1.4.0: which version of the agent these programs are")?;
    let names: Vec<String> = programs.keys().cloned().collect();
    let wish = Wish { version: version.clone(), allow_downgrade, programs, key };
    release::publish(data_dir, &wish).map_err(|e| e.to_string())?;
    println!("version {version} for {} is published", names.join(", "));
    println!("a board takes it with: kubectl annotate --overwrite node NAME limpet.dev/agent-version={version}");
    Ok(())
}

/// Nothing is published before all are looked at.
fn systems(files: &[(PathBuf, Vec<u8>)], has_others: bool, key: Option<&Path>, data_dir: &Path) -> Outcome {
    if has_others {
        return Err("--version and --allow-downgrade are for agents: an update of Limpet OS has its version from \
                    `limpet image update --os-version`, and boards never go back to an older one"
            .into());
    }
    let key = os_release::key(data_dir, key).map_err(|e| e.to_string())?;
    let told = |file: &Path| { let file = file.display().to_string(); move |e: String| format!("{file}: {e}") };
    let read = files.iter().map(|(file, bytes)| Ok((file, Update::read(bytes, &key).map_err(told(file))?)));
    for (file, update) in read.collect::<Result<Vec<_>, String>>()? {
        os_release::publish(data_dir, &update).map_err(|e| told(file)(e.to_string()))?;
        let (board, version) = (&update.manifest.board, &update.manifest.version);
        println!("Limpet OS {version} for {board} is published");
        println!("a board takes it with: kubectl annotate --overwrite node NAME limpet.dev/os-version={version}");
    }
    Ok(())
}
