//! The node's pages as the loop sees them: which pods there are, what the agent is set to.
//!
//! In: a path of `nodes/NAME/proxy`. Out: a page that is ready, or what the stream's task needs to make it.
//! Never: measures or reads files here; that is the stream's task, beside the loop.

use super::state::Agent;
use crate::{
    runtime::spec::Qos,
    streams::{NodePage, Target},
    views::{ContainerSubject, LogFiles, Page, PodSubject, Subject, VolumeSubject, query},
};
use limpet_agent_core::{
    api,
    plan::{self, container_id},
    volumes::claimed,
};
use limpet_protocol::ItemKind;
use serde_json::{Value, json};

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
        }
    }
}
