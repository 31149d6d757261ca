//! Creates and starts one container.
//!
//! In: its spec, the ends of its pipes. Out: a running program on record, or an error and nothing left behind.
//! Never: returns success before execve has succeeded.

use super::super::record::{self, Record};
use super::super::spec::{ContainerSpec, IDS_PER_POD, Propagation, SandboxSpec, Seccomp};
use super::super::{adopt::now_ms, detached, seccomp, seccomp::Filter};
use super::console::Console;
use super::executor::{self, Program};
use super::furnish::{self, Room};
use super::{Failure, Outcome, bundle, caps, chain, devices, external, group, group_of, guard, oci, over_dev, rootfs, sandbox};
use super::{seccomp_dir, workdir, writable_layer};
use crate::device::cgroups::Cgroups;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::OFlag;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// In the bundle.
pub const PROFILE: &str = "seccomp.json";

pub fn start(
    run_dir: &Path,
    data_dir: &Path,
    cgroups: &Cgroups,
    spec: &ContainerSpec,
    fds: Vec<OwnedFd>,
) -> Result<Outcome, Failure> {
    let group = group_of(cgroups, spec);
    let made = make(run_dir, data_dir, cgroups, &group, spec, fds);
    if made.is_err() {
        clean_up(run_dir, data_dir, cgroups, &group, spec);
    }
    made
}

