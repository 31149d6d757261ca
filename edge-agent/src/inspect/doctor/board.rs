//! The kernel, its control groups, the clock, the disk.
//!
//! In: /proc, /sys, /boot, the data directory. Out: findings.

use super::{Finding, finding, wish};
use crate::{
    agent::Paths,
    device::{self, cgroups::Cgroups},
};
use std::{io::Read, path::Path};

/// Options that a node cannot do without, and what for.
const NEEDED: &[(&str, &str)] = &[
    ("NAMESPACES", "containers"), ("PID_NS", "containers"), ("NET_NS", "pods' networks"), ("IPC_NS", "containers"),
    ("UTS_NS", "host names of pods"), ("CGROUPS", "limits"), ("OVERLAY_FS", "images"), ("BRIDGE", "pods' networks"),
    ("VETH", "pods' networks"), ("NF_TABLES", "Services"), ("NF_NAT", "Services"), ("NFT_NAT", "Services"),
    ("NFT_MASQ", "pods' way out"), ("SECCOMP_FILTER", "safe containers"), ("TMPFS", "Secrets"),
];
/// Options that some pods want.
const WISHED: &[(&str, &str)] = &[
    ("MEMCG", "memory limits"), ("CFS_BANDWIDTH", "CPU limits"), ("CGROUP_PIDS", "process limits"),
    ("CGROUP_BPF", "device rules on cgroup v2"), ("POSIX_MQUEUE", "message queues in containers"),
    ("USER_NS", "hostUsers: false"), ("NF_CONNTRACK", "Services"), ("PSI", "pressure figures"),
];
const CONFIG_BYTES_MAX: u64 = 4 << 20;

pub fn look(paths: &Paths) -> Vec<Finding> {
    let mut all = vec![root(), judge_kernel(&release())];
    all.extend(options());
    all.extend([overlay(), netfilter()]);
    all.extend(cgroups());
    all.extend(clock());
    all.extend(disk(&paths.data));
    all.extend(board());
    all
}

fn root() -> Finding {
    let good = nix::unistd::geteuid().is_root();
    let what = if good { "runs as root" } else { "does not run as root" };
    finding("kernel", good, what, "start it with sudo or as a system service")
}

