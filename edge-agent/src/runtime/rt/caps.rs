//! Capability sets as bit masks.
//!
//! In: the names of a security context. Out: masks and the OCI names. Never: grants a name that it does not know.

use super::super::spec::{CapabilityChange, ContainerSpec};
use super::super::sys;

/// In the order of linux/capability.h.
const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has when nothing is said (the same set as containerd's).
const DEFAULT: [&str; 14] = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
];

/// Needed by the executor until the filter is loaded and the sets are final.
pub const TRANSIENT: u64 = bit("SETPCAP") | bit("SYS_ADMIN");

pub const fn bit(name: &str) -> u64 {
    let mut index = 0;
    while index < NAMES.len() {
        if same(NAMES[index].as_bytes(), name.as_bytes()) {
            return 1 << index;
        }
        index += 1;
    }
    0
}

/// Effective now; none when the kernel does not say.
pub fn of_this_process() -> u64 {
    sys::capabilities().map_or(0, |(effective, _)| effective)
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut index = 0;
    while index < a.len() {
        if a[index] != b[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The container's final set.
pub fn wanted(spec: &ContainerSpec, last_cap: u32) -> Result<u64, String> {
    // What this machine keeps from the agent itself cannot be given on.
    let all = all(last_cap) & held();
    if spec.privileged {
        return Ok(all);
    }
    Ok(change(DEFAULT.iter().fold(0, |mask, name| mask | bit(name)), &spec.capabilities, all)? & all)
}

fn change(base: u64, change: &CapabilityChange, all: u64) -> Result<u64, String> {
    let masks = |names: &[String]| -> Result<u64, String> {
        names.iter().try_fold(0, |mask, name| {
            let short = name.strip_prefix("CAP_").unwrap_or(name);
            match bit(short) {
                0 => Err(format!("unknown capability \"CAP_{short}\"")),
                bit => Ok(mask | bit),
            }
        })
    };
    // As containerd: first ALL of either list, then what is added by name, then what is dropped by name.
    let is_all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let named = |list: &[String]| masks(&list.iter().filter(|name| *name != "ALL").cloned().collect::<Vec<_>>());
    let base = if is_all(&change.add) { all } else { base };
    let base = if is_all(&change.drop) { 0 } else { base };
    Ok((base | named(&change.add)?) & !named(&change.drop)?)
}

/// Every capability of this kernel.
pub fn all(last_cap: u32) -> u64 {
    if last_cap >= 63 { u64::MAX } else { (1 << (last_cap + 1)) - 1 }
}

/// What this process may have at most.
pub fn held() -> u64 {
    sys::capabilities().map_or(u64::MAX, |(_, permitted)| permitted)
}

/// The highest number that the kernel knows: it refuses to speak of higher ones.
pub fn last_cap() -> u32 {
    let (mut known, mut unknown) = (0, u64::BITS);
    while unknown - known > 1 {
        let middle = (known + unknown) / 2;
        match sys::knows_capability(middle) {
            true => known = middle,
            false => unknown = middle,
        }
    }
    known
}

/// Names as config.json wants them.
pub fn names(mask: u64) -> Vec<String> {
    NAMES.iter().enumerate().filter(|(i, _)| mask & (1 << i) != 0).map(|(_, name)| format!("CAP_{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_follow_kubernetes_words() {
        let words = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        let cases: [(&[&str], &[&str], u64); 6] = [
            (&[], &[], 0xa80425fb),
            (&[], &["ALL"], 0),
            (&["NET_BIND_SERVICE"], &["ALL"], 1 << 10),
            (&["ALL"], &["SYS_ADMIN"], all(40) & !bit("SYS_ADMIN") & held()),
            (&["NET_ADMIN", "SYS_TIME"], &["NET_ADMIN"], 0xa80425fb | bit("SYS_TIME")),
            (&["CAP_SYS_TIME"], &["KILL"], (0xa80425fb | bit("SYS_TIME")) & !bit("KILL")),
        ];
        for (add, drop, expect) in cases {
            let capabilities = CapabilityChange { add: words(add), drop: words(drop) };
            let spec = ContainerSpec { capabilities, ..ContainerSpec::default() };
            assert_eq!(wanted(&spec, 40), Ok(expect), "{add:?} {drop:?}");
        }
        let capabilities = CapabilityChange { add: words(&["FLY"]), drop: vec![] };
        assert!(wanted(&ContainerSpec { capabilities, ..ContainerSpec::default() }, 40).is_err());
    }

    #[test]
    fn the_kernel_says_how_many_there_are() {
        let text = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        assert_eq!(last_cap().to_string(), text.trim());
    }
}
