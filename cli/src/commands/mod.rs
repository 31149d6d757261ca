//! One file a command.
//!
//! In: parsed arguments. Out: `Ok`, or the sentence for the operator. Never: exits by itself.

pub mod broker;
pub mod completions;
pub mod flash;
pub mod hub;
pub mod image;
pub mod messages;
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

/// For commands that ask a running hub, from wherever.
#[derive(clap::Args)]
struct Reach {
    /// The hub's data directory; its admin.kubeconfig is used
    #[arg(long, value_name = "DIR", env = "LIMPET_DATA_DIR")]
    data_dir: Option<std::path::PathBuf>,
    /// A kubeconfig instead
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<std::path::PathBuf>,
}

impl Reach {
    fn kubeconfig(&self) -> Result<std::path::PathBuf, String> {
        match (&self.data_dir, &self.kubeconfig) {
            (Some(dir), _) => Ok(dir.join("admin.kubeconfig")),
            (None, Some(file)) => Ok(file.clone()),
            (None, None) => Err("which hub? say --data-dir DIR or --kubeconfig FILE".into()),
        }
    }
}
