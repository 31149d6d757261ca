//! `/metrics/cadvisor`: what dashboards of container resources read, in cAdvisor's names.
//!
//! In: the subject, measurements. Out: Prometheus text. A pod's own lines have an empty `container`.

use super::{
    Measured, More, Subject,
    text::{Text, seconds},
};
use crate::device::{
    cgroups::{DiskIo, Stats, Usage},
    machine::Interface,
    pressure::Pressure,
};

/// One family: name, kind, help, value.
type Family = (&'static str, &'static str, &'static str, fn(&Stats) -> Option<f64>);

const FAMILIES: &[Family] = &[
    ("container_cpu_user_seconds_total", "counter", "Cumulative user cpu time consumed in seconds.",
        |s| s.cpu_user_ns.map(seconds)),
    ("container_cpu_system_seconds_total", "counter", "Cumulative system cpu time consumed in seconds.",
        |s| s.cpu_system_ns.map(seconds)),
    ("container_spec_cpu_period", "gauge", "CPU period of the container.", |s| s.cpu_period_us.map(|n| n as f64)),
    ("container_spec_cpu_quota", "gauge", "CPU quota of the container.", |s| s.cpu_quota_us.map(|n| n as f64)),
    ("container_spec_cpu_shares", "gauge", "CPU share of the container.", |s| s.cpu_shares.map(|n| n as f64)),
    ("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes",
        |s| s.memory_max_bytes.map(|n| n as f64)),
    ("container_memory_failcnt", "counter", "Number of memory usage hits limits", |s| s.memory_failures.map(|n| n as f64)),
    ("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", |s| s.mapped_bytes.map(|n| n as f64)),
    ("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.",
        |s| s.cpu_periods.map(|n| n as f64)),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.",
        |s| s.cpu_throttled.map(|n| n as f64)),
    ("container_cpu_cfs_throttled_seconds_total", "counter", "Total time duration the container has been throttled.",
        |s| s.cpu_throttled_ns.map(seconds)),
    ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory.",
        |s| s.usage.memory_bytes.map(|n| n as f64)),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.",
        |s| s.usage.working_set_bytes.map(|n| n as f64)),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |s| s.rss_bytes.map(|n| n as f64)),
    ("container_memory_cache", "gauge", "Number of bytes of page cache memory.", |s| s.cache_bytes.map(|n| n as f64)),
    ("container_memory_swap", "gauge", "Container swap usage in bytes.", |s| s.swap_bytes.map(|n| n as f64)),
    ("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.",
        |s| Some(s.memory_limit_bytes.unwrap_or(0) as f64)),
    ("container_oom_events_total", "counter", "Count of out of memory events observed for the container",
        |s| Some(s.oom_kills as f64)),
    ("container_threads", "gauge", "Number of threads running inside the container", |s| s.usage.pids.map(|n| n as f64)),
    ("container_threads_max", "gauge", "Maximum number of threads allowed inside the container, infinity if value is zero",
        |s| Some(s.threads_max.unwrap_or(0) as f64)),
    ("container_pressure_cpu_waiting_seconds_total", "counter",
        "Total time duration tasks in the container have waited due to CPU congestion.", |s| some(s.cpu_pressure)),
    ("container_pressure_cpu_stalled_seconds_total", "counter",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |s| full(s.cpu_pressure)),
    ("container_pressure_memory_waiting_seconds_total", "counter",
        "Total time duration tasks in the container have waited due to memory congestion.", |s| some(s.memory_pressure)),
    ("container_pressure_memory_stalled_seconds_total", "counter",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |s| full(s.memory_pressure)),
    ("container_pressure_io_waiting_seconds_total", "counter",
        "Total time duration tasks in the container have waited due to IO congestion.", |s| some(s.io_pressure)),
    ("container_pressure_io_stalled_seconds_total", "counter",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |s| full(s.io_pressure)),
];

/// One family of what a walk through /proc finds.
type Counted = (&'static str, &'static str, fn(&More) -> u64);

