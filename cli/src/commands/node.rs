//! `limpet node`: who may be a node of this hub.
//!
//! In: a hub's data directory. Out: devices that joined or wait; decisions. Never: a decision without a name.

use super::{Dir, Outcome, node_add};
use crate::{duration, table};
use clap::Subcommand;
use limpet_hub::{
    enroll::{Decision, Devices, fingerprint},
    operate,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Add machines, list devices, let waiting ones in, remove joined ones.
///
/// What a node runs and how it fares is Kubernetes: `kubectl get nodes`. This is about the door: keys, tokens, hardware.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a machine that runs already a node, over SSH; as root or with a sudo that asks for no password
    Add(Box<node_add::AddArgs>),
    /// Print the script that `add` runs, to look at or to run by hand
    Script(Box<node_add::ScriptArgs>),
    /// List devices that joined, that wait, and copies of cards
    List {
        #[command(flatten)]
        dir: Dir,
    },
    /// Let a waiting device in; compare its fingerprint first
    Approve {
        /// Name of the node
        name: String,
        #[command(flatten)]
        dir: Dir,
    },
    /// Refuse a waiting device
    Reject {
        /// Name of the node
        name: String,
        #[command(flatten)]
        dir: Dir,
    },
    /// Cut a device off: its key opens nothing any more, its Node object goes
    Remove {
        /// Name of the node
        name: String,
        #[command(flatten)]
        dir: Dir,
    },
}

pub fn run(args: Args) -> Outcome {
    match args.command {
        Command::Add(args) => node_add::add(&args),
        Command::Script(args) => node_add::script(&args),
        Command::List { dir } => {
            let devices = operate::list_nodes(&dir.data_dir).map_err(|e| e.to_string())?;
            let head = ["NAME", "STATE", "FINGERPRINT", "HARDWARE", "POOL", "TOKEN", "SINCE", "DEVICE"];
            print!("{}", table::render(head, &rows(&devices)));
            Ok(())
        }
        Command::Approve { name, dir } => decide(&dir, &name, Decision::Approved, "approved: it joins within a minute"),
        Command::Reject { name, dir } => decide(&dir, &name, Decision::Rejected, "rejected"),
        Command::Remove { name, dir } => match operate::remove_node(&dir.data_dir, &name) {
            Ok(true) => {
                println!("node {name} removed; it needs a new token to come back");
                Ok(())
            }
            Ok(false) => Err(format!("no node {name} has joined; `limpet node list` shows those that have")),
            Err(e) => Err(e.to_string()),
        },
    }
}

fn decide(dir: &Dir, name: &str, decision: Decision, done: &str) -> Outcome {
    match operate::decide_node(&dir.data_dir, name, decision) {
        Ok(true) => {
            println!("node {name} {done}");
            Ok(())
        }
        Ok(false) => Err(format!("no device waits as {name}; `limpet node list` shows those that do")),
        Err(e) => Err(e.to_string()),
    }
}

fn rows(devices: &Devices) -> Vec<[String; 8]> {
    let or_dash = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    let mut rows = Vec::new();
    for waiting in &devices.waiting {
        let state = match waiting.decision {
            Decision::Waiting => "Waiting",
            Decision::Approved => "Approved",
            Decision::Rejected => "Rejected",
        };
        rows.push([
            waiting.node.clone(),
            state.into(),
            fingerprint(&waiting.key_sha256),
            or_dash(&waiting.hardware),
            "-".into(),
            waiting.token.clone(),
            ago(waiting.asked_ms),
            format!("{} from {}", or_dash(&waiting.description), waiting.address),
        ]);
    }
    for joined in &devices.joined {
        let print = fingerprint(&joined.key_sha256);
        rows.push([
            joined.node.clone(),
            "Joined".into(),
            print.clone(),
            or_dash(&joined.hardware),
            joined.pool.clone().unwrap_or_else(|| "-".into()),
            joined.token.clone(),
            ago(joined.joined_ms),
            or_dash(&joined.description),
        ]);
        if let Some(copy) = &joined.copy {
            rows.push([
                joined.node.clone(),
                "Copy, kept out".into(),
                print,
                or_dash(&copy.hardware),
                "-".into(),
                "-".into(),
                ago(copy.seen_ms),
                format!("another device with the same card, from {}", copy.address),
            ]);
        }
    }
    rows
}

fn ago(ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{} ago", duration::text(now.saturating_sub(Duration::from_millis(ms))))
}
