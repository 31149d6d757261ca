//! Getting a container's processes into its group without waiting for it.
//!
//! In: a prepared group. Out: processes in it. Never: leaves it to libcontainer, which would do it last and wait.
//!
//! Moving a process makes the kernel wait for an RCU grace period, often longer than everything else together. On v2
//! the helper is born in the group (`born_inside`). On v1 a child moves first and does the waiting while the
//! container is being built; the container's own move then finds the door open (`Doors`).

use super::super::sys;
use super::Failure;
use crate::device::cgroups::{Cgroups, enter};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::AsFd;
use std::rc::Rc;

/// How this helper's children come into the group.
pub enum Way {
    /// This process is in it; so are its children.
    Inside,
    /// The new process is moved when it is ready.
    Late(Doors),
}

pub struct Doors {
    pub doors: Rc<Vec<File>>,
    scout: Option<Pid>,
}

/// On v2 the caller goes on as a child that is in the group.
pub fn enter_group(cgroups: &Cgroups, group: &str) -> Result<Way, Failure> {
    let told = |err: std::io::Error| Failure::create(format_args!("join cgroup {group}"), err);
    if cgroups.is_v2() {
        match cgroups.nursery(group).map(|nursery| sys::fork_into(nursery.as_fd())) {
            Some(Ok(0)) => {}
            Some(Ok(child)) => wait_as(child),
            // A kernel before 5.7.
            Some(Err(_)) | None => cgroups.attach(group, std::process::id() as i32).map_err(told)?,
        }
        return Ok(Way::Inside);
    }
    let doors = cgroups.doors(group).map_err(told)?;
    let scout = doors.first().map(|door| sys::write_zero_aside(door.as_fd()).map(Pid::from_raw)).transpose();
    let scout = scout.map_err(told)?;
    Ok(Way::Late(Doors { doors: Rc::new(doors), scout }))
}

/// The rest of this process's life: its child does the work, answers and ends; so does this.
fn wait_as(child: i32) -> ! {
    let status = waitpid(Pid::from_raw(child), None);
    let fine = matches!(status, Ok(nix::sys::wait::WaitStatus::Exited(_, 0)));
    sys::exit_now(i32::from(!fine))
}

impl Doors {
    pub fn move_in(self, pid: i32) -> std::io::Result<()> {
        self.doors.iter().try_for_each(|door| enter(door, pid))?;
        self.finish();
        Ok(())
    }

    /// The scout went in first and has ended by now.
    pub fn finish(self) {
        if let Some(scout) = self.scout {
            let _ = waitpid(scout, None);
        }
    }
}