const COUNTED: [Counted; 3] = [
    ("container_processes", "Number of processes running inside the container.", |m| m.processes),
    ("container_file_descriptors", "Number of open file descriptors for the container.", |m| m.descriptors),
    ("container_sockets", "Number of open sockets for the container.", |m| m.sockets),
];

/// One family of what went to and came from each disk.
type OfDisk = (&'static str, &'static str, fn(&DiskIo) -> u64);

const OF_DISKS: [OfDisk; 4] = [
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |d| d.read_bytes),
    ("container_fs_reads_total", "Cumulative count of reads completed", |d| d.reads),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |d| d.write_bytes),
    ("container_fs_writes_total", "Cumulative count of writes completed", |d| d.writes),
];

fn some(p: Option<Pressure>) -> Option<f64> {
    p.map(|p| p.some.total_us as f64 / 1e6)
}

fn full(p: Option<Pressure>) -> Option<f64> {
    p.map(|p| p.full.total_us as f64 / 1e6)
}

pub fn page(subject: &Subject, measured: &Measured) -> Vec<u8> {
    let mut t = Text::default();
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    t.one("machine_cpu_cores", "gauge", "Number of logical CPU cores.", cpus);
    t.one("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", measured.machine.memory_total);
    t.one("machine_swap_bytes", "gauge", "Amount of swap memory available on the machine.", measured.machine.swap_total);
    t.one("container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise", 0);
    let name = "container_cpu_usage_seconds_total";
    t.family(name, "counter", "Cumulative cpu time consumed in seconds.");
    each(subject, measured, &mut |labels, stats, _| {
        if let Some(ns) = stats.usage.cpu_ns {
            t.sample(name, &[&[("cpu", "total")], labels].concat(), seconds(ns));
        }
    });
    for (name, kind, help, of) in FAMILIES {
        t.family(name, kind, help);
        each(subject, measured, &mut |labels, stats, _| {
            if let Some(value) = of(stats) {
                t.sample(name, labels, value);
            }
        });
    }
    let failures = "container_memory_failures_total";
    t.family(failures, "counter", "Cumulative count of memory allocation failures.");
    each(subject, measured, &mut |labels, stats, _| {
        for (kind, count) in [("pgfault", stats.page_faults), ("pgmajfault", stats.major_page_faults)] {
            if let Some(count) = count {
                t.sample(failures, &[&[("failure_type", kind), ("scope", "hierarchy")], labels].concat(), count);
            }
        }
    });
    for (name, help, of) in COUNTED {
        t.family(name, "gauge", help);
        each(subject, measured, &mut |labels, _, more| more.iter().for_each(|more| t.sample(name, labels, of(more))));
    }
    for (name, help, of) in OF_DISKS {
        t.family(name, "counter", help);
        each(subject, measured, &mut |labels, _, more| {
            for (device, disk) in more.iter().flat_map(|more| &more.disks) {
                t.sample(name, &[&[("device", &**device)], labels].concat(), of(disk));
            }
        });
    }
    containers(&mut t, subject, measured);
    network(&mut t, subject, measured);
    t.into_bytes()
}

type Each<'f> = dyn FnMut(&[(&str, &str)], &Stats, Option<&More>) + 'f;

/// The whole machine, every pod and every running container, with its labels.
fn each(subject: &Subject, measured: &Measured, f: &mut Each<'_>) {
    f(&labels("", "/", "", "", "", ""), &whole(measured), None);
    for (pod, m) in subject.pods.iter().zip(&measured.pods) {
        let id = format!("/{}", pod.group);
        f(&labels("", &id, "", "", &pod.namespace, &pod.name), &m.stats, Some(&m.more));
        for (c, m) in pod.containers.iter().zip(&m.containers).filter(|(c, _)| c.running) {
            let id = format!("/{}/{}", pod.group, c.id);
            f(&labels(&c.name, &id, &c.image, &c.id, &pod.namespace, &pod.name), &m.stats, Some(&m.more));
        }
    }
}

