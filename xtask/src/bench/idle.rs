//! What a board costs when nothing happens.
//!
//! In: a joined board. Out: memory, processor time, bytes on its wire, bytes to its disk; then memory with ten pods.
//! Never: extrapolates from less than a minute.

use super::{Figure, mib, proc};
use limpet_e2e::{Binaries, World, until};
use std::{process::Command, time::Duration};

pub fn run(world: &World, binaries: &Binaries, minutes: u64) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    // What joining wrote and said is over.
    proc::rest(Duration::from_secs(20));
    let agent = &binaries.agent;
    let minutes = minutes.max(1);
    println!("watching an idle board for {minutes} minutes");
    let before = (wire(world)?, proc::written(agent), proc::cpu_seconds(agent), proc::cpu_seconds(&binaries.hub));
    proc::rest(Duration::from_secs(minutes * 60));
    figures.push(Figure::new("agent + keeper, idle, PSS", mib(proc::pss(agent)?), "≤ 5 MiB"));
    let hours = minutes as f64 / 60.0;
    let wire_bytes = (wire(world)? - before.0) as f64 / hours;
    let month = wire_bytes * 24.0 * 30.0 / 1e6;
    let on_wire = format!("{wire_bytes:.0} B an hour ({month:.2} MB a month), Ethernet headers included");
    figures.push(Figure::new("idle board on the wire", on_wire, "report"));
    let written = proc::written(agent) - before.1;
    figures.push(Figure::new("idle board to its disk", format!("{written} B in {minutes} min"), "0 B in 10 min"));
    let share = |now: f64, then: f64| format!("{:.3} % of a core", (now - then) / (minutes as f64 * 60.0) * 100.0);
    figures.push(Figure::new("agent + keeper, idle, CPU", share(proc::cpu_seconds(agent), before.2), "report"));
    figures.push(Figure::new("hub with one idle board, CPU", share(proc::cpu_seconds(&binaries.hub), before.3), "report"));
    figures.push(ten_pods(world, binaries)?);
    Ok(figures)
}

fn ten_pods(world: &World, binaries: &Binaries) -> Result<Figure, String> {
    let manifest = super::apply::deployment("ten", 10);
    world.kubectl.apply(&manifest)?;
    until("ten pods", Duration::from_secs(90), || {
        let ready = world.kubectl.say("get deployment ten -o jsonpath={.status.readyReplicas}")?;
        if ready.trim() == "10" { Ok(()) } else { Err(format!("{ready} are ready")) }
    })?;
    proc::rest(Duration::from_secs(10));
    let figure = Figure::new("agent + keeper, ten pods, PSS", mib(proc::pss(&binaries.agent)?), "≤ 6 MiB");
    world.kubectl.say("delete deployment ten --wait=true")?;
    until("no pods", Duration::from_secs(90), || {
        let left = world.kubectl.items("get pods")?;
        if left.is_empty() { Ok(()) } else { Err(format!("{} are left", left.len())) }
    })?;
    Ok(figure)
}

/// Bytes through the board's interface, both ways.
fn wire(world: &World) -> Result<u64, String> {
    let board = world.agents.first().ok_or("no board")?;
    let count = |name: &str| -> Result<u64, String> {
        let file = format!("/sys/class/net/eth0/statistics/{name}");
        // /sys shows the network of whoever mounted it.
        let script = ["--mount", "--", "sh", "-c", "mount -t sysfs none /sys && cat \"$0\"", &file];
        let net = format!("--net=/run/netns/{}", board.namespace);
        let out = Command::new("nsenter").arg(net).arg("unshare").args(script).output().map_err(|e| e.to_string())?;
        String::from_utf8_lossy(&out.stdout).trim().parse().map_err(|e| format!("cannot read {file}: {e}"))
    };
    Ok(count("rx_bytes")? + count("tx_bytes")?)
}
