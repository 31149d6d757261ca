//! The life of a board with Limpet OS, step by step.
//!
//! In: a world. Out: what was not true. Never: a step that passes without looking at what it is about.

use crate::node;
use crate::world::{NODE, World};
use limpet_e2e::{Result, binaries, wait};
use std::time::Duration;

/// From the image to a pod that speaks, and what else a node does.
pub fn first_steps(world: &mut World) -> Result<()> {
    let (first, again) = (world.image("image")?, world.image("again")?);
    wait::yes(first == again, || format!("two builds differ: {first}, {again}"))?;
    world.card("image")?;
    packed(world)?;
    for file in ["image", "again"] {
        std::fs::remove_file(world.path(file)).map_err(|e| e.to_string())?;
    }
    world.push("busybox", &[])?;
    world.first_start()?;
    grown(world)?;
    pod_logs_exec(world)?;
    memory(world)?;
    node::list(world)
}

/// On each push: a container on another processor, its system calls filtered, and its return from the journal.
pub fn short(world: &mut World) -> Result<()> {
    world.image("image")?;
    world.card("image")?;
    std::fs::remove_file(world.path("image")).map_err(|e| e.to_string())?;
    world.push("busybox", &[])?;
    world.first_start()?;
    grown(world)?;
    pod_logs_exec(world)?;
    memory(world)?;
    node::filtered(world)?;
    power_cut(world)
}

/// A card as `limpet flash BOARD` writes it, switched on before its hub is, and unplugged meanwhile; then the hub's updates.
pub fn a_late_hub(world: &mut World) -> Result<()> {
    world.image_of_no_key("image")?;
    world.card("image")?;
    world.hub.kill();
    world.machine.switch_on()?;
    world.console("waits to join as", 1)?;
    // The agent is called sound after 20 s; it has a key by then, and is nobody's node.
    std::thread::sleep(Duration::from_secs(40));
    world.machine.power_cut();
    world.hub.start()?;
    world.machine.switch_on()?;
    world.node_ready()?;
    world.console("the token is gone from its card", 1)?;
    world.push("busybox", &[])?;
    let content = world.made_by_hub("2.0")?;
    world.hub.operate(&["update", "publish", &world.path("update")])?;
    world.kubectl.say(&format!("annotate node {NODE} limpet.dev/os-version=2.0"))?;
    world.console("slot b", 1)?;
    world.os_is("2.0")?;
    world.kubectl.say(&format!("wait node/{NODE} --for=condition=OsUpToDate --timeout=120s"))?;
    // A pod of a DaemonSet leaves it there at each of its starts.
    world.send_update("update-again", &content)?;
    world.console("was refused: it is version 2.0, which runs already", 1)
}

pub fn all(world: &mut World) -> Result<()> {
    first_steps(world)?;
    power_cut(world)?;
    refused(world)?;
    update(world)?;
    broken_update(world)
}

/// What people download: bounded, and told.
fn packed(world: &World) -> Result<()> {
    const MIB_MAX: f64 = 64.0;
    let image = world.path("image");
    limpet_e2e::process::sh("xz", ["-1", "--keep", "--threads=1", image.as_str()])?;
    let xz = format!("{image}.xz");
    let mib = std::fs::metadata(&xz).map_err(|e| e.to_string())?.len() as f64 / 1_048_576.0;
    println!("figure: {}, image with xz -1: {mib:.1} MiB", world.kind.board);
    std::fs::remove_file(&xz).map_err(|e| e.to_string())?;
    wait::yes(mib <= MIB_MAX, || format!("the image has {mib:.1} MiB packed, more than {MIB_MAX}"))
}

fn grown(world: &World) -> Result<()> {
    let node = world.node()?;
    let disk = node["status"]["capacity"]["ephemeral-storage"].as_str().unwrap_or_default().to_string();
    let kib = disk.strip_suffix("Ki").and_then(|n| n.parse::<u64>().ok()).map(|n| n * 1024);
    let bytes = kib.or_else(|| disk.parse().ok()).unwrap_or(0);
    wait::yes(bytes > 1 << 30, || format!("the data partition has not grown: {disk}"))
}

