//! Runs the pods of the desired set: one state machine a pod, for all of its life.
//!
//! In: what happened (`Input`), the desired set, the time. Out: what to do (`Action`), in order, from `poll`.
//! The outcome of every action comes back as an input; an outcome that comes twice or too late does no harm.
//! Never: waits, does I/O, or starts a container twice for one attempt.

mod admit;
mod backoff;
mod container;
mod events;
pub(crate) mod image;
mod inputs;
mod manager;
mod memory;
mod next;
mod note;
mod outcome;
mod pod;
mod policy;
mod prepare;
mod probe;
mod probing;
mod reading;
mod recall;
mod remembered;
mod resize;
mod shown;
mod statics;
mod status;
mod stop;
mod tokens;
mod volume_images;

pub use manager::{PodManager, PodView};
pub use memory::{ContainerMemory, PodMemory, Terminal, Terminated};
pub use note::PodNote;
pub use probe::ProbeKind;
pub use statics::{StaticPod, static_pod};

use crate::{
    api::Handler,
    plan::{ContainerPlan, EnvFiles, HostFacts, ImageFacts, PodResources, ResourcePlan, SandboxPlan},
    volumes::VolumePlan,
};
use limpet_protocol::ItemKey;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

pub type Uid = Arc<str>;

/// Which container of which pod. `attempt` tells a container from its predecessors; it equals the restart count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerRef {
    pub uid: Uid,
    pub container: Arc<str>,
    pub attempt: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// From the journal; only before `Begin`.
    Remembered(PodMemory),
    /// What the runtime found at the start; only before `Begin`.
    Adopted(AdoptedPod),
    /// What the agent before this one noted since the board was switched on; only before `Begin`.
    Noted(PodNote),
    /// Journal and runtime have said all: start to work.
    Begin,
    /// Items of the set that were put or removed.
    Changed(Vec<ItemKey>),
    Host(HostFacts),
    /// All manifests that lie on the board itself.
    Static(Vec<StaticPod>),
    /// `wake_at` has passed.
    Tick,
    VolumesReady { uid: Uid },
    VolumesFailed { uid: Uid, volume: String, message: String },
    /// The image of a volume is not here; its download has begun.
    VolumeImagePulling { uid: Uid, image: String },
    VolumeImagePulled { uid: Uid, image: String, size_bytes: u64, took_ms: u64 },
    /// Instead of `VolumesFailed`, where it is an image that does not come.
    VolumeImageFailed { uid: Uid, volume: String, image: String, error: ImageError, message: String },
    SandboxReady { uid: Uid, ips: Vec<String> },
    SandboxFailed { uid: Uid, message: String },
    /// The image is not here; its download has begun.
    ImagePulling { uid: Uid, container: Arc<str> },
    /// The image is not here, and the sentence says why its download waits.
    ImageHeld { uid: Uid, container: Arc<str>, message: String },
    ImageReady { uid: Uid, container: Arc<str>, image: ImageFacts, pulled_in_ms: Option<u64> },
    ImageFailed { uid: Uid, container: Arc<str>, error: ImageError, message: String },
    /// Answer to `ReadEnvFiles`; the sentence says what was there instead of a file of variables.
    EnvFilesRead { uid: Uid, container: Arc<str>, files: Result<EnvFiles, String> },
    ContainerStarted(ContainerRef),
    /// Who the container runs as; said before `ContainerStarted`, and again of what was adopted.
    ContainerUser { at: ContainerRef, user: RanAs },
    ContainerFailed { at: ContainerRef, stage: StartStage, message: String },
    ContainerExited { at: ContainerRef, exit: Exit },
    Probed { at: ContainerRef, kind: ProbeKind, ok: bool, output: String },
    /// The probe could not be made: a port without a number, a command that cannot be started.
    NotProbed { at: ContainerRef, kind: ProbeKind, why: String },
    HookDone { at: ContainerRef, hook: HookKind, error: Option<String> },
    /// An image that no pod wants yet has come, or the sentence says why not. Not the pods' affair: the shell keeps it.
    AskedImage { image: String, error: Option<String> },
    /// The node needs what this pod uses, or the pod uses more than it may; the sentence is for its status.
    Evict { uid: Uid, message: String },
    /// Answer to `Resize`.
    Resized { at: ContainerRef, error: Option<String> },
    /// Answer to `ResizePod`.
    PodResized { uid: Uid, last: bool, error: Option<String> },
    SandboxRemoved { uid: Uid },
    PodRemoved { uid: Uid },
}

