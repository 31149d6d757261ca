//! Which sysctls a pod may set.
//!
//! In: the pod's security context, what the node allows. Out: names with dots and their values, or kubelet's sentence.
//! Never: a sysctl that is not the pod's own (a namespace that it shares with the host).

use crate::api::PodSpec;

/// What Kubernetes calls safe: isolated between pods, and no harm to the node ("Using sysctls in a Kubernetes Cluster").
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// With dots, whichever separator the manifest has: with a slash first, dots are part of a name (`net/ipv4/conf/eth0.1`).
pub fn name(written: &str) -> String {
    match written.find(['.', '/']) {
        Some(at) if written.as_bytes()[at] == b'/' => {
            written.chars().map(|c| if c == '/' { '.' } else if c == '.' { '/' } else { c }).collect()
        }
        _ => written.to_string(),
    }
}

/// Kubelet's sentence for the first sysctl that this pod may not have here.
pub fn refused(spec: &PodSpec, allowed: &[String]) -> Option<String> {
    spec.security_context.sysctls.iter().find_map(|wanted| {
        let dotted = name(&wanted.name);
        let said = |why: &str| Some(format!("forbidden sysctl: \"{}\" {why}", wanted.name));
        let listed = SAFE.contains(&dotted.as_str()) || allowed.iter().any(|pattern| fits(pattern, &dotted));
        match namespace(&dotted) {
            None => said("not allowlisted"),
            _ if !listed => said("not allowlisted"),
            Some(Namespace::Ipc) if spec.host_ipc => said("not allowed with host ipc enabled"),
            Some(Namespace::Net) if spec.host_network => said("not allowed with host net enabled"),
            Some(_) => None,
        }
    })
}

fn fits(pattern: &str, dotted: &str) -> bool {
    let pattern = name(pattern);
    match pattern.strip_suffix('*') {
        Some(family) => dotted.starts_with(family),
        None => dotted == pattern,
    }
}

enum Namespace {
    Ipc,
    Net,
    Uts,
}

/// The namespace that a sysctl belongs to; `None` is the host's own.
fn namespace(dotted: &str) -> Option<Namespace> {
    let starts = |families: &[&str]| families.iter().any(|family| dotted.starts_with(family));
    match dotted {
        "kernel.domainname" => Some(Namespace::Uts),
        "kernel.sem" => Some(Namespace::Ipc),
        _ if starts(&["kernel.shm", "kernel.msg", "fs.mqueue."]) => Some(Namespace::Ipc),
        _ if starts(&["net."]) => Some(Namespace::Net),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NameValue;

    #[test]
    fn safe_ones_and_allowed_ones() {
        let allowed = ["kernel.msg*".to_string(), "net.core.somaxconn".into()];
        for (wanted, host_net, host_ipc, why) in [
            ("net.ipv4.ip_local_port_range", false, false, None),
            ("net/ipv4/ip_local_port_range", false, false, None),
            ("net.ipv4.ip_local_port_range", true, false, Some("not allowed with host net enabled")),
            ("net.core.somaxconn", false, false, None),
            ("net.core.rmem_max", false, false, Some("not allowlisted")),
            ("kernel.msgmax", false, false, None),
            ("kernel.msgmax", false, true, Some("not allowed with host ipc enabled")),
            ("kernel.shm_rmid_forced", false, false, None),
            ("kernel.sem", false, false, Some("not allowlisted")),
            ("kernel.panic", false, false, Some("not allowlisted")),
            ("vm.swappiness", false, false, Some("not allowlisted")),
        ] {
            let mut spec = PodSpec { host_network: host_net, host_ipc, ..PodSpec::default() };
            spec.security_context.sysctls = vec![NameValue { name: wanted.into(), value: "1".into() }];
            let want = why.map(|why| format!("forbidden sysctl: \"{wanted}\" {why}"));
            assert_eq!(refused(&spec, &allowed), want, "{wanted}");
        }
        // An asterisk does not open what belongs to the host.
        let mut spec = PodSpec::default();
        spec.security_context.sysctls = vec![NameValue { name: "kernel.panic".into(), value: "1".into() }];
        assert!(refused(&spec, &["kernel.*".into(), "*".into()]).is_some());
    }

    #[test]
    fn slashes_are_dots() {
        for (written, want) in [
            ("net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0/1.forwarding"),
            ("net/ipv4/conf/eth0.1/forwarding", "net.ipv4.conf.eth0/1.forwarding"),
            ("kernel.sem", "kernel.sem"),
            ("odd", "odd"),
        ] {
            assert_eq!(name(written), want);
        }
    }
}
