//! Drivers from the initial file system, in the order that the image's builder found.
//!
//! In: /modules/NNN-name.ko. Out: loaded modules; the files are gone, their memory is free again.
//! Never: decides about an order; gives up because one driver has no device here.

use crate::log::say;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::{fs, path::Path};

pub fn load(dir: &Path) {
    let mut files: Vec<_> = fs::read_dir(dir).map(|d| d.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    files.sort();
    for file in &files {
        let loaded = fs::File::open(file).map_err(|e| e.to_string()).and_then(|f| {
            match finit_module(&f, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(nix::Error::EEXIST | nix::Error::ENODEV) => Ok(()),
                Err(e) => Err(e.to_string()),
            }
        });
        if let Err(why) = loaded {
            say!("driver {}: {why}", file.display());
        }
        let _ = fs::remove_file(file);
    }
}
