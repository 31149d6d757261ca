//! Whether this board can be a node.
//!
//! In: the kernel, the directories. Out: one line a question, and for every "no" what to change.

use crate::{agent::Paths, device::cgroups::Cgroups};
use std::path::Path;

struct Finding {
    good: bool,
    what: String,
    /// What to do when it is not good.
    remedy: &'static str,
}

pub fn doctor(paths: &Paths) -> i32 {
    let mut findings = vec![root(), kernel(), overlay(), netfilter(), directory(&paths.data), clock()];
    findings.extend(cgroups());
    let mut bad = 0;
    for f in &findings {
        let mark = if f.good { "ok  " } else { "BAD " };
        println!("{mark} {}", f.what);
        if !f.good {
            println!("     -> {}", f.remedy);
            bad += 1;
        }
    }
    i32::from(bad > 0)
}

fn finding(good: bool, what: impl Into<String>, remedy: &'static str) -> Finding {
    Finding { good, what: what.into(), remedy }
}

fn root() -> Finding {
    let good = nix::unistd::geteuid().is_root();
    finding(good, "runs as root", "start it with sudo or as a system service")
}

fn kernel() -> Finding {
    let release = nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    finding(version >= (5, 4), format!("kernel {release}"), "use a kernel of version 5.4 or newer")
}

fn overlay() -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay");
    finding(known, "overlay file systems", "load it: `modprobe overlay`, and add it to /etc/modules")
}

fn netfilter() -> Finding {
    let socket = crate::net::netlink::Socket::netfilter();
    finding(socket.is_ok(), "nftables in the kernel", "load it: `modprobe nf_tables nft_nat nft_masq`")
}

fn cgroups() -> Vec<Finding> {
    let found = match Cgroups::probe("limpet-doctor") {
        Ok(found) => found,
        Err(e) => {
            let remedy = "mount them: `mount -t cgroup2 none /sys/fs/cgroup`";
            return vec![finding(false, format!("control groups: {e}"), remedy)];
        }
    };
    let version = if found.is_v2() { "v2" } else { "v1" };
    let have = found.controllers();
    let row = |good, name: &str, remedy| finding(good, format!("control group {version} controller {name}"), remedy);
    vec![
        row(have.cpu, "cpu", "the kernel lacks CONFIG_CGROUP_SCHED: CPU limits have no effect"),
        row(
            have.memory,
            "memory",
            "add `cgroup_enable=memory` to the kernel's command line (Raspberry Pi OS: /boot/firmware/cmdline.txt) and reboot",
        ),
        row(have.pids, "pids", "the kernel lacks CONFIG_CGROUP_PIDS: process limits have no effect"),
    ]
}

fn directory(data: &Path) -> Finding {
    let there = data.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let (_, free) = crate::device::disk_bytes(there);
    let what = format!("{} MiB free for {}", free >> 20, data.display());
    finding(free > 256 << 20, what, "free some space, or name another directory with --data-dir")
}

fn clock() -> Finding {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let text = limpet_agent_core::clock::rfc3339(now * 1000);
    // Not a fault: the agent carries on from the last good time.
    finding(true, format!("the clock says {text}{}", if now < 1_700_000_000 { " (wrong; the agent copes)" } else { "" }), "")
}
