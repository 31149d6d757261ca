//! What a firmware adds: its sensors, its switches, its light.
//!
//! In: the configuration, how the link stands. Out: figures and conditions. Never: waits; these are called between messages.

use alloc::{string::String, vec::Vec};
use limpet_leaf_core::{Condition, Config, Reading};

/// How it stands, for a light or a display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// There is no address yet, or nobody to reach.
    Connecting,
    /// The hub has to do something first, or somebody with a new token; the sentence says what.
    Waiting(&'a str),
    Ready,
    Offline,
}

pub trait App {
    /// Follows the configuration, or says in a sentence why not. Called at the start with what flash holds, and on each change.
    fn configure(&mut self, config: &Config) -> Result<(), String>;

    fn measure(&mut self) -> (Vec<Reading>, Vec<Condition>);

    fn state(&mut self, state: State<'_>);
}
