//! Facts of the board, read once at the start and when something asks again.
//!
//! In: small text files of the kernel and the distribution. Out: `NodeFacts`.
//! Never: reads more than 64 KiB of any file.

use limpet_agent_core::status::NodeFacts;
use std::{
    io::Read,
    net::{IpAddr, UdpSocket},
    path::Path,
};

const FILE_BYTES_MAX: u64 = 64 * 1024;

pub(super) fn read(path: impl AsRef<Path>) -> String {
    let mut text = String::new();
    if let Ok(file) = super::unnoted::open(path.as_ref()) {
        let _ = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    }
    text.trim().to_string()
}

/// What distinguishes this piece of hardware from another one with a copy of its card: 16 hex digits of a hash over the
/// board's serial number, the machine's UUID or, without either, its first network card's address. Empty without all three.
pub fn hardware(own: Option<&str>) -> String {
    let serial = || own.map(str::to_string);
    let of_board = || Some(read("/proc/device-tree/serial-number").trim_matches('\0').to_string());
    let of_machine = || Some(read("/sys/class/dmi/id/product_uuid"));
    let sources: [&dyn Fn() -> Option<String>; 4] = [&serial, &of_board, &of_machine, &first_card_address];
    let known = sources.iter().find_map(|source| source().filter(|text| says_something(text)));
    known.map_or_else(String::new, |text| {
        let hash = limpet_protocol::ItemHash::of(text.as_bytes());
        hash.0[..8].iter().map(|b| format!("{b:02x}")).collect()
    })
}

/// Firmware that does not know puts in zeros, ones or counting digits.
fn says_something(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_alphanumeric).collect();
    digits.len() >= 4 && digits.iter().any(|d| *d != digits[0]) && !text.starts_with("03000200-0400-0500")
}

fn first_card_address() -> Option<String> {
    let cards = std::fs::read_dir("/sys/class/net").ok()?.flatten().map(|e| e.path());
    // Cards have a device; bridges and veths do not.
    cards.filter(|p| p.join("device").exists()).map(|p| read(p.join("address"))).filter(|a| says_something(a)).min()
}

pub fn boot_id() -> String {
    read("/proc/sys/kernel/random/boot_id")
}

/// `/etc/resolv.conf` or `/etc/hosts` of the host, for pods that use them.
pub fn host_file(path: &str) -> String {
    read(path)
}

/// The host's name as a node name; `None` when it is not fit to be one.
pub fn node_name_from_host() -> Option<String> {
    let name = read("/proc/sys/kernel/hostname").to_ascii_lowercase();
    limpet_protocol::topic::valid_node_name(&name).then_some(name)
}

/// Addresses that others reach this board at, best first: the one with which it would talk to `towards`.
pub fn primary_ips(towards: &[String]) -> Vec<String> {
    let mut found: Vec<IpAddr> = Vec::new();
    let far = ["192.0.2.1:9", "[2001:db8::1]:9"].iter().map(ToString::to_string);
    for target in towards.iter().cloned().chain(far) {
        let v6 = target.starts_with('[');
        let Ok(socket) = UdpSocket::bind(if v6 { "[::]:0" } else { "0.0.0.0:0" }) else { continue };
        // A UDP connect sends nothing; it only asks the routing table.
        let Ok(address) = target.parse::<std::net::SocketAddr>() else { continue };
        if socket.connect(address).is_ok()
            && let Ok(local) = socket.local_addr()
            && !local.ip().is_unspecified()
            && !local.ip().is_loopback()
            && !found.iter().any(|ip| ip.is_ipv4() == local.ip().is_ipv4())
        {
            found.push(local.ip());
        }
    }
    if found.is_empty() {
        found.extend(first_interface_ip());
    }
    found.iter().map(IpAddr::to_string).collect()
}

fn first_interface_ip() -> Option<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    // Pods' own is nobody else's way to this board.
    let others = all.filter(|i| i.interface_name != crate::net::BRIDGE);
    let addresses = others.filter_map(|i| i.address.and_then(|a| a.as_sockaddr_in().map(|s| IpAddr::V4(s.ip()))));
    addresses.filter(|ip| !ip.is_loopback()).min()
}

