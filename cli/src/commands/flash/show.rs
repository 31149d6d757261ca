//! What people see: boards, drives, progress.
//!
//! In: facts. Out: tables, lines on stderr. Never: stdout while an image may be on it.

use crate::table;
use limpet_device::{
    Board,
    flash::{self, Drive, Phase, Progress},
};
use std::{
    io::{IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

pub fn boards(all: &[Board]) -> String {
    let row = |b: &Board| {
        let systems: Vec<&str> = b.os.iter().map(|f| f.name()).collect();
        [b.name.clone(), b.title.clone(), b.architecture.clone(), systems.join(", ")]
    };
    table::render(["BOARD", "NAME", "ARCHITECTURE", "SYSTEMS"], &all.iter().map(row).collect::<Vec<_>>())
}

pub fn drives(all: &[Drive]) -> String {
    let row = |d: &Drive| {
        let verdict = match flash::allow(all, &d.name, None) {
            Ok(_) => "can be written".to_string(),
            Err(why) => why.to_string(),
        };
        [format!("/dev/{}", d.name), flash::size(d.bytes), d.model.clone(), verdict]
    };
    // Loop devices without a file are no drives to anybody.
    let rows: Vec<_> = all.iter().filter(|d| d.bus != flash::Bus::Loop || d.bytes > 0).map(row).collect();
    match rows.is_empty() {
        true => "no drives found\n".into(),
        false => table::render(["DRIVE", "SIZE", "MODEL", "VERDICT"], &rows),
    }
}

/// Called with bytes that are here and bytes of all.
pub fn download() -> impl FnMut(u64, Option<u64>) {
    let mut last: Option<Instant> = None;
    let every = if std::io::stderr().is_terminal() { Duration::from_millis(500) } else { Duration::from_secs(10) };
    move |have, total| {
        if last.is_none_or(|l| l.elapsed() > every) {
            last = Some(Instant::now());
            let of = total.map(|t| format!(" of {}", flash::size(t))).unwrap_or_default();
            eprintln!("download: {}{of}", flash::size(have));
        }
    }
}

/// Lines are redrawn on a terminal, and written now and then where there is none.
pub fn while_showing<T>(cards: &[(String, Arc<Progress>)], work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| draw(cards, &done));
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

#[allow(clippy::disallowed_methods)] // a line that is drawn ten times a second
fn draw(cards: &[(String, Arc<Progress>)], done: &AtomicBool) {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { 5 } else { 100 };
    let mut phases: Vec<(Phase, Instant)> = cards.iter().map(|(_, p)| (p.phase(), Instant::now())).collect();
    let mut drawn = false;
    for tick in 0u64.. {
        let over = done.load(Ordering::Relaxed);
        if tick % every == every - 1 || (over && terminal) {
            let mut out = String::new();
            if drawn && terminal {
                out.push_str(&format!("\x1b[{}A", cards.len()));
            }
            for ((name, progress), (phase, since)) in cards.iter().zip(&mut phases) {
                if progress.phase() != *phase {
                    (*phase, *since) = (progress.phase(), Instant::now());
                }
                let end = if terminal { "\x1b[K\n" } else { "\n" };
                out.push_str(&format!("{name}: {}{end}", progress.line(since.elapsed())));
            }
            drawn = true;
            let _ = std::io::stderr().write_all(out.as_bytes());
        }
        if over {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
