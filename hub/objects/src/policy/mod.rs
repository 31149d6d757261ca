//! Admission by configuration: which requests are meant, and policies in CEL.
//!
//! In: configurations and policies as JSON, the attributes of requests. Out: whether they meet, field errors, decisions
//! and patches. Never: calls webhooks, reads the store (the API server does).

pub mod compile;
pub mod matching;
pub mod run;
pub mod typecheck;

#[cfg(test)]
mod tests;

pub use compile::Policy;
pub use matching::Attributes;
pub use run::{Denial, Given, Runner};
