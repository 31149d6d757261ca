//! What a board costs in memory: idle, with ten pods that are probed, and for each further one.
//!
//! In: agent and keeper of one board at rest. Out: their proportional set sizes, printed; the marks hold for the agent as devices
//! get it (`LIMPET_BIN_DIR`, `cargo xtask v2 --e2e memory`), not for one with debug information.
//! Where the kernel maps more than 64 KiB around each page that is touched, pages of the program that nobody needs count too: the
//! marks are about kernels with Linux' own setting, as Debian's.

use limpet_e2e::pods::probed;
use limpet_e2e::process::kib_of;
use limpet_e2e::wait::until_every;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, wait};
use serde_json::json;
use std::time::Duration;

/// Further pods are counted from ten to so many; `LIMPET_E2E_PODS=110` is as many as a node takes.
const MANY: u64 = 30;
/// Half a second each; more pods take longer to come to rest.
const LOOKS: u64 = 60;
/// Larger ones are not what devices get.
const PROGRAM_BYTES_MAX: u64 = 10 << 20;
const READY: Duration = Duration::from_secs(180);
const KIB_IDLE_MAX: u64 = 5 << 10;
const KIB_TEN_MAX: u64 = 6 << 10;
const KIB_FURTHER_MAX: u64 = 20;

/// (all of it, what is not pages of files), of agent and keeper together, in KiB.
fn kib(world: &World) -> Result<(u64, u64)> {
    let board = world.agents.first().ok_or("no board")?;
    kib_of(&[board.keeper_process()?, board.agent_process()?])
}

/// At rest: what starting needed was given back. The least of several looks counts; a probe may just be running.
fn resting(world: &World, what: &str, pods: u64) -> Result<(u64, u64)> {
    let mut least = (u64::MAX, u64::MAX);
    let looked = std::cell::Cell::new(0u64);
    // Half a second apart: looking costs the kernel a walk through all pages, and an emulated one has no time for more.
    until_every(Duration::from_millis(500), "rest", Duration::from_secs(180), || {
        let (all, own) = kib(world)?;
        least = (least.0.min(all), least.1.min(own));
        looked.set(looked.get() + 1);
        wait::yes(looked.get() >= LOOKS + pods, || "looking on".into())
    })?;
    println!("{what}: {} KiB, {} of them not pages of files", least.0, least.1);
    Ok(least)
}

fn at_most(what: &str, kib: u64, most: u64) -> Result<()> {
    wait::yes(kib <= most, || format!("{what}: {kib} KiB; the mark is {most}"))
}

/// 30 or what the environment says, within what a node takes.
fn pods() -> Result<u64> {
    let Some(text) = std::env::var_os("LIMPET_E2E_PODS") else { return Ok(MANY) };
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|pods| (11..=110).contains(pods));
    number.ok_or_else(|| format!("LIMPET_E2E_PODS={}: 11 to 110 pods can be counted", text.display()))
}

#[test]
fn a_board_is_small() {
    test(1, &json!({}), |world| {
        let program = &world.binaries.agent;
        let bytes = std::fs::metadata(program).map_err(|e| format!("{}: {e}", program.display()))?.len();
        let (idle, _) = resting(world, "idle", 0)?;
        probed(world, 10, READY)?;
        let (ten, ten_own) = resting(world, "ten pods with probes", 10)?;
        let pods = pods()?;
        probed(world, usize::try_from(pods).map_err(|e| e.to_string())?, READY)?;
        let (many, many_own) = resting(world, &format!("{pods} pods with probes"), pods)?;
        // Pages of the program belong to no pod, and how many of them are there depends on who ran last. Rounded up: what is a
        // little more than the mark is more.
        let further = many_own.saturating_sub(ten_own).div_ceil(pods - 10);
        let all = many.saturating_sub(ten).div_ceil(pods - 10);
        println!("a further pod: {further} KiB, with pages of files {all}; the agent's program: {bytes} bytes");
        if bytes > PROGRAM_BYTES_MAX {
            println!("not judged: this program is larger than devices get");
            return Ok(());
        }
        at_most("idle", idle, KIB_IDLE_MAX)?;
        at_most("ten pods", ten, KIB_TEN_MAX)?;
        at_most("a further pod", further, KIB_FURTHER_MAX)
    });
}
