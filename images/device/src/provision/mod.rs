//! What a node needs to know before it has ever spoken to anybody, and which files say it on which system.
//!
//! In: a `Wish`, the traits of the system on the card. Out: files to put there. Pure.
//! Never: a file that lets anybody in whom the wish does not name; never a value that can end the line it stands on.

mod files;
mod limpet_os;
mod network;
mod unit;
mod wish;

pub use files::{Place, Put, Traits, What, recipe};
pub use limpet_os::{NODE_FILE, NodeFile, NodeWifi, limpet_os, radio_fits};
pub use network::{Network, system_fits};
pub use unit::{agent_unit, install_script};
pub use wish::{Address, Security, Wifi, Wish, WishError, is_country};

#[cfg(test)]
mod tests;