fn pod_logs_exec(world: &mut World) -> Result<()> {
    world.pod("web", "echo hello from $(uname -m); exec tail -f /dev/null")?;
    world.pod_ready("web")?;
    let wanted = format!("hello from {}", world.kind.machine);
    let logs = world.kubectl.say("logs web")?;
    wait::yes(logs.trim() == wanted, || format!("the log says {logs:?}"))?;
    let said = world.kubectl.say("exec web -- cat /proc/1/comm")?;
    wait::yes(said.trim() == "tail", || format!("exec says {said:?}"))
}

/// What everything outside pods holds, from the kernel's own count. The system lies in memory: programs that a test has built
/// without care for their size (34 MiB and more) are more than boards get by so much.
fn memory(world: &World) -> Result<()> {
    const MIB_MAX: u64 = 48;
    let heavier = binaries::heavier(&world.programs.join(world.kind.target))? >> 20;
    let text = world.kubectl.say("exec web -- cat /proc/meminfo")?;
    let kib = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).ok_or_else(|| format!("no {name} in {text}"))
    };
    let (total, available) = (kib("MemTotal")?, kib("MemAvailable")?);
    let held = (total - available) >> 10;
    let rows: Vec<String> = ["Shmem", "Slab", "KernelStack", "PageTables", "AnonPages", "Percpu"]
        .iter()
        .filter_map(|name| Some(format!("{name} {} KiB", kib(name).ok()?)))
        .collect();
    println!(
        "figure: {}, memory held with one small pod: {held} MiB of the {} that the kernel has to give ({})",
        world.kind.board,
        total >> 10,
        rows.join(", ")
    );
    let mark = MIB_MAX + heavier;
    wait::yes(held <= mark, || format!("{held} MiB are held, more than {mark} ({heavier} of them for programs built for tests)"))
}

fn power_cut(world: &mut World) -> Result<()> {
    let boots = world.machine.said("slot a");
    let before = started(world)?;
    world.machine.power_cut();
    // The hub is away, too: the pod comes back from the board's own journal.
    world.hub.kill();
    world.machine.switch_on()?;
    world.console("slot a", boots + 1)?;
    world.hub.start()?;
    world.wait("the pod after a power cut", |world| {
        let now = started(world)?;
        wait::yes(now != before, || "it has not started again".to_string())
    })?;
    world.pod_ready("web")?;
    let said = world.kubectl.say("exec web -- cat /proc/1/comm")?;
    wait::yes(said.trim() == "tail", || format!("exec says {said:?}"))
}

/// When the pod's container was started.
fn started(world: &World) -> Result<String> {
    let pod = world.kubectl.json("get pod web")?;
    let at = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
    at.as_str().map(str::to_string).ok_or_else(|| format!("the pod does not run: {}", pod["status"]))
}

/// Updates that a board must not take.
fn refused(world: &mut World) -> Result<()> {
    let forged = b"LIMPETU1\x02\0\0\0{}and so on, long enough for a signature that nobody has ever made with any key at all";
    world.send_update("forged", forged)?;
    world.console("was refused: its signature does not fit", 1)
}

fn update(world: &mut World) -> Result<()> {
    let content = world.made_update("2.0", None)?;
    world.send_update("update-two", &content)?;
    world.console("slot b", 1)?;
    world.os_is("2.0")
}

/// Its first process is not one: the kernel panics, the boot loader counts, the board comes back with what it had.
fn broken_update(world: &mut World) -> Result<()> {
    let mut broken = world.program("limpet-init")?;
    // The entry point of the ELF file points nowhere.
    broken[24..32].fill(0xff);
    let file = world.path("broken-init");
    std::fs::write(&file, broken).map_err(|e| e.to_string())?;
    let content = world.made_update("3.0", Some(&file))?;
    let boots = world.machine.said("slot b");
    world.send_update("update-broken", &content)?;
    world.console("update to 3.0 is in place", 1)?;
    world.console("slot b", boots + 1)?;
    world.os_is("2.0")?;
    let node = world.node()?;
    wait::yes(node["metadata"]["name"] == NODE, || "it came back as another node".into())?;
    world.send_update("update-broken-again", &content)?;
    world.console("version 3.0 was tried here and did not stay up", 1)
}
