//! The node's pages as the loop sees them: which pods there are, what the agent is set to.
//!
//! In: a path of `nodes/NAME/proxy`; what the loop was told, to be counted. Out: a page that is ready, or what the stream's task
//! needs to make it.
//! Never: measures or reads files here; that is the stream's task, beside the loop.

use super::state::Agent;
use crate::{
    runtime::spec::Qos,
    streams::{NodePage, Target},
    views::{ContainerSubject, LogFiles, Page, PodSubject, Subject, VolumeSubject, query},
};
use limpet_agent_core::{
    Input, api,
    plan::{self, container_id},
    pods::ContainerRef,
    volumes::claimed,
};
use limpet_protocol::ItemKind;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

impl Agent {
    pub(super) fn node_get(&self, path: &str) -> Result<Target, String> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let asked = query::find(query).filter(|_| matches!(path, "/logs" | "/logs/"));
        if let Some(found) = asked {
            let page = match found? {
                query::Found::Files(files) => NodePage::Files(files),
                query::Found::Journal(words) => NodePage::Journal(words),
            };
            return Ok(Target { page: Some(page), ..Target::default() });
        }
        let page = match path {
            "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/healthz/syncloop" | "/healthz/log" => {
                NodePage::Bytes(b"ok".to_vec())
            }
            "/pods" | "/pods/" => NodePage::Bytes(self.pods_page()),
            "/configz" => NodePage::Bytes(self.configz()),
            _ => match (Page::of(path, query), path.strip_prefix("/logs")) {
                (Some(page), _) => NodePage::View(page, Box::new(self.subject())),
                (None, Some(below)) if below.is_empty() || below.starts_with('/') => {
                    NodePage::Files(LogFiles::open(below)?)
                }
                _ => return Err(format!("404 page not found: the node has no page {path}")),
            },
        };
        Ok(Target { page: Some(page), ..Target::default() })
    }

    /// Every pod of the set with the status that was reported last.
    fn pods_page(&self) -> Vec<u8> {
        let pods = self.sync.items().of(ItemKind::Pod).filter_map(|(_, held)| {
            let mut pod: Value = serde_json::from_slice(&held.body()).ok()?;
            let uid = pod["metadata"]["uid"].as_str().unwrap_or_default().to_string();
            let status = self.pods.status_of(&uid).and_then(|status| serde_json::from_slice::<Value>(&status).ok());
            if let Some(status) = status {
                pod["status"] = status;
            }
            Some(pod)
        });
        let items: Vec<Value> = pods.collect();
        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}).to_string().into_bytes()
    }

    /// The settings that kubelet has too, in its names.
    fn configz(&self) -> Vec<u8> {
        let config = &self.options.config;
        json!({"kubeletconfig": {
            "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "maxPods": config.pods_max, "clusterDomain": config.cluster_domain, "cgroupDriver": "cgroupfs",
            "containerLogMaxSize": config.container_log_bytes_max.to_string(),
            "containerLogMaxFiles": config.container_log_files_max,
            "cgroupRoot": config.cgroup_parent(&self.options.paths),
            "crashLoopBackOff": {"maxContainerRestartPeriod": format!("{}s", config.restart_back_off_seconds_max)},
            "nodeStatusReportFrequency": "0s", "registerNode": true, "maxParallelImagePulls": config.image_pulls_at_once,
            "serializeImagePulls": config.image_pulls_at_once == Some(1),
            "imageGCHighThresholdPercent": config.image_gc_high_threshold_percent,
            "imageGCLowThresholdPercent": config.image_gc_low_threshold_percent,
        }})
        .to_string()
        .into_bytes()
    }

    /// The pod's volumes that have a size of their own to tell: claims, and the directories that go with it.
    fn volumes_of(&self, uid: &str, pod: &api::Pod) -> Vec<VolumeSubject> {
        let own = pod.spec.volumes.iter().filter(|v| v.empty_dir.is_some()).map(|v| VolumeSubject {
            name: v.name.clone(),
            claim: None,
            dir: crate::volumes::dir(&self.options.paths.data, uid, "empty-dir", &v.name),
        });
        let claimed = claimed(pod, self.sync.items()).into_iter().map(|c| VolumeSubject {
            name: c.volume,
            claim: Some(c.claim),
            dir: c.path.into(),
        });
        own.chain(claimed).collect()
    }

    /// Everything that the pages show, as of now.
    fn subject(&self) -> Subject {
        let cgroups = self.hands.runtime.cgroups();
        let pods = self.pods.pods().filter(|pod| pod.sandbox_ready).map(|pod| {
            let class = match plan::qos(&pod.object.spec) {
                plan::Qos::Guaranteed => Qos::Guaranteed,
                plan::Qos::Burstable => Qos::Burstable,
                plan::Qos::BestEffort => Qos::BestEffort,
            };
            let containers = self.pods.containers_of(pod.uid).into_iter().map(|c| ContainerSubject {
                id: container_id(pod.uid, &c.name, c.attempt.unwrap_or(0)),
                name: c.name.to_string(),
                image: c.image.to_string(),
                attempt: c.attempt.unwrap_or(0),
                started_ms: c.started_ms,
                running: c.running,
                probes: c.probes,
            });
            PodSubject {
                uid: pod.uid.to_string(),
                namespace: pod.object.metadata.namespace.clone(),
                name: pod.object.metadata.name.clone(),
                host_network: pod.object.spec.host_network,
                group: cgroups.pod_group(class, pod.uid),
                start_ms: self.pods.start_ms_of(pod.uid),
                containers: containers.collect(),
                volumes: self.volumes_of(pod.uid, pod.object),
            }
        });
        Subject {
            node: self.facts.name.clone(),
            version: limpet_agent_core::status::kubelet_version(&self.facts.agent_version),
            data_dir: self.options.paths.data.clone(),
            now_ms: self.clock.wall_ms(),
            began_ms: self.began_ms,
            pods: pods.collect(),
            counters: self.counters,
            took: self.hands.took(|t| *t),
            volumes: self.volume_counts(),
            certificate_ms: crate::link::join::validity(&self.identity.borrow())
                .map(|(_, end)| end as i64 - self.clock.wall_ms() as i64),
        }
    }

    /// A claim is a directory of this board, whichever way its volume was written.
    fn volume_counts(&self) -> BTreeMap<&'static str, (u32, u32)> {
        let kind = |v: &api::Volume| match v {
            api::Volume { empty_dir: Some(_), .. } => "kubernetes.io/empty-dir",
            api::Volume { host_path: Some(_), .. } => "kubernetes.io/host-path",
            api::Volume { config_map: Some(_), .. } => "kubernetes.io/configmap",
            api::Volume { secret: Some(_), .. } => "kubernetes.io/secret",
            api::Volume { downward_api: Some(_), .. } => "kubernetes.io/downward-api",
            api::Volume { projected: Some(_), .. } => "kubernetes.io/projected",
            api::Volume { image: Some(_), .. } => "kubernetes.io/image",
            _ => "kubernetes.io/local-volume",
        };
        let mut all: BTreeMap<&'static str, (u32, u32)> = BTreeMap::new();
        for pod in self.pods.pods() {
            for volume in &pod.object.spec.volumes {
                let (wanted, there) = all.entry(kind(volume)).or_default();
                *wanted += 1;
                // The sandbox is made after the volumes.
                *there += u32::from(pod.sandbox_ready);
            }
        }
        all
    }

    /// For `/metrics`.
    pub(super) fn count(&mut self, input: &Input) {
        let c = &mut self.counters;
        let counter = match input {
            Input::ContainerStarted(_) => &mut c.containers_started,
            Input::ContainerFailed { .. } => &mut c.containers_failed,
            Input::SandboxReady { .. } => &mut c.sandboxes_started,
            Input::SandboxFailed { .. } => &mut c.sandboxes_failed,
            Input::ImageReady { pulled_in_ms: Some(_), .. } => &mut c.images_pulled,
            Input::ImageFailed { .. } => &mut c.images_failed,
            Input::Evict { .. } => &mut c.evictions,
            Input::Probed { ok: true, .. } => &mut c.probes_good,
            Input::Probed { .. } => &mut c.probes_bad,
            _ => return,
        };
        *counter += 1;
    }

    /// A container runs for the first time: with the last one of its pod, the pod has started.
    pub(super) fn has_started(&self, at: &ContainerRef) {
        let Some(pod) = self.pods.pods().find(|pod| *pod.uid == at.uid) else { return };
        let names = || pod.object.spec.containers.iter().map(|c| c.name.as_str());
        let first = |name: &str| self.pods.container(&at.uid, name).is_some_and(|c| c.attempt == Some(0));
        if names().any(|name| *name == *at.container) && names().all(first) {
            let took = Duration::from_millis(self.pods.seen_for_ms(&at.uid));
            self.hands.took(|t| t.pod(took));
        }
    }
}
