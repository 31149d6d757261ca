//! The agent's hands: carries out what the pods' machine decides, each action as a task of its own.
//!
//! In: `Action`s. Out: their outcomes as `Input`s, through one channel.
//! Never: loses an outcome; what must not fail (removal) is tried again until it does not.

use super::{
    Paths, StartOptions, convert,
    convert::VolumeSources,
    devices::{Devices, Given},
};
use crate::{
    device::{self, Clock},
    images::{self, ImageError as PullError},
    logs::{self, Begin, Logs},
    net::Cidr,
    plugins::{Plugins, lister::Held},
    probes::Prober,
    runtime::{self, Exited, Runtime, RuntimeError, spec::OtherRuntime},
    views::{Operation, Took},
    volumes,
};
use limpet_agent_core::{
    Input,
    metered::{Gates, Traffic},
    plan::{ContainerPlan, ENV_FILE_BYTES_MAX, ImageFacts, PodResources, Qos, ResourcePlan, SandboxPlan},
    pods::{Check, ContainerRef, Exit, HookKind, ImageError, ProbeKind, PullPolicy, RanAs, StartStage, Uid},
    volumes::{VolumeContent, VolumePlan},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};

const MESSAGE_BYTES_MAX: usize = 4096;
const MESSAGE_FROM_LOG_BYTES_MAX: usize = 2048;
const DRAIN: Duration = Duration::from_millis(1000);

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
    shared: Arc<Mutex<Shared>>,
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
        let tell = self.tell.clone();
        tokio::spawn(async move {
            let _ = tell.send(work.await);
        });
    }

    /// As `spawn`, for futures that stay on this thread.
    fn spawn_here(&self, work: impl Future<Output = Input> + 'static) {
        let tell = self.tell.clone();
        tokio::task::spawn_local(async move {
            let _ = tell.send(work.await);
        });
    }

    pub fn set_up_volumes(&self, uid: Uid, plans: Vec<VolumePlan>) {
        let hands = self.clone();
        let work = async move {
            let mut sources = VolumeSources::new();
            for plan in &plans {
                if let Err(message) = hands.set_up_volume(&uid, plan).await {
                    return Input::VolumesFailed { uid, volume: plan.name.clone(), message };
                }
                sources.insert(plan.name.clone(), convert::volume_source(&hands.paths.data, &uid, plan));
            }
            hands.lock().volumes.insert(uid.clone(), sources.into_iter().collect());
            Input::VolumesReady { uid }
        };
        self.spawn_here(work);
    }

    async fn set_up_volume(&self, uid: &Uid, plan: &VolumePlan) -> Result<(), String> {
        let data = &self.paths.data;
        if let VolumeContent::Image { reference, policy, secrets } = &plan.content {
            let want = images::Want { image: reference.clone(), policy: store_policy(*policy), pull_secrets: secrets.clone() };
            let held = self.gates.borrow().holds(Traffic::Images).map(String::from);
            if let Some(why) = held.filter(|_| self.images.find(reference).is_none()) {
                return Err(why);
            }
            let image = self.images.ensure(&want).await.map_err(|e| e.to_string())?;
            let dir = convert::volume_source(data, uid, plan);
            return volumes::image::set_up(&dir, &image.layers).map_err(|e| e.to_string());
        }
        convert::set_up_volume(data, uid, plan).map_err(|e| e.to_string())
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
        let spec = convert::sandbox(&plan, gateway, &device::host_file("/etc/resolv.conf"), self.pod_pids_limit);
        let hands = self.clone();
        self.spawn(async move {
            let begun = Instant::now();
            let made = hands.runtime.create_sandbox(&spec).await;
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
        let mut policy = store_policy(policy);
        let here = self.images.find(&image).is_some();
        let held = self.gates.borrow().holds(Traffic::Images).map(String::from);
        if here && held.is_some() && policy == images::Policy::Always {
            // Nobody is asked whether there is a newer one.
            policy = images::Policy::IfNotPresent;
        }
        let asks = policy == images::Policy::Always || (!here && policy == images::Policy::IfNotPresent);
        let held = held.filter(|_| asks);
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
                    let asked = image.pulled || (policy == images::Policy::Always && !image.unverified);
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

    pub fn start_container(&self, uid: Uid, plan: ContainerPlan, extras: Extras) {
        let at = ContainerRef { uid: uid.clone(), container: plan.name.as_str().into(), attempt: plan.attempt };
        let (sources, qos) = {
            let mut shared = self.lock();
            let message_from_log = plan.termination_message_from_log;
            shared.containers.insert(plan.id.clone(), Known { at: at.clone(), message_from_log });
            let sources = shared.sources(&uid);
            (sources, shared.qos.get(&uid).copied().unwrap_or_default())
        };
        let hands = self.clone();
        self.spawn(async move {
            let begun = Instant::now();
            let started = hands.try_start(&plan, &sources, qos, extras).await;
            hands.done(Operation::StartContainer, begun);
            let (stage, message) = match started {
                Ok(user) => {
                    hands.say(Input::ContainerUser { at: at.clone(), user });
                    return Input::ContainerStarted(at);
                }
                Err(failure) => failure,
            };
            log::warn!("pod {}: container {}: {message}", plan.pod_name, plan.name);
            hands.lock().containers.remove(&plan.id);
            Input::ContainerFailed { at, stage, message }
        });
    }

    async fn try_start(
        &self,
        plan: &ContainerPlan,
        sources: &VolumeSources,
        qos: Qos,
        extras: Extras,
    ) -> Result<RanAs, (StartStage, String)> {
        let create = |message: String| (StartStage::Create, message);
        let layers = self.lock().layers.get(&plan.image.id).cloned();
        let layers = layers.ok_or_else(|| create(format!("image {} is no longer here", plan.image.id)))?;
        let mut spec = convert::container(plan, qos, &layers, sources, &self.paths).map_err(create)?;
        let given = self.give_devices(plan).await.map_err(create)?;
        convert::add_devices(&mut spec, given);
        if !plan.handler.is_empty() {
            let other = self.other_runtimes.get(&plan.handler).cloned();
            spec.other_runtime = Some(other.ok_or_else(|| create(format!("no runtime for \"{}\" is configured", plan.handler)))?);
        }
        if extras.broker {
            spec.mounts.push(convert::broker_mount(&self.paths.run, &plan.pod_uid));
        }
        let kept = extras.kept;
        let message = convert::termination_file(&self.paths.data, &plan.pod_uid, &plan.name, plan.attempt);
        make_message_file(&message).map_err(|e| create(format!("termination message: {e}")))?;
        let path = logs::file(&self.paths.data, &plan.pod_uid, &plan.name, plan.attempt);
        logs::forget_old_attempts(&self.paths.data, &plan.pod_uid, &plan.name, plan.attempt, kept);
        let started = self.runtime.start_container(&spec).await.map_err(|e| match e {
            RuntimeError::Start(why) => (StartStage::Run, why),
            other => (StartStage::Create, other.to_string()),
        })?;
        let limits = logs::Limits { kept, ..self.limits };
        self.logs.start(&plan.id, &path, limits, sources_of(started.streams), Begin::Now);
        Ok(ran_as(&spec.user))
    }

    /// Devices that the container's limits name. What the node does not offer is the scheduler's to refuse.
    async fn give_devices(&self, plan: &ContainerPlan) -> Result<Given, String> {
        let mut given = Given::default();
        let owner = (plan.pod_uid.clone(), plan.name.clone());
        let live = self.live(&plan.pod_uid);
        for (resource, count) in &plan.resources.extended {
            if self.lock().devices.offers(resource) {
                self.lock().devices.give(&owner, &live, resource, *count, &mut given)?;
            } else if self.plugins.offers(resource) {
                self.plugins.give(&owner, &live, (resource, *count), &mut given).await?;
            }
        }
        plan.claimed.iter().try_for_each(|name| self.lock().devices.give_claimed(name, &mut given))?;
        Ok(given)
    }

    /// Containers of a pod that run or are being started.
    fn live(&self, uid: &str) -> BTreeSet<String> {
        let shared = self.lock();
        shared.containers.values().filter(|k| *k.at.uid == *uid).map(|k| k.at.container.to_string()).collect()
    }

    /// For the node's ResourceSlices.
    pub fn claimable_devices(&self) -> Vec<serde_json::Value> {
        self.lock().devices.claimable()
    }

    /// For the node: all that there are, and those that pods can have.
    pub fn device_counts(&self) -> BTreeMap<String, (u64, u64)> {
        let own = self.lock().devices.capacity();
        self.plugins.counts().into_iter().chain(own.into_iter().map(|(name, count)| (name, (count, count)))).collect()
    }

    /// For whoever asks which devices a container has.
    pub fn devices_of(&self, owner: &(String, String)) -> Vec<Held> {
        let own = self.lock().devices.held_by(owner);
        own.into_iter().chain(self.plugins.held_by(owner)).collect()
    }

    /// And which there are.
    pub fn devices_there(&self) -> Vec<Held> {
        let own = self.lock().devices.there();
        own.into_iter().chain(self.plugins.healthy()).collect()
    }

    /// A container of the agent before this one, with the annotations of its record.
    pub fn adopt(&self, id: &str, at: ContainerRef, notes: &BTreeMap<String, String>, kept: bool) {
        let message_from_log = notes.contains_key(convert::MESSAGE_FROM_LOG);
        let owner = (at.uid.to_string(), at.container.to_string());
        self.plugins.held(&owner, notes);
        let devices = self.runtime.devices_of(id);
        self.lock().devices.held(&owner, &devices, notes);
        let path = logs::file(&self.paths.data, &at.uid, &at.container, at.attempt);
        let streams = self.runtime.take_streams(id);
        self.lock().containers.insert(id.to_string(), Known { at, message_from_log });
        let limits = logs::Limits { kept, ..self.limits };
        self.logs.start(id, &path, limits, sources_of(streams), Begin::Again);
    }

    /// A container ended: first what it said, then that it ended.
    pub fn exited(&self, exited: Exited) {
        let Some(known) = self.lock().containers.remove(&exited.container_id) else { return };
        let hands = self.clone();
        self.spawn(async move {
            hands.logs.drain(&exited.container_id, DRAIN).await;
            let code = exited.ended.code;
            let message = hands.last_words(&known, code);
            Input::ContainerExited {
                at: known.at,
                exit: Exit {
                    code,
                    oom_killed: exited.ended.oom_killed,
                    message,
                    finished_ms: 0,
                    unknown: exited.ended.unseen,
                },
            }
        });
    }

    /// What a container said last that ended while no agent was there.
    pub fn last_words_of(&self, at: &ContainerRef, message_from_log: bool, code: i32) -> String {
        self.last_words(&Known { at: at.clone(), message_from_log }, code)
    }

    fn last_words(&self, known: &Known, code: i32) -> String {
        let at = &known.at;
        let file = convert::termination_file(&self.paths.data, &at.uid, &at.container, at.attempt);
        let message = read_some(&file, MESSAGE_BYTES_MAX);
        let _ = std::fs::remove_file(&file);
        if !message.is_empty() || code == 0 || !known.message_from_log {
            return message;
        }
        let path = logs::file(&self.paths.data, &at.uid, &at.container, at.attempt);
        logs::tail_text(&path, MESSAGE_FROM_LOG_BYTES_MAX)
    }

    pub fn signal(&self, id: &str, signal: &str) {
        let result = match signal_number(signal) {
            Some(libc::SIGKILL) => self.runtime.kill(id),
            Some(number) => self.runtime.signal(id, number),
            None => self.runtime.signal(id, libc::SIGTERM),
        };
        if let Err(e) = result {
            log::debug!("signal {signal} to {id}: {e}");
        }
    }

    /// `ip`: where the pod is reached.
    pub fn probe(&self, at: ContainerRef, kind: ProbeKind, check: Check, ip: String, timeout: Duration) {
        let (prober, id) = (self.prober.clone(), container_id(&at));
        self.spawn(async move {
            let (ok, output) = match prober.run(&check, &id, &ip, timeout).await {
                Ok(output) => (true, output),
                Err(why) => (false, why),
            };
            Input::Probed { at, kind, ok, output }
        });
    }

    pub fn hook(&self, at: ContainerRef, hook: HookKind, check: Check, ip: String, timeout: Duration) {
        let (prober, id) = (self.prober.clone(), container_id(&at));
        self.spawn(async move {
            let error = prober.run(&check, &id, &ip, timeout).await.err();
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

    pub fn remove_container(&self, id: String) {
        let hands = self.clone();
        tokio::spawn(async move {
            hands.logs.forget(&id);
            if let Err(e) = hands.runtime.remove_container(&id).await {
                log::warn!("container {id} is not removed yet: {e}");
            }
        });
    }

    pub fn remove_sandbox(&self, uid: Uid) {
        let hands = self.clone();
        self.spawn(async move {
            hands.until_done(&uid, None).await;
            Input::SandboxRemoved { uid }
        });
    }

    /// Whether a pod that is not torn down yet has this directory as a volume.
    pub fn has_mounted(&self, dir: &std::path::Path) -> bool {
        self.lock().volumes.values().flatten().any(|(_, source)| source == dir)
    }

    /// `left`: kept logs of the pod stay until the hub has them.
    pub fn remove_pod(&self, uid: Uid, left: Option<logs::Left>) {
        let hands = self.clone();
        self.spawn(async move {
            hands.until_done(&uid, Some(&left)).await;
            hands.lock().qos.remove(&uid);
            Input::PodRemoved { uid }
        });
    }

    async fn until_done(&self, uid: &Uid, files_too: Option<&Option<logs::Left>>) {
        let mut wait = Duration::from_millis(200);
        while let Err(why) = self.tear_down(uid, files_too).await {
            log::warn!("pod {uid} is not removed yet: {why}; trying again in {} ms", wait.as_millis());
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }

    /// `files_too`: the pod's directory goes as well, but for logs that are left to deliver.
    async fn tear_down(&self, uid: &Uid, files_too: Option<&Option<logs::Left>>) -> Result<(), String> {
        let text = |e: RuntimeError| e.to_string();
        for found in self.runtime.list().into_iter().filter(|f| *f.pod_uid == **uid) {
            self.logs.forget(&found.id);
            self.lock().containers.remove(&found.id);
            self.runtime.remove_container(&found.id).await.map_err(text)?;
        }
        self.runtime.remove_sandbox(uid).await.map_err(text)?;
        self.lock().devices.release(uid);
        self.plugins.release(uid);
        volumes::tear_down_pod(&self.paths.data, uid).map_err(|e| e.to_string())?;
        self.lock().volumes.remove(uid);
        if let Some(left) = files_too {
            if let Some(left) = left
                && let Err(e) = logs::put_aside(&self.paths.data, left)
            {
                log::warn!("pod {uid}: its logs cannot be kept: {e}");
            }
            let dir = self.paths.data.join("pods").join(&**uid);
            match std::fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("remove {}: {e}", dir.display()));
                }
                _ => {}
            }
        }
        Ok(())
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

fn sources_of(streams: crate::runtime::Streams) -> logs::Sources {
    logs::Sources { stdin: streams.stdin, stdout: streams.stdout, stderr: streams.stderr, tty: streams.tty }
}

pub fn ran_as(user: &runtime::User) -> RanAs {
    RanAs { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
}

fn image_facts(image: &images::Image) -> ImageFacts {
    let run = &image.config.config;
    ImageFacts {
        id: image.id.clone(),
        digest_ref: image.repo_digest.clone(),
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

/// Any user of the container may write its last words.
fn make_message_file(path: &PathBuf) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(path, b"")?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
}

fn read_some(path: &PathBuf, bytes_max: usize) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        let _ = file.take(bytes_max as u64).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        let offset: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix('+')?.parse().ok()? };
        return Some(34 + offset).filter(|n| *n <= 64);
    }
    format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok().map(|s| s as i32)
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_by_any_name() {
        for (name, want) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMIN", Some(34)),
            ("0", None),
            ("nonsense", None),
        ] {
            assert_eq!(super::signal_number(name), want, "{name}");
        }
    }
}
