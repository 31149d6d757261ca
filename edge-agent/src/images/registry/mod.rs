//! A client for registries: the pull half of the OCI distribution spec 1.1 over HTTP/1.1.
//!
//! In: a reference, pull secrets, mirrors. Out: manifests (digest checked by the caller) and blob streams.
//! Never: sends a credential to another host than the one that it is for, follows an https redirect to http, reads
//! without a bound, or waits without a time-out.

mod auth;
mod credentials;
mod endpoint;
mod pace;
mod session;
mod tls;
mod transport;
mod way;

pub use credentials::Keyring;
pub use endpoint::{HubAccess, Registries, RegistryOptions};
pub use session::{Failure, FetchedManifest, Session};
pub use way::Way;
