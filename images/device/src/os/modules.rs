//! Which drivers go into the initial file system, and in which order they are loaded.
//!
//! In: a package's modules, the wanted names, the devices that a board's device tree names. Out: file names in an order in which
//! each finds what it depends on. Pure. Never: depmod; a driver's needs and its devices are in its own `.modinfo`.

use std::collections::{BTreeMap, BTreeSet};

/// What every board with Limpet OS needs, and what virtual machines add.
pub const WANTED: &[&str] = &[
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_mmio", "virtio_rng", "virtio_scsi", "sd_mod", "ahci", "nvme", "e1000e",
    "crc32c_generic", "ext4", "nls_ascii", "nls_cp437", "vfat", "efivarfs", "i6300esb", "sp5100_tco", "iTCO_wdt",
    "overlay", "veth", "bridge", "br_netfilter", "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct", "nft_redir",
    "nft_numgen", "nft_reject_inet", "nft_reject_ipv4", "nft_reject_ipv6", "nft_fib_inet", "nft_fib_ipv4",
    "nf_conntrack_netlink", "nft_hash", "nft_limit", "nft_log", "vxlan", "wireguard",
];

/// What hangs on a bus of a board with a device tree, and can be anything: cards, and networks at USB.
pub const PLUGGED: &[&str] = &[
    "mmc_block", "smsc95xx", "lan78xx", "asix", "ax88179_178a", "r8152", "cdc_ether", "cdc_subset", "rndis_host",
];

/// Subsystems of which nothing is needed for running containers.
const LEFT_OUT: &[&str] = &["/drivers/gpu/", "/drivers/media/", "/drivers/staging/", "/sound/", "/net/wireless/", "/bluetooth/"];

/// `virtio-pci.ko.xz` and `virtio_pci` are the same driver.
pub fn key(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    base.split(".ko").next().unwrap_or(base).replace('-', "_")
}

pub fn is_module(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or(path);
    base.ends_with(".ko") || base.ends_with(".ko.xz")
}

/// The drivers of devices in a device tree: those with an alias `of:N…T…C<word>`.
pub fn for_devices(modules: &BTreeMap<String, Vec<u8>>, devices: &BTreeSet<String>) -> Vec<String> {
    let fits = |alias: &str| {
        let word = alias.strip_prefix("of:N").and_then(|rest| rest.split_once('C').filter(|(head, _)| head.contains('T')));
        word.is_some_and(|(_, word)| devices.contains(word.trim_end_matches("C*")))
    };
    let wanted = |(path, content): &(&String, &Vec<u8>)| {
        !LEFT_OUT.iter().any(|part| path.contains(part)) && info(content, "alias=").any(fits)
    };
    modules.iter().filter(wanted).map(|(path, _)| key(path)).collect()
}

/// `modules`: path to content, unpacked.
pub fn in_order<'a>(modules: &BTreeMap<String, Vec<u8>>, wanted: impl IntoIterator<Item = &'a str>) -> Vec<String> {
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

/// Values of one key in the module's text section.
fn info<'a>(module: &'a [u8], key: &'a str) -> impl Iterator<Item = &'a str> {
    module.split(|b| *b == 0).filter_map(move |piece| std::str::from_utf8(piece.strip_prefix(key.as_bytes())?).ok())
}

/// `depends=a,b` and `softdep=pre: c`.
fn needs(module: &[u8]) -> Vec<String> {
    let hard = info(module, "depends=").flat_map(|names| names.split(',').filter(|n| !n.is_empty()));
    let soft = info(module, "softdep=").filter_map(|s| s.strip_prefix("pre:"));
    let soft = soft.flat_map(|names| names.split("post:").next().unwrap_or_default().split_whitespace());
    hard.chain(soft).map(String::from).collect()
}
