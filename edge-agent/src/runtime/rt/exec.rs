//! Runs one more program in a running container.
//!
//! In: the container's record, the exec's spec and pipes. Out: a running program with the container's namespaces,
//! group, capabilities and filter. Never: more rights than the container's first program had.

use super::super::record;
use super::super::spec::ExecSpec;
use super::console::Console;
use super::executor::{self, Program};
use super::start::{filter, refused, stdio};
use super::{Failure, Outcome, caps, chain, group, oci, rootfs};
use crate::device::cgroups::Cgroups;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

pub fn exec(run_dir: &Path, exec: &ExecSpec, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
    // A directory of its own: libcontainer leaves sockets behind.
    let dir = run_dir.join("execs").join(std::process::id().to_string());
    let _ = std::fs::remove_dir_all(&dir);
    let done = exec_in(run_dir, &dir, exec, fds);
    let _ = std::fs::remove_dir_all(&dir);
    done
}

fn exec_in(run_dir: &Path, dir: &Path, exec: &ExecSpec, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
    let id = &exec.container_id;
    let record = record::read(run_dir, id).map_err(|err| Failure::Create(err.to_string()))?;
    if !record.alive() {
        return Err(Failure::Create(format!("container {id} does not run")));
    }
    if record.spec.other_runtime.is_some() {
        return super::external::exec(run_dir, dir, &record, exec, fds);
    }
    // What config.json names, which is what libcontainer will look for.
    let hidden = if rootfs::shares_mounts(&record.spec) { record.cgroup.clone() } else { record.cgroup_parent.clone() };
    let cgroups = Cgroups::probe(&record.cgroup_parent).map_err(|err| Failure::create("probe cgroups", err))?;
    let way = group::enter_group(&cgroups, &record.cgroup)?;
    rootfs::leave_mounts(MsFlags::MS_PRIVATE).map_err(|err| Failure::create("a mount namespace", err))?;
    let own = dir.join(id);
    std::fs::create_dir_all(&own).map_err(|err| Failure::create("exec", err))?;
    let copied = std::fs::copy(run_dir.join("state").join(id).join("state.json"), own.join("state.json"));
    copied.map_err(|err| Failure::create("the container's state", err))?;

    let last_cap = caps::last_cap();
    let final_caps = caps::wanted(&record.spec, last_cap).map_err(Failure::Create)?;
    let users = match record.spec.first_id {
        Some(_) => File::open(format!("/proc/{}/ns/user", record.pid)).map(Some),
        None => Ok(None),
    };
    let users = users.map_err(|err| Failure::create("the pod's users", err))?.map(Rc::new);
    let env = environment(&record, exec);
    let process = oci::exec_process(&record, exec, final_caps, &env, true);
    let process_path = dir.join("process.json");
    let text = serde_json::to_vec(&process).map_err(|err| Failure::create("process.json", err))?;
    record::write_file(&process_path, &text, 0o600).map_err(|err| Failure::create("process.json", err))?;

    let (errors, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|err| Failure::create("pipe", err))?;
    let program = Program {
        args: exec.args.clone(),
        env,
        caps: final_caps,
        last_cap,
        filter: filter(&record.spec, final_caps, run_dir)?,
        errors: Rc::new(writer),
        // libcontainer starts an exec by itself: it goes into the group on its own feet.
        doors: if let group::Way::Late(late) = &way { Some(late.doors.clone()) } else { None },
        uid: exec.user.as_ref().unwrap_or(&record.spec.user).uid,
        guarded: false,
        users,
        tty: exec.tty,
        late: Rc::default(),
    };
    let console = exec.tty.then(|| Console::listen(dir)).transpose();
    let console = console.map_err(|err| Failure::create("the terminal", err))?;
    let mut builder = ContainerBuilder::new(id.clone(), SyscallType::default())
        .with_root_path(dir)
        .map_err(|err| Failure::create("exec", chain(&err)))?
        .with_executor(program)
        .with_console_socket(console.as_ref().map(|console| &console.path));
    if !exec.tty {
        let [stdin, stdout, stderr] = stdio(exec.stdin, fds)?;
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    rootfs::hide_cgroups(&hidden).map_err(|err| Failure::create("hide /sys/fs/cgroup", err))?;
    let built = builder.as_tenant().with_process(Some(&process_path)).with_detach(true).as_sibling(false).build();
    if let group::Way::Late(late) = way {
        late.finish();
    }
    let pid = match built {
        Ok(pid) => pid.as_raw(),
        Err(err) => return Err(refused(&errors, chain(&err))),
    };
    let start_time = record::start_time(pid).unwrap_or(0);
    let said = executor::outcome(&errors).map_err(|err| Failure::create("exec", err))?;
    if !said.is_empty() {
        return Err(Failure::Start(format!("unable to start container process: {said}")));
    }
    let master = console.map(Console::master).transpose().map_err(|err| Failure::create("the terminal", err))?;
    if let (Some(master), Some((columns, rows))) = (&master, exec.size) {
        let _ = super::console::set_size(master.as_fd(), columns, rows);
    }
    Ok(Outcome { pid, start_time, master })
}

/// The container's environment with the exec's own words.
pub fn environment(record: &record::Record, exec: &ExecSpec) -> Vec<String> {
    let mut env = record.spec.env.clone();
    if exec.tty && !env.iter().any(|pair| pair.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    env.extend(exec.env.iter().cloned());
    env
}
