//! Figures of the runners and of the process, for `/metrics`.
//!
//! In: the running parts. Out: Prometheus text. Never: anything that takes longer than reading a counter.

use super::{Controllers, Scheduling, Streams};
use limpet_broker::Broker;
use std::sync::Arc;

pub struct Figures {
    pub broker: Broker,
    pub streams: Streams,
    pub controllers: Arc<Controllers>,
    pub scheduling: Arc<Scheduling>,
}

impl Figures {
    pub fn text(&self) -> String {
        let gauges = [
            ("limpet_nodes_connected", "Nodes that have a connection now.", self.broker.connected()),
            ("limpet_streams_open", "Open streams to nodes (logs, exec, port-forward).", self.streams.count()),
            ("limpet_controllers_waiting", "Keys that wait for a controller.", self.controllers.waiting()),
            ("limpet_scheduler_waiting", "Pods that wait for the scheduler.", self.scheduling.waiting().active),
            ("process_resident_memory_bytes", "Resident memory in bytes.", resident_bytes()),
        ];
        let line = |(name, help, value)| format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
        let mut out: String = gauges.into_iter().map(line).collect();
        out.push_str(&self.refused());
        out.push_str(&self.controllers.text());
        out.push_str(&self.scheduler());
        out
    }

    fn refused(&self) -> String {
        let name = "limpet_sealed_packets_refused_total";
        let head = format!("# HELP {name} Packets by way of an external broker that were refused.\n# TYPE {name} counter\n");
        let line = |(reason, count)| format!("{name}{{reason=\"{reason}\"}} {count}\n");
        self.broker.refused().counts().map(line).fold(head, |all, line| all + &line)
    }

    /// Under kube-scheduler's names.
    fn scheduler(&self) -> String {
        let (waiting, figures) = (self.scheduling.waiting(), self.scheduling.figures());
        let mut out = String::new();
        let head = |name: &str, type_: &str, help: &str| format!("# HELP {name} {help}\n# TYPE {name} {type_}\n");
        out.push_str(&head("scheduler_pending_pods", "gauge", "Pods without a node, by queue."));
        for (queue, n) in [
            ("active", waiting.active),
            ("backoff", waiting.backoff),
            ("unschedulable", waiting.unschedulable),
            ("gated", waiting.gated),
        ] {
            out.push_str(&format!("scheduler_pending_pods{{queue=\"{queue}\"}} {n}\n"));
        }
        out.push_str(&self.scheduling.text());
        out.push_str(&head("scheduler_preemption_attempts_total", "counter", "Preemptions that made room."));
        out.push_str(&format!("scheduler_preemption_attempts_total {}\n", figures.preemptions));
        out.push_str(&head("limpet_scheduler_preemption_victims_total", "counter", "Pods that made room."));
        out.push_str(&format!("limpet_scheduler_preemption_victims_total {}\n", figures.victims));
        out
    }
}

/// From `/proc/self/status`; 0 where there is none.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse::<usize>().ok());
    kib.unwrap_or(0) * 1024
}