/// Everything but name, labels, problems and images, which the caller knows.
pub fn node_facts(data_dir: &Path) -> NodeFacts {
    let system = nix::sys::utsname::uname().ok();
    let word = |s: Option<&std::ffi::OsStr>| s.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let machine = word(system.as_ref().map(|s| s.machine()));
    let memory_bytes = memory_total_bytes();
    NodeFacts {
        architecture: go_arch(&machine).into(),
        kernel: word(system.as_ref().map(|s| s.release())),
        os_image: os_image(),
        machine_id: read("/etc/machine-id"),
        boot_id: boot_id(),
        system_uuid: system_uuid(Path::new("/")),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        cpus: cpus(),
        memory_bytes,
        // The kernel, this agent and what else the board runs.
        memory_reserved_bytes: (memory_bytes / 20).min(256 << 20),
        disk_bytes: disk_bytes(data_dir).0,
        pods_max: 110,
        swap_bytes: memory_line("SwapTotal"),
        huge_pages: huge_pages(),
        labels: labels(),
        board: super::board::read(Path::new("/")).conditions(),
        ..NodeFacts::default()
    }
}

/// Firmware's name for this machine, or where it has none, the system's: the places and their order are cAdvisor's.
fn system_uuid(root: &Path) -> String {
    let places = ["sys/class/dmi/id/product_uuid", "proc/device-tree/system-id", "proc/device-tree/vm,uuid", "etc/machine-id"];
    let all = places.iter().map(|place| read(root.join(place)).trim_matches('\0').to_string());
    all.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
}

/// What the board says it is; `limpet.dev/rtc`: whether its clock survives a power cut.
fn labels() -> Vec<(String, String)> {
    let mut labels = vec![("limpet.dev/rtc".to_string(), super::board::read(Path::new("/")).rtc.to_string())];
    if let Some(board) = board() {
        labels.push(("node.kubernetes.io/instance-type".into(), board.clone()));
        labels.push(("limpet.dev/board".into(), board));
    }
    labels
}

/// `/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`
fn huge_pages() -> Vec<(String, u64)> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let mut all: Vec<(u64, u64)> = entries
        .filter_map(|e| {
            let kib = e.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?;
            let count = read(e.path().join("nr_hugepages")).parse::<u64>().ok()?;
            Some((kib, count * kib * 1024))
        })
        .collect();
    all.sort_unstable();
    let name = |kib: u64| match kib {
        kib if kib.is_multiple_of(1 << 20) => format!("{}Gi", kib >> 20),
        kib if kib.is_multiple_of(1 << 10) => format!("{}Mi", kib >> 10),
        kib => format!("{kib}Ki"),
    };
    all.into_iter().map(|(kib, bytes)| (name(kib), bytes)).collect()
}

/// The words that Go and so Kubernetes use.
fn go_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        m if m.starts_with("armv") => "arm",
        "i686" | "i586" => "386",
        other => other,
    }
}

fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

fn memory_total_bytes() -> u64 {
    memory_line("MemTotal")
}

/// A line of /proc/meminfo in bytes.
fn memory_line(name: &str) -> u64 {
    let info = read("/proc/meminfo");
    let line = info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Bytes of the file system under a directory: all, and those that are free for this agent.
// The widths of statvfs fields differ between targets.
#[allow(clippy::unnecessary_cast)]
pub fn disk_bytes(dir: &Path) -> (u64, u64) {
    let Ok(s) = nix::sys::statvfs::statvfs(dir) else { return (0, 0) };
    let unit = s.fragment_size() as u64;
    (s.blocks() as u64 * unit, s.blocks_available() as u64 * unit)
}

fn os_image() -> String {
    let release = read("/etc/os-release");
    let line = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    line.map_or_else(|| "Linux".into(), |l| l.trim_matches('"').to_string())
}

/// The board's model as a label value, where the firmware says one.
fn board() -> Option<String> {
    let model = read("/proc/device-tree/model");
    let fit: String = model
        .trim_end_matches('\0')
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' })
        .take(63)
        .collect();
    let fit = fit.trim_matches(['-', '_', '.']).to_string();
    (!fit.is_empty()).then_some(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_without_a_uuid_has_its_systems() {
        let root = std::env::temp_dir().join(format!("limpet-facts-{}", std::process::id()));
        let files =
            [("etc/machine-id", "3d12\n"), ("proc/device-tree/vm,uuid", "71c0\0"), ("sys/class/dmi/id/product_uuid", "\n")];
        for (place, text) in files {
            let path = root.join(place);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        assert_eq!(system_uuid(&root), "71c0");
        std::fs::remove_dir_all(root.join("proc")).unwrap();
        assert_eq!(system_uuid(&root), "3d12");
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(system_uuid(&root), "");
    }
}
