//! Pod addresses: one range a node, of each family.
//!
//! In: the nodes of the view, the cluster's ranges. Out: the first free ranges. Without a choice 10.42.0.0/16 holds the first
//! 256 nodes, as k3s users expect, and 10.128.0.0/9 the next 32,768. Never: a range that overlaps one that some node has.

use crate::{ObjectStore, view::Node};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits between a cluster's range and a node's: 65,536 nodes, as upstream.
const NODE_BITS_MAX: u8 = 16;

/// One block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    base: u128,
    prefix: u8,
    v6: bool,
}

impl Block {
    fn parse(text: &str) -> Option<Block> {
        let (address, prefix) = text.trim().split_once('/')?;
        let prefix: u8 = prefix.parse().ok()?;
        let (base, v6) = match address.parse().ok()? {
            IpAddr::V4(a) => (u128::from(u32::from(a)), false),
            IpAddr::V6(a) => (u128::from(a), true),
        };
        let block = Block { base, prefix, v6 };
        (prefix <= block.width()).then(|| Block { base: base & !block.rest(), ..block })
    }

    fn width(&self) -> u8 {
        if self.v6 { 128 } else { 32 }
    }

    /// The bits that are free in it.
    fn rest(&self) -> u128 {
        u128::MAX.checked_shr(u32::from(128 - (self.width() - self.prefix))).unwrap_or(0)
    }

    fn text(&self) -> String {
        match self.v6 {
            true => format!("{}/{}", Ipv6Addr::from(self.base), self.prefix),
            false => format!("{}/{}", Ipv4Addr::from(self.base as u32), self.prefix),
        }
    }
}

/// Where nodes get their ranges from: blocks of one family after the other, with the size of a node's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges(Vec<(Vec<Block>, u8)>);

impl Default for Ranges {
    fn default() -> Self {
        let block = |base: u128, prefix: u8| Block { base, prefix, v6: false };
        Ranges(vec![(vec![block(0x0a2a_0000, 16), block(0x0a80_0000, 9)], 24)])
    }
}

impl Ranges {
    /// `10.42.0.0/16` or `10.42.0.0/16,fd00:42::/48`: at most one of each family, the first is the nodes' first.
    pub fn parse(text: &str, mask_v4: u8, mask_v6: u8) -> Result<Ranges, String> {
        let mut all: Vec<(Vec<Block>, u8)> = Vec::new();
        for part in text.split(',') {
            let block = Block::parse(part).ok_or(format!("{part:?} is no range such as 10.42.0.0/16 or fd00:42::/48"))?;
            let mask = if block.v6 { mask_v6 } else { mask_v4 };
            if all.iter().any(|(blocks, _)| blocks[0].v6 == block.v6) {
                return Err(format!("{text:?} has two ranges of one family; give one IPv4 and one IPv6 range"));
            }
            if mask > block.width() || mask < block.prefix || mask - block.prefix > NODE_BITS_MAX {
                return Err(format!(
                    "a node's /{mask} does not fit {}: its size has to be from /{} to /{}",
                    block.text(),
                    block.prefix,
                    (block.prefix + NODE_BITS_MAX).min(block.width())
                ));
            }
            all.push((vec![block], mask));
        }
        Ok(Ranges(all))
    }

    /// For so many new nodes, the next free range of each family that still has one.
    pub fn free(&self, view: &ObjectStore, nodes: usize) -> Vec<Vec<String>> {
        let taken: Vec<Block> =
            view.all::<Node>().flat_map(|n| cidrs(n)).filter_map(Block::parse).collect();
        let mut each = vec![Vec::new(); nodes];
        for (blocks, mask) in &self.0 {
            let parts = blocks.iter().flat_map(|b| free_parts(*b, *mask, &taken));
            each.iter_mut().zip(parts).for_each(|(node, part)| node.push(part.text()));
        }
        each
    }
}

fn cidrs(node: &Node) -> impl Iterator<Item = &str> {
    let one = Some(&*node.spec.pod_cidr).filter(|c| !c.is_empty() && !node.spec.pod_cidrs.iter().any(|other| &**other == *c));
    node.spec.pod_cidrs.iter().map(|c| &**c).chain(one)
}

/// The parts of a block that overlap nothing of what is taken, in order.
fn free_parts(block: Block, mask: u8, taken: &[Block]) -> impl Iterator<Item = Block> {
    let shift = u32::from(block.width() - mask);
    // At most 2 to the power of `NODE_BITS_MAX`.
    let mut used = vec![false; 1 << (mask - block.prefix)];
    for other in taken.iter().filter(|o| o.v6 == block.v6) {
        let (low, high) = (other.base.max(block.base), (other.base | other.rest()).min(block.base | block.rest()));
        if low <= high {
            let part = |at: u128| ((at - block.base) >> shift) as usize;
            used[part(low)..=part(high)].fill(true);
        }
    }
    let free = used.into_iter().enumerate().filter(|(_, used)| !used);
    free.map(move |(at, _)| Block { base: block.base + ((at as u128) << shift), prefix: mask, v6: block.v6 })
}

