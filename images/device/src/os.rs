//! Limpet OS: an image made of Debian's kernel and boot loader, `limpet-init` and `limpet-agent`.
//!
//! In: a board, packages, two binaries. Out: an image, its bill of materials, updates for it. The same inputs give the same
//! bytes. Never: a file in the image that is in none of the inputs.

mod boot;
mod build;
mod bundle;
mod cpio;
mod deb;
mod elf;
mod fat32;
mod fdt;
mod gpt;
mod mbr;
mod modules;
mod packages;
mod radio;
mod sbom;
mod uboot;

pub use build::{Inputs, Made, image, update};
pub use bundle::{Key, public_key};
pub use deb::files as package_files;
#[cfg(test)]
pub(crate) use gpt::tables as tables_of;
pub use packages::{MIRROR, Origin, Package, SUITE, debs, described, fetch, fetch_named, fetch_with_libraries};
pub use radio::{programs, squash};

/// The builder mends what the sentence names.
#[derive(Debug, thiserror::Error)]
pub enum OsError {
    #[error("there is no Limpet OS for the {0} yet: {1}; take another system's image with `limpet flash`")]
    Board(String, String),
    #[error(
        "Debian has no boot loader for the {0}: put {1} into a folder, as the board's maker or Armbian builds it, and name the \
         folder with --loaders; or take another system's image with `limpet flash`"
    )]
    Loader(String, String),
    #[error("{0} is needed to build an image: install the package {1}")]
    Tool(&'static str, &'static str),
    #[error("{0} failed: {1}")]
    Failed(&'static str, String),
    #[error("the package {0} cannot be used: {1}")]
    Package(String, String),
    #[error("the image does not fit: {0}")]
    Room(String),
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    #[error("{0}")]
    Key(String),
}

#[cfg(test)]
mod tests;
