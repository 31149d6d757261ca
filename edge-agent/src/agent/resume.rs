//! What an agent does before its loop: the journal's memories, pods and containers that run still, static pods.
//!
//! In: the replayed journal, the runtime's records, directories of static pods and devices. Out: inputs for the pods' machine,
//! adopted containers, facts for the hub.
//! Never: starts anything before it knows what runs.

use super::{act, changes, devices, manifests, notes, state::Agent};
use crate::{net::Cidr, runtime};
use limpet_agent_core::{
    Input, plan,
    pods::{AdoptedContainer, AdoptedPod, ContainerRef, Exit},
    status,
};
use nix::sys::inotify::AddWatchFlags;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

impl Agent {
    /// Before the loop: what the journal remembers and what still runs.
    pub async fn begin(&mut self, cidr: Option<Cidr>) {
        self.set_cidr(cidr);
        self.tell_host();
        self.read_manifests();
        self.refresh_names();
        for memory in std::mem::take(&mut self.memories).into_values() {
            self.pods_input(Input::Remembered(memory));
        }
        self.look_at_left();
        for note in notes::read_all(&self.hands.paths.run) {
            self.pods_input(Input::Noted(note));
        }
        for found in self.find_pods().await {
            self.pods_input(Input::Adopted(found));
        }
        self.pods_input(Input::Begin);
        self.sync.rest();
        for found in self.hands.runtime.list() {
            let (uid, container) = (found.pod_uid.as_str().into(), found.name.as_str().into());
            let at = ContainerRef { uid, container, attempt: found.attempt };
            self.pods_input(Input::ContainerUser { at, user: act::ran_as(&found.user) });
        }
        self.look_at_own_pods();
        self.look_at_kept();
        self.reopen_brokers();
        self.read_link_policy();
        self.look_at_schedules();
        self.look_at_released();
        self.say_of_node(&status::beginning());
        self.look_at_update();
        self.look_at_asked_images();
        self.waits_for_hub();
    }

    /// What lies in the directory of static pods.
    pub(super) fn read_manifests(&mut self) {
        if let Some(dir) = self.options.config.static_pod_dir.clone() {
            let pods = manifests::read(&dir, &self.facts.name);
            self.pods_input(Input::Static(pods));
        }
    }

    /// Changes in that directory; never anything when there is none.
    pub(super) fn manifest_changes(&self) -> mpsc::Receiver<()> {
        if let Some(dir) = &self.options.config.static_pod_dir {
            match changes::watch(dir) {
                Ok(changes) => return changes,
                Err(e) => log::error!("static pods: {} is not watched, changes count at the next start: {e}", dir.display()),
            }
        }
        mpsc::channel(1).1
    }

    /// Devices that are plugged in or pulled out; never anything when the configuration offers none.
    pub(super) fn device_changes(&self) -> mpsc::Receiver<()> {
        let config = &self.options.config;
        let dirs = devices::places(&config.devices, &config.cdi_dirs);
        let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
        if !dirs.is_empty() {
            // Not what is written: all of the board writes to /dev/null.
            match changes::watch_for(&dirs, changes::COME_AND_GO | AddWatchFlags::IN_CREATE) {
                Ok(changes) => return changes,
                Err(e) => log::error!("devices: {dirs:?} are not watched, changes are seen within ten minutes: {e}"),
            }
        }
        mpsc::channel(1).1
    }

    async fn find_pods(&mut self) -> Vec<AdoptedPod> {
        let runtime = self.hands.runtime.clone();
        let mut pods: BTreeMap<String, AdoptedPod> = BTreeMap::new();
        let pod_of = |uid: &str| AdoptedPod { uid: uid.into(), ..AdoptedPod::default() };
        for uid in runtime.list_sandboxes() {
            let mut pod = pod_of(&uid);
            if runtime.sandbox_exists(&uid) {
                let ip = runtime.pod_ip(&uid).map(|ip| vec![ip.to_string()]);
                pod.sandbox = Some(ip.unwrap_or_else(|| self.facts.ips.clone()));
            }
            pods.insert(uid, pod);
        }
        let mut found = runtime.list();
        found.sort_by_key(|f| f.attempt);
        let of = |f: &runtime::Found| ContainerRef {
            uid: f.pod_uid.as_str().into(),
            container: f.name.as_str().into(),
            attempt: f.attempt,
        };
        for f in &found {
            let kept = self.keeps(&f.pod_uid, &f.name);
            self.hands.adopt(&f.id, of(f), &f.annotations, kept);
        }
        // Of all of them together, not of each: an agent that waits for a pipe leaves pods alone.
        let until = tokio::time::Instant::now() + act::DRAIN;
        for f in found {
            let pod = pods.entry(f.pod_uid.clone()).or_insert_with(|| pod_of(&f.pod_uid));
            // Only the newest attempt of a container counts.
            let (older, kept): (Vec<_>, Vec<_>) = pod.containers.drain(..).partition(|c| c.name == f.name);
            pod.containers = kept;
            for old in older {
                self.hands.remove_container(plan::container_id(&f.pod_uid, &old.name, old.attempt));
            }
            let exit = match f.state {
                runtime::State::Running => None,
                runtime::State::Exited(ended) => Some(Exit {
                    code: ended.code,
                    oom_killed: ended.oom_killed,
                    message: self.hands.last_words_of(&f.id, ended.code, until).await,
                    finished_ms: u64::try_from(ended.at_ms).unwrap_or(0),
                    unknown: ended.unseen,
                }),
            };
            if exit.is_none() {
                log::info!("pod {}/{}: container {} still runs and is adopted", f.namespace, f.pod_name, f.name);
            }
            pod.containers.push(AdoptedContainer {
                name: f.name,
                attempt: f.attempt,
                started_ms: u64::try_from(f.started_ms).unwrap_or(0),
                exit,
            });
        }
        pods.into_values().collect()
    }
}
