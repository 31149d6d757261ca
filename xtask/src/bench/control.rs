//! The control plane's figures: scheduling, scaling, idling.
//!
//! In: a release build of the core's example and of the hub. Out: figures. The fleet is simulated at the API; a hub with
//! connected boards is what `bench link` measures. Never: two measurements at the same time.

use super::Figure;
use crate::{dist, sh};

pub fn run(idle_seconds: u64) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    let core = ["run", "--quiet", "--release", "-p", "limpet-hub-core", "--example", "schedule_rate"];
    for (name, value) in lines(&sh::output("cargo", &core)?) {
        let what = match name.as_str() {
            "plain" => "5,000 pods over 1,000 nodes, the core alone",
            "spread over zones" => "the same, spread over zones",
            "kept apart, preferred" => "the same, preferably apart",
            _ => "the same, apart by required anti-affinity",
        };
        let (rate, cpu) = value.split_once('\t').unwrap_or((&value, "?"));
        figures.push(Figure::new(what, format!("{rate} pods/s of CPU ({cpu} µs a pod)"), "≥ 2,000 pods/s"));
    }
    let hub = dist::hub()?;
    let hub = hub.to_str().ok_or("the hub's path is not text")?;
    let idle = idle_seconds.to_string();
    let load = ["run", "--quiet", "-p", "limpet-hub", "--example", "fleet_load", "--", hub, &idle];
    for (name, value) in lines(&sh::output("cargo", &load)?) {
        figures.push(match name.as_str() {
            "schedule" => Figure::new("the same through API and store", format!("{value} pods/s"), "≥ 500 pods/s"),
            "schedule, cpu" => Figure::new("the hub's CPU time for it", format!("{value} ms a pod"), "report"),
            "scale, cpu" => Figure::new("the hub's CPU time for the scaling", format!("{value} s"), "report"),
            "scale" => Figure::new("Deployment 0 → 1,000 → 0 on 100 nodes", format!("{value} s"), "≤ 10 s"),
            _ => Figure::new("hub with 1,000 nodes and 5,000 pods, idle", format!("{value} % of a core"), "≤ 2 %"),
        });
    }
    Ok(figures)
}

fn lines(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(|l| l.split_once('\t')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}
