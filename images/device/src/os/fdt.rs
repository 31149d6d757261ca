//! Which devices a board has, read from its device tree (Devicetree Specification v0.4, chapter 5). Pure.
//!
//! In: a flattened device tree out of a package. Out: the `compatible` words of all nodes that are in use.
//! Never: a tree that is larger or deeper than any board's; a byte beyond what its header says.

use std::collections::BTreeSet;

const MAGIC: u32 = 0xd00d_feed;
const BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 64;
const BEGIN: u32 = 1;
const END: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const LAST: u32 = 9;

fn word(bytes: &[u8], at: usize) -> Result<u32, String> {
    let four = bytes.get(at..at.saturating_add(4)).ok_or("it is cut off")?;
    Ok(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

fn text(bytes: &[u8], at: usize) -> Result<&str, String> {
    let rest = bytes.get(at..).ok_or("it is cut off")?;
    let end = rest.iter().position(|b| *b == 0).ok_or("a name has no end")?;
    std::str::from_utf8(&rest[..end]).map_err(|_| "a name is not text".to_string())
}

#[derive(Default)]
struct Node {
    words: Vec<String>,
    unused: bool,
}

pub fn compatible(tree: &[u8]) -> Result<BTreeSet<String>, String> {
    if tree.len() > BYTES_MAX || word(tree, 0)? != MAGIC {
        return Err("it is not a device tree".into());
    }
    let (mut at, names) = (word(tree, 8)? as usize, word(tree, 12)? as usize);
    let (mut open, mut found): (Vec<Node>, _) = (Vec::new(), BTreeSet::new());
    loop {
        let token = word(tree, at)?;
        at += 4;
        match token {
            BEGIN => {
                let name = text(tree, at)?;
                at = (at + name.len() + 1).next_multiple_of(4);
                // Below a node that is not in use nothing is.
                let unused = open.last().is_some_and(|above| above.unused);
                open.push(Node { unused, ..Node::default() });
                if open.len() > DEPTH_MAX {
                    return Err("it is nested too deeply".into());
                }
            }
            PROPERTY => {
                let (length, name) = (word(tree, at)? as usize, text(tree, names.saturating_add(word(tree, at + 4)? as usize))?);
                at += 8;
                let value = tree.get(at..at.saturating_add(length)).ok_or("it is cut off")?;
                at = (at + length).next_multiple_of(4);
                let node = open.last_mut().ok_or("a property belongs to no node")?;
                let words = || value.split(|b| *b == 0).filter_map(|w| std::str::from_utf8(w).ok()).filter(|w| !w.is_empty());
                match name {
                    "compatible" => node.words = words().map(String::from).collect(),
                    "status" => node.unused |= !words().all(|w| w == "okay" || w == "ok"),
                    _ => {}
                }
            }
            END => {
                let node = open.pop().ok_or("a node ends that never began")?;
                if !node.unused {
                    found.extend(node.words);
                }
            }
            NOP => {}
            LAST => return Ok(found),
            _ => return Err("it has a token of no known kind".into()),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// (depth, compatible, status) a node, in order; enough of a tree for tests.
    pub fn made(nodes: &[(usize, &str, &str)]) -> Vec<u8> {
        let names = b"compatible\0status\0";
        let mut body = Vec::new();
        let mut depth = 0;
        let property = |body: &mut Vec<u8>, name: u32, value: &str| {
            let value = [value.replace(' ', "\0").as_bytes(), b"\0"].concat();
            for number in [PROPERTY, value.len() as u32, name] {
                body.extend(number.to_be_bytes());
            }
            body.extend(&value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        for (level, compatible, status) in nodes {
            while depth > *level {
                body.extend(END.to_be_bytes());
                depth -= 1;
            }
            body.extend([BEGIN.to_be_bytes(), *b"n\0\0\0"].concat());
            depth += 1;
            property(&mut body, 0, compatible);
            if !status.is_empty() {
                property(&mut body, 11, status);
            }
        }
        body.extend(END.to_be_bytes().repeat(depth));
        body.extend(LAST.to_be_bytes());
        let mut tree = Vec::new();
        let (all, names_at) = ((56 + body.len() + names.len()) as u32, (56 + body.len()) as u32);
        for number in [MAGIC, all, 56, names_at, 40, 17, 16, 0, 0, 0, 0, 0, 0, 0] {
            tree.extend(number.to_be_bytes());
        }
        [tree, body, names.to_vec()].concat()
    }

    #[test]
    fn devices_in_use_are_found() {
        let off = [(1, "x,off", "disabled"), (2, "x,below-off", "")];
        let nodes = [(0, "x,board", ""), (1, "x,mmc-2 x,mmc", "okay"), off[0], off[1], (1, "y", "")];
        let got: Vec<String> = compatible(&made(&nodes)).unwrap().into_iter().collect();
        assert_eq!(got, ["x,board", "x,mmc", "x,mmc-2", "y"]);
    }

    #[test]
    fn damaged_trees_end_in_a_sentence() {
        let tree = made(&[(0, "x,board", ""), (1, "y", "okay")]);
        for cut in 0..tree.len() {
            // Names at the very end may be missing a letter that nobody looks at.
            let _ = compatible(&tree[..cut]);
        }
        for at in 0..tree.len() {
            for bit in 0..8 {
                let mut bad = tree.clone();
                bad[at] ^= 1 << bit;
                let _ = compatible(&bad);
            }
        }
        assert!(compatible(&tree[..60]).unwrap_err().contains("no end"));
        assert!(compatible(&tree[..90]).unwrap_err().contains("cut off"));
        assert!(compatible(&[0; 64]).unwrap_err().contains("not a device tree"));
        let deep: Vec<_> = (0..100).map(|level| (level, "x", "")).collect();
        assert!(compatible(&made(&deep)).unwrap_err().contains("deeply"));
    }
}