fn make(
    run_dir: &Path,
    data_dir: &Path,
    cgroups: &Cgroups,
    group: &str,
    spec: &ContainerSpec,
    fds: Vec<OwnedFd>,
) -> Result<Outcome, Failure> {
    let refused = spec.mounts.iter().find_map(|mount| guard::check_destination(&mount.destination).err());
    if let Some(why) = refused {
        return Err(Failure::Create(why));
    }
    let last_cap = caps::last_cap();
    let final_caps = caps::wanted(spec, last_cap).map_err(Failure::Create)?;
    let devices = devices::of(spec).map_err(|err| Failure::create("devices", err))?;
    let sandbox = sandbox::read(run_dir, &spec.pod_uid).map_err(|err| Failure::create("the pod's sandbox", err))?;
    cgroups
        .prepare_container(group, &spec.resources, devices.rules.as_deref())
        .map_err(|err| Failure::create(format_args!("cgroup {group}"), err))?;
    for wish in spec.mounts.iter().filter(|mount| mount.propagation != Propagation::None) {
        crate::volumes::travel::check(&wish.source, wish.propagation == Propagation::Bidirectional)
            .map_err(|err| Failure::create("mountPropagation", err))?;
    }
    let bundle_dir = bundle(run_dir, &spec.id);
    let shares = rootfs::shares_mounts(spec);
    let users = users_of(run_dir, spec, &sandbox)?;
    let users = users.as_ref();
    if users.is_some() && shares {
        let why = "mountPropagation: Bidirectional cannot be had with hostUsers: false: such mounts would be the host's";
        return Err(Failure::Create(why.into()));
    }
    // Where mounts are shared with the host the cgroup file systems cannot be hidden, and libcontainer joins itself.
    let mut way = None;
    if spec.other_runtime.is_some() {
        external::go_inside(cgroups, group)?;
    } else if !shares {
        way = Some(group::enter_group(cgroups, group)?);
    }
    if !shares {
        rootfs::own_mounts(spec).map_err(|err| Failure::create("a mount namespace", err))?;
    }
    std::fs::create_dir_all(&bundle_dir).map_err(|err| Failure::create("the bundle", err))?;
    keep_profile(data_dir, spec, &bundle_dir)?;
    let places = rootfs::places(data_dir).map_err(|err| Failure::create("mount points", err))?;
    let writable = writable_layer(data_dir, &spec.pod_uid, &spec.id);
    let own = furnish::is_for(spec, &sandbox);
    // Nobody else sees it: one place does for all, and a short one, whose parts libcontainer looks at again and again.
    let root = if own { run_dir.join("root") } else { bundle_dir.join("rootfs") };
    rootfs::mount_overlay(&root, &bundle_dir, &spec.layers, &places, &writable, users)
        .map_err(|err| Failure::create("root file system", err))?;
    let checked = detached::as_owner(users.map_or(0, |users| users.first_id), || rootfs::check_mount_points(&root));
    checked.map_err(|err| Failure::create("root file system", err))?;
    let what = if users.is_some() { "volumes" } else { "subPath" };
    let sources = rootfs::resolve_sources(&bundle_dir, spec, users).map_err(|err| Failure::create(what, err))?;
    if spec.other_runtime.is_none() {
        let made = || workdir::make(&root, &spec.mounts, &sources, &spec.cwd);
        detached::as_owner(users.map_or(0, |users| users.first_id), made)
            .map_err(|err| Failure::create(format_args!("the working directory {}", spec.cwd), err))?;
    }
    let (mut late, mut rest) = (Vec::new(), None);
    if spec.other_runtime.is_none() && users.is_none() {
        let shm = sandbox::shm_dir(run_dir, &sandbox);
        let made = over_dev::late(spec, &sources, &shm, &bundle_dir.join("dev"));
        late = made.map_err(|err| Failure::create("volumes on /dev", err))?;
        rest = over_dev::others(spec, &sources);
    } else if spec.other_runtime.is_none() && over_dev::is_for(spec) {
        return Err(Failure::Create("a volume on /dev cannot be had with hostUsers: false".into()));
    }
    let (rest, sources) = rest.map_or((None, sources), |(rest, sources)| (Some(rest), sources));
    let etc = sandbox::etc_dir(run_dir, &spec.pod_uid);
    let etc = match users {
        Some(users) => rootfs::etc_of(&bundle_dir, etc, users).map_err(|err| Failure::create("/etc files", err))?,
        None => etc,
    };
    let groups = if cgroups.is_v2() || shares { Vec::new() } else { cgroups.view_v1(group) };
    let furnished = match own {
        true => furnish::furnish(&Room { root: &root, run_dir, etc: &etc, spec, sandbox: &sandbox, groups: &groups }),
        false => Vec::new(),
    };
    let cgroup_view = bundle_dir.join("cgroup");
    let prepared = !groups.is_empty() && !furnished.contains(&"/sys/fs/cgroup");
    if prepared {
        std::fs::create_dir_all(&cgroup_view)
            .and_then(|()| rootfs::cgroup_view(&cgroup_view, &groups, spec.privileged))
            .map_err(|err| Failure::create("/sys/fs/cgroup", err))?;
    }
    let mut config = oci::config(&oci::Parts {
        spec: rest.as_ref().unwrap_or(spec),
        sandbox: &sandbox,
        run_dir,
        root: &root,
        etc: &etc,
        group: if shares { group } else { cgroups.parent() },
        caps: final_caps,
        sources,
        devices: devices.nodes,
        cgroup_v2: cgroups.is_v2(),
        joined: !shares,
        furnished: &furnished,
        cgroup_view: prepared.then_some(&*cgroup_view),
        pid_namespace: spec.pid_of.as_deref().map(|id| pid_namespace(run_dir, id)).transpose()?,
    });
    if spec.other_runtime.is_some() {
        external::complete(&mut config, spec, final_caps, &bundle_dir)?;
    }
    let text = serde_json::to_vec(&config).map_err(|err| Failure::create("config.json", err))?;
    record::write_file(&bundle_dir.join("config.json"), &text, 0o600)
        .map_err(|err| Failure::create("config.json", err))?;
    if !shares {
        rootfs::hide_cgroups(cgroups.parent()).map_err(|err| Failure::create("hide /sys/fs/cgroup", err))?;
    }
    if users.is_some() {
        rootfs::clear_way(run_dir).map_err(|err| Failure::create("the way to the bundle", err))?;
    }
    let place = Place { run_dir, bundle: &bundle_dir, group, parent: cgroups.parent() };
    let outcome = match &spec.other_runtime {
        Some(_) => external::start(run_dir, spec, &place.record(spec, (0, 0)), fds),
        None => run(&place, spec, fds, (way, late), (final_caps, last_cap)),
    };
    if shares {
        let _ = nix::mount::umount2(&root, nix::mount::MntFlags::MNT_DETACH);
    }
    outcome
}

