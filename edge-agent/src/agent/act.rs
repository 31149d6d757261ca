//! The agent's hands: carries out what the pods' machine decides, each action as a task of its own.
//!
//! In: `Action`s. Out: their outcomes as `Input`s, through one channel.
//! Never: loses an outcome; what must not fail (removal) is tried again until it does not.

mod begin;
mod end;

pub use begin::ran_as;
pub use end::DRAIN;

use super::{Paths, StartOptions, convert, convert::VolumeSources, devices::Devices};
use crate::{
    device::{self, Clock},
    images::{self, ImageError as PullError},
    logs::{self, Logs},
    net::Cidr,
    plugins::Plugins,
    probes::{Failure, Prober},
    runtime::{Runtime, spec::OtherRuntime},
    views::{Operation, Took},
    volumes,
};
use limpet_agent_core::{
    Input,
    metered::{Gates, Traffic},
    plan::{ENV_FILE_BYTES_MAX, ImageFacts, PodResources, Qos, ResourcePlan, SandboxPlan},
    pods::{Check, ContainerRef, HookKind, ImageError, ProbeKind, PullPolicy, Uid},
    volumes::{VolumeContent, VolumePlan},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc, watch};

/// Containers that are being made at once, each some 30 KiB; the others of a board that starts wait as plans.
const STARTS_MAX: usize = 4;
/// Fewer: a pod that has its sandbox shall run before the next one gets its own.
const SANDBOXES_MAX: usize = 2;

/// Everything that tasks need; cheap to clone.
#[derive(Clone)]
pub struct Hands {
    pub runtime: Runtime,
    pub images: images::Store,
    pub logs: Logs,
    pub clock: Clock,
    pub paths: Paths,
    pub plugins: Plugins,
    limits: logs::Limits,
    pod_pids_limit: Option<u64>,
    other_runtimes: Arc<BTreeMap<String, OtherRuntime>>,
    /// What may travel; the agent's loop says so.
    pub gates: watch::Sender<Gates>,
    tell: mpsc::UnboundedSender<Input>,
    prober: Arc<Prober>,
    turns: Arc<Turns>,
    shared: Arc<Mutex<Shared>>,
}

/// Who may begin; in the order of asking.
struct Turns {
    starts: Semaphore,
    sandboxes: Semaphore,
}

#[derive(Default)]
struct Shared {
    /// Containers by id, to name exits.
    containers: BTreeMap<String, Known>,
    /// By name, where each volume is.
    volumes: BTreeMap<Uid, Box<[(String, PathBuf)]>>,
    cidr: Option<Cidr>,
    host_ips: Vec<String>,
    qos: BTreeMap<Uid, Qos>,
    /// Layers of the images that were ensured, by image id, lowest first.
    layers: BTreeMap<String, Vec<PathBuf>>,
    devices: Devices,
    /// Something did not fit on the disk.
    disk_full: bool,
    /// For `/metrics`.
    took: Took,
}

impl Shared {
    fn sources(&self, uid: &Uid) -> VolumeSources {
        self.volumes.get(uid).map(|all| all.iter().cloned().collect()).unwrap_or_default()
    }
}

#[derive(Clone)]
struct Known {
    at: ContainerRef,
    message_from_log: bool,
}

struct Asking {
    policy: images::Policy,
    /// Somebody is asked.
    asks: bool,
    /// Why not yet.
    held: Option<String>,
}

/// What the agent's own annotations ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// The hub keeps the container's log.
    pub kept: bool,
    /// The container gets the socket of the board's broker.
    pub broker: bool,
}

