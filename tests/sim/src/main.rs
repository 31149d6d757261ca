//! The simulator from a command line: many seeds, on all cores; `cargo xtask sim` calls it.
//!
//! In: `--seed N --nodes N --hours H|--minutes M --runs N --every N --control 0|1|2 --show TEXT --follow TEXT --keep FILE
//! --traces FILE`.
//! Out: node-hours a second; each failing seed, printed with the words that replay it, and appended to the file that
//! tests replay for ever; a hash of everything that happened, for each seed.
//! Never: goes on in silence after a failure.

use limpet_sim::{Sabotage, Settings, run};
use std::{
    collections::BTreeMap,
    io::Write,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

struct Wish {
    seed: u64,
    nodes: usize,
    minutes: u64,
    runs: u64,
    every: u64,
    control: bool,
    policies: bool,
    show: Option<String>,
    follow: Option<String>,
    keep: Option<String>,
    traces: Option<String>,
}

fn wish() -> Result<Wish, String> {
    let mut wish = Wish {
        seed: 1,
        nodes: 5,
        minutes: 60,
        runs: 1,
        every: 1,
        control: true,
        policies: true,
        show: None,
        follow: None,
        keep: None,
        traces: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(format!("{word} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} takes a number, not {value}"));
        match word.as_str() {
            "--seed" => wish.seed = number()?,
            "--nodes" => wish.nodes = number()?.clamp(1, 10_000) as usize,
            "--hours" => {
                let hours: f64 = value.parse().map_err(|_| format!("--hours takes a number, not {value}"))?;
                wish.minutes = (hours * 60.0).max(1.0) as u64;
            }
            "--minutes" => wish.minutes = number()?.max(1),
            "--runs" => wish.runs = number()?,
            "--every" => wish.every = number()?,
            "--control" => (wish.control, wish.policies) = (number()? > 0, number()? > 1),
            "--show" => wish.show = Some(value),
            "--follow" => wish.follow = Some(value),
            "--keep" => wish.keep = Some(value),
            "--traces" => wish.traces = Some(value),
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(wish)
}

fn main() -> ExitCode {
    let wish = match wish() {
        Ok(wish) => wish,
        Err(why) => {
            eprintln!("limpet-sim: {why}");
            return ExitCode::FAILURE;
        }
    };
    let (next, node_ms) = (AtomicU64::new(0), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let traces = Mutex::new(BTreeMap::new());
    let begun = Instant::now();
    let work = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= wish.runs {
                return;
            }
            let settings = Settings {
                seed: wish.seed + n,
                boards: wish.nodes,
                trouble_ms: wish.minutes * 60_000,
                fault_every: wish.every,
                control: wish.control,
                policies: wish.policies,
                mistake: Sabotage::None,
                drill: None,
                show: wish.show.clone(),
                follow: wish.follow.clone(),
            };
            match run(&settings) {
                Ok(report) => {
                    node_ms.fetch_add(report.board_ms, Ordering::Relaxed);
                    let line = format!("{} {:016x}", settings.seed, report.trace);
                    traces.lock().unwrap_or_else(PoisonError::into_inner).insert(settings.seed, line);
                    if wish.runs == 1 {
                        println!("{report:#?}");
                    }
                }
                Err(why) => {
                    println!("FAILED {why}");
                    let Wish { nodes, minutes, every, .. } = wish;
                    let control = u8::from(wish.control) + u8::from(wish.policies);
                    let line = format!("{} {nodes} {minutes} {every} {control}  # {why}", wish.seed + n);
                    traces.lock().unwrap_or_else(PoisonError::into_inner).insert(settings.seed, line.clone());
                    failures.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(wish.runs as usize).max(1);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let hours = node_ms.load(Ordering::Relaxed) as f64 / 3_600_000.0;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{hours:.0} node-hours in {seconds:.1} s: {:.0} a second", hours / seconds.max(0.001));
    if let Some(file) = &wish.traces {
        let traces = traces.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lines: String = traces.values().map(|line| format!("{line}\n")).collect();
        if let Err(e) = std::fs::write(file, lines) {
            eprintln!("limpet-sim: cannot write {file}: {e}");
            return ExitCode::FAILURE;
        }
    }
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("{} of {} seeds failed; each replays with --seed", failures.len(), wish.runs);
    if let Some(file) = &wish.keep {
        let kept = std::fs::OpenOptions::new().append(true).create(true).open(file);
        let kept = kept.and_then(|mut f| failures.iter().try_for_each(|line| writeln!(f, "{line}")));
        match kept {
            Ok(()) => println!("kept in {file}"),
            Err(e) => eprintln!("limpet-sim: cannot write {file}: {e}"),
        }
    }
    ExitCode::FAILURE
}