/// The Node objects of boards that have just joined, with the labels of each.
pub fn new_nodes(view: &ObjectStore, ranges: &Ranges, nodes: &[(&str, Value)]) -> Vec<Value> {
    let free = ranges.free(view, nodes.len());
    let new = nodes.iter().zip(free).map(|((name, labels), free)| {
        let spec = match free.first() {
            Some(first) => json!({"podCIDR": first, "podCIDRs": free}),
            None => json!({}),
        };
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": super::status::allowed_labels(labels)},
            "spec": spec,
        })
    });
    new.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn join(view: &mut ObjectStore, ranges: &Ranges, n: u64) -> Value {
        let name = format!("n{n}");
        let mut node = new_nodes(view, ranges, &[(&name, json!({}))]).remove(0);
        node["metadata"]["uid"] = json!(name);
        view.apply(n + 1, "/nodes", "", &name, Some(node.to_string().into_bytes().into()));
        node["spec"].take()
    }

    #[test]
    fn ranges_are_not_given_twice() {
        let mut view = ObjectStore::new();
        let seen: BTreeSet<String> = (0..300)
            .map(|n| join(&mut view, &Ranges::default(), n)["podCIDR"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(seen.len(), 300);
        let has = |cidr: &str| seen.contains(cidr);
        assert!(has("10.42.0.0/24") && has("10.42.255.0/24") && has("10.128.0.0/24"));
    }

    #[test]
    fn both_families_have_their_own() {
        let ranges = Ranges::parse("10.7.0.0/22,fd00:42::/62", 24, 64).unwrap();
        let mut view = ObjectStore::new();
        let second = || json!({"podCIDR": "10.7.1.0/24", "podCIDRs": ["10.7.1.0/24", "fd00:42:0:1::/64"]});
        assert_eq!(join(&mut view, &ranges, 0)["podCIDRs"], json!(["10.7.0.0/24", "fd00:42::/64"]));
        assert_eq!(join(&mut view, &ranges, 1), second());
        join(&mut view, &ranges, 2);
        join(&mut view, &ranges, 3);
        assert_eq!(join(&mut view, &ranges, 4), json!({}), "none is left");
        view.apply(9, "/nodes", "", "n1", None);
        assert_eq!(join(&mut view, &ranges, 5), second(), "what was given back comes first");
        let six_first = Ranges::parse("fd00::/120,10.0.0.0/8", 24, 120).unwrap();
        assert_eq!(six_first.free(&ObjectStore::new(), 1), [["fd00::/120", "10.0.0.0/24"]]);
    }

    #[test]
    fn many_at_once_get_what_one_after_the_other_would() {
        let ranges = Ranges::parse("10.7.0.0/22,fd00:42::/63", 24, 64).unwrap();
        let mut view = ObjectStore::new();
        join(&mut view, &ranges, 0);
        let names = ["a", "b", "c", "d"].map(|name| (name, json!({})));
        let together = new_nodes(&view, &ranges, &names);
        for (at, node) in together.iter().enumerate() {
            let alone = join(&mut view, &ranges, 1 + at as u64);
            assert_eq!((&node["metadata"]["name"], &node["spec"]), (&json!(names[at].0), &alone));
        }
        let cidrs = |at: usize| together[at]["spec"]["podCIDRs"].clone();
        assert_eq!([cidrs(0), cidrs(1)], [json!(["10.7.1.0/24", "fd00:42:0:1::/64"]), json!(["10.7.2.0/24"])]);
        assert_eq!(together[3]["spec"], json!({}), "none is left");
    }

    #[test]
    fn ranges_of_another_size_are_kept_clear() {
        let mut view = ObjectStore::new();
        let node = json!({"metadata": {"name": "big", "uid": "big"}, "spec": {"podCIDR": "10.7.0.0/23"}});
        view.apply(1, "/nodes", "", "big", Some(node.to_string().into_bytes().into()));
        let ranges = Ranges::parse("10.7.0.0/16", 24, 64).unwrap();
        assert_eq!(ranges.free(&view, 1), [["10.7.2.0/24"]]);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_reason() {
        for (text, masks, words) in [
            ("10.0.0.0", (24, 64), "is no range"),
            ("10.0.0.0/33", (24, 64), "is no range"),
            ("10.0.0.0/8,10.1.0.0/16", (24, 64), "two ranges of one family"),
            ("10.0.0.0/7", (24, 64), "from /7 to /23"),
            ("10.0.0.0/25", (24, 64), "from /25 to /32"),
            ("fd00::/40", (24, 64), "from /40 to /56"),
            ("", (24, 64), "is no range"),
        ] {
            let said = Ranges::parse(text, masks.0, masks.1).unwrap_err();
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
