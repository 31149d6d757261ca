//! The JSON shape of a Pod, and what is computed from it once.
//!
//! In: canonical JSON. Out: `PodData`. Never: lives longer than the reading of one event.

use super::{
    Affinity, PodData, PodPort, PodRef, PodSpec, PodStatus, Requests, SpreadConstraint, Toleration,
    conditions::Condition,
};
use crate::{
    Timestamp,
    view::{Labels, meta::or_default},
};
use serde::Deserialize;

/// Upstream's default lifetime of a projected token.
const TOKEN_SECONDS: i64 = 3600;

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct RawPod {
    spec: RawSpec,
    #[serde(deserialize_with = "or_default")]
    status: RawStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSpec {
    node_name: Box<str>,
    scheduler_name: Box<str>,
    service_account_name: Box<str>,
    priority: i32,
    preemption_policy: Box<str>,
    node_selector: Labels,
    affinity: Option<Box<Affinity>>,
    tolerations: Box<[Toleration]>,
    topology_spread_constraints: Box<[SpreadConstraint]>,
    scheduling_gates: Vec<Named>,
    host_network: bool,
    #[serde(deserialize_with = "or_default")]
    runtime_class_name: Box<str>,
    restart_policy: Box<str>,
    hostname: Box<str>,
    subdomain: Box<str>,
    active_deadline_seconds: Option<i64>,
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
    ephemeral_containers: Vec<RawContainer>,
    overhead: Requests,
    resources: RawResources,
    volumes: Vec<RawVolume>,
    image_pull_secrets: Vec<Named>,
    #[serde(deserialize_with = "or_default")]
    resource_claims: Vec<RawDeviceClaim>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawDeviceClaim {
    name: Box<str>,
    #[serde(deserialize_with = "or_default")]
    resource_claim_name: Option<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    #[serde(deserialize_with = "or_default")]
    name: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawResources {
    requests: Option<Requests>,
    limits: Option<Requests>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRule {
    action: Box<str>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RawContainer {
    name: Box<str>,
    image: Box<str>,
    ports: Vec<RawPort>,
    resources: RawResources,
    restart_policy: Box<str>,
    restart_policy_rules: Vec<RawRule>,
    env: Vec<RawEnv>,
    env_from: Vec<RawEnvFrom>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawPort {
    name: Box<str>,
    protocol: Box<str>,
    container_port: i32,
    host_port: i32,
    #[serde(rename = "hostIP")]
    host_ip: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawEnv {
    value_from: Option<RawEnvSource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawEnvSource {
    config_map_key_ref: Option<Named>,
    secret_key_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawEnvFrom {
    config_map_ref: Option<Named>,
    secret_ref: Option<Named>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawVolume {
    name: Box<str>,
    config_map: Option<Named>,
    secret: Option<RawSecretVolume>,
    persistent_volume_claim: Option<RawClaim>,
    projected: Option<RawProjected>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSecretVolume {
    secret_name: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawClaim {
    claim_name: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawProjected {
    sources: Vec<RawSource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawSource {
    config_map: Option<Named>,
    secret: Option<Named>,
    service_account_token: Option<RawToken>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawToken {
    audience: Box<str>,
    expiration_seconds: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RawStatus {
    phase: super::Phase,
    reason: Box<str>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<RawIp>,
    #[serde(rename = "podIP")]
    pod_ip: Box<str>,
    nominated_node_name: Option<Box<str>>,
    start_time: Option<Timestamp>,
    conditions: Vec<Condition>,
    container_statuses: Vec<RawContainerStatus>,
    init_container_statuses: Vec<RawContainerStatus>,
    #[serde(deserialize_with = "or_default")]
    resource_claim_statuses: Vec<RawDeviceClaim>,
    extended_resource_claim_status: Option<RawDeviceClaim>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawIp {
    ip: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawContainerStatus {
    name: Box<str>,
    restart_count: i32,
    state: RawState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawState {
    terminated: Option<RawEnd>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawEnd {
    exit_code: i32,
    finished_at: Option<Timestamp>,
}

impl From<RawPod> for PodData {
    fn from(raw: RawPod) -> PodData {
        let node = (!raw.spec.node_name.is_empty()).then(|| raw.spec.node_name.clone());
        let sidecars = raw.spec.init_containers.iter().filter(|c| &*c.restart_policy == "Always");
        let sidecars: Vec<Box<str>> = sidecars.map(|c| c.name.clone()).collect();
        PodData { node, assumed: false, spec: raw.spec.into_spec(), status: raw.status.into_status(&sidecars) }
    }
}

impl RawSpec {
    fn into_spec(self) -> PodSpec {
        let requests = self.sum(RawResources::effective);
        let limits = self.sum(|r| r.limits.clone().unwrap_or_default());
        let all = || self.init_containers.iter().chain(&self.containers);
        let ports = all()
            .flat_map(|c| &c.ports)
            .filter(|p| p.host_port != 0 || !p.name.is_empty() || self.host_network)
            .map(|p| p.to_port(self.host_network))
            .collect();
        let images = all().map(|c| c.image.clone()).collect();
        let mut rules = all().flat_map(|c| &c.restart_policy_rules);
        let restarts_all = rules.any(|rule| &*rule.action == "RestartAllContainers");
        let ephemeral = self.volumes.iter().filter(|v| v.ephemeral.is_some());
        let ephemeral_volumes = ephemeral.map(|v| v.name.clone()).collect();
        let claims = self.resource_claims.iter();
        let device_claims = claims.map(|c| (c.name.clone(), c.resource_claim_name.clone())).collect();
        PodSpec {
            refs: self.refs(),
            requests,
            limits: (!limits.is_empty()).then(|| Box::new(limits)),
            ports,
            images,
            scheduler_name: self.scheduler_name,
            service_account: self.service_account_name,
            priority: self.priority,
            never_preempts: &*self.preemption_policy == "Never",
            ephemeral_volumes,
            device_claims,
            node_selector: self.node_selector,
            affinity: self.affinity,
            tolerations: self.tolerations,
            spread: self.topology_spread_constraints,
            scheduling_gates: self.scheduling_gates.into_iter().map(|g| g.name).collect(),
            host_network: self.host_network,
            runtime_class: self.runtime_class_name,
            restart_policy: self.restart_policy,
            restarts_all,
            hostname: self.hostname,
            subdomain: self.subdomain,
            active_deadline_s: self.active_deadline_seconds,
        }
    }

    /// The larger of (containers and sidecars together) and (each init container with the sidecars before it).
    fn sum(&self, of: impl Fn(&RawResources) -> Requests) -> Requests {
        let mut init_peak = Requests::default();
        let mut sidecars = Requests::default();
        for c in &self.init_containers {
            let own = of(&c.resources);
            let mut with = sidecars.clone();
            with.add(&own);
            init_peak.raise(&with);
            if &*c.restart_policy == "Always" {
                sidecars = with;
            }
        }
        let mut sum = sidecars;
        self.containers.iter().for_each(|c| sum.add(&of(&c.resources)));
        sum.raise(&init_peak);
        if self.resources.requests.is_some() || self.resources.limits.is_some() {
            sum.overlay(&of(&self.resources));
        }
        sum.add(&self.overhead);
        sum
    }

    fn refs(&self) -> Box<[PodRef]> {
        let mut out = Vec::new();
        for c in self.containers.iter().chain(&self.init_containers).chain(&self.ephemeral_containers) {
            for s in c.env.iter().filter_map(|e| e.value_from.as_ref()) {
                out.extend(config_map(&s.config_map_key_ref));
                out.extend(secret(&s.secret_key_ref));
            }
            for e in &c.env_from {
                out.extend(config_map(&e.config_map_ref));
                out.extend(secret(&e.secret_ref));
            }
        }
        self.volumes.iter().for_each(|v| v.refs(&mut out));
        out.extend(self.image_pull_secrets.iter().map(|s| PodRef::Secret(s.name.clone())));
        out.sort_unstable();
        out.dedup();
        out.into()
    }
}

fn config_map(named: &Option<Named>) -> Option<PodRef> {
    named.as_ref().map(|n| PodRef::ConfigMap(n.name.clone()))
}

fn secret(named: &Option<Named>) -> Option<PodRef> {
    named.as_ref().map(|n| PodRef::Secret(n.name.clone()))
}

impl RawVolume {
    fn refs(&self, out: &mut Vec<PodRef>) {
        out.extend(config_map(&self.config_map));
        out.extend(self.secret.as_ref().map(|s| PodRef::Secret(s.secret_name.clone())));
        out.extend(self.persistent_volume_claim.as_ref().map(|c| PodRef::Claim(c.claim_name.clone())));
        let sources = self.projected.iter().flat_map(|p| &p.sources);
        for (index, source) in sources.enumerate() {
            out.extend(config_map(&source.config_map));
            out.extend(secret(&source.secret));
            out.extend(source.service_account_token.as_ref().map(|t| PodRef::Token {
                volume: self.name.clone(),
                index: index as u32,
                audience: t.audience.clone(),
                expiration_s: t.expiration_seconds.unwrap_or(TOKEN_SECONDS),
            }));
        }
    }
}

impl RawResources {
    /// Requests, and limits for what has no request.
    fn effective(&self) -> Requests {
        let mut r = self.limits.clone().unwrap_or_default();
        if let Some(requests) = &self.requests {
            r.overlay(requests);
        }
        r
    }
}

impl RawPort {
    fn to_port(&self, host_network: bool) -> PodPort {
        let host_port =
            if host_network && self.host_port == 0 { self.container_port } else { self.host_port };
        PodPort {
            name: self.name.clone(),
            protocol: if self.protocol.is_empty() { "TCP".into() } else { self.protocol.clone() },
            port: self.container_port,
            host_port,
            host_ip: self.host_ip.clone(),
        }
    }
}

impl RawStatus {
    fn into_status(self, sidecars: &[Box<str>]) -> PodStatus {
        let most = |list: &[RawContainerStatus], of: &dyn Fn(&str) -> bool| {
            list.iter().filter(|c| of(&c.name)).map(|c| c.restart_count).max().unwrap_or(0)
        };
        let ready = self.conditions.iter().find(|c| &*c.type_ == "Ready");
        let scheduled = self.conditions.iter().find(|c| &*c.type_ == "PodScheduled");
        let ends = || self.container_statuses.iter().filter_map(|c| Some((c, c.state.terminated.as_ref()?)));
        let mut ips: Vec<Box<str>> = self.pod_ips.iter().map(|i| i.ip.clone()).collect();
        if ips.is_empty() && !self.pod_ip.is_empty() {
            ips.push(self.pod_ip.clone());
        }
        PodStatus {
            phase: self.phase,
            ips: ips.into(),
            nominated_node: self.nominated_node_name.clone(),
            started: self.start_time,
            ready: ready.is_some_and(|c| &*c.status == "True"),
            ready_since: ready.and_then(|c| c.since),
            unscheduled: scheduled.filter(|c| &*c.status != "True").map(|c| c.message.clone()),
            finished: ends().filter_map(|(_, e)| e.finished_at).max(),
            restarts: self
                .container_statuses
                .iter()
                .chain(&self.init_container_statuses)
                .map(|c| c.restart_count)
                .fold(0, i32::saturating_add),
            restarts_max: [
                most(&self.container_statuses, &|_| true),
                most(&self.init_container_statuses, &|name| sidecars.iter().any(|s| **s == *name)),
            ],
            device_claims: self
                .resource_claim_statuses
                .iter()
                .filter_map(|c| Some((c.name.clone(), c.resource_claim_name.clone()?)))
                .collect(),
            extended_claim: self.extended_resource_claim_status.and_then(|c| c.resource_claim_name),
            exits: ends().map(|(c, e)| (c.name.clone(), e.exit_code)).collect(),
            conditions: self.conditions.iter().map(|c| format!("{}={}\n", c.type_, c.status)).collect(),
            reason: self.reason,
        }
    }
}