/// The machine as if it were a group.
fn whole(measured: &Measured) -> Stats {
    let m = &measured.machine;
    let usage = Usage {
        cpu_ns: Some(m.cpu_ns),
        memory_bytes: Some(m.memory_total.saturating_sub(m.memory_free)),
        working_set_bytes: Some(m.memory_total.saturating_sub(m.memory_available)),
        pids: Some(m.processes),
    };
    Stats {
        usage,
        rss_bytes: Some(m.memory_anon),
        swap_bytes: Some(m.swap_total.saturating_sub(m.swap_free)),
        page_faults: Some(m.page_faults),
        major_page_faults: Some(m.major_page_faults),
        memory_limit_bytes: Some(m.memory_total),
        threads_max: Some(m.pid_max),
        cpu_pressure: m.cpu_pressure,
        memory_pressure: m.memory_pressure,
        io_pressure: m.io_pressure,
        ..Stats::default()
    }
}

fn labels<'a>(
    container: &'a str,
    id: &'a str,
    image: &'a str,
    name: &'a str,
    namespace: &'a str,
    pod: &'a str,
) -> [(&'static str, &'a str); 6] {
    [("container", container), ("id", id), ("image", image), ("name", name), ("namespace", namespace), ("pod", pod)]
}

fn containers(t: &mut Text, subject: &Subject, measured: &Measured) {
    let device = [("device", measured.disk.as_str())];
    let families = [
        ("container_fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem."),
        ("container_fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem."),
        ("container_fs_inodes_total", "Number of Inodes"),
        ("container_fs_inodes_free", "Number of available Inodes"),
        ("container_start_time_seconds", "Start time of the container since unix epoch in seconds."),
        ("container_last_seen", "Last time a container was seen by the exporter"),
    ];
    for (at, (name, help)) in families.into_iter().enumerate() {
        t.family(name, "gauge", help);
        let (fs, disk) = (&measured.fs, if at < 4 { &device[..] } else { &[] });
        let whole = [fs.used, fs.capacity, fs.inodes, fs.inodes_free];
        if let Some(value) = whole.get(at) {
            t.sample(name, &[disk, &labels("", "/", "", "", "", "")].concat(), value);
        }
        for (pod, m) in subject.pods.iter().zip(&measured.pods) {
            for (c, m) in pod.containers.iter().zip(&m.containers).filter(|(c, _)| c.running) {
                let id = format!("/{}/{}", pod.group, c.id);
                let value = match at {
                    0 => m.root_bytes as f64,
                    1..=3 => whole[at] as f64,
                    4 => c.started_ms as f64 / 1000.0,
                    _ => subject.now_ms as f64 / 1000.0,
                };
                let own = labels(&c.name, &id, &c.image, &c.id, &pod.namespace, &pod.name);
                t.sample(name, &[disk, &own].concat(), value);
            }
        }
    }
}

fn network(t: &mut Text, subject: &Subject, measured: &Measured) {
    let families: [(&str, &str, fn(&Interface) -> u64); 8] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |i| i.rx_bytes),
        ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |i| i.rx_errors),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |i| i.tx_bytes),
        ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |i| i.tx_errors),
        ("container_network_receive_packets_total", "Cumulative count of packets received", |i| i.rx_packets),
        (
            "container_network_receive_packets_dropped_total",
            "Cumulative count of packets dropped while receiving",
            |i| i.rx_dropped,
        ),
        ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |i| i.tx_packets),
        (
            "container_network_transmit_packets_dropped_total",
            "Cumulative count of packets dropped while transmitting",
            |i| i.tx_dropped,
        ),
    ];
    for (name, help, of) in families {
        t.family(name, "counter", help);
        for (pod, m) in subject.pods.iter().zip(&measured.pods) {
            let Some(found) = &m.network else { continue };
            let id = format!("/{}", pod.group);
            let own = labels("", &id, "", "", &pod.namespace, &pod.name);
            t.sample(name, &[&own[..], &[("interface", &*found.name)]].concat(), of(found));
        }
        for found in &measured.interfaces {
            let own = labels("", "/", "", "", "", "");
            t.sample(name, &[&own[..], &[("interface", &*found.name)]].concat(), of(found));
        }
    }
}
