//! One file a command.
//!
//! In: parsed arguments. Out: `Ok`, or the sentence for the operator. Never: exits by itself.

pub mod broker;
pub mod completions;
pub mod flash;
pub mod hub;
pub mod image;
pub mod node;
mod node_add;
mod node_args;
pub mod token;
pub mod update;
pub mod why;

/// The sentence that goes to stderr.
pub type Outcome = Result<(), String>;

/// For commands that speak with the hub of this machine, or look at what it has left.
#[derive(clap::Args)]
struct Dir {
    /// The hub's data directory
    #[arg(long, value_name = "DIR", env = "LIMPET_DATA_DIR")]
    data_dir: std::path::PathBuf,
}
