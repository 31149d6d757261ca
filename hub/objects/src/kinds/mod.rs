//! One file a kind: its defaults, its rules and its table row.
//!
//! In: objects as JSON. Out: implementations of `Behaviour`, named by the rows of the registry.
//! Never: what all kinds share (see `strategy`).
