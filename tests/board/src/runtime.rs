//! A pretend runtime: everything works, after a moment.
//!
//! In: what the pod machine wishes. Out: what happened, and when. Never: a process.

use limpet_agent_core::{
    Action, Input, Now,
    plan::{HostFacts, ImageFacts},
    pods::{ContainerRef, Exit},
    status::NodeFacts,
};

/// What a real board needs for a step at least, milliseconds.
const STEP_MS: u64 = 5;

#[derive(Default)]
pub struct Pretend;

pub fn host(name: &str) -> HostFacts {
    HostFacts { node_name: name.into(), ips: vec!["192.0.2.1".into()], ..HostFacts::default() }
}

/// As a board of 1 GiB says it of itself.
pub fn node_facts(name: &str, at: usize) -> NodeFacts {
    NodeFacts {
        name: name.into(),
        architecture: "arm64".into(),
        kernel: "6.12.25-v8".into(),
        os_image: "Debian GNU/Linux 13 (trixie)".into(),
        machine_id: format!("{at:032x}"),
        boot_id: format!("{at:08x}-0000-4000-8000-000000000000"),
        system_uuid: format!("{at:032x}"),
        agent_version: "0.1.0".into(),
        cpus: 4,
        memory_bytes: 1 << 30,
        memory_reserved_bytes: 64 << 20,
        disk_bytes: 16 << 30,
        pods_max: 110,
        ips: vec![format!("198.18.{}.{}", at / 250 % 250, at % 250 + 1)],
        labels: vec![("limpet.dev/board".into(), "simulated".into())],
        images: vec![(vec!["hub.limpet/web:1".into()], 12_345_678)],
        ..NodeFacts::default()
    }
}

impl Pretend {
    /// What comes of an action, and after how many milliseconds.
    pub fn act(&mut self, action: Action, now: Now, at: usize) -> Option<(u64, Input)> {
        let outcome = match action {
            Action::SetupVolumes { uid, .. } => Input::VolumesReady { uid },
            Action::CreateSandbox { uid, .. } => {
                Input::SandboxReady { uid, ips: vec![format!("10.{}.{}.2", 128 + at / 256 % 128, at % 256)] }
            }
            Action::PullImage { uid, container, .. } => {
                let image = ImageFacts { id: "sha256:0".into(), cmd: vec!["run".into()], ..ImageFacts::default() };
                Input::ImageReady { uid, container, image, pulled_in_ms: None }
            }
            Action::StartContainer { uid, plan } => {
                let container = plan.name.as_str().into();
                Input::ContainerStarted(ContainerRef { uid, container, attempt: plan.attempt })
            }
            Action::Signal { at, .. } => {
                let exit = Exit { code: 143, finished_ms: now.wall_ms, ..Exit::default() };
                Input::ContainerExited { at, exit }
            }
            Action::RunHook { at, hook, .. } => Input::HookDone { at, hook, error: None },
            Action::RunProbe { at, kind, .. } => Input::Probed { at, kind, ok: true, output: String::new() },
            Action::RemoveSandbox { uid } => Input::SandboxRemoved { uid },
            Action::RemovePod { uid } => Input::PodRemoved { uid },
            _ => return None,
        };
        Some((STEP_MS, outcome))
    }
}
