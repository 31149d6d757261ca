//! A board at rest writes nothing to its disk: cards live for so many writes.
//!
//! In: a board with ten probed pods, whose data is on a file system of its own; `LIMPET_QUIET_MINUTES`, 60 for the promise.
//! Out: bytes that reached that disk meanwhile, by whomever; what agent and keeper asked for, what they took of a processor
//! and hold of memory.
//! Everything there seems to have been read two days ago: Linux writes down the next time of access then, the worst hour.

use limpet_e2e::disk::{self, Disk};
use limpet_e2e::pods::probed;
use limpet_e2e::process::{Process, kib_of};
use limpet_e2e::wait::until_every;
use limpet_e2e::{Binaries, Result, World, wait};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// What is watched lasts as long as it should, whatever the patience of this machine.
fn pass(time: Duration) -> Result<()> {
    let begun = Instant::now();
    let longer = time + MINUTE;
    until_every(Duration::from_secs(1), "time passes", longer, || wait::yes(begun.elapsed() >= time, || "too slowly".into()))
}

/// (bytes that they caused to be written, seconds of a processor)
fn used(processes: &[Process]) -> Result<(u64, f64)> {
    let mut sum = (0, 0.0);
    for Process { pid, .. } in processes {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))
        };
        let (io, stat) = (read("io")?, read("stat")?);
        let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<u64>().ok());
        // After the name in parentheses; the twelfth and thirteenth are ticks of its own and of the kernel's for it.
        let words: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok());
        let both = ticks(11).zip(ticks(12)).map(|(own, kernel)| (own + kernel) / 100.0);
        let (bytes, seconds) = bytes.zip(both).ok_or_else(|| format!("/proc/{pid}: {io}{stat}"))?;
        sum = (sum.0 + bytes, sum.1 + seconds);
    }
    Ok(sum)
}

fn nothing_is_written(minutes: u32) -> Result<()> {
    disk::apart()?;
    let mut world = World::new(&Binaries::build("dev")?, 1)?;
    let disk = Disk::under(&world.agents.first().ok_or("no board")?.data)?;
    world.join()?;
    world.push_demo_image()?;
    probed(&world, 10, 3 * MINUTE).map_err(|why| format!("{why}\n{}", world.logs()))?;
    disk.age()?;
    // Longer than the file system's own commits wait, and longer than the agent waits before it rests.
    pass(2 * MINUTE)?;
    let board = world.agents.first().ok_or("no board")?;
    let both = [board.keeper_process()?, board.agent_process()?];
    let (written, before, held) = (disk.written()?, used(&both)?, kib_of(&both)?);
    pass(minutes * MINUTE)?;
    let (written, after) = (disk.written()? - written, used(&both)?);
    let share = (after.1 - before.1) / (f64::from(minutes) * 60.0) * 100.0;
    println!(
        "{minutes} minutes with ten probed pods: {written} B to the disk, {} B of them asked for by agent and keeper, which took \
         {share:.3} % of a processor",
        after.0 - before.0
    );
    let now = kib_of(&both)?;
    println!(
        "what they hold: {} KiB before and {} after, {} and {} of them not pages of files",
        held.0, now.0, held.1, now.1
    );
    if written > 0 {
        disk.tell(u64::from(minutes) + 1);
    }
    wait::yes(written == 0, || format!("{written} B were written to the disk of a board at rest"))
}

#[test]
fn a_board_at_rest_writes_nothing() {
    let minutes = std::env::var("LIMPET_QUIET_MINUTES").ok().and_then(|text| text.parse().ok()).filter(|minutes| *minutes > 0);
    match (limpet_e2e::missing(), minutes) {
        (Some(why), _) => println!("skipped: {why}"),
        (None, None) => println!("skipped: it takes an hour; LIMPET_QUIET_MINUTES=60 runs it"),
        (None, Some(minutes)) => nothing_is_written(minutes).unwrap(),
    }
}
