//! Opens everything: directories, journal, identity, runtime, images; joins when it must; then runs the loop.
//!
//! In: options. Out: the process's exit code. Offline, nothing here waits for the hub: a board that has joined before
//! starts its pods from the journal at once.

use super::{Config, Paths, act::Hands, node, state::Agent};
use crate::{
    device::{self, Clock},
    images,
    journal::{DeviceKey, Journal},
    keeper::{self, client::Keeper},
    link::{self, Identity, backoff::Backoff, identity, join, join::JoinError},
    runtime::{Runtime, RuntimeOptions},
    sign::{For, Sign},
    volumes,
};
use limpet_agent_core::{Record, Sync, metered::Use, pods::PodMemory};
use std::{collections::BTreeMap, os::fd::OwnedFd, path::Path, sync::Arc};
use tokio::sync::watch;

#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    pub paths: Paths,
    pub config: Config,
    pub join: Option<String>,
    pub node_name: Option<String>,
    pub program: std::path::PathBuf,
}

/// What the journal gave back.
pub struct Replayed {
    pub sync: Sync,
    pub memories: BTreeMap<String, PodMemory>,
    pub version_ceiling: u64,
    pub time_floor: u64,
    /// Events that the hub does not have yet.
    pub events: BTreeMap<u64, Vec<u8>>,
    pub link: Use,
}

/// Runs the agent until it is told to stop. `keeper_socket` is the inherited fd 3.
pub fn run(options: StartOptions, keeper_socket: OwnedFd) -> i32 {
    let mut sign = Sign::new(&options.paths.run, options.config.led.as_deref());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_stack_size(256 * 1024)
        .build();
    let result = match runtime {
        Ok(runtime) => {
            tokio::task::LocalSet::new().block_on(&runtime, start(options, keeper_socket))
        }
        Err(e) => Err(Stop::Again(format!("no event loop: {e}"))),
    };
    match result {
        Ok(()) => 0,
        Err(Stop::Again(why)) => {
            log::error!("{why}");
            1
        }
        Err(Stop::Update) => keeper::EXIT_UPDATE,
        Err(Stop::Never(why)) => {
            log::error!("{why}");
            sign.waits(For::Person, &format!("this board waits for somebody: {why}"));
            keeper::EXIT_CONFIG
        }
    }
}

/// Why the agent ends; the keeper starts it again only after `Again`.
pub enum Stop {
    Again(String),
    Never(String),
    /// Another program is in place and is to be started.
    Update,
}

fn again(what: &str) -> impl Fn(std::io::Error) -> Stop {
    move |e| Stop::Again(format!("{what}: {e}"))
}

