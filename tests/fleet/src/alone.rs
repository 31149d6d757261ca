//! Boards in a process of their own: what the agent's link takes of a board's memory.
//!
//! In: a token, a number of boards. Out (of the process): one line when all are in sync. Out (of who starts it): its memory.
//! It is a copy of this program, so that no page of it is shared with the one that measures; the runtime is the agent's.
//! Never: lives longer than the pipe that it was given.

use crate::{fleet::Fleet, link};
use limpet_load::{figures::Figures, hub::Hub, proc::Server};
use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const READY: &str = "in sync";
/// Crowds whose difference is told: the first holds what any number needs.
const CROWDS: [usize; 2] = [100, 200];
const REST: Duration = Duration::from_secs(5);

/// The process itself.
pub fn live(first: usize, boards: usize, token: &str) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let token = link::join::parse_token(token).map_err(|e| e.to_string())?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let fleet = Fleet::new(first, boards);
        fleet.join(dir.path(), &token).await?;
        fleet.until("all are in sync", |s| s.in_sync.is_some() && s.told).await?;
        println!("{READY}");
        let (ended, wait) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            drop(ended);
        });
        let _ = wait.await;
        Ok(())
    })
}

/// Measures one board, and what each further one adds.
pub async fn measure(hub: &Hub, first: usize, token: &str, figures: &mut Figures) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let copy = dir.path().join("boards");
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    std::fs::copy(own, &copy).map_err(|e| format!("cannot copy this program: {e}"))?;
    let (one, words) = memory(hub, &copy, first, 1, token).await?;
    figures.say("the agent's link with one board in a process of its own", words, "≤ 3 MiB");
    let (small, _) = memory(hub, &copy, first + 1, CROWDS[0], token).await?;
    let (large, _) = memory(hub, &copy, first + 1 + CROWDS[0], CROWDS[1], token).await?;
    let each = large.saturating_sub(small) as f64 / (CROWDS[1] - CROWDS[0]) as f64 / 1000.0;
    let all = format!("{each:.1} KB (of {:.1} KB for the first)", one as f64 / 1000.0);
    figures.say("each further board's link in that process", all, "");
    Ok(())
}

/// Anonymous memory, and in words all of it.
async fn memory(hub: &Hub, program: &Path, first: usize, boards: usize, token: &str) -> Result<(u64, String), String> {
    let mut child = Command::new(program)
        .args(["--first", &first.to_string(), "--boards", &boards.to_string(), "--alone", token, "--hub"])
        .arg(hub.program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    let mut line = String::new();
    let read = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
    let ready = read.is_some_and(|read| read.is_ok()) && line.trim() == READY;
    tokio::time::sleep(REST).await;
    let server = Server::new(Some(child.id()));
    let found = server.memory().zip(server.anonymous()).filter(|_| ready);
    drop(child.stdin.take());
    child.wait().map_err(|e| e.to_string())?;
    let ((rss, pss), anonymous) = found.ok_or("the boards in a process of their own did not come in sync")?;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let words = format!("PSS {:.2} MiB, of that {:.2} not of its file; RSS {:.2} MiB", mib(pss), mib(anonymous), mib(rss));
    Ok((anonymous, words))
}
