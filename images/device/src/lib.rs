//! From an image to a card, and from a card to a node.
//!
//! In: boards as data, images of other people or our own, what a node needs to know. Out: plans, cards, files on them.
//! Pure parts (`board`, `plan`, `provision`, `flash::guard`) decide; `flash`, `inject`, `fetch` and `os` touch the world.
//! Never: writes to a drive that `flash::guard` has not allowed, and never twice to find out.

pub mod limits;

pub mod board;
pub mod plan;

pub mod provision;

pub mod fetch;
pub mod flash;
pub mod inject;
pub mod label;
pub mod os;
pub mod published;
pub mod signature;
pub mod table;

pub use board::Board;
