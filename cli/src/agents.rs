//! The agent's binaries for every board, where they lie.
//!
//! In: a target. Out: the binary, or where it was looked for. Never: a binary for another processor.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// ELF machine numbers, and the class: 1 is 32 bits, 2 is 64.
const MACHINES: [(&str, u16, u8); 4] = [("aarch64", 183, 2), ("x86_64", 62, 2), ("arm", 40, 1), ("riscv64", 243, 2)];

fn places(program: &str, target: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let named = std::env::var_os("LIMPET_AGENT_DIR").map(PathBuf::from);
    all.extend(named.map(|d| d.join(target).join(program)));
    let exe = std::env::current_exe().and_then(fs::canonicalize).unwrap_or_default();
    let from = |up: usize, rest: &str| exe.ancestors().nth(up).map(|d| d.join(rest).join(target).join(program));
    // Installed: bin/limpet and share/limpet/…; built: target/debug/limpet and target/dist/….
    all.extend(from(2, "share/limpet"));
    all.extend(from(2, "dist"));
    all
}

/// The agent; `named` is what the operator gave.
pub fn find(target: &str, named: Option<&Path>) -> Result<Vec<u8>, String> {
    find_program("limpet-agent", target, named)
}

pub fn find_program(program: &str, target: &str, named: Option<&Path>) -> Result<Vec<u8>, String> {
    if let Some(path) = named {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        return fits(target, &bytes).map(|()| bytes).map_err(|e| format!("{}: {e}", path.display()));
    }
    let places = places(program, target);
    let Some(path) = places.iter().find(|p| p.is_file()) else {
        let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        return Err(format!(
            "there is no {program} for {target} here (looked for {}); build it with `cargo xtask dist --target {target}` \
             or name its file",
            looked.join(", ")
        ));
    };
    find_program(program, target, Some(path))
}

/// What the program is for, in Go's words.
pub fn architecture(program: &[u8]) -> Result<&'static str, String> {
    let all = [("aarch64", "arm64"), ("x86_64", "amd64"), ("arm", "arm"), ("riscv64", "riscv64")];
    let fit = all.into_iter().find(|(target, _)| fits(target, program).is_ok());
    fit.map(|(_, name)| name).ok_or_else(|| "it is not a program for Linux on arm64, amd64, arm or riscv64".into())
}

fn fits(target: &str, bytes: &[u8]) -> Result<(), String> {
    let machine = bytes.get(18..20).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if bytes.get(..4) != Some(b"\x7fELF") {
        return Err("it is not a program for Linux".into());
    }
    let (_, wanted, class) =
        MACHINES.into_iter().find(|(name, ..)| target.starts_with(name)).ok_or_else(|| format!("{target} is not known"))?;
    match machine == Some(wanted) && bytes[4] == class {
        true => Ok(()),
        false => Err(format!("it is not for {target}: wrong processor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_for_another_processor_is_refused() {
        let elf = |machine: u16, class: u8| {
            let mut bytes = vec![0; 64];
            bytes[..5].copy_from_slice(&[0x7f, b'E', b'L', b'F', class]);
            bytes[18..20].copy_from_slice(&machine.to_le_bytes());
            bytes
        };
        assert!(fits("aarch64-unknown-linux-musl", &elf(183, 2)).is_ok());
        assert!(fits("arm-unknown-linux-musleabihf", &elf(40, 1)).is_ok());
        assert!(fits("aarch64-unknown-linux-musl", &elf(62, 2)).unwrap_err().contains("wrong processor"));
        assert!(fits("aarch64-unknown-linux-musl", b"#!/bin/sh").unwrap_err().contains("not a program"));
        assert_eq!((architecture(&elf(40, 1)), architecture(&elf(183, 2))), (Ok("arm"), Ok("arm64")));
        assert!(architecture(&elf(8, 1)).is_err());
        assert!(find("aarch64-unknown-linux-musl", Some("/nowhere/x".as_ref())).is_err());
    }
}
