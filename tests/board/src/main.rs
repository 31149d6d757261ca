//! So many boards in a process of their own, on the agent's own kind of event loop: what its link takes of memory.
//!
//! In: a directory for keys, the number of the first board, how many, a token (used where there is no key yet). Out: one line
//! when all are in sync; it lives on until stdin ends, and whoever started it looks at its memory (`cargo xtask bench --link`).
//! Never: anything but the link and what it needs: this program is measured.
#![allow(clippy::disallowed_methods)]

use limpet_board::{Fleet, board::Nothing, link};
use std::{io::Read, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let outcome = match args.as_slice() {
        [_, dir, first, boards, token] => match (first.parse(), boards.parse()) {
            (Ok(first), Ok(boards)) => live(Path::new(dir), first, boards, token),
            _ => Err("FIRST and BOARDS are numbers".into()),
        },
        _ => Err("usage: limpet-board DIR FIRST BOARDS TOKEN; it is started by `cargo xtask bench --link`".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("limpet-board: {why}");
            ExitCode::FAILURE
        }
    }
}

fn live(dir: &Path, first: usize, boards: usize, token: &str) -> Result<(), String> {
    // As the agent's own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let token = link::join::parse_token(token).map_err(|e| e.to_string())?;
        let fleet = Fleet::new(first, boards);
        fleet.join::<Nothing>(dir, &token).await?;
        fleet.until("all are in sync", |s| s.in_sync.is_some() && s.told).await?;
        println!("in sync");
        let (ended, wait) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            drop(ended);
        });
        let _ = wait.await;
        Ok(())
    })
}