async fn start(options: StartOptions, socket: OwnedFd) -> Result<(), Stop> {
    let paths = &options.paths;
    make_directories(paths).map_err(Stop::Never)?;
    let _lock = lock(&paths.data)?;
    let (keeper, restored, exits) =
        Keeper::connect(socket).await.map_err(|e| Stop::Again(format!("the keeper: {e}")))?;
    let clock = Clock::new();
    let tpm = link::tpm::load_or_choose(&paths.data, &options.config.tpm).map_err(again("the device's key"))?;
    let key = match tpm.and_then(|tpm| DeviceKey::from_bytes(tpm.journal_key())) {
        Some(key) => key,
        None => DeviceKey::load_or_create(&paths.data).map_err(again("the device's key"))?,
    };
    let (journal, records) = Journal::open(&paths.data, key).map_err(|e| Stop::Again(e.to_string()))?;
    let replayed = replay(records);
    clock.raise(replayed.time_floor);
    let identity = identity_or_join(&options, &clock).await?;
    let name = &identity.answer.node_name;
    log::info!("limpet-agent {} is node {name}", env!("CARGO_PKG_VERSION"));
    let cidr = node::pod_cidr(replayed.sync.items(), name);
    let runtime_options = RuntimeOptions {
        run_dir: paths.run.clone(),
        data_dir: paths.data.clone(),
        cgroup_parent: options.config.cgroup_parent(paths),
        pod_cidr: cidr,
        helper: None,
    };
    match volumes::travel::share_root() {
        Ok(false) => {}
        Ok(true) => log::info!("the root file system is a shared mount now, so that mountPropagation works"),
        Err(e) => log::warn!("the root file system cannot be made a shared mount, pods with mountPropagation are refused: {e}"),
    }
    let (runtime, exited) = Runtime::open(runtime_options, keeper, restored, exits)
        .await
        .map_err(|e| Stop::Again(format!("the container runtime: {e}")))?;
    match runtime.try_users().await {
        Ok(()) => {}
        Err(e) => log::warn!("pods with hostUsers: false are refused here: {e}"),
    }
    let images = open_images(&options, &clock, &identity)?;
    let (hands, outcomes) = Hands::new(&options, runtime, images, clock.clone());
    if let Err(why) = hands.plugins.start() {
        log::error!("{why}");
    }
    let (know, identity_now) = watch::channel(Arc::new(identity));
    let link_options = link::LinkOptions {
        keepalive_s: Some(options.config.keepalive_seconds).filter(|s| *s > 0),
        probe_s: Some(options.config.probe_seconds).filter(|s| *s > 0),
        backoff_s_max: options.config.reconnect_seconds_max,
        mqtt: options.config.mqtt.clone(),
        broker: options.config.broker.clone(),
        hardware: device::hardware(options.config.hardware_id.as_deref()),
        hold: Arc::default(),
        proxy: options.config.proxy.as_deref().and_then(|p| link::road::Proxy::parse(p).ok()),
    };
    let (so_far, link_clock) = (link_options, clock.clone());
    let mut agent = Agent::new(options, clock, journal, replayed, hands, know);
    agent.begin(cidr).await;
    agent.open_pod_resources();
    let link_options = link::LinkOptions { hold: agent.meters.hold.clone(), ..so_far };
    let link = link::session::start(identity_now, link_clock, link_options);
    agent.run(link, outcomes, exited).await
}

fn make_directories(paths: &Paths) -> Result<(), String> {
    for (what, dir) in [("data", &paths.data), ("run", &paths.run)] {
        std::fs::create_dir_all(dir).map_err(|e| {
            format!("the {what} directory {} cannot be made: {e}; run as root or name another", dir.display())
        })?;
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711));
    }
    Ok(())
}

/// Two agents over one journal would each undo the other's work. The lock ends with this process.
fn lock(data: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, Stop> {
    let path = data.join("lock");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path).map_err(again("the lock"))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|_| {
        Stop::Never(format!(
            "another agent works in {}; stop it, or name another directory with --data-dir",
            data.display()
        ))
    })
}

fn replay(records: Vec<Record>) -> Replayed {
    let mut all = Replayed {
        sync: Sync::new(),
        memories: BTreeMap::new(),
        version_ceiling: 0,
        time_floor: 0,
        events: BTreeMap::new(),
        link: Use::default(),
    };
    for record in records {
        match record {
            Record::Pod(memory) => {
                all.memories.insert(memory.uid.clone(), memory);
            }
            Record::ForgetPod(uid) => {
                all.memories.remove(&uid);
            }
            Record::VersionCeiling(n) => all.version_ceiling = all.version_ceiling.max(n),
            Record::Event(number, json) => {
                all.events.insert(number, json);
            }
            Record::EventsTaken(number) => all.events = all.events.split_off(&(number + 1)),
            Record::LinkUse(month_s, sent, received) => all.link = Use { month_s, sent, received },
            Record::TimeFloor(n) => all.time_floor = all.time_floor.max(n),
            other => all.sync.replay(other),
        }
    }
    all
}

async fn identity_or_join(options: &StartOptions, clock: &Clock) -> Result<Identity, Stop> {
    let data = &options.paths.data;
    if let Some(identity) = identity::load(data).map_err(again("the identity on disk"))? {
        if options.join.is_some() {
            log::info!("this board has joined already as {}; the token is not used", identity.answer.node_name);
        }
        return Ok(identity);
    }
    let Some(text) = &options.join else {
        return Err(Stop::Never(format!(
            "this board has not joined a hub: start it with `--join TOKEN` (make one with `limpet token create`); \
             nothing is in {}",
            data.display()
        )));
    };
    let token = join::parse_token(text).map_err(|e| Stop::Never(e.to_string()))?;
    let name = options.node_name.clone().or_else(device::node_name_from_host).ok_or_else(|| {
        Stop::Never("the host's name cannot be a node's name; give one with `--node-name NAME`".into())
    })?;
    if !limpet_protocol::topic::valid_node_name(&name) {
        return Err(Stop::Never(format!(
            "`{name}` cannot be a node's name: lower-case letters, digits, `-` and `.` only, at most 253"
        )));
    }
    join_until_done(data, &token, &name, options, clock).await
}

