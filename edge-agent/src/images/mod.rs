//! The image store: pulls images from registries, keeps their layers unpacked, and answers from disk when there is no network.
//!
//! In: image names with a pull policy and pull secrets, from pods. Out: the image's config and its layer directories,
//! lowest first, ready for overlayfs.
//! Never: uses a byte that its digest does not cover, removes what a pod wants, or writes when nothing changed.
//!
//! On disk, under `<data>/images`: `index` (what is here), `blobs/` (manifests and configs), `layers/<diff id>/fs`,
//! `partial/` (downloads to be continued), `tmp/` (cleared at start).

mod artifact;
mod collect;
mod delta;
mod download;
mod error;
mod files;
mod index;
mod limits;
mod pull;
mod registry;
mod settle;
pub mod signature;
mod store;
mod unpack;

pub use collect::Collected;
pub use error::ImageError;
pub use registry::{HubAccess, RegistryOptions, Way};
pub use store::{Image, Options, Policy, Store, Trust, Want, listed};
pub use unpack::helper as unpack_helper;

#[cfg(test)]
mod tests;
