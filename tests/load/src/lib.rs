//! What load generators share: an API server that is started or named, requests, crowds of clients, figures.
//!
//! In: see each module. Out: used by `limpet-load` and `limpet-fleet`. No part of any product.
#![allow(clippy::disallowed_methods)]

pub mod access;
pub mod connection;
pub mod crowd;
pub mod figures;
pub mod hub;
pub mod lists;
pub mod objects;
pub mod proc;
pub mod watchers;
pub mod writes;
