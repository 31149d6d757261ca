//! The first process of Limpet OS: everything between the kernel and `limpet-agent`.
//!
//! In: the kernel's command line, the node's file, updates that were left in a folder. Out: mounts, network, time, a running
//! agent, a watchdog that is fed while all that works, slots that are called good or left.
//! Never: a shell, a listening socket, a file system of the system that stays writable.

// It waits for devices, networks and its agent, which wake nobody.
#![allow(clippy::disallowed_methods)]

mod agent;
mod counter;
mod grow;
mod log;
mod mbr;
mod modules;
mod mounts;
mod net;
mod node;
mod radio;
mod said;
mod slots;
mod sys;
mod table;
mod time;
mod torn;
mod update;
mod watchdog;

use crate::{agent::Agent, log::say, said::Voice, slots::Slots, watchdog::Watchdog};
use nix::sys::reboot::{RebootMode, reboot};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// Where the main loop looks after everything.
const TICK: Duration = Duration::from_millis(1000);
const AGENT_DATA: &str = "/var/lib/limpet";
/// An agent that has run so long is sound: the slot is called good.
const GOOD_AFTER: Duration = Duration::from_secs(20);
/// An untried slot whose agent ends so often is given up: the boot loader's count decides what is next.
const AGENT_ENDS_MAX: u32 = 5;

fn main() {
    if std::process::id() != 1 {
        eprintln!("limpet-init is the first process of Limpet OS; it does nothing when started by hand");
        std::process::exit(2);
    }
    let outcome = match std::env::args().nth(1).as_deref() {
        Some(mounts::SECOND) => run(),
        // Returns only when it cannot go on.
        _ => mounts::leave_initramfs(),
    };
    if let Err(why) = outcome {
        say!("cannot start this board: {why}");
        say!("restarting in 20 s");
        std::thread::sleep(Duration::from_secs(20));
    }
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_AUTOBOOT);
}

fn run() -> Result<(), String> {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let word = |key: &str| line.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('=')).map(str::to_string);
    say!("Limpet OS {}, slot {}", word("limpet.version").unwrap_or_default(), word("limpet.slot").unwrap_or_default());
    let mut watchdog = Watchdog::open(word("limpet.watchdog").as_deref());
    let disk = mounts::find_disk()?;
    grow::partition(&disk).unwrap_or_else(|why| say!("the data partition stays as it is: {why}"));
    mounts::data(&disk)?;
    grow::file_system(mounts::DATA).unwrap_or_else(|why| say!("the data file system stays as it is: {why}"));
    watchdog.feed();
    let slots = Slots::new(&disk, word("limpet.slot").unwrap_or_default());
    let node = node::load(&slots)?;
    time::restore();
    radio::start(node.wifi.as_ref());
    let network = net::start(&node);
    let mut clock = time::Keeper::new(&node, &network);
    let mut agent = Agent::new(&node, word("limpet.led").as_deref());
    let running = word("limpet.version").unwrap_or_default();
    let left = slots.given_up().filter(|v| update::wanted(v, &running).is_ok());
    let mut voice = Voice::new(Path::new(said::FILE), &running, left, !slots.is_on_trial());
    let mut updates = update::Updates::new(word("limpet.board").unwrap_or_default(), running);
    let (mut good, mut forgotten) = (false, false);
    loop {
        let start = Instant::now();
        agent.look_after();
        if !good && agent.running_for() > GOOD_AFTER {
            match slots.call_good() {
                Ok(true) => say!("slot {} is good now", slots.current()),
                Ok(false) => {}
                Err(why) => say!("this slot cannot be called good: {why}"),
            }
            voice.good();
            good = true;
        }
        if good && !forgotten && node::has_joined(Path::new(AGENT_DATA)) {
            match node::forget_token(&slots) {
                Ok(true) => say!("this board has joined: the token is gone from its card"),
                Ok(false) => {}
                Err(why) => say!("the token stays in the node's file: {why}"),
            }
            forgotten = true;
        }
        if !good && agent.ends() >= AGENT_ENDS_MAX && slots.is_on_trial() {
            agent.stop();
            return Err("the agent of this untried slot does not stay up; the other slot gets its turn".into());
        }
        clock.look_after();
        if good && let Some(version) = updates.look_after(&slots, &mut voice) {
            say!("update to {version} is in place; restarting");
            agent.stop();
            mounts::leave();
            return Ok(());
        }
        watchdog.feed();
        std::thread::sleep(TICK.saturating_sub(start.elapsed()));
    }
}
