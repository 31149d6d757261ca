//! Memory map for the linker, and the radio's own firmware.
//!
//! In: `LEAF_RADIO_DIR` with 43439A0.bin, 43439A0_clm.bin and nvram_rp2040.bin, which their maker licenses for this radio and
//! this repository does not hold. Out: copies for `include_bytes!`. Without the folder: empty ones, with which the program
//! compiles; it has no radio then, and stops at its start.

use std::{env, fs, path::PathBuf};

const FILES: [&str; 3] = ["43439A0.bin", "43439A0_clm.bin", "nvram_rp2040.bin"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::copy("memory.x", out.join("memory.x")).expect("memory.x is beside build.rs");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rerun-if-changed=memory.x");
    for name in ["LEAF_RADIO_DIR", "LEAF_NAME", "LEAF_TOKEN", "LEAF_WIFI", "LEAF_WIFI_PASSWORD"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let dir = env::var_os("LEAF_RADIO_DIR").map(PathBuf::from);
    if dir.is_none() {
        println!("cargo:warning=LEAF_RADIO_DIR is not set: this firmware will have no radio (see docs/guides/leaf-boards.md)");
    }
    for name in FILES {
        let bytes = dir.as_ref().map_or_else(Vec::new, |dir| {
            let path = dir.join(name);
            fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        });
        fs::write(out.join(name), bytes).expect("OUT_DIR can be written");
    }
}
