//! A running board loses its power at random points, again and again; each time it comes up, and in the end with all it had.
//!
//! In: `LIMPET_POWER_CUTS` (10), `LIMPET_POWER_SEED`. Out: what did not come back, with the seed.
//! Never: a goodbye to the machine: QEMU is killed.

use crate::world::World;
use limpet_device::board;
use limpet_device::plan::{self, Format};
use limpet_e2e::{Result, wait};
use limpet_e2e::process::{run, sh};
use std::time::{Duration, Instant};

/// Where the plug is pulled.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// The card's first start: the partition grows, the board joins.
    First,
    /// Firmware, boot loader, kernel, first process, agent.
    Start,
    /// A pod was just asked for.
    Pod,
    /// An update is fetched, checked, written into the other slot, or started for the first time.
    Update,
}

/// No secret, only chance that can be had again (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: Duration) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        limit.mul_f64((self.0 >> 11) as f64 / (1u64 << 53) as f64)
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

pub fn cuts(world: &mut World) -> Result<()> {
    let cuts = number("LIMPET_POWER_CUTS", 10);
    let seed = number("LIMPET_POWER_SEED", u64::from(std::process::id()) * 7919 + 1);
    println!("{cuts} power cuts with LIMPET_POWER_SEED={seed}");
    let outcome = all(world, cuts, &mut Chance(seed | 1));
    outcome.map_err(|why| format!("LIMPET_POWER_SEED={seed}: {why}"))?;
    // `cargo xtask cuts` waits for this line.
    println!("{cuts} power cuts survived, all file systems whole");
    Ok(())
}

/// The sign of a first process that runs.
const SIGN: &str = "limpet: Limpet OS ";

/// What is known before the switch is pressed.
struct Before {
    signs: usize,
    boot: Option<String>,
    at: Instant,
}

fn on(world: &mut World) -> Result<Before> {
    let before = Before { signs: world.machine.said(SIGN), boot: boot_id(world).ok(), at: Instant::now() };
    world.machine.switch_on()?;
    Ok(before)
}

/// The first process has spoken, and the node is Ready by a report of this start; how long that took.
fn up(world: &mut World, before: &Before) -> Result<Duration> {
    world.console(SIGN, before.signs + 1)?;
    world.wait("a word of this start", |world| match boot_id(world)? {
        now if Some(&now) != before.boot.as_ref() => Ok(()),
        _ => Err("the hub has only heard of an earlier one".into()),
    })?;
    world.node_ready()?;
    Ok(before.at.elapsed())
}

fn boot_id(world: &World) -> Result<String> {
    let node = world.node()?;
    node["status"]["nodeInfo"]["bootID"].as_str().map(str::to_string).ok_or_else(|| "it names no start".into())
}

fn all(world: &mut World, cuts: u64, chance: &mut Chance) -> Result<()> {
    world.image("image")?;
    world.card("image")?;
    world.push("busybox", &[])?;
    let mut pods = Vec::new();
    // How long a start takes here today; the first cuts have only a guess.
    let mut start = Duration::from_secs(20);
    for cut in 0..cuts {
        let moment = match cut {
            0 | 1 => Moment::First,
            _ => [Moment::Start, Moment::Update, Moment::Pod, Moment::Start, Moment::Update][cut as usize % 5],
        };
        let before = on(world)?;
        let limit = match moment {
            Moment::First | Moment::Start => start,
            Moment::Pod => {
                start = up(world, &before)?;
                pods.push(format!("pod-{cut}"));
                world.pod(&pods[pods.len() - 1], "exec tail -f /dev/null")?;
                Duration::from_secs(5)
            }
            Moment::Update => {
                start = up(world, &before)?;
                // Whichever slot runs, a newer system goes into the other one.
                let update = world.made_update(&format!("2.{cut}"), None)?;
                world.send_update(&format!("update-{cut}"), &update)?;
                // Called good, fetched, checked, written, started again.
                start + Duration::from_secs(30)
            }
        };
        let after = chance.below(limit);
        std::thread::sleep(after);
        world.machine.power_cut();
        println!("cut {cut}: {moment:?}, after {:.1} of {:.1} s", after.as_secs_f64(), limit.as_secs_f64());
    }
    let before = on(world)?;
    up(world, &before)?;
    pods.push("last".into());
    world.pod("last", "exec tail -f /dev/null")?;
    for pod in &pods {
        world.pod_ready(pod)?;
    }
    // Nothing that the power cut had torn was tried as it was.
    let torn = world.machine.said("overlay with incompat feature");
    wait::yes(torn == 0, || format!("{torn} containers began on what an earlier start had left half written"))?;
    world.machine.power_cut();
    whole(world)
}

