//! `/metrics`: the agent about itself and its pods, in kubelet's names where kubelet has one.
//!
//! In: the subject, /proc/self. Out: Prometheus text.

use super::{Measured, Subject, text::Text, volumes};

/// What the agent's loop counts as it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub containers_started: u64,
    pub containers_failed: u64,
    pub sandboxes_started: u64,
    pub sandboxes_failed: u64,
    pub images_pulled: u64,
    pub images_failed: u64,
    pub evictions: u64,
    pub probes_good: u64,
    pub probes_bad: u64,
    pub connected: bool,
    pub sessions: u64,
    /// Bytes on the wire since the agent began.
    pub link_sent: u64,
    pub link_received: u64,
}

pub fn page(subject: &Subject, measured: &Measured) -> Vec<u8> {
    let mut t = Text::default();
    let c = &subject.counters;
    t.family("kubelet_node_name", "gauge", "[STABLE] The node's name. The count is always 1.");
    t.sample("kubelet_node_name", &[("node", &subject.node)], 1);
    t.family("kubernetes_build_info", "gauge", "[BETA] A metric with a constant '1' value labeled by version.");
    t.sample("kubernetes_build_info", &[("git_version", &subject.version), ("platform", "linux")], 1);
    let running = |p: &&super::PodSubject| p.containers.iter().any(|c| c.running);
    t.one("kubelet_running_pods", "gauge", "[ALPHA] Number of pods that have a running pod sandbox",
        subject.pods.iter().filter(running).count());
    t.family("kubelet_running_containers", "gauge", "[ALPHA] Number of containers currently running");
    for (state, wanted) in [("running", true), ("exited", false)] {
        let all = subject.pods.iter().flat_map(|p| &p.containers).filter(|c| c.running == wanted && c.started_ms > 0);
        t.sample("kubelet_running_containers", &[("container_state", state)], all.count());
    }
    for (name, help, value) in [
        ("kubelet_started_pods_total", "[ALPHA] Cumulative number of pods started", c.sandboxes_started),
        ("kubelet_started_pods_errors_total", "[ALPHA] Cumulative number of errors when starting pods", c.sandboxes_failed),
        ("kubelet_started_containers_total", "[ALPHA] Cumulative number of containers started", c.containers_started),
        (
            "kubelet_started_containers_errors_total",
            "[ALPHA] Cumulative number of errors when starting containers",
            c.containers_failed,
        ),
        ("kubelet_evictions", "[ALPHA] Cumulative number of pod evictions", c.evictions),
        ("limpet_image_pulls_total", "Images that were pulled.", c.images_pulled),
        ("limpet_image_pull_errors_total", "Pulls of images that failed.", c.images_failed),
        (
            "limpet_sealed_packets_refused_total",
            "Packets by way of an external broker that were refused.",
            crate::link::refused(),
        ),
        ("limpet_hub_sessions_total", "Sessions with the hub since the agent began.", c.sessions),
    ] {
        t.one(name, "counter", help, value);
    }
    runtime(&mut t, c);
    subject.took.metrics(&mut t);
    managers(&mut t, subject);
    t.family("limpet_node_link_bytes_total", "counter", "Bytes on the wire to the hub and registries, with TLS, TCP, IPv4.");
    for (direction, value) in [("sent", c.link_sent), ("received", c.link_received)] {
        t.sample("limpet_node_link_bytes_total", &[("direction", direction)], value);
    }
    t.family("prober_probe_total", "counter", "[BETA] Cumulative number of liveness, readiness and startup probes by result.");
    for (result, value) in [("successful", c.probes_good), ("failed", c.probes_bad)] {
        t.sample("prober_probe_total", &[("result", result)], value);
    }
    t.one("limpet_hub_connected", "gauge", "Whether the node has a session with the hub.", u8::from(c.connected));
    volumes::metrics(&mut t, &subject.pods, &measured.pods);
    board(&mut t);
    process(&mut t, subject);
    t.into_bytes()
}

/// What dashboards of kubelets show of the runtime.
fn runtime(t: &mut Text, c: &Counters) {
    let all = [
        ("pull_image", c.images_pulled, c.images_failed),
        ("run_podsandbox", c.sandboxes_started, c.sandboxes_failed),
        ("start_container", c.containers_started, c.containers_failed),
    ];
    let (name, errors) = ("kubelet_runtime_operations_total", "kubelet_runtime_operations_errors_total");
    t.family(name, "counter", "[ALPHA] Cumulative number of runtime operations by operation type.");
    all.iter().for_each(|(kind, good, bad)| t.sample(name, &[("operation_type", kind)], good + bad));
    t.family(errors, "counter", "[ALPHA] Cumulative number of runtime operation errors by operation type.");
    all.iter().for_each(|(kind, _, bad)| t.sample(errors, &[("operation_type", kind)], bad));
}

/// Volumes and the certificate, as kubelet's managers of them count.
fn managers(t: &mut Text, subject: &Subject) {
    let name = "volume_manager_total_volumes";
    t.family(name, "gauge", "[ALPHA] Number of volumes in Volume Manager");
    for (kind, (wanted, there)) in &subject.volumes {
        for (state, count) in [("actual_state_of_world", there), ("desired_state_of_world", wanted)] {
            t.sample(name, &[("plugin_name", kind), ("state", state)], count);
        }
    }
    if let Some(left) = subject.certificate_ms {
        let help = "[ALPHA] Gauge of the TTL (time-to-live) of the Kubelet's client certificate. The value is in seconds until \
                    certificate expiry (negative if already expired).";
        t.one("kubelet_certificate_manager_client_ttl_seconds", "gauge", help, left / 1000);
    }
}

/// What the board can tell of itself; nothing where it cannot.
fn board(t: &mut Text) {
    let board = crate::device::board::read(std::path::Path::new("/"));
    if let Some(bits) = board.throttled {
        t.one("limpet_board_throttled_bits", "gauge", "The firmware's get_throttled.", bits);
    }
    if let Some(heat) = board.millidegrees {
        t.one("limpet_board_temperature_celsius", "gauge", "Of the hottest zone.", heat as f64 / 1000.0);
    }
    if let Some(tenths) = board.flash_life_tenths {
        t.one("limpet_board_flash_life_used_ratio", "gauge", "Of the worst flash device, at most.", f64::from(tenths) / 10.0);
    }
    t.one("limpet_board_zram_bytes", "gauge", "Size of compressed swap.", board.zram_bytes);
}

/// 16 KiB on a Raspberry Pi 5.
fn page_bytes() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

fn process(t: &mut Text, subject: &Subject) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|w| w.parse().unwrap_or(0))
        .collect();
    let at = |i: usize| fields.get(i).copied().unwrap_or(0);
    t.one("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.",
        (at(11) + at(12)) as f64 / 100.0);
    t.one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", at(21) * page_bytes());
    t.one("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.",
        subject.began_ms as f64 / 1000.0);
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    t.one("process_open_fds", "gauge", "Number of open file descriptors.", open);
}
