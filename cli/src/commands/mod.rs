//! One file a command.
//!
//! In: parsed arguments. Out: `Ok`, or the sentence for the operator. Never: exits by itself.

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
