//! `/stats/summary` (kubelet's stats/v1alpha1 Summary), and the same figures as small as they can be for the hub.
//!
//! In: the subject, measurements, rates. Out: JSON.

use super::{Measured, PodSubject, Subject, samples::Rates, volumes};
use crate::device::{
    cgroups::Stats,
    machine::{Fs, Interface},
    pressure::{Pressure, Stall},
};
use limpet_agent_core::clock::rfc3339;
use serde_json::{Value, json};

pub fn page(subject: &Subject, measured: &Measured, rates: &Rates, small: bool) -> Vec<u8> {
    let time = rfc3339(subject.now_ms);
    let m = &measured.machine;
    let mut node = json!({
        "nodeName": subject.node,
        "startTime": rfc3339(subject.began_ms),
        "cpu": {"time": time, "usageNanoCores": rates.node.unwrap_or(0), "usageCoreNanoSeconds": m.cpu_ns},
        "memory": {
            "time": time, "availableBytes": m.memory_available,
            "usageBytes": m.memory_total.saturating_sub(m.memory_free),
            "workingSetBytes": m.memory_total.saturating_sub(m.memory_available), "rssBytes": m.memory_anon,
            "pageFaults": m.page_faults, "majorPageFaults": m.major_page_faults,
        },
    });
    put_pressure(&mut node["cpu"], m.cpu_pressure);
    put_pressure(&mut node["memory"], m.memory_pressure);
    if !small {
        let fs = file_system(&measured.fs, &time, None);
        if let Some(first) = measured.interfaces.first() {
            let mut network = interface(first);
            network["time"] = json!(time);
            network["interfaces"] = measured.interfaces.iter().map(interface).collect();
            node["network"] = network;
        }
        node["runtime"] = json!({"imageFs": fs, "containerFs": fs});
        node["fs"] = fs;
        node["rlimit"] = json!({"time": time, "maxpid": m.pid_max, "curproc": m.processes});
        let used = m.swap_total.saturating_sub(m.swap_free);
        node["swap"] = json!({"time": time, "swapAvailableBytes": m.swap_free, "swapUsageBytes": used});
        if m.io_pressure.is_some() {
            let mut io = json!({"time": time});
            put_pressure(&mut io, m.io_pressure);
            node["io"] = io;
        }
    }
    let pods: Vec<Value> =
        (0..subject.pods.len()).map(|at| pod(&subject.pods[at], at, measured, rates, &time, small)).collect();
    json!({"node": node, "pods": pods}).to_string().into_bytes()
}

fn pod(pod: &PodSubject, at: usize, measured: &Measured, rates: &Rates, time: &str, small: bool) -> Value {
    let m = &measured.pods[at];
    let mut containers = Vec::new();
    let mut disk_bytes = 0;
    for (c, m) in pod.containers.iter().zip(&m.containers) {
        disk_bytes += m.root_bytes + m.log_bytes;
        if !c.running {
            continue;
        }
        let rate = rates.groups.get(&format!("{}/{}", pod.group, c.id)).copied();
        let mut one = json!({
            "name": c.name, "startTime": rfc3339(c.started_ms), "cpu": cpu(&m.stats, rate, time),
            "memory": memory(&m.stats, time),
        });
        if !small {
            one["rootfs"] = file_system(&measured.fs, time, Some(m.root_bytes));
            one["logs"] = file_system(&measured.fs, time, Some(m.log_bytes));
            one["swap"] = json!({"time": time, "swapUsageBytes": m.stats.swap_bytes.unwrap_or(0)});
        }
        containers.push(one);
    }
    let mut value = json!({
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": rfc3339(pod.start_ms), "containers": containers,
        "cpu": cpu(&m.stats, rates.groups.get(&pod.group).copied(), time), "memory": memory(&m.stats, time),
    });
    if !small {
        if let Some(found) = &m.network {
            let mut network = interface(found);
            network["time"] = json!(time);
            network["interfaces"] = json!([interface(found)]);
            value["network"] = network;
        }
        value["ephemeral-storage"] = file_system(&measured.fs, time, Some(disk_bytes));
        let volumes = volumes::summary(pod, m, time);
        if !volumes.is_empty() {
            value["volume"] = volumes.into();
        }
        value["process_stats"] = json!({"process_count": m.stats.usage.pids.unwrap_or(0)});
    }
    value
}

fn cpu(stats: &Stats, rate: Option<u64>, time: &str) -> Value {
    let mut value = json!({
        "time": time, "usageNanoCores": rate.unwrap_or(0), "usageCoreNanoSeconds": stats.usage.cpu_ns.unwrap_or(0),
    });
    put_pressure(&mut value, stats.cpu_pressure);
    value
}

fn memory(stats: &Stats, time: &str) -> Value {
    let mut value = json!({
        "time": time, "usageBytes": stats.usage.memory_bytes.unwrap_or(0),
        "workingSetBytes": stats.usage.working_set_bytes.unwrap_or(0), "rssBytes": stats.rss_bytes.unwrap_or(0),
        "pageFaults": stats.page_faults.unwrap_or(0), "majorPageFaults": stats.major_page_faults.unwrap_or(0),
    });
    if let Some(limit) = stats.memory_limit_bytes {
        value["availableBytes"] = limit.saturating_sub(stats.usage.working_set_bytes.unwrap_or(0)).into();
    }
    put_pressure(&mut value, stats.memory_pressure);
    value
}

fn put_pressure(value: &mut Value, pressure: Option<Pressure>) {
    let stall = |s: Stall| json!({"total": s.total_us, "avg10": s.avg10, "avg60": s.avg60, "avg300": s.avg300});
    if let Some(p) = pressure {
        value["psi"] = json!({"full": stall(p.full), "some": stall(p.some)});
    }
}

fn file_system(fs: &Fs, time: &str, used: Option<u64>) -> Value {
    json!({
        "time": time, "availableBytes": fs.available, "capacityBytes": fs.capacity, "usedBytes": used.unwrap_or(fs.used),
        "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": fs.inodes.saturating_sub(fs.inodes_free),
    })
}

fn interface(i: &Interface) -> Value {
    json!({
        "name": i.name, "rxBytes": i.rx_bytes, "rxErrors": i.rx_errors, "txBytes": i.tx_bytes, "txErrors": i.tx_errors,
    })
}

/// `{"window_ms", "node": [nanocores, bytes], "pods": [[namespace, name, [[container, nanocores, bytes], …]], …]}`.
pub fn usage(subject: &Subject, measured: &Measured, rates: &Rates) -> Vec<u8> {
    let m = &measured.machine;
    let pods: Vec<Value> = subject
        .pods
        .iter()
        .zip(&measured.pods)
        .filter_map(|(pod, m)| {
            let mut list = Vec::new();
            for (c, m) in pod.containers.iter().zip(&m.containers).filter(|(c, _)| c.running) {
                // A container without a rate began a moment ago: it has no figures yet, and neither has its pod.
                let rate = rates.groups.get(&format!("{}/{}", pod.group, c.id))?;
                list.push(json!([c.name, rate, m.stats.usage.working_set_bytes.unwrap_or(0)]));
            }
            (!list.is_empty()).then(|| json!([pod.namespace, pod.name, list]))
        })
        .collect();
    let used = m.memory_total.saturating_sub(m.memory_available);
    json!({"window_ms": rates.window_ms, "node": [rates.node.unwrap_or(0), used], "pods": pods}).to_string().into_bytes()
}