impl Hands {
    pub fn new(
        options: &StartOptions,
        runtime: Runtime,
        images: images::Store,
        clock: Clock,
    ) -> (Hands, mpsc::UnboundedReceiver<Input>) {
        let (tell, outcomes) = mpsc::unbounded_channel();
        let limits = logs::Limits {
            file_bytes_max: options.config.container_log_bytes_max,
            files_max: options.config.container_log_files_max,
            kept: false,
        };
        let devices = Devices::new(options.config.devices.clone(), options.config.cdi_dirs.clone());
        let plugins = Plugins::new(
            options.config.device_plugin_dir(&options.paths),
            &options.paths.data,
            options.config.cdi_dirs.clone(),
            devices.names(),
        );
        let prober = Arc::new(Prober { runtime: runtime.clone(), clock: clock.clone() });
        let hands = Hands {
            runtime,
            images,
            logs: Logs::new(options.paths.run.join("logs")),
            clock,
            paths: options.paths.clone(),
            plugins,
            limits,
            pod_pids_limit: options.config.pod_pids_limit,
            other_runtimes: Arc::new(options.config.runtimes.clone()),
            gates: watch::channel(Gates::default()).0,
            tell,
            prober,
            turns: Arc::new(Turns { starts: Semaphore::new(STARTS_MAX), sandboxes: Semaphore::new(SANDBOXES_MAX) }),
            shared: Arc::new(Mutex::new(Shared { devices, ..Shared::default() })),
        };
        (hands, outcomes)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how long something took, or looks at what was noted.
    pub fn took<T>(&self, note: impl FnOnce(&mut Took) -> T) -> T {
        note(&mut self.lock().took)
    }

    fn done(&self, operation: Operation, begun: Instant) {
        self.took(|t| t.operation(operation, begun.elapsed()));
    }

    /// For work that is done elsewhere.
    pub fn teller(&self) -> mpsc::UnboundedSender<Input> {
        self.tell.clone()
    }

    fn say(&self, input: Input) {
        let _ = self.tell.send(input);
    }

    pub fn set_network(&self, cidr: Option<Cidr>, host_ips: Vec<String>) {
        let mut shared = self.lock();
        shared.cidr = cidr;
        shared.host_ips = host_ips;
    }

    fn spawn(&self, work: impl Future<Output = Input> + Send + 'static) {
        // Apart: a future that is moved into another one takes its room twice.
        let (tell, work) = (self.tell.clone(), Box::pin(work));
        tokio::spawn(async move {
            let _ = tell.send(work.await);
        });
    }

    /// As `spawn`, for futures that stay on this thread.
    fn spawn_here(&self, work: impl Future<Output = Input> + 'static) {
        let (tell, work) = (self.tell.clone(), Box::pin(work));
        tokio::task::spawn_local(async move {
            let _ = tell.send(work.await);
        });
    }

    pub fn set_up_volumes(&self, uid: Uid, plans: Vec<VolumePlan>) {
        let hands = self.clone();
        let work = async move {
            let mut sources = VolumeSources::new();
            for plan in &plans {
                if let Err(failed) = hands.set_up_volume(&uid, plan).await {
                    return failed;
                }
                sources.insert(plan.name.clone(), convert::volume_source(&hands.paths.data, &uid, plan));
            }
            hands.lock().volumes.insert(uid.clone(), sources.into_iter().collect());
            Input::VolumesReady { uid }
        };
        self.spawn_here(work);
    }

    async fn set_up_volume(&self, uid: &Uid, plan: &VolumePlan) -> Result<(), Input> {
        let data = &self.paths.data;
        let failed = |message| Input::VolumesFailed { uid: uid.clone(), volume: plan.name.clone(), message };
        if let VolumeContent::Image { reference, policy, secrets } = &plan.content {
            let layers = self.image_of_volume(uid, &plan.name, (reference, *policy), secrets).await?;
            let dir = convert::volume_source(data, uid, plan);
            return volumes::image::set_up(&dir, &layers).map_err(|e| failed(e.to_string()));
        }
        convert::set_up_volume(data, uid, plan).map_err(|e| failed(e.to_string()))
    }

    async fn image_of_volume(
        &self,
        uid: &Uid,
        volume: &str,
        want: (&String, PullPolicy),
        secrets: &[Vec<u8>],
    ) -> Result<Vec<PathBuf>, Input> {
        let (uid, volume, image) = (uid.clone(), volume.to_string(), want.0.clone());
        let Asking { policy, asks, held } = self.asking(&image, want.1);
        if let Some(message) = held {
            return Err(Input::VolumesFailed { uid, volume, message });
        }
        if asks {
            self.say(Input::VolumeImagePulling { uid: uid.clone(), image: image.clone() });
        }
        let begun = Instant::now();
        let want = images::Want { image: image.clone(), policy, pull_secrets: secrets.to_vec() };
        let here = match self.images.ensure(&want).await {
            Ok(here) => here,
            Err(e) => {
                self.done(Operation::PullImage, begun);
                self.lock().disk_full |= e.is_no_space();
                let (error, message) = (image_error(&e), e.to_string());
                return Err(Input::VolumeImageFailed { uid, volume, image, error, message });
            }
        };
        if here.was_asked_for(policy) {
            self.done(Operation::PullImage, begun);
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.say(Input::VolumeImagePulled { uid, image, size_bytes: image_facts(&here).size_bytes, took_ms });
        }
        Ok(here.layers)
    }

    /// How an image is asked for now, whatever the manifest says, and what holds that back.
    fn asking(&self, image: &str, policy: PullPolicy) -> Asking {
        let mut policy = store_policy(policy);
        let here = self.images.find(image).is_some();
        let held = self.gates.borrow().holds(Traffic::Images).map(String::from);
        if here && held.is_some() && policy == images::Policy::Always {
            // Nobody is asked whether there is a newer one.
            policy = images::Policy::IfNotPresent;
        }
        let asks = policy == images::Policy::Always || (!here && policy == images::Policy::IfNotPresent);
        // Nobody is asked for what is no name.
        let asks = asks && limpet_oci::Reference::parse(image).is_ok();
        Asking { policy, asks, held: held.filter(|_| asks) }
    }

    pub fn update_volumes(&self, uid: &Uid, plans: &[VolumePlan]) {
        for plan in plans {
            match convert::set_up_volume(&self.paths.data, uid, plan) {
                Ok(()) => log::info!("pod {uid}: volume {} shows its new content", plan.name),
                Err(e) => log::error!("pod {uid}: volume {} keeps its old content: {e}", plan.name),
            }
        }
    }

    pub fn create_sandbox(&self, uid: Uid, plan: SandboxPlan) {
        let (gateway, host_ips) = {
            let mut shared = self.lock();
            shared.qos.insert(uid.clone(), plan.qos);
            (shared.cidr.map(|c| c.gateway()), shared.host_ips.clone())
        };
        let hands = self.clone();
        self.spawn(async move {
            let _turn = hands.turns.sandboxes.acquire().await;
            let begun = Instant::now();
            let spec = convert::sandbox(&plan, gateway, &device::host_file("/etc/resolv.conf"), hands.pod_pids_limit);
            let made = Box::pin(hands.runtime.create_sandbox(&spec)).await;
            hands.done(Operation::RunPodSandbox, begun);
            match made {
                Ok(info) => {
                    let ips = info.ip.map_or(host_ips, |ip| vec![ip.to_string()]);
                    Input::SandboxReady { uid, ips }
                }
                Err(e) => Input::SandboxFailed { uid, message: e.to_string() },
            }
        });
    }

    pub fn pull_image(&self, uid: Uid, container: Arc<str>, want: (String, PullPolicy), secrets: Vec<Vec<u8>>) {
        let (image, policy) = want;
        let Asking { policy, asks, held } = self.asking(&image, policy);
        if let Some(message) = held.clone() {
            self.say(Input::ImageHeld { uid: uid.clone(), container: container.clone(), message });
        } else if asks {
            self.say(Input::ImagePulling { uid: uid.clone(), container: container.clone() });
        }
        let hands = self.clone();
        let begun = self.clock.mono_ms();
        self.spawn_here(async move {
            if held.is_some() {
                if let Err(message) = hands.images_may_travel(&uid).await {
                    return Input::ImageFailed { uid, container, error: ImageError::Pull, message };
                }
                hands.say(Input::ImagePulling { uid: uid.clone(), container: container.clone() });
            }
            let want = images::Want { image, policy, pull_secrets: secrets };
            let pull = Instant::now();
            match hands.images.ensure(&want).await {
                Ok(image) => {
                    hands.lock().layers.insert(image.id.clone(), image.layers.clone());
                    let asked = image.was_asked_for(policy);
                    if asked {
                        hands.done(Operation::PullImage, pull);
                    }
                    let pulled_in_ms = asked.then(|| hands.clock.mono_ms().saturating_sub(begun));
                    Input::ImageReady { uid, container, image: image_facts(&image), pulled_in_ms }
                }
                Err(e) => {
                    log::warn!("pod {uid}: {e}");
                    hands.done(Operation::PullImage, pull);
                    hands.lock().disk_full |= e.is_no_space();
                    Input::ImageFailed { uid, container, error: image_error(&e), message: e.to_string() }
                }
            }
        });
    }

    /// Waits until the link policy lets images travel; an error when the pod is gone by then.
    async fn images_may_travel(&self, uid: &Uid) -> Result<(), String> {
        let mut gates = self.gates.subscribe();
        let _ = gates.wait_for(|g| g.holds(Traffic::Images).is_none()).await;
        match self.lock().volumes.contains_key(uid) {
            true => Ok(()),
            false => Err("the pod is gone".into()),
        }
    }

    /// Whether something did not fit on the disk since the last time.
    pub fn take_disk_full(&self) -> bool {
        std::mem::take(&mut self.lock().disk_full)
    }

    pub fn read_env_files(&self, uid: Uid, container: Arc<str>, wanted: BTreeSet<(String, String)>) {
        let sources = self.lock().sources(&uid);
        self.spawn(async move {
            let read = |(volume, path): (String, String)| {
                let text = match sources.get(&volume) {
                    Some(source) => volumes::read_text(source, &path, ENV_FILE_BYTES_MAX)?,
                    None => None,
                };
                Ok(((volume, path), text))
            };
            let files = wanted.into_iter().map(read).collect();
            Input::EnvFilesRead { uid, container, files }
        });
    }

    /// `ip`: where the pod is reached.
    pub fn probe(&self, at: ContainerRef, kind: ProbeKind, check: Check, ip: String, timeout: Duration) {
        let (prober, id) = (self.prober.clone(), container_id(&at));
        self.spawn(async move {
            match prober.run(&check, &id, &ip, timeout).await {
                Ok(output) => Input::Probed { at, kind, ok: true, output },
                Err(failure) if failure.unmade => Input::NotProbed { at, kind, why: failure.why },
                Err(failure) => Input::Probed { at, kind, ok: false, output: failure.why },
            }
        });
    }

    pub fn hook(&self, at: ContainerRef, hook: HookKind, check: Check, ip: String, timeout: Duration) {
        let (prober, id) = (self.prober.clone(), container_id(&at));
        self.spawn(async move {
            let error = prober.run(&check, &id, &ip, timeout).await.err().map(Failure::discreet);
            Input::HookDone { at, hook, error }
        });
    }

    pub fn resize(&self, at: ContainerRef, resources: &ResourcePlan) {
        let set = self.runtime.update_container(&container_id(&at), &convert::resources(resources));
        self.say(Input::Resized { at, error: set.err().map(|e| e.to_string()) });
    }

    pub fn resize_pod(&self, uid: Uid, resources: &PodResources, last: bool) {
        let set = self.runtime.update_pod(&uid, &convert::pod_resources(resources, self.pod_pids_limit));
        self.say(Input::PodResized { uid, last, error: set.err().map(|e| e.to_string()) });
    }
}

fn store_policy(policy: PullPolicy) -> images::Policy {
    match policy {
        PullPolicy::Always => images::Policy::Always,
        PullPolicy::IfNotPresent => images::Policy::IfNotPresent,
        PullPolicy::Never => images::Policy::Never,
    }
}

pub fn container_id(at: &ContainerRef) -> String {
    limpet_agent_core::plan::container_id(&at.uid, &at.container, at.attempt)
}

fn image_facts(image: &images::Image) -> ImageFacts {
    let run = &image.config.config;
    ImageFacts {
        id: image.id.clone(),
        digest_ref: image.repo_digest.clone(),
        name: image.name.clone(),
        entrypoint: run.entrypoint.clone(),
        cmd: run.cmd.clone(),
        env: run.env.clone(),
        user: run.user.clone(),
        working_dir: run.working_dir.clone(),
        stop_signal: run.stop_signal.clone(),
        size_bytes: image.bytes,
    }
}

fn image_error(error: &PullError) -> ImageError {
    match error.reason() {
        "InvalidImageName" => ImageError::InvalidName,
        "ErrImageNeverPull" => ImageError::NeverPull,
        "RegistryUnavailable" => ImageError::Unavailable,
        "SignatureValidationFailed" => ImageError::Signature,
        _ => ImageError::Pull,
    }
}
