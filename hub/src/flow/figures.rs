//! Figures of priority and fairness, in Prometheus' text form and under upstream's names.
//!
//! In: the counts by schema and level, the levels' loads. Out: text. Never: a label that a client can choose.

use super::FlowControl;
use limpet_hub_core::flow::Load;
use std::{collections::BTreeMap, fmt::Write, time::Duration};

#[derive(Clone, Default)]
pub struct Counts {
    pub dispatched: u64,
    rejected: BTreeMap<&'static str, u64>,
    waits: u64,
    seconds: f64,
}

impl Counts {
    pub fn reject(&mut self, reason: &'static str) {
        *self.rejected.entry(reason).or_default() += 1;
    }

    pub fn waited(&mut self, time: Duration) {
        self.waits += 1;
        self.seconds += time.as_secs_f64();
    }
}

impl FlowControl {
    pub fn figures(&self) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let (counts, loads) = {
            let state = self.state();
            let loads: Vec<_> = state.dispatcher.loads().map(|(name, load)| (name.clone(), load)).collect();
            (state.counts.clone(), loads)
        };
        let mut head = |name: &str, kind: &str, help: &str, lines: Vec<String>| {
            writeln!(out, "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} {kind}")?;
            lines.iter().try_for_each(|line| writeln!(out, "apiserver_flowcontrol_{line}"))
        };
        let by_flow = |schema: &str, level: &str| format!("flow_schema=\"{schema}\",priority_level=\"{level}\"");
        let mut lines = Vec::new();
        for ((schema, level), count) in &counts {
            for (reason, count) in &count.rejected {
                let labels = by_flow(schema, level);
                lines.push(format!("rejected_requests_total{{{labels},reason=\"{reason}\"}} {count}"));
            }
        }
        head("rejected_requests_total", "counter", "Requests that were sent away.", lines)?;
        let of = |name: &str, value: &dyn Fn(&Counts) -> String| -> Vec<String> {
            let lines = counts.iter().map(|((schema, level), count)| {
                format!("{name}{{{}}} {}", by_flow(schema, level), value(count))
            });
            lines.collect()
        };
        let dispatched = of("dispatched_requests_total", &|count| count.dispatched.to_string());
        head("dispatched_requests_total", "counter", "Requests that were carried out.", dispatched)?;
        let mut waits = of("request_wait_duration_seconds_sum", &|count| count.seconds.to_string());
        waits.extend(of("request_wait_duration_seconds_count", &|count| count.waits.to_string()));
        head("request_wait_duration_seconds", "summary", "Time in queues.", waits)?;
        for (name, help, value) in [
            ("nominal_limit_seats", "Seats of the level's own.", (|load| load.nominal) as fn(&Load) -> u32),
            ("current_executing_requests", "Requests that are carried out.", |load| load.running),
            ("current_executing_seats", "Seats in use.", |load| load.seats),
            ("current_inqueue_requests", "Requests that wait.", |load| load.waiting),
        ] {
            let lines = loads.iter().map(|(level, load)| format!("{name}{{priority_level=\"{level}\"}} {}", value(load)));
            head(name, "gauge", help, lines.collect())?;
        }
        Ok(())
    }
}