/// The user and groups of a container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RanAs {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// How far a container came before it failed to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartStage {
    /// `CreateContainerConfigError`: what it asks for cannot be; tried again.
    Config,
    /// `CreateContainerError`: nothing ran; tried again.
    Create,
    /// `StartError`, exit code 128: counts as a run that failed.
    Run,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// `ErrImagePull`
    Pull,
    /// `ErrImageNeverPull`
    NeverPull,
    /// `InvalidImageName`
    InvalidName,
    /// `RegistryUnavailable`
    Unavailable,
    /// `SignatureValidationFailed`
    Signature,
}

impl ImageError {
    /// Something outside may change: shown first, then backed off from.
    pub(crate) fn is_of_registry(self) -> bool {
        matches!(self, ImageError::Pull | ImageError::Unavailable | ImageError::Signature)
    }

    pub fn reason(self) -> &'static str {
        match self {
            ImageError::Pull => "ErrImagePull",
            ImageError::NeverPull => "ErrImageNeverPull",
            ImageError::InvalidName => "InvalidImageName",
            ImageError::Unavailable => "RegistryUnavailable",
            ImageError::Signature => "SignatureValidationFailed",
        }
    }
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exit {
    /// 128 + signal when a signal ended it.
    pub code: i32,
    pub oom_killed: bool,
    /// Termination message, at most 4096 bytes.
    pub message: String,
    /// When it ended, by the wall clock; 0 = now.
    pub finished_ms: u64,
    /// The exit code is not known (power cut, lost record).
    pub unknown: bool,
}

/// A pod of which the runtime still has something.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdoptedPod {
    pub uid: String,
    /// Addresses, when the sandbox stands.
    pub sandbox: Option<Vec<String>>,
    pub containers: Vec<AdoptedContainer>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdoptedContainer {
    pub name: String,
    pub attempt: u32,
    /// Wall clock.
    pub started_ms: u64,
    /// `None`: it runs.
    pub exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookKind {
    PostStart,
    PreStop,
}

/// A probe or hook with names of ports already resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    Exec(Vec<String>),
    Http { host: Option<String>, port: u16, path: String, https: bool, headers: Vec<(String, String)> },
    Tcp { host: Option<String>, port: u16 },
    Grpc { port: u16, service: String },
    Sleep { seconds: u32 },
    /// A handler without anything in it, or a port name that no container has.
    Broken(String),
}

