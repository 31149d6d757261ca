//! Makes a board of every file in boards/.
//!
//! In: `boards/*.toml`. Out: a table of (name, text) for src/board.rs, in alphabetical order.
//! Never: a list of boards that somebody has to keep.

use std::{env, fs, path::Path};

fn main() {
    let boards = Path::new("../../boards");
    println!("cargo:rerun-if-changed={}", boards.display());
    let mut names: Vec<String> = fs::read_dir(boards)
        .expect("boards/ is there")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".toml").map(str::to_string))
        .collect();
    names.sort();
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut out = String::from("&[\n");
    for name in &names {
        println!("cargo:rerun-if-changed={}/{name}.toml", boards.display());
        out.push_str(&format!("    ({name:?}, include_str!({:?})),\n", format!("{here}/../../boards/{name}.toml")));
    }
    out.push_str("]\n");
    let target = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("boards.rs");
    fs::write(target, out).expect("OUT_DIR can be written");
}
