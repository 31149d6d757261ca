//! Kubernetes objects as data: schema table, registry of resources, defaults, validation, patches,
//! tables.
//!
//! In: JSON values from the API or the store. Out: JSON values, field errors, documents for discovery
//! and OpenAPI.
//! Never: reads the clock, allocates randomness, does I/O.

pub mod schema;

pub mod behaviour;
pub mod custom;
pub mod registry;
pub mod resource;
pub mod strategy;

pub mod field;
pub mod names;
pub mod sieve;
pub mod status;

pub mod absence;
pub mod kinds;
pub mod metadata;

pub mod discovery;
pub mod openapi;
pub mod table;

pub mod managed;
pub mod policy;
pub mod patch;
pub mod quantity;
pub mod select;
pub mod strict;
pub mod time;
