//! Which drivers go into the initial file system, and in which order they are loaded.
//!
//! In: a package's modules, the wanted names. Out: file names in an order in which each finds what it depends on. Pure.
//! Never: depmod; a driver's needs are in its own `.modinfo`.

use std::collections::{BTreeMap, BTreeSet};

/// What every board with Limpet OS needs, and what virtual machines add.
pub const WANTED: &[&str] = &[
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_mmio", "virtio_rng", "virtio_scsi", "sd_mod", "ahci", "nvme", "e1000e",
    "crc32c_generic", "ext4", "nls_ascii", "nls_cp437", "vfat", "efivarfs", "i6300esb", "sp5100_tco", "iTCO_wdt",
    "overlay", "veth", "bridge", "br_netfilter", "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct", "nft_redir",
    "nft_numgen", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6", "nft_fib_inet", "nft_fib_ipv4",
    "nf_conntrack_netlink", "nft_hash", "nft_limit", "nft_log", "vxlan", "wireguard",
];

/// `virtio-pci.ko.xz` and `virtio_pci` are the same driver.
fn key(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

pub fn is_module(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or(path);
    base.ends_with(".ko") || base.ends_with(".ko.xz")
}

/// `modules`: path to content, unpacked.
pub fn in_order(modules: &BTreeMap<String, Vec<u8>>, wanted: &[&str]) -> Vec<String> {
    let by_key: BTreeMap<String, &String> = modules.keys().map(|path| (key(path), path)).collect();
    let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
    for name in wanted {
        visit(&key(name), &by_key, modules, &mut order, &mut seen);
    }
    order
}

fn visit(
    name: &str,
    by_key: &BTreeMap<String, &String>,
    modules: &BTreeMap<String, Vec<u8>>,
    order: &mut Vec<String>,
    seen: &mut BTreeSet<String>,
) {
    // What is not there is built into the kernel, or not made for this architecture.
    let Some(path) = by_key.get(name) else { return };
    // Soft dependencies may go in a circle: each driver is visited once.
    if !seen.insert(name.to_string()) {
        return;
    }
    for need in needs(&modules[*path]) {
        visit(&key(&need), by_key, modules, order, seen);
    }
    order.push((*path).clone());
}

/// `depends=a,b` and `softdep=pre: c` in the module's text section.
fn needs(module: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    for piece in module.split(|b| *b == 0) {
        let Ok(text) = std::str::from_utf8(piece) else { continue };
        if let Some(names) = text.strip_prefix("depends=") {
            all.extend(names.split(',').filter(|n| !n.is_empty()).map(String::from));
        }
        if let Some(names) = text.strip_prefix("softdep=pre:") {
            all.extend(names.split("post:").next().unwrap_or_default().split_whitespace().map(String::from));
        }
    }
    all
}
