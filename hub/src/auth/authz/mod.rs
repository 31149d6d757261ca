//! The chain of authorizers that the operator chose.
//!
//! In: flags and files. Out: the links of the chain, which `Authorizer` asks one after the other. Never: an answer of its own.

mod config;
mod selectors;
mod webhook;

pub use config::{AuthzOptions, Link};
pub use selectors::Selectors;
