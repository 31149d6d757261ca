//! The fields of each kind that decisions read.
//!
//! In: canonical JSON, by serde. Out: small structs. Never: fields that nobody reads.

mod apps;
mod batch;
pub(crate) mod conditions;
mod core;
mod node;
mod pod;
mod pod_raw;
mod rbac;
mod scheduling;

pub use self::core::*;
pub use apps::*;
pub use batch::*;
pub use conditions::Condition;
pub use node::*;
pub use pod::*;
pub use rbac::*;
pub use scheduling::*;
