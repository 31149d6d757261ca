//! Makes a board of every file in boards/.
//!
//! In: `boards/*.toml`. Out: a table of (name, text) for src/board.rs, in alphabetical order.
//! Never: a list of boards that somebody has to keep, or a path of this machine: what was built stays right when it is moved.

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
    let mut out = String::from("&[\n");
    for name in &names {
        let file = boards.join(format!("{name}.toml"));
        println!("cargo:rerun-if-changed={}", file.display());
        let text = fs::read_to_string(&file).expect("a board's file is text");
        out.push_str(&format!("    ({name:?}, {text:?}),\n"));
    }
    out.push_str("]\n");
    let target = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("boards.rs");
    fs::write(target, out).expect("OUT_DIR can be written");
}
