//! The agent process: wires the cores to the link, the journal, the runtime and the images.
//!
//! In: the command line, fd 3 to the keeper. Out: an exit code for the keeper.
//! `start` opens everything in the order in which it depends on each other; `state` is the loop; `act` carries out
//! what the cores decide; the other files translate.
//! Never: decides what should be; that is `limpet-agent-core`.

mod act;
pub mod config;
mod convert;
pub mod devices;
mod hub;
mod kept;
mod manifests;
mod messages;
mod metered;
mod node;
mod os_update;
mod pages;
mod pressure;
mod released;
mod renewal;
mod resources;
mod start;
mod spare;
mod state;
mod update;
mod users;

pub use config::{Config, Paths};
pub use start::{StartOptions, run};
