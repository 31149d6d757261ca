//! What containers outlive.

use super::world::{World, read_until};
use crate::runtime::*;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The agent kills itself twice; the third one finds every line and every exit code.
pub async fn killed_agent(mut world: World) {
    let log = world.base.join("log");
    if world.restarts == 0 {
        world.pod("pod-k").await;
        let script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); [ $((i % 100)) = 0 ] && sleep 0.05; done; exit 42";
        let started = world.runtime.start_container(&world.container("pod-k", "lines", script)).await.unwrap();
        let quick = world.container("pod-k", "quick", "sleep 0.3; exit 5");
        world.runtime.start_container(&quick).await.unwrap();
        let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
        let text = read_until(&out, "line 150\n").await;
        std::fs::write(&log, text).unwrap();
        die();
    }
    let found = world.runtime.list();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(world.runtime.sandbox_exists("pod-k"));
    let mut text = std::fs::read_to_string(&log).unwrap();
    let streams = world.runtime.take_streams("lines");
    let out = sys::watch(streams.stdout.expect("the keeper held the pipe")).unwrap();
    if world.restarts == 1 {
        // On a busy machine it has ended already; then its end was seen, and what it said waits in the pipe.
        let lines = found.iter().find(|found| found.id == "lines").unwrap();
        if let State::Exited(ended) = &lines.state {
            assert_eq!((ended.code, ended.unseen), (42, false));
        }
        text.push_str(&read_until(&out, "00\n").await);
        std::fs::write(&log, text).unwrap();
        // Long enough that `quick` ends while no agent runs.
        tokio::time::sleep(Duration::from_millis(100)).await;
        die();
    }
    let end = found.iter().find(|found| found.id == "quick").unwrap();
    match end.state {
        State::Exited(ended) => assert_eq!((ended.code, ended.unseen), (5, false)),
        State::Running => assert_eq!(world.ended("quick").await.code, 5),
    }
    text.push_str(&read_until(&out, "line 2999\n").await);
    let expect: String = (0..3000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(text, expect, "no line is lost or doubled");
    let lines = found.iter().find(|found| found.id == "lines").unwrap();
    match &lines.state {
        State::Exited(ended) => assert_eq!((ended.code, ended.unseen), (42, false)),
        State::Running => assert_eq!(world.ended("lines").await.code, 42),
    }
    for id in ["lines", "quick"] {
        world.runtime.remove_container(id).await.unwrap();
    }
    world.runtime.remove_sandbox("pod-k").await.unwrap();
}

fn die() -> ! {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    unreachable!("SIGKILL cannot be survived");
}

/// A container ends after the keeper has handed over what it held, and before the new agent looks for the container: its code
/// is on the way, and is waited for.
pub async fn ended_meanwhile(world: World) {
    use crate::keeper::client::{Exit, Keeper};
    use crate::keeper::wire::Packet;
    use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
    let mut program = std::process::Command::new("true").spawn().unwrap();
    let (pid, start_time) = (program.id() as i32, record::start_time(program.id() as i32).unwrap_or(1));
    program.wait().unwrap();
    let mut options = world.runtime.shared.options.clone();
    options.run_dir = world.base.join("other");
    std::fs::create_dir_all(options.run_dir.join("containers")).unwrap();
    let (boot_id, cgroup_parent) = (record::boot_id().to_owned(), options.cgroup_parent.clone());
    let spec = world.container("pod-m", "quick", "exit 5");
    let cgroup = format!("{cgroup_parent}/none");
    let found = record::Record { spec, pid, start_time, boot_id, cgroup, cgroup_parent, started_ms: 1, exit: None };
    record::write(&options.run_dir, &found).unwrap();
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    // A keeper that collects the process only now.
    let (tell, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut bytes = [0u8; 512];
        let say = |packet: Packet<'_>| {
            let mut out = Vec::new();
            packet.encode(&mut out);
            send(theirs.as_raw_fd(), &out, MsgFlags::empty()).unwrap();
        };
        loop {
            match recv(theirs.as_raw_fd(), &mut bytes, MsgFlags::empty()).unwrap_or(0) {
                0 => return,
                len => match Packet::decode(&bytes[..len]) {
                    Some(Packet::Hello) => say(Packet::Ready { lost: 0, restarts: 1 }),
                    Some(Packet::Drop { request, .. }) => {
                        say(Packet::Exited(Exit { seq: 7, pid, status: 5 << 8, at_ms: 9 }));
                        say(Packet::Exited(Exit { seq: 8, pid: i32::MAX, status: 0, at_ms: 9 }));
                        say(Packet::Done { request });
                    }
                    Some(Packet::Ack { seq }) => drop(tell.send(seq)),
                    other => panic!("{other:?}"),
                },
            }
        }
    });
    let (client, restored, exits) = Keeper::connect(ours).await.unwrap();
    assert!(restored.exits.is_empty());
    let (runtime, _exited) = Runtime::open(options, client, restored, exits).await.unwrap();
    match runtime.list()[0].state {
        State::Exited(ended) => assert_eq!((ended.code, ended.unseen, ended.at_ms), (5, false, 9)),
        State::Running => panic!("it is gone"),
    }
    let seen = [acknowledged.recv().await, acknowledged.recv().await];
    assert_eq!(seen, [Some(8), Some(7)], "a stranger's is passed on, this one is on record first");
}

