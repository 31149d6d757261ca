//! What a board costs with pods on it: idle, with ten that are probed, with as many as a node takes.
//!
//! In: the device's agent on one board, a release hub. Out: memory, processor time, bytes written; the time from apply to
//! running, and from create to ready beside crun; what podman spends on a container, where it is installed.
//! Processor time is of the agent's and the keeper's own processes; what probes start in containers is the containers'.
//! Never: a figure of a board that has not come to rest.

use super::{Figure, mib, proc};
use limpet_e2e::{Binaries, World, pods::probed};
use std::time::Duration;

/// A kubelet takes so many.
const PODS_MAX: usize = 110;
const MANY: usize = 50;

fn scaled(world: &World, replicas: usize) -> Result<(), String> {
    probed(world, replicas, Duration::from_secs(900))?;
    // Statuses on their way, pages of starts that are given back.
    proc::rest(Duration::from_secs(20));
    Ok(())
}

pub fn run(binaries: &Binaries, minutes: u64) -> Result<Vec<Figure>, String> {
    let agent = &binaries.agent;
    let mut world = World::new(binaries, 1)?;
    world.join()?;
    world.push_demo_image()?;
    proc::rest(Duration::from_secs(20));
    let mut figures = vec![
        Figure::new("agent binary", mib(super::size(agent)?), "≤ 5 MiB (aarch64, musl)"),
        Figure::new("agent + keeper, idle, PSS", mib(proc::least(agent)?.0), "≤ 5 MiB"),
    ];
    scaled(&world, 10)?;
    let (ten, ten_own) = proc::least(agent)?;
    figures.push(Figure::new("agent + keeper, ten pods with probes, PSS", mib(ten), "≤ 6 MiB"));
    figures.extend(super::apply::run(&world, binaries, 20)?);
    proc::rest(Duration::from_secs(20));
    println!("watching ten pods for {minutes} minutes");
    let before = (proc::cpu_seconds(agent), proc::written(agent));
    proc::rest(Duration::from_secs(minutes.max(1) * 60));
    let seconds = minutes.max(1) as f64 * 60.0;
    let share = (proc::cpu_seconds(agent) - before.0) / seconds * 100.0;
    figures.push(Figure::new("the same, CPU, two probes of ten seconds each", format!("{share:.3} % of a core"), "≤ 0.5 %"));
    figures.push(Figure::new("the same, PSS at its end", mib(proc::least(agent)?.0), "≤ 6 MiB"));
    let written = format!("{} B in {minutes} min", proc::written(agent) - before.1);
    figures.push(Figure::new("the same, to the disk", written, "0 B in an hour"));
    scaled(&world, MANY)?;
    // Pages of the program belong to no pod.
    let each = |own: u64, pods: usize| {
        let bytes = own.saturating_sub(ten_own) as f64 / (pods - 10) as f64;
        format!("{:.1} KiB that are not pages of files", bytes / 1024.0)
    };
    let (_, many_own) = proc::least(agent)?;
    figures.push(Figure::new("a further pod, of 10 to 50", each(many_own, MANY), "≤ 20 KiB"));
    scaled(&world, PODS_MAX)?;
    let (full, full_own) = proc::least(agent)?;
    figures.push(Figure::new("a further pod, of 10 to 110", each(full_own, PODS_MAX), "≤ 20 KiB"));
    figures.push(Figure::new("110 pods on one node", format!("all Ready, {} PSS", mib(full)), "all Ready"));
    drop(world);
    figures.extend(super::create::run(agent)?);
    figures.extend(super::podman::run()?);
    Ok(figures)
}
