//! How the agent writes what is private, which its link needs: the agent's own.

#[allow(dead_code)]
#[path = "../../../edge-agent/src/journal/key.rs"]
mod key;

pub use key::write_private;
