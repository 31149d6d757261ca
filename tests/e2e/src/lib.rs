//! A small world of real parts on one machine: a hub, boards in network namespaces, kubectl, registries.
//!
//! In: binaries built from this workspace. Out: handles to drive them; everything gone when they are dropped, also what an
//! earlier run that crashed has left. Used by the end-to-end tests and by `cargo xtask demo`.
//! Never: touches an interface, process or directory that does not carry this world's number.

pub mod agent;
pub mod binaries;
pub mod broker;
pub mod disk;
pub mod hub;
pub mod images;
pub mod kubectl;
pub mod machine;
pub mod narrow;
pub mod net;
pub mod pods;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod slot;
pub mod tour;
pub mod valve;
pub mod wait;
pub mod world;

pub use agent::Agent;
pub use binaries::Binaries;
pub use hub::Hub;
pub use kubectl::Kubectl;
pub use machine::Machine;
pub use slot::Slot;
pub use wait::until;
pub use world::World;

/// Sentences for people: there is nobody to match on variants here.
pub type Result<T> = std::result::Result<T, String>;

/// None when tests of this kind can run here; otherwise why not.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root: network namespaces and containers".to_string());
    }
    let tools = ["ip", "nsenter", "unshare", "setpriv", "curl"];
    tools.iter().find(|t| process::which(t).is_none()).map(|t| format!("needs {t}: run `cargo xtask setup`"))
}