/// The pod's own users; everything that the container names must be among them.
fn users_of(run_dir: &Path, spec: &ContainerSpec, sandbox: &SandboxSpec) -> Result<Option<rootfs::Users>, Failure> {
    let Some(first_id) = sandbox.first_id else { return Ok(None) };
    let ids = [("user", spec.user.uid), ("group", spec.user.gid)];
    let groups = spec.user.groups.iter().map(|gid| ("group", *gid));
    if let Some((what, id)) = ids.into_iter().chain(groups).find(|(_, id)| *id >= IDS_PER_POD) {
        let last = IDS_PER_POD - 1;
        return Err(Failure::Create(format!("{what} {id}: a pod with hostUsers: false has users and groups 0 to {last}")));
    }
    let namespace = std::fs::File::open(sandbox::pin(run_dir, &spec.pod_uid, "user"));
    let namespace = namespace.map_err(|err| Failure::create("the pod's users", err))?;
    Ok(Some(rootfs::Users { first_id, namespace }))
}

/// The process namespace of a container that runs.
fn pid_namespace(run_dir: &Path, id: &str) -> Result<std::path::PathBuf, Failure> {
    let target = record::read(run_dir, id).ok().filter(Record::alive);
    let target = target.ok_or_else(|| Failure::Create(format!("the target container {id} does not run")))?;
    Ok(format!("/proc/{}/ns/pid", target.pid).into())
}

/// Where one container lives.
struct Place<'a> {
    run_dir: &'a Path,
    bundle: &'a Path,
    group: &'a str,
    parent: &'a str,
}

impl Place<'_> {
    fn record(&self, spec: &ContainerSpec, (pid, start_time): (i32, u64)) -> Record {
        Record {
            spec: spec.clone(),
            pid,
            start_time,
            boot_id: record::boot_id().to_owned(),
            cgroup: self.group.to_owned(),
            cgroup_parent: self.parent.to_owned(),
            started_ms: now_ms(),
            exit: None,
        }
    }
}

