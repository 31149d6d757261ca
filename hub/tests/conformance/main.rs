//! What upstream's conformance tests ask of the API and the controllers, in own words; no node is needed for any of it.
//!
//! In: one whole hub in this process. Out: `docs/CONFORMANCE.md` says which upstream test is covered by which function.
//! Never: a wait for time; always for a condition.
#![allow(clippy::unwrap_used)]

#[path = "../support/http.rs"]
mod http;
#[path = "../support/mod.rs"]
mod support;

mod apps;
mod chunks;
mod collector;
mod definitions;
mod documents;
mod fields;
mod kinds;
mod live;
mod operations;
mod place;
mod quotas;
mod watchers;
