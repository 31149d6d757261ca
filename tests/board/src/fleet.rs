//! All boards: their keys, their tasks, and what has been seen of each.
//!
//! In: a join token, a number. Out: running boards; moments. Never: a board that shares a key with another one.

use crate::{board, board::Life, device::Clock, link, link::Identity};
use limpet_protocol::join::JoinToken;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Semaphore, task::JoinSet};

/// Boards that join at the same time.
const JOINING_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(600);

/// What is known of one board.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Its set has been equal to the hub's since then; `None` while it is not, or while the link is down.
    pub in_sync: Option<Instant>,
    /// Nothing waits for the hub's confirmation.
    pub told: bool,
    /// The newest round of the common ConfigMap that it holds and has acknowledged, and since when.
    pub round: Option<(u64, Instant)>,
    pub connects: u32,
}

#[derive(Clone)]
pub struct Fleet {
    /// Number of the first board.
    first: usize,
    seen: Arc<Vec<Mutex<Seen>>>,
}

pub fn name(board: usize) -> String {
    format!("board-{board:05}")
}

impl Fleet {
    pub fn new(first: usize, boards: usize) -> Fleet {
        Fleet { first, seen: Arc::new((0..boards).map(|_| Mutex::default()).collect()) }
    }

    pub fn note(&self, board: usize, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen[board - self.first].lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn all(&self) -> Vec<Seen> {
        self.seen.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Makes a key for each board that has none, joins, and starts it. `dir`: where identities lie.
    pub async fn join<L: Life>(&self, dir: &Path, token: &JoinToken) -> Result<(), String> {
        let room = Arc::new(Semaphore::new(JOINING_MAX));
        let mut joining = JoinSet::new();
        for at in self.first..self.first + self.seen.len() {
            let (room, token, dir, fleet) = (room.clone(), token.clone(), dir.join(name(at)), self.clone());
            joining.spawn(async move {
                let _room = room.acquire_owned().await;
                let clock = Clock::new();
                let known = link::identity::load(&dir).map_err(|e| e.to_string())?;
                let identity = match known {
                    Some(identity) => identity,
                    None => join(&dir, &token, at, &clock).await?,
                };
                board::start::<L>(at, identity, clock, fleet);
                Ok::<_, String>(())
            });
        }
        while let Some(joined) = joining.join_next().await {
            joined.map_err(|e| e.to_string())??;
        }
        Ok(())
    }

    /// Waits until every board is as wanted; how many are, when that takes too long.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let count = self.all().iter().filter(|s| wanted(s)).count();
            if count == self.seen.len() {
                return Ok(());
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("{what}: {count} of {} boards in {PATIENCE:?}", self.seen.len()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Tries again as the agent does, but sooner.
async fn join(dir: &Path, token: &JoinToken, at: usize, clock: &Clock) -> Result<Identity, String> {
    let hardware = format!("{at:016x}");
    let mut last = String::new();
    for _ in 0..20 {
        match link::join::join(dir, token, (&name(at), "simulated board", &hardware), (clock, None)).await {
            Ok(identity) => return Ok(identity),
            Err(link::join::JoinError::Never(why)) => return Err(why),
            Err(link::join::JoinError::Later(why)) => last = why,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(last)
}