/// FAT has no journal, but a flag for "mounted", which the kernel leaves alone once power has ended such a mount. What it warns
/// of is what is looked for here, so the flag itself is taken away.
fn forget_the_mount(file: &str) -> Result<()> {
    use std::os::unix::fs::FileExt;
    const KIND: (u64, &[u8]) = (82, b"FAT32   ");
    const FLAGS: u64 = 65;
    let told = |e: std::io::Error| format!("{file}: {e}");
    let disk = std::fs::File::options().read(true).write(true).open(file).map_err(told)?;
    let (mut kind, mut flags) = ([0; 8], [0]);
    disk.read_exact_at(&mut kind, KIND.0).map_err(told)?;
    disk.read_exact_at(&mut flags, FLAGS).map_err(told)?;
    wait::yes(kind == KIND.1, || format!("{file} is no FAT32"))?;
    disk.write_all_at(&[flags[0] & !1], FLAGS).map_err(told)
}

/// What fsck.fat has to say but for the number of free clusters: that is a hint for whoever looks for one, written after the
/// table that counts, and a cut may come between. Microsoft's description of FAT32 (FSInfo) says that nobody may rely on it.
fn complaints(said: &str) -> Vec<&str> {
    const HINT: &str = "Free cluster summary wrong";
    let about_hint = said.lines().any(|line| line.starts_with(HINT));
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    // Its name and version, and at the end what it has counted; the rest is complaints.
    let begins = |line: &str| line.starts_with("fsck.fat ") || line.starts_with("Leaving filesystem");
    let usual = |line: &&str| begins(line) || line.ends_with(" clusters");
    let of_hint = |line: &&str| line.starts_with(HINT) || *line == "Auto-correcting.";
    match about_hint {
        true => lines.filter(|line| !usual(line) && !of_hint(line)).collect(),
        // It has failed for something else: all of it is told.
        false => lines.collect(),
    }
}

#[test]
fn a_count_of_free_clusters_is_a_hint_and_nothing_else_is() {
    let hint = "fsck.fat 4.2 (2021-01-31)\nFree cluster summary wrong (107240 vs. really 107241)\n  Auto-correcting.\n\n\
                Leaving filesystem unchanged.\n/x/limpet-system: 18 files, 23310/130551 clusters\n";
    assert!(complaints(hint).is_empty());
    let more = hint.replace("\n\n", "\n/NODE.JSON\n  Start does point to root directory. Deleting dir.\n");
    assert_eq!(complaints(&more), ["/NODE.JSON", "Start does point to root directory. Deleting dir."]);
    assert!(!complaints("Read 512 bytes at 0: Input/output error\n").is_empty() && !complaints("fsck.fat 4.2\n").is_empty());
}

/// The card, as the file systems' own judges see it once the journal was replayed.
fn whole(world: &World) -> Result<()> {
    let plan = plan::limpet_os(&board::find(world.kind.board).map_err(|e| e.to_string())?);
    let card = world.path("card");
    for p in &plan.partitions {
        // The data partition has grown to the card's end; what is behind it disturbs nobody.
        let count = if p.format == Format::Ext4 { u64::MAX >> 24 } else { p.bytes >> 20 };
        let (from, skip, count) = (format!("if={card}"), format!("skip={}", p.start >> 20), format!("count={count}"));
        let file = world.path(p.name);
        sh("dd", [from, format!("of={file}"), "bs=1M".into(), skip, count, "conv=sparse".into(), "status=none".into()])?;
        match p.format {
            Format::Ext4 => {
                sh("e2fsck", ["-p", "-E", "journal_only", file.as_str()])?;
                sh("e2fsck", ["-f", "-n", file.as_str()])?;
            }
            _ => {
                forget_the_mount(&file)?;
                let judged = run(std::process::Command::new("fsck.fat").args(["-n", file.as_str()]))?;
                let words = complaints(&judged.stdout);
                wait::yes(judged.code == 0 || words.is_empty(), || format!("{}: {words:?}: {judged:?}", p.name))?;
            }
        }
        std::fs::remove_file(&file).map_err(|e| e.to_string())?;
    }
    Ok(())
}
