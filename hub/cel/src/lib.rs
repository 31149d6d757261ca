//! The Common Expression Language (CEL) as Kubernetes uses it.
//!
//! In: expressions and the types of their variables; later values and a budget. Out: programs with their static
//! cost, type errors in cel-go's words; values or errors. Never: runs longer than its budget, reads the clock, does I/O.

mod program;
mod types;

mod ast;
mod issue;
mod lexer;
mod parser;

mod check;
mod cost;
mod signatures;

mod eval;
mod library;
mod value;

pub mod duration;
pub mod re2;

#[cfg(test)]
mod tests;

pub use eval::{Failure, Meter, Outcome, Variables};
pub use parser::RESERVED;
pub use program::{Env, Program};
pub use signatures::{AUTHORIZER, QUANTITY};
pub use types::{Decl, Object, Type};
pub use value::{Host, Key, ListKind, Value};

/// Types of the authorizer's steps, for hosts.
pub mod authorization {
    pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
    pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
    pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
    pub const DECISION: &str = "kubernetes.authorization.Decision";
}