/// What to do. Every action but the last seven is answered by inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answer: `VolumesReady`, `VolumesFailed` or `VolumeImageFailed`, before it more of images. Repeating it does no harm.
    SetupVolumes { uid: Uid, namespace: String, name: String, volumes: Vec<VolumePlan> },
    /// Answer: `SandboxReady` or `SandboxFailed`.
    CreateSandbox { uid: Uid, plan: Box<SandboxPlan> },
    /// Answer: `ImagePulling` perhaps, then `ImageReady` or `ImageFailed`. `secrets` are `.dockerconfigjson` texts.
    PullImage { uid: Uid, container: Arc<str>, image: String, policy: PullPolicy, secrets: Vec<Vec<u8>> },
    /// Files of the pod's volumes, as (volume, path). Answer: `EnvFilesRead`.
    ReadEnvFiles { uid: Uid, container: Arc<str>, files: BTreeSet<(String, String)> },
    /// Answer: `ContainerStarted` or `ContainerFailed`; later `ContainerExited`.
    StartContainer { uid: Uid, plan: Box<ContainerPlan> },
    /// Answer: `ContainerExited` when it ends. `signal` is a name such as `SIGTERM` or `SIGKILL`.
    Signal { at: ContainerRef, signal: String },
    /// Answer: `HookDone`.
    RunHook { at: ContainerRef, hook: HookKind, check: Check, timeout_ms: u64 },
    /// Answer: `Probed`.
    RunProbe { at: ContainerRef, kind: ProbeKind, check: Check, timeout_ms: u64 },
    /// New limits of a running container. Answer: `Resized`.
    Resize { at: ContainerRef, resources: ResourcePlan },
    /// New limits of the pod's own group: room for what its containers had and get, or the last word. Answer: `PodResized`.
    ResizePod { uid: Uid, resources: PodResources, last: bool },
    /// Releases network, cgroups, mounts, writable layers; keeps logs. Answer: `SandboxRemoved`.
    RemoveSandbox { uid: Uid },
    /// Kills what still runs and removes everything of the pod. Answer: `PodRemoved`.
    RemovePod { uid: Uid },
    /// Files changed; swap them atomically. No answer.
    UpdateVolumes { uid: Uid, volumes: Vec<VolumePlan> },
    /// Releases an ended container that has a successor; its log stays. No answer.
    RemoveContainer { at: ContainerRef },
    /// v1 PodStatus as JSON, whenever it changed. No answer.
    Report { uid: Uid, namespace: String, name: String, status: Vec<u8> },
    /// The pod was deleted and nothing of it is left. No answer.
    PodGone { uid: Uid, namespace: String, name: String },
    /// A v1 Event as JSON. No answer.
    Event(Vec<u8>),
    /// To the journal. No answer.
    Remember(PodMemory),
    /// To memory that lasts as long as the board is on. No answer.
    Note(PodNote),
    /// From the journal and that memory. No answer.
    Forget { uid: Uid },
    /// The hub's mirrors of static pods are not what they should be: tell it again. No answer.
    Remirror,
    /// A bound token nears its end. No answer; the new one comes as an item.
    AskToken(ItemKey),
}

/// By which something is known again that is not kept itself. Not for what a stranger may choose freely to harm others.
fn mark(what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A handler as a check; `ports` are the container's.
pub(crate) fn check_of(handler: &Handler, container: &crate::api::Container) -> Check {
    use crate::api::IntOrString;
    let port = |wanted: &Option<IntOrString>| -> Result<u16, String> {
        match wanted {
            Some(IntOrString::Int(n)) => u16::try_from(*n).map_err(|_| format!("invalid port number: {n}")),
            Some(IntOrString::Text(name)) => match name.parse() {
                Ok(number) => Ok(number),
                Err(_) => container
                    .ports
                    .iter()
                    .find(|p| p.name.as_deref() == Some(name))
                    .map(|p| p.container_port)
                    .ok_or_else(|| format!("couldn't find port: \"{name}\" in container {}", container.name)),
            },
            None => Err("no port given".into()),
        }
    };
    let some = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    if let Some(exec) = &handler.exec {
        Check::Exec(exec.command.clone())
    } else if let Some(http) = &handler.http_get {
        match port(&http.port) {
            Ok(port) => Check::Http {
                host: some(&http.host),
                port,
                path: some(&http.path).unwrap_or_else(|| "/".into()),
                https: http.scheme.as_deref().is_some_and(|s| s.eq_ignore_ascii_case("https")),
                headers: http.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
            },
            Err(why) => Check::Broken(why),
        }
    } else if let Some(tcp) = &handler.tcp_socket {
        match port(&tcp.port) {
            Ok(port) => Check::Tcp { host: some(&tcp.host), port },
            Err(why) => Check::Broken(why),
        }
    } else if let Some(grpc) = &handler.grpc {
        Check::Grpc { port: grpc.port, service: grpc.service.clone().unwrap_or_default() }
    } else if let Some(sleep) = &handler.sleep {
        Check::Sleep { seconds: sleep.seconds }
    } else {
        Check::Broken("missing probe handler".into())
    }
}

#[cfg(test)]
mod tests;
