//! Which devices a group may open: the devices controller on v1, a small eBPF program on v2.
//!
//! In: rules. Out: written rules or an attached program. Never: a group without either, unless everything is allowed.

use super::hierarchy::Hierarchies;
use super::limits::set;
use crate::runtime::sys;
use std::io::{Error, Result, Write};
use std::os::fd::AsFd;

/// Allows what it names; everything else is refused. `None` is every number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceRule {
    pub block: bool,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub read: bool,
    pub write: bool,
    pub mknod: bool,
}

impl DeviceRule {
    /// What every container may use: making any node, and null, zero, full, random, urandom, tty, console, ptmx, pts.
    pub fn defaults() -> Vec<DeviceRule> {
        let make = |block| DeviceRule { block, mknod: true, ..DeviceRule::default() };
        let open = |major, minor| DeviceRule {
            major: Some(major), minor, read: true, write: true, mknod: true, ..DeviceRule::default()
        };
        let mut rules = vec![make(false), make(true)];
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
            rules.push(open(major, Some(minor)));
        }
        rules.push(open(136, None));
        rules
    }

    fn text(&self) -> String {
        let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
        let flag = |on: bool, c: &'static str| if on { c } else { "" };
        format!(
            "{} {}:{} {}{}{}",
            if self.block { "b" } else { "c" },
            number(self.major),
            number(self.minor),
            flag(self.read, "r"),
            flag(self.write, "w"),
            flag(self.mknod, "m")
        )
    }
}

pub fn apply(hierarchies: &Hierarchies, group: &str, rules: Option<&[DeviceRule]>) -> Result<()> {
    match (hierarchies, rules) {
        (Hierarchies::V1(_), None) => match hierarchies.dir("devices", group) {
            Some(dir) => set(&dir, "devices.allow", "a"),
            None => Ok(()),
        },
        (Hierarchies::V1(_), Some(rules)) => {
            let Some(dir) = hierarchies.dir("devices", group) else { return Ok(()) };
            set(&dir, "devices.deny", "a")?;
            let path = dir.join("devices.allow");
            let mut allow = std::fs::OpenOptions::new().write(true).open(&path)?;
            // One rule a write.
            rules.iter().map(DeviceRule::text).try_for_each(|rule| {
                let written = allow.write_all(rule.as_bytes());
                written.map_err(|err| Error::new(err.kind(), format!("write {rule} to {}: {err}", path.display())))
            })
        }
        (Hierarchies::V2 { .. }, None) => Ok(()),
        (Hierarchies::V2 { root, .. }, Some(rules)) => {
            let dir = std::fs::File::open(root.join(group))?;
            sys::attach_device_program(dir.as_fd(), &program(rules))
        }
    }
}

// eBPF: opcode, destination and source registers, offset, immediate.
const LOAD_WORD: u8 = 0x61;
const AND_K: u8 = 0x54;
const SHIFT_RIGHT_K: u8 = 0x74;
const MOVE_X: u8 = 0xbc;
const MOVE_K: u8 = 0xb4;
const JUMP_NOT_EQUAL_K: u8 = 0x56;
const JUMP_NOT_EQUAL_X: u8 = 0x5e;
const EXIT: u8 = 0x95;

const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    code as u64
        | ((to & 15) as u64) << 8
        | ((from & 15) as u64) << 12
        | ((offset as u16) as u64) << 16
        | ((value as u32) as u64) << 32
}

/// A program over struct bpf_cgroup_dev_ctx { access_type, major, minor } that returns 1 when a rule allows.
fn program(rules: &[DeviceRule]) -> Vec<u64> {
    const CHAR: i32 = 2;
    const BLOCK: i32 = 1;
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0), // r2 = access_type
        instruction(MOVE_X, 3, 2, 0, 0),
        instruction(AND_K, 2, 0, 0, 0xffff),     // r2 = type
        instruction(SHIFT_RIGHT_K, 3, 0, 0, 16), // r3 = access: mknod 1, read 2, write 4
        instruction(LOAD_WORD, 4, 1, 4, 0),      // r4 = major
        instruction(LOAD_WORD, 5, 1, 8, 0),      // r5 = minor
    ];
    for rule in rules {
        let mut tests = vec![(JUMP_NOT_EQUAL_K, 2, if rule.block { BLOCK } else { CHAR })];
        let access = i32::from(rule.mknod) | i32::from(rule.read) << 1 | i32::from(rule.write) << 2;
        if let Some(major) = rule.major {
            tests.push((JUMP_NOT_EQUAL_K, 4, major as i32));
        }
        if let Some(minor) = rule.minor {
            tests.push((JUMP_NOT_EQUAL_K, 5, minor as i32));
        }
        // r6 = access & allowed must be all of access.
        let tail = 5;
        let mut block: Vec<u64> = Vec::new();
        for (index, (code, register, value)) in tests.iter().enumerate() {
            let skip = (tests.len() - index - 1 + tail) as i16;
            block.push(instruction(*code, *register, 0, skip, *value));
        }
        block.push(instruction(MOVE_X, 6, 3, 0, 0));
        block.push(instruction(AND_K, 6, 0, 0, access));
        block.push(instruction(JUMP_NOT_EQUAL_X, 6, 3, 2, 0));
        block.push(instruction(MOVE_K, 0, 0, 0, 1));
        block.push(instruction(EXIT, 0, 0, 0, 0));
        code.extend(block);
    }
    code.push(instruction(MOVE_K, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}