fn release() -> String {
    nix::sys::utsname::uname().map(|u| u.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// Paths in volumes and images are opened by openat2(2), which nothing stands in for.
const KERNEL_MIN: (u32, u32) = (5, 6);

fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-', '+']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let good = version >= KERNEL_MIN;
    let what = if good { format!("kernel {release}") } else { format!("kernel {release} is too old") };
    let (major, minor) = KERNEL_MIN;
    finding("kernel", good, what, format!("use a kernel of version {major}.{minor} or newer"))
}

/// The kernel's own list of what it was built with; `None` where it is not kept.
fn configuration() -> Option<String> {
    let release = release();
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open("/proc/config.gz") {
        flate2::read::GzDecoder::new(file).take(CONFIG_BYTES_MAX).read_to_string(&mut text).ok()?;
        return Some(text);
    }
    let places = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    let file = places.iter().find_map(|path| std::fs::File::open(path).ok())?;
    file.take(CONFIG_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

fn options() -> Vec<Finding> {
    match configuration() {
        Some(text) => judge_options(&text),
        None => {
            let what = "the kernel keeps no list of its options (/proc/config.gz, /boot/config-*)";
            vec![wish("kernel", false, what, "nothing to do: what matters is tried below")]
        }
    }
}

fn judge_options(text: &str) -> Vec<Finding> {
    let has = |name: &str| {
        let value = text.lines().find_map(|l| l.strip_prefix("CONFIG_")?.strip_prefix(name)?.strip_prefix('='));
        matches!(value, Some("y" | "m"))
    };
    let lacks = |list: &[(&'static str, &'static str)]| -> Vec<(&str, &str)> {
        list.iter().filter(|(name, _)| !has(name)).copied().collect()
    };
    let (needed, wished) = (lacks(NEEDED), lacks(WISHED));
    let mut all = Vec::new();
    if needed.is_empty() {
        all.push(finding("kernel", true, "the kernel has all options that a node needs", ""));
    }
    for (name, what_for) in needed {
        let remedy = format!("use a kernel with CONFIG_{name}=y or =m, such as the distribution's own");
        all.push(finding("kernel", false, format!("the kernel lacks CONFIG_{name} ({what_for})"), remedy));
    }
    for (name, what_for) in wished {
        let what = format!("the kernel lacks CONFIG_{name} ({what_for})");
        all.push(wish("kernel", false, what, format!("use a kernel with CONFIG_{name}=y if pods need it")));
    }
    all
}

fn overlay() -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default().contains("overlay");
    let what = if known { "the kernel has overlay file systems" } else { "the kernel has no overlay file systems" };
    finding("kernel", known, what, "load them: `modprobe overlay`, and add `overlay` to /etc/modules")
}

fn netfilter() -> Finding {
    let socket = crate::net::netlink::Socket::netfilter();
    let remedy = "load it: `modprobe nf_tables nft_nat nft_masq`, and add the three to /etc/modules";
    let what = if socket.is_ok() { "the kernel has nftables" } else { "the kernel has no nftables" };
    finding("kernel", socket.is_ok(), what, remedy)
}

fn cgroups() -> Vec<Finding> {
    let found = match Cgroups::probe("limpet-doctor") {
        Ok(found) => found,
        Err(e) => {
            let remedy = "mount them: `mount -t cgroup2 none /sys/fs/cgroup`";
            return vec![finding("control groups", false, format!("no control groups: {e}"), remedy)];
        }
    };
    let version = if found.is_v2() { "v2" } else { "v1" };
    let have = found.controllers();
    let row = |good, name: &str, remedy: String| {
        let lacks = if good { "" } else { "no " };
        finding("control groups", good, format!("{lacks}controller {name} ({version})"), remedy)
    };
    vec![
        row(have.cpu, "cpu", "the kernel lacks CONFIG_CGROUP_SCHED: use one that has it, or CPU limits have no effect".into()),
        row(have.memory, "memory", memory_remedy(Path::new("/"))),
        row(have.pids, "pids", "the kernel lacks CONFIG_CGROUP_PIDS: use one that has it, or process limits have no effect".into()),
        wish(
            "control groups",
            found.is_v2(),
            format!("version {}", if found.is_v2() { "2" } else { "1: works, but the kernel's developers left it behind" }),
            "boot with `systemd.unified_cgroup_hierarchy=1` on the kernel's command line",
        ),
    ]
}

/// Names the file and shows the line as it must become.
fn memory_remedy(root: &Path) -> String {
    const WORDS: &str = "cgroup_enable=memory cgroup_memory=1";
    for path in ["boot/firmware/cmdline.txt", "boot/cmdline.txt"] {
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        let kept = text.split_whitespace().filter(|w| !w.starts_with("cgroup_disable=memory"));
        let line = kept.collect::<Vec<_>>().join(" ");
        return format!("change the one line of /{path} to `{line} {WORDS}` and reboot");
    }
    if root.join("etc/default/grub").exists() {
        return format!("add `{WORDS}` to GRUB_CMDLINE_LINUX in /etc/default/grub, run `update-grub` and reboot");
    }
    if root.join("boot/extlinux/extlinux.conf").exists() {
        return format!("add `{WORDS}` to the `append` line of /boot/extlinux/extlinux.conf and reboot");
    }
    format!("add `{WORDS}` to the kernel's command line and reboot")
}

fn clock() -> Vec<Finding> {
    let now_ms = device::Clock::new().wall_ms();
    let text = limpet_agent_core::clock::rfc3339(now_ms);
    let rtc = device::board::read(Path::new("/")).rtc;
    vec![
        wish(
            "clock",
            (1_700_000_000_000..4_102_444_800_000).contains(&now_ms),
            format!("the clock says {text}"),
            "the agent goes on from the last good time it knows; to mend it let the board reach a time server",
        ),
        wish(
            "clock",
            rtc,
            if rtc { "the board has a clock chip" } else { "the board has no clock chip: after a power cut it wakes in the past" },
            "the agent copes; a clock chip (RTC) keeps log times right until the first contact with a time server",
        ),
    ]
}

// The widths of statfs fields differ between targets.
#[allow(clippy::unnecessary_cast)]
fn disk(data: &Path) -> Vec<Finding> {
    let there = data.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/"));
    let (_, free) = device::disk_bytes(there);
    let enough = free > 256 << 20;
    let what = format!("{}{} MiB free for {}", if enough { "" } else { "only " }, free >> 20, data.display());
    let mut all = vec![finding("disk", enough, what, "free some space, or name another directory with --data-dir")];
    let kind = nix::sys::statfs::statfs(there).map(|s| s.filesystem_type().0 as u64 & 0xffff_ffff).unwrap_or(0);
    let bad = match kind {
        0x794c_7630 => Some("overlay"),
        0x4d44 => Some("FAT"),
        0x2011_bab0 => Some("exFAT"),
        0x6969 => Some("NFS"),
        0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        _ => None,
    };
    let what = match bad {
        Some(name) => format!("{} lies on {name}, which cannot hold containers' layers", there.display()),
        None => format!("the file system of {} can hold containers' layers", there.display()),
    };
    all.push(finding("disk", bad.is_none(), what, "name a directory on ext4, xfs, btrfs or f2fs with --data-dir"));
    let read_only = nix::sys::statvfs::statvfs(there)
        .is_ok_and(|s| s.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    let what = format!("{} can{} be written to", there.display(), if read_only { "not" } else { "" });
    all.push(finding("disk", !read_only, what, "mount it read-write, or name another directory with --data-dir"));
    all
}

/// What the board itself complains of.
fn board() -> Vec<Finding> {
    let conditions = device::board::read(Path::new("/")).conditions();
    conditions.into_iter().map(|c| wish("board", !c.bad && !c.reason.starts_with("Was"), c.message, c.message)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn the_line_to_change_is_shown() {
        let root = std::env::temp_dir().join(format!("limpet-doctor-{}", std::process::id()));
        std::fs::create_dir_all(root.join("boot/firmware")).unwrap();
        assert!(memory_remedy(&root).starts_with("add `cgroup_enable=memory"));
        let line = "console=tty1 root=PARTUUID=1-02 cgroup_disable=memory rootwait\n";
        std::fs::write(root.join("boot/firmware/cmdline.txt"), line).unwrap();
        assert_eq!(
            memory_remedy(&root),
            "change the one line of /boot/firmware/cmdline.txt to `console=tty1 root=PARTUUID=1-02 rootwait \
             cgroup_enable=memory cgroup_memory=1` and reboot"
        );
        let _ = std::fs::remove_dir_all(&root);
    }

    #[test]
    fn kernels_without_openat2_are_too_old() {
        for (release, good) in [
            ("4.19.113-v7l+", false), ("5.4.83-v8+", false), ("5.5.0", false), ("5.6+", true), ("5.10.0-28-arm64", true),
            ("6.1.21-v7l+", true), ("", false),
        ] {
            assert_eq!(judge_kernel(release).verdict, if good { Verdict::Good } else { Verdict::Bad }, "{release}");
        }
        assert_eq!(judge_kernel("5.4.83-v8+").remedy, "use a kernel of version 5.6 or newer");
    }

    #[test]
    fn options_that_lack() {
        let all: String = NEEDED.iter().chain(WISHED).map(|(n, _)| format!("CONFIG_{n}=m\n")).collect();
        assert_eq!(judge_options(&all).len(), 1);
        let some = all.replace("CONFIG_VETH=m", "# CONFIG_VETH is not set").replace("CONFIG_PSI=m\n", "");
        let found = judge_options(&some);
        let bad: Vec<_> = found.iter().map(|f| (f.verdict, f.what.as_str())).collect();
        assert_eq!(bad, [
            (Verdict::Bad, "the kernel lacks CONFIG_VETH (pods' networks)"),
            (Verdict::Note, "the kernel lacks CONFIG_PSI (pressure figures)"),
        ]);
    }
}
