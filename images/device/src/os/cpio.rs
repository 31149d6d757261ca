//! The initial file system as the kernel wants it: a cpio archive of the form `newc`.
//!
//! In: paths with their content, in any order. Out: bytes that depend on nothing else. Pure.
//! Never: a time, an owner or an inode number of this machine.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Directory,
    /// Permission bits and content.
    File(u32, Vec<u8>),
    /// A character device: mode, major, minor.
    Device(u32, u32, u32),
}

/// Absolute paths without the first slash. Directories on the way are added.
#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<String, Node>);

impl Tree {
    pub fn put(&mut self, path: &str, node: Node) {
        for (at, _) in path.match_indices('/') {
            self.0.entry(path[..at].to_string()).or_insert(Node::Directory);
        }
        self.0.insert(path.to_string(), node);
    }

    pub fn archive(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, (path, node)) in self.0.iter().enumerate() {
            let inode = number as u32 + 1;
            match node {
                Node::Directory => entry(&mut out, path, inode, 0o40_755, b"", (0, 0)),
                Node::File(mode, content) => entry(&mut out, path, inode, 0o100_000 | mode, content, (0, 0)),
                Node::Device(mode, major, minor) => entry(&mut out, path, inode, 0o20_000 | mode, b"", (*major, *minor)),
            }
        }
        entry(&mut out, "TRAILER!!!", 0, 0, b"", (0, 0));
        out.resize(out.len().next_multiple_of(512), 0);
        out
    }
}

fn entry(out: &mut Vec<u8>, path: &str, inode: u32, mode: u32, content: &[u8], device: (u32, u32)) {
    let links = if mode & 0o170_000 == 0o40_000 { 2 } else { 1 };
    let name_bytes = path.len() as u32 + 1;
    let fields = [inode, mode, 0, 0, links, 0, content.len() as u32, 0, 0, device.0, device.1, name_bytes, 0];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(path.bytes());
    out.push(0);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(content);
    out.resize(out.len().next_multiple_of(4), 0);
}
