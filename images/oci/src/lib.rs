//! OCI and Docker images as data, and their layers as directories.
//!
//! In: names as people write them, documents and layer streams as registries send them (all hostile until checked).
//! Out: normalised references, chosen manifests, image configs, and directories that overlayfs can stack.
//! Never: talks to a network, follows a link out of the directory that it unpacks into, or keeps a layer in memory.

pub mod limits;

pub mod digest;
pub mod reference;

pub mod config;
pub mod manifest;

pub mod decompress;
pub mod delta;
pub mod tar;
pub mod unpack;

pub mod builder;

pub use config::ImageConfig;
pub use digest::Digest;
pub use manifest::{Descriptor, Document, Index, Manifest, Platform};
pub use reference::Reference;
