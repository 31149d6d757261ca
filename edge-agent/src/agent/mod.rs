//! The agent process: wires the cores to the link, the journal, the runtime and the images.
//!
//! In: the command line, fd 3 to the keeper. Out: an exit code for the keeper.
//! `start` opens everything in the order in which it depends on each other; `resume` looks at what runs already; `state` is the
//! loop; `carry` takes what the cores decided to the journal, the hub and the hands (`act`);
//! the other files translate.
//! Never: decides what should be; that is `limpet-agent-core`.

mod act;
mod carry;
pub mod changes;
pub mod config;
mod convert;
pub mod devices;
mod hub;
mod kept;
mod manifests;
mod messages;
mod metered;
mod node;
mod notes;
mod os_update;
mod pages;
mod pressure;
mod released;
mod renewal;
mod resources;
mod rest;
mod resume;
mod start;
mod spare;
mod spins;
mod state;
mod update;
mod users;

pub use config::{Config, Paths};
pub use start::{StartOptions, run};