async fn join_until_done(
    data: &Path,
    token: &limpet_protocol::join::JoinToken,
    name: &str,
    options: &StartOptions,
    clock: &Clock,
) -> Result<Identity, Stop> {
    let mut backoff = Backoff::new(options.config.reconnect_seconds_max);
    let mut sign = Sign::new(&options.paths.run, options.config.led.as_deref());
    let proxy = options.config.proxy.as_deref().and_then(|p| link::road::Proxy::parse(p).ok());
    let facts = device::node_facts(data);
    let description = format!("{} {} {}", facts.os_image, facts.architecture, facts.kernel);
    let hardware = device::hardware(options.config.hardware_id.as_deref());
    if let Some(print) = link::NodeKey::load_or_create(data).ok().and_then(|key| key.fingerprint()) {
        log::info!("asking to join as {name}; fingerprint of this board's key: {print}");
    }
    loop {
        match join::join(data, token, (name, &description, &hardware), (clock, proxy.as_ref())).await {
            Ok(identity) => {
                log::info!("joined {} as {name}", identity.answer.cluster_name);
                return Ok(identity);
            }
            Err(JoinError::Never(why)) => return Err(Stop::Never(format!("{why}{}", where_tokens_go()))),
            Err(JoinError::Later(why)) => {
                sign.waits(For::Hub, &format!("this board waits to join as {name}: {why}"));
                let wait = backoff.next();
                log::warn!("{why}; trying again in {:.1} s", wait.as_secs_f32());
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// Who wrote the card knows where a new token goes; a person at the board does not.
fn where_tokens_go() -> String {
    match std::env::var("LIMPET_JOIN_PLACE") {
        Ok(place) if !place.is_empty() => format!("; put it into {place}, or write the card again with `limpet flash`"),
        _ => String::new(),
    }
}

/// Without its keys a policy would refuse everything: said at once.
fn trust(config: &Config) -> Result<Vec<images::Trust>, Stop> {
    let read = |path: &std::path::PathBuf| {
        let why = |e: String| Stop::Never(format!("imagePolicies: the key {} {e}", path.display()));
        let pem = std::fs::read(path).map_err(|e| why(format!("cannot be read: {e}")))?;
        images::signature::Key::parse(&pem).map_err(why)
    };
    let with_keys = |policy: &images::signature::Policy| {
        let keys = policy.cosign_keys.iter().map(read).collect::<Result<_, _>>()?;
        Ok(images::Trust { policy: policy.clone(), keys })
    };
    config.image_policies.iter().map(with_keys).collect()
}

fn open_images(options: &StartOptions, clock: &Clock, identity: &Identity) -> Result<images::Store, Stop> {
    let registries = images::RegistryOptions {
        mirrors: options.config.registry_mirrors.clone(),
        insecure: options.config.insecure_registries.clone(),
        ca_files: options.config.registry_ca_files.clone(),
        bytes_per_second: options.config.image_pull_bytes_per_second,
        way: options.config.way_to_images().map_err(Stop::Never)?,
        time: Some(Arc::new(clock.clone())),
    };
    let store = images::Store::open(images::Options {
        dir: options.paths.data.join("images"),
        platform: limpet_oci::Platform::host(),
        program: Some(options.program.clone()),
        registries,
        pulls_at_once: options.config.image_pulls_at_once,
        trust: trust(&options.config)?,
    });
    let store = store.map_err(|e| Stop::Again(format!("the image store: {e}")))?;
    if let Err(e) = store.set_hub(Some(hub_access(identity))) {
        log::error!("images: the hub's registry cannot be used: {e}");
    }
    Ok(store)
}

pub fn hub_access(identity: &Identity) -> images::HubAccess {
    images::HubAccess {
        registries: identity.answer.registry.clone(),
        ca_pem: identity.answer.ca_pem.clone(),
        certificate_pem: identity.answer.certificate_pem.clone(),
        key: identity.key.clone(),
    }
}
