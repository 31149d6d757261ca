//! The one connection to the hub.
//!
//! In: a join token once, an identity ever after; messages to send. Out: messages of the hub, and whether it is there.
//! Never: opens a listening port; trusts a hub whose certificate does not come from the CA that the token named.

pub mod backoff;
mod der;
#[cfg(test)]
mod fuzz;
pub mod http;
pub mod identity;
pub mod join;
pub mod key;
pub mod mdns;
mod meet;
mod meter;
mod mqtt;
pub mod road;
pub mod session;
pub mod tls;
pub mod tpm;
mod websocket;

pub use identity::Identity;
pub use key::NodeKey;
pub use meet::refused;
pub use meter::METER;
pub use session::{Hold, Lanes, Link, LinkEvent, LinkOptions};
