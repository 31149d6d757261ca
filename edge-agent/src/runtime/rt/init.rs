//! `limpet-agent rt init`: process 1 of a pod that shares its process namespace.
//!
//! In: SIGCHLD of orphans. Out: nothing. Never: anything but reaping; the pod's removal kills it.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};

pub fn main() -> i32 {
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        mask.add(signal);
    }
    if mask.thread_block().is_err() {
        return 1;
    }
    loop {
        match mask.wait() {
            Ok(Signal::SIGCHLD) => while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|s| s.pid().is_some()) {},
            Ok(_) => return 0,
            Err(_) => return 1,
        }
    }
}
