//! `limpet-agent bench-create DIR`: times starts of containers for `cargo xtask bench`, on the path that pods take.
//!
//! In: DIR/layer (an unpacked image with busybox); for every line on stdin one container is wanted. Out: on stdout
//! `ready PID` once the sandbox stands, then a line for each container: milliseconds from the call to its first byte.
//! Never: part of a node; whoever starts it gives it a network and mounts of its own.

use super::{ContainerSpec, Qos, Resources, Runtime, RuntimeOptions, SandboxSpec, sys};
use crate::keeper::{self, client::Keeper};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;

pub const WORD: &str = "bench-create";
const POD: &str = "bench";

type Failed = Box<dyn std::error::Error>;

/// The process that is started first: a keeper as always, whose agent is `agent` below.
pub fn keeper(words: &[OsString]) -> i32 {
    let words: Vec<OsString> = std::iter::once(WORD.into()).chain(words.iter().cloned()).collect();
    keeper::run(Path::new("/proc/self/exe"), &words, None)
}

pub fn agent(words: &[OsString]) -> i32 {
    let base = PathBuf::from(words.first().cloned().unwrap_or_default());
    let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
    if let Err(why) = made.map_err(Failed::from).and_then(|runtime| runtime.block_on(serve(&base))) {
        eprintln!("limpet-agent: {WORD}: {why}");
    }
    keeper::EXIT_CONFIG
}

async fn serve(base: &Path) -> Result<(), Failed> {
    let (keeper, restored, exits) = Keeper::connect(sys::inherited(keeper::AGENT_FD)).await?;
    let name = base.file_name().and_then(|name| name.to_str()).ok_or("the directory has no name")?;
    // As on a board, where /run is one.
    let run_dir = base.join("run");
    std::fs::create_dir_all(&run_dir)?;
    crate::volumes::emptydir::mount_tmpfs(&run_dir, None, 0o755)?;
    let options = RuntimeOptions {
        run_dir: run_dir.clone(),
        data_dir: base.join("data"),
        cgroup_parent: name.to_owned(),
        pod_cidr: Some("10.77.0.0/24".parse()?),
        helper: None,
    };
    let (runtime, _exited) = Runtime::open(options, keeper, restored, exits).await?;
    let pod = SandboxSpec { pod_uid: POD.into(), hostname: POD.into(), qos: Qos::Burstable, ..SandboxSpec::default() };
    runtime.create_sandbox(&pod).await?;
    println!("ready {}", std::process::id());
    let mut wishes = BufReader::new(Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)?).lines();
    let mut count = 0;
    while wishes.next_line().await?.is_some() {
        count += 1;
        println!("{:.3}", once(&runtime, &container(base, count)).await?);
    }
    runtime.remove_sandbox(POD).await?;
    runtime.cgroups().remove_parent();
    crate::volumes::unmount_below(&run_dir)?;
    Ok(())
}

/// Returns when nothing is left of the container, so that its removal burdens nobody else's time.
async fn once(runtime: &Runtime, spec: &ContainerSpec) -> Result<f64, Failed> {
    let begun = Instant::now();
    let started = runtime.start_container(spec).await?;
    let mut stdout = Receiver::from_owned_fd(started.streams.stdout.ok_or("no stdout")?)?;
    stdout.read_u8().await?;
    let took = begun.elapsed();
    runtime.remove_container(&spec.id).await?;
    Ok(took.as_secs_f64() * 1000.0)
}

fn container(base: &Path, count: u32) -> ContainerSpec {
    ContainerSpec {
        id: format!("{POD}-{count}"),
        pod_uid: POD.into(),
        name: POD.into(),
        layers: vec![base.join("layer")],
        args: ["/bin/busybox", "echo", "x"].map(String::from).to_vec(),
        env: vec!["PATH=/bin".into()],
        qos: Qos::Burstable,
        resources: Resources {
            cpu_shares: Some(512),
            cpu_quota_us: Some(50_000),
            cpu_period_us: Some(100_000),
            memory_limit_bytes: Some(64 << 20),
            pids_limit: Some(100),
            ..Resources::default()
        },
        ..ContainerSpec::default()
    }
}