/// Without a keeper a container goes on writing: its FIFO has a reader as long as it lives itself.
pub async fn stopped_keeper(mut world: World) {
    world.pod("pod-g").await;
    let proof = world.base.join("proof");
    std::fs::create_dir_all(&proof).unwrap();
    let script = "echo ready; while [ ! -e /proof/go ]; do sleep 0.01; done; echo more; echo alive > /proof/alive; exec sleep 1000";
    let mut spec = world.container("pod-g", "main", script);
    spec.mounts = vec![Mount { source: proof.clone(), destination: "/proof".into(), ..Mount::default() }];
    let started = world.runtime.start_container(&spec).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    read_until(&out, "ready").await;
    // Close every other end: the agent's and the keeper's.
    drop(out);
    world.runtime.shared.keeper.drop_fds(["main/out", "main/err"].map(String::from)).await.unwrap();
    std::fs::write(proof.join("go"), "").unwrap();
    while !proof.join("alive").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.runtime.remove_container("main").await.unwrap();
    let ended = world.ended("main").await;
    assert_eq!(ended.signal, Some(libc::SIGKILL), "not SIGPIPE");
}

/// SIGHUP to the keeper: a new agent, the same container, its input and output handed back.
pub async fn hangup(mut world: World) {
    let keeper = nix::unistd::Pid::parent();
    if world.restarts == 0 {
        world.pod("pod-u").await;
        let mut spec = world.container("pod-u", "cat", "echo pid $$; cat");
        spec.stdin = true;
        let started = world.runtime.start_container(&spec).await.unwrap();
        read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "pid 1").await;
        nix::sys::signal::kill(keeper, nix::sys::signal::Signal::SIGHUP).unwrap();
        std::future::pending::<()>().await;
    }
    let streams = world.runtime.take_streams("cat");
    let input = streams.stdin.expect("the keeper held the input");
    nix::unistd::write(&input, b"after\n").unwrap();
    read_until(&sys::watch(streams.stdout.unwrap()).unwrap(), "after").await;
    world.runtime.shared.keeper.drop_fds(["cat/in".to_string()]).await.unwrap();
    drop(input);
    assert_eq!(world.ended("cat").await.code, 0, "the end of its input is the end of cat");
    assert!(world.runtime.take_streams("cat").stdin.is_none(), "streams are taken once");
}

/// A helper that is killed half-way leaves nothing that waits for ever.
pub async fn killed_helper(world: World) {
    world.pod("pod-q").await;
    for round in 0..6u32 {
        let spec = world.container("pod-q", &format!("cut{round}"), "exec sleep 1000");
        let runtime = world.runtime.clone();
        let start = tokio::spawn(async move { runtime.start_container(&spec).await });
        // Later in every round: before, during and after libcontainer's work.
        tokio::time::sleep(Duration::from_millis(u64::from(2 + round * 3))).await;
        let me = std::process::id() as i32;
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if record::parent(pid) == Some(me) && line.starts_with(b"limpet-agent\0rt\0") {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            }
        }
        if start.await.unwrap().is_ok() {
            world.runtime.remove_container(&format!("cut{round}")).await.unwrap();
        }
    }
    let keeper = std::os::unix::process::parent_id() as i32;
    let left = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| *pid != std::process::id() as i32 && record::parent(*pid) == Some(keeper)).count()
    };
    let gone = async {
        while left() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("every process of a cut start ends");
    assert!(world.runtime.cgroups().container_groups().is_empty());
    assert!(world.runtime.list().is_empty());
    world.runtime.remove_sandbox("pod-q").await.unwrap();
}

/// The keeper takes hundreds of fds and lets go of all of them in one go: what is closed there is closed.
pub async fn many_fds(world: World) {
    let keeper = &world.runtime.shared.keeper;
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let keys: Vec<String> = (0..400).map(|n| format!("c{n}/out")).collect();
    for some in keys.chunks(16) {
        let all: Vec<_> = some.iter().map(|key| (key.clone(), &reader)).collect();
        keeper.put_fds(&all).await.unwrap();
    }
    drop(reader);
    assert_eq!(nix::unistd::write(&writer, b"x"), Ok(1), "the keeper holds the other end");
    keeper.drop_fds(keys.clone()).await.unwrap();
    assert_eq!(nix::unistd::write(&writer, b"x"), Err(nix::errno::Errno::EPIPE), "nobody holds it any more");
    keeper.drop_fds(keys).await.unwrap();
}

/// Probes whose time is up while their command is still being started: no more helpers are at work than may be, and no command
/// stays.
pub async fn exec_without_a_caller(world: World) {
    world.pod("pod-x").await;
    let started = world.runtime.start_container(&world.container("pod-x", "main", "echo ready; exec sleep 1000")).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    read_until(&out, "ready").await;
    let args: Vec<String> = ["sleep", "1000321"].map(String::from).into();
    let spec = ExecSpec { container_id: "main".into(), args, ..ExecSpec::default() };
    for _ in 0..8 {
        // Looked at once, and left.
        assert!(tokio::time::timeout(Duration::ZERO, world.runtime.exec(&spec)).await.is_err());
    }
    assert_eq!(world.runtime.shared.helper.at_work(), 4, "as many as may be, until they have answered");
    let runtime = &world.runtime.shared;
    let group = record::read(&runtime.options.run_dir, "main").unwrap().cgroup;
    let left = || (runtime.helper.at_work(), runtime.cgroups.pids(&group).len());
    for _ in 0..1000 {
        if left() == (0, 1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left(), (0, 1), "nothing but the container's own process");
    assert_eq!(world.exec("main", &["true"]).await, (String::new(), 0));
}
