//! What a pod shares with its host: namespaces, ports, probes' targets, kernel settings.
//!
//! In: a pod. Out: violations. Never: judges what a container may do inside its own walls.

use super::{Pod, Version, Violation, violation};
use crate::pod_security::containers::{all, name, named, phrase, plural, quoted, sorted};
use serde_json::Value;

pub fn namespaces(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == Value::Bool(true))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

pub fn ports(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let ports_of = |container: &Value| -> Vec<u64> {
        let ports = container["ports"].as_array().into_iter().flatten();
        ports.filter_map(|p| p["hostPort"].as_u64()).filter(|p| *p != 0).collect()
    };
    let names = named(pod.spec, |c| !ports_of(c).is_empty());
    if names.is_empty() {
        return None;
    }
    let ports = sorted(all(pod.spec).flat_map(ports_of).map(|p| p.to_string()).collect());
    let verb = plural("uses", "use", names.len());
    let noun = plural("hostPort", "hostPorts", ports.len());
    violation("hostPort", format!("{} {verb} {noun} {}", phrase(&names), ports.join(", ")))
}

/// Since 1.34: a probe or hook that names another host makes the node ask where the pod could not.
pub fn probes(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let hosts_of = |container: &Value| -> Vec<String> {
        let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(|p| &container[p]);
        let hooks = ["postStart", "preStop"].map(|h| &container["lifecycle"][h]);
        let each = probes.into_iter().chain(hooks);
        let hosts = each.flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| &handler[kind]["host"]));
        let local = |host: &str| matches!(host, "" | "127.0.0.1" | "::1" | "localhost");
        hosts.filter_map(Value::as_str).filter(|h| !local(h)).map(str::to_owned).collect()
    };
    let names = named(pod.spec, |c| !hosts_of(c).is_empty());
    if names.is_empty() {
        return None;
    }
    let hosts = sorted(all(pod.spec).flat_map(hosts_of).collect());
    let verb = plural("uses", "use", names.len());
    let noun = plural("host", "hosts", hosts.len());
    violation(
        "probe or lifecycle host",
        format!("{} {verb} probe or lifecycle {noun} {}", phrase(&names), quoted(&hosts)),
    )
}

/// (name, the minor that called it safe)
const SYSCTLS: [(&str, u32); 10] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
];

pub fn sysctls(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let safe = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && version.has(*since));
    let given = pod.context()["sysctls"].as_array().into_iter().flatten();
    let bad: Vec<&str> = given.map(name).filter(|n| !safe(n)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

pub fn windows_process(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let is = |context: &Value| context["windowsOptions"]["hostProcess"] == Value::Bool(true);
    let mut who = Vec::new();
    if is(pod.context()) {
        who.push("pod".to_owned());
    }
    let names = named(pod.spec, |c| is(&c["securityContext"]));
    if !names.is_empty() {
        who.push(phrase(&names));
    }
    if who.is_empty() {
        return None;
    }
    violation(
        "hostProcess",
        format!("{} must not set securityContext.windowsOptions.hostProcess=true", who.join(" and ")),
    )
}
