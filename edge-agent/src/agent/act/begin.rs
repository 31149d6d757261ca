//! How a container begins: its devices, its turn, its spec, its log; or how it is adopted.
//!
//! In: plans of the core, records of the agent before this one. Out: `ContainerStarted` or why not; who has which device.
//! Never: more at once than there are turns.

use super::super::{convert, convert::VolumeSources, devices::Given};
use super::{Extras, Hands, Known};
use crate::{
    logs::{self, Begin},
    plugins::lister::Held,
    runtime::{self, RuntimeError},
    views::Operation,
    volumes,
};
use limpet_agent_core::{
    Input,
    plan::{ContainerPlan, MountSource, Qos},
    pods::{ContainerRef, RanAs, StartStage, Uid},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Instant,
};

impl Hands {
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
            let given = Box::pin(hands.give_devices(&plan)).await;
            let started = match given {
                Ok(given) => {
                    let _turn = hands.turns.starts.acquire().await;
                    // Made when it is its turn, and gone after it.
                    Box::pin(hands.try_start(&plan, given, &sources, qos, extras)).await
                }
                Err(why) => Err((StartStage::Create, why)),
            };
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
        given: Given,
        sources: &VolumeSources,
        qos: Qos,
        extras: Extras,
    ) -> Result<RanAs, (StartStage, String)> {
        let create = |message: String| (StartStage::Create, message);
        let layers = self.lock().layers.get(&plan.image.id).cloned();
        let layers = layers.ok_or_else(|| create(format!("image {} is no longer here", plan.image.id)))?;
        let mut spec = convert::container(plan, qos, &layers, sources, &self.paths).map_err(create)?;
        make_sub_paths(plan, sources).map_err(|why| (StartStage::Config, why))?;
        convert::add_devices(&mut spec, given);
        if !plan.handler.is_empty() {
            let other = self.other_runtimes.get(&plan.handler).cloned();
            spec.other_runtime = Some(other.ok_or_else(|| create(format!("no runtime for \"{}\" is configured", plan.handler)))?);
        }
        if extras.broker {
            spec.mounts.push(convert::broker_mount(&self.paths.run, &plan.pod_uid));
        }
        let kept = extras.kept;
        let message = |attempt| convert::termination_file(&self.paths.data, &plan.pod_uid, &plan.name, attempt);
        if plan.attempt > 0 {
            let _ = std::fs::remove_file(message(plan.attempt - 1));
        }
        make_message_file(&message(plan.attempt)).map_err(|e| create(format!("termination message: {e}")))?;
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
}

/// Before anything is made of the container: a sub path that leads out of its volume is the manifest's mistake, not the board's.
/// Whoever exchanges it after this is looked for again where it is mounted.
fn make_sub_paths(plan: &ContainerPlan, sources: &VolumeSources) -> Result<(), String> {
    for mount in &plan.mounts {
        let MountSource::Volume { name, sub_path } = &mount.source else { continue };
        let Some(source) = sources.get(name).filter(|_| !sub_path.is_empty()) else { continue };
        volumes::subpath::open(source, sub_path).map_err(|e| {
            let of = format!("volumeMount \"{name}\" of container \"{}\"", plan.name);
            format!("failed to prepare subPath for {of}: {e}")
        })?;
    }
    Ok(())
}

fn sources_of(streams: crate::runtime::Streams) -> logs::Sources {
    logs::Sources { stdin: streams.stdin, stdout: streams.stdout, stderr: streams.stderr, tty: streams.tty }
}

pub fn ran_as(user: &runtime::User) -> RanAs {
    RanAs { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
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

