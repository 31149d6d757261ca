//! Waits for all pipes and terminals of containers in one place, and lets each be read when it has something to say.
//!
//! In: fds with what is to be done for them. Out: calls of `Ear::hear`, one after the other, in one task.
//! A task and a place in tokio's own table for each pipe would be a tenth of what a pod takes of the agent's memory.
//! Never: reads one of them for long while others wait.

use super::pump::Ear;
use crate::runtime::sys;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::{
    io::{Error, ErrorKind, Result},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::io::unix::AsyncFd;

const EVENTS_MAX: usize = 16;
/// Reads of one pipe before it is the others' turn.
const READS_MAX: usize = 4;

#[derive(Default)]
pub struct Reader(Mutex<Option<Arc<Watched>>>);

struct Watched {
    epoll: Epoll,
    ears: Mutex<Vec<Option<Ear>>>,
}

/// What is heard at one time.
pub enum Heard {
    /// There may be more.
    Some,
    Nothing,
    End,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    /// Hears this one until its end; one that cannot be heard ends now. Must run inside the runtime.
    pub fn add(&self, mut ear: Ear) -> Result<()> {
        let watched = self.watched().inspect_err(|_| ear.end())?;
        watched.add(ear)
    }

    fn watched(&self) -> Result<Arc<Watched>> {
        let mut own = lock(&self.0);
        match &*own {
            Some(watched) => Ok(watched.clone()),
            None => Ok(own.insert(Watched::begin()?).clone()),
        }
    }

    #[cfg(test)]
    pub fn places(&self) -> usize {
        lock(&self.0).as_ref().map_or(0, |watched| lock(&watched.ears).len())
    }
}

impl Watched {
    fn begin() -> Result<Arc<Watched>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // It is ready when one of those that it waits for is.
        let bell = sys::watch(epoll.0.try_clone()?)?;
        let watched = Arc::new(Watched { epoll, ears: Mutex::default() });
        tokio::spawn(listen(bell, Arc::downgrade(&watched)));
        Ok(watched)
    }

    fn add(&self, mut ear: Ear) -> Result<()> {
        let mut ears = lock(&self.ears);
        let free = ears.iter().position(Option::is_none);
        let at = free.unwrap_or(ears.len());
        if let Err(e) = self.epoll.add(ear.fd(), EpollEvent::new(EpollFlags::EPOLLIN, at as u64)) {
            ear.end();
            return Err(e.into());
        }
        match free {
            Some(at) => ears[at] = Some(ear),
            None => ears.push(Some(ear)),
        }
        Ok(())
    }

    /// Those that have something to say, each for a while.
    fn hear(&self) -> Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(0) => return Err(ErrorKind::WouldBlock.into()),
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => return Ok(()),
            Err(e) => return Err(Error::from(e)),
        };
        let mut ears = lock(&self.ears);
        for event in events.iter().take(count) {
            let place = usize::try_from(event.data()).ok().and_then(|at| ears.get_mut(at));
            let Some(place) = place else { continue };
            let Some(ear) = place.as_mut() else { continue };
            let over = (0..READS_MAX).map(|_| ear.hear()).find(|heard| !matches!(heard, Heard::Some));
            if matches!(over, Some(Heard::End)) {
                let _ = self.epoll.delete(ear.fd());
                ear.end();
                *place = None;
            }
        }
        // Places at the end that nobody has any more.
        let used = ears.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        ears.truncate(used);
        if ears.capacity() > 2 * used + EVENTS_MAX {
            ears.shrink_to_fit();
        }
        Ok(())
    }
}

/// Until nobody can be added any more.
async fn listen(bell: AsyncFd<OwnedFd>, watched: Weak<Watched>) {
    loop {
        let Ok(mut ready) = bell.readable().await else { return };
        let Some(watched) = watched.upgrade() else { return };
        if let Ok(Err(e)) = ready.try_io(|_| watched.hear()) {
            log::error!("logs: containers are not heard any more: {e}");
            return;
        }
    }
}

/// For whoever has a terminal in common with who writes to it.
pub enum Source {
    Pipe(OwnedFd),
    Terminal(Arc<AsyncFd<OwnedFd>>),
}

impl Source {
    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Pipe(fd) => fd.as_fd(),
            Source::Terminal(fd) => fd.get_ref().as_fd(),
        }
    }
}
