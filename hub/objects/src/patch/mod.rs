//! Patches: JSON patch, JSON merge patch, strategic merge patch and server-side apply.
//!
//! In: an object as a JSON value, a patch body, the schema's list types and merge keys. Out: the patched
//! object.
//! Never: defaults, validates or stores; the caller does that with the result.

pub mod json;
pub mod merge;
pub mod strategic;

pub mod apply;
pub mod fields;
pub mod join;
pub mod typed;
pub mod walk;

#[cfg(test)]
mod hostile;

pub use apply::{Applied, ApplyError, apply};
pub use json::{JsonPatchError, json};
pub use merge::{MergePatchError, merge};
pub use strategic::{StrategicError, strategic};
pub use typed::Place;