fn run(
    place: &Place<'_>,
    spec: &ContainerSpec,
    fds: Vec<OwnedFd>,
    (way, late): (Option<group::Way>, Vec<(PathBuf, OwnedFd)>),
    (final_caps, last_cap): (u64, u32),
) -> Result<Outcome, Failure> {
    let Place { run_dir, bundle: bundle_dir, group, .. } = *place;
    let (errors, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|err| Failure::create("pipe", err))?;
    let program = Program {
        args: spec.args.clone(),
        env: spec.env.clone(),
        caps: final_caps,
        last_cap,
        filter: filter(spec, final_caps, run_dir)?,
        errors: Rc::new(writer),
        doors: None,
        uid: spec.user.uid,
        guarded: true,
        users: None,
        tty: spec.tty,
        late: Rc::new(late),
    };
    let console = spec.tty.then(|| Console::listen(bundle_dir)).transpose();
    let console = console.map_err(|err| Failure::create("the terminal", err))?;
    let state_dir = run_dir.join("state");
    std::fs::create_dir_all(&state_dir).map_err(|err| Failure::create("the state directory", err))?;
    let mut builder = ContainerBuilder::new(spec.id.clone(), SyscallType::default())
        .with_root_path(&state_dir)
        .map_err(|err| Failure::create("the state directory", chain(&err)))?
        .with_executor(program)
        .with_console_socket(console.as_ref().map(|console| &console.path));
    if !spec.tty {
        let [stdin, stdout, stderr] = stdio(spec.stdin, fds)?;
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    let built = builder.as_init(bundle_dir).with_systemd(false).with_detach(true).as_sibling(false).build();
    let mut container = match built {
        Ok(container) => container,
        Err(err) => return Err(refused(&errors, chain(&err))),
    };
    let pid = container.pid().map_or(0, |pid| pid.as_raw());
    let start_time = record::start_time(pid).unwrap_or(0);
    if let Some(group::Way::Late(doors)) = way {
        doors.move_in(pid).map_err(|err| Failure::create(format_args!("join cgroup {group}"), err))?;
    }
    let begun = place.record(spec, (pid, start_time));
    record::write(run_dir, &begun).map_err(|err| Failure::create("the container's record", err))?;
    container.start().map_err(|err| Failure::create("start", chain(&err)))?;
    let said = executor::outcome(&errors).map_err(|err| Failure::create("start", err))?;
    if !said.is_empty() {
        return Err(Failure::Start(format!("unable to start container process: {said}")));
    }
    let master = console.map(Console::master).transpose().map_err(|err| Failure::create("the terminal", err))?;
    Ok(Outcome { pid, start_time, master })
}

/// The executor's own words when it has any, libcontainer's otherwise.
pub fn refused(errors: &OwnedFd, why: String) -> Failure {
    // What was said is there by now; a process that hangs must not hold this one.
    let _ = super::super::helper::set_nonblocking(errors);
    match executor::outcome(errors) {
        Ok(said) if !said.is_empty() => Failure::Start(format!("unable to start container process: {said}")),
        _ => Failure::Create(why),
    }
}

/// The filter of a container and of every exec in it. A profile of the node is read once: its copy stays with the bundle.
pub fn filter(spec: &ContainerSpec, caps: u64, run_dir: &Path) -> Result<Option<Rc<Filter>>, Failure> {
    let made = match &spec.seccomp {
        _ if spec.privileged => return Ok(None),
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => seccomp::runtime_default_kept(&seccomp_dir(run_dir), caps),
        Seccomp::Localhost(_) => {
            read_profile(&bundle(run_dir, &spec.id).join(PROFILE)).and_then(|text| seccomp::of_profile(&text))
        }
    };
    made.map(|filter| Some(Rc::new(filter))).map_err(|why| Failure::Create(format!("load the seccomp profile: {why}")))
}

/// Copies the profile of the node into the bundle.
fn keep_profile(data_dir: &Path, spec: &ContainerSpec, bundle_dir: &Path) -> Result<(), Failure> {
    let Seccomp::Localhost(name) = &spec.seccomp else { return Ok(()) };
    let told = |err: std::io::Error| {
        let dir = data_dir.join("seccomp");
        Failure::Create(format!("seccomp profile \"{name}\" (of {}): {err}", dir.display()))
    };
    let file = crate::volumes::subpath::open_file(&data_dir.join("seccomp"), name).map_err(told)?;
    let text = read_bounded(file).map_err(told)?;
    record::write_file(&bundle_dir.join(PROFILE), &text, 0o600).map_err(told)
}

fn read_profile(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::File::open(path).and_then(read_bounded).map_err(|err| err.to_string())
}

fn read_bounded(file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(seccomp::PROFILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    match text.len() as u64 > seccomp::PROFILE_BYTES_MAX {
        true => Err(std::io::Error::other("it is larger than 1 MiB")),
        false => Ok(text),
    }
}

/// Stdin (or /dev/null), stdout, stderr.
pub fn stdio(has_stdin: bool, fds: Vec<OwnedFd>) -> Result<[OwnedFd; 3], Failure> {
    let mut fds = fds.into_iter();
    let stdin = if has_stdin {
        fds.next()
    } else {
        let null = std::fs::File::open("/dev/null").map_err(|err| Failure::create("/dev/null", err))?;
        Some(null.into())
    };
    match (stdin, fds.next(), fds.next()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok([stdin, stdout, stderr]),
        _ => Err(Failure::Create("the container's pipes did not come with the request".into())),
    }
}

fn clean_up(run_dir: &Path, data_dir: &Path, cgroups: &Cgroups, group: &str, spec: &ContainerSpec) {
    let pid = record::read(run_dir, &spec.id).map_or(0, |record| record.pid);
    // This process may be in the group: the agent removes it when it has ended.
    for pid in cgroups.pids(group).into_iter().filter(|pid| *pid != std::process::id() as i32) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    if pid > 0 {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
    }
    let layer = writable_layer(data_dir, &spec.pod_uid, &spec.id);
    // The overlay may still be mounted on the bundle in this namespace: detach it before anything is removed.
    let bundle_dir = bundle(run_dir, &spec.id);
    let mut places: Vec<String> = ["rootfs", "cgroup", "etc"].map(String::from).into();
    places.extend((0..spec.mounts.len()).map(|index| format!("sub{index}")));
    places.extend((0..=spec.layers.len()).map(|index| format!("l/{index}")));
    for place in places {
        let _ = nix::mount::umount2(&bundle_dir.join(place), nix::mount::MntFlags::MNT_DETACH);
    }
    let known = external::state_dir(run_dir).join(&spec.id);
    for dir in [bundle_dir, run_dir.join("state").join(&spec.id), known, layer] {
        let _ = std::fs::remove_dir_all(dir);
    }
    let _ = std::fs::remove_file(record::path(run_dir, &spec.id));
}
