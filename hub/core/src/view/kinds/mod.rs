//! The fields of each kind that decisions read.
//!
//! In: canonical JSON, by serde. Out: small structs. Never: fields that nobody reads.

mod apps;
mod batch;
mod cluster;
pub(crate) mod conditions;
mod core;
mod devices;
mod fleet;
mod node;
mod pod;
mod pod_raw;
mod policy;
mod rbac;
mod scheduling;
mod storage;

pub use self::core::*;
pub use apps::*;
pub use batch::*;
pub use cluster::*;
pub use conditions::Condition;
pub use devices::*;
pub use fleet::*;
pub use node::*;
pub use pod::*;
pub use policy::*;
pub use rbac::*;
pub use scheduling::*;
pub use storage::*;
