//! Directories of the board in which something changes: static pods, updates, plugins, devices.
//!
//! In: directories, and what counts as a change. Out: a word for all that has changed since the last one.
//! Never: looks without a reason (the kernel tells of changes), or says what it was.

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{os::fd::AsFd, path::Path, time::Duration};
use tokio::sync::mpsc;

/// Editors write, rename and touch: one look after they are done.
const SETTLE: Duration = Duration::from_millis(200);

/// Says when something in the directory has changed.
pub fn watch(dir: &Path) -> std::io::Result<mpsc::Receiver<()>> {
    watch_for(&[dir], COME_AND_GO | AddWatchFlags::IN_CLOSE_WRITE)
}

/// Files and directories that come into a directory or leave it; not what is written in them.
pub const COME_AND_GO: AddWatchFlags =
    AddWatchFlags::IN_MOVED_TO.union(AddWatchFlags::IN_MOVED_FROM).union(AddWatchFlags::IN_DELETE);

/// When any of that happens in any of them.
pub fn watch_for(dirs: &[&Path], what: AddWatchFlags) -> std::io::Result<mpsc::Receiver<()>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    for dir in dirs {
        inotify.add_watch(*dir, what)?;
    }
    let (tell, hear) = mpsc::channel(1);
    let fd = crate::runtime::sys::watch(inotify.as_fd().try_clone_to_owned()?)?;
    tokio::spawn(async move {
        while let Ok(mut ready) = fd.readable().await {
            tokio::time::sleep(SETTLE).await;
            while inotify.read_events().is_ok_and(|events| !events.is_empty()) {}
            ready.clear_ready();
            // A look that is still to come sees this change too.
            if let Err(mpsc::error::TrySendError::Closed(())) = tell.try_send(()) {
                return;
            }
        }
    });
    Ok(hear)
}
