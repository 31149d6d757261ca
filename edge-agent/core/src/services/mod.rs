//! Services and their endpoints as the node sees them.
//!
//! In: Service and EndpointSlice items of the set, the node's own pods. Out: a table for the proxy, variables for pods, answers
//! for DNS. Never: asks anybody; works from the journal alone.

mod local;
mod names;

pub use local::Local;
pub use names::{Answer, Names, Record as DnsRecord, Wanted};

use crate::{
    api::{EndpointSlice, Service},
    sync::Items,
};
use limpet_protocol::ItemKind;
use std::collections::BTreeMap;

/// One Service with where its traffic goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceEntry {
    pub namespace: String,
    pub name: String,
    /// Empty for headless Services.
    pub cluster_ips: Vec<String>,
    pub external_ips: Vec<String>,
    pub external_name: String,
    pub ports: Vec<ServicePortEntry>,
    /// Seconds for which one client keeps its backend; 0 without affinity.
    pub affinity_s: u32,
    pub publish_not_ready: bool,
    /// `internalTrafficPolicy: Local`.
    pub local_only: bool,
    /// `externalTrafficPolicy: Local`: node ports lead to pods of the node alone, which see who the client is.
    pub external_local: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServicePortEntry {
    pub name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    pub port: u16,
    /// 0 for none.
    pub node_port: u16,
    /// Ready backends, in order of address.
    pub backends: Vec<Backend>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    pub ip: String,
    pub port: u16,
    pub hostname: String,
    pub node: String,
    pub ready: bool,
}

impl ServicePortEntry {
    /// Where the node's proxy sends traffic: pods of this node when there are any, so that a Service works offline and
    /// costs no link; otherwise all, unless the Service keeps its traffic local. Addresses that belong to no node (the
    /// API's own) count as everywhere.
    pub fn reachable<'a>(&'a self, node: &'a str, local_only: bool) -> impl Iterator<Item = &'a Backend> {
        let near = move |b: &&Backend| b.node == node || b.node.is_empty();
        let any_near = self.backends.iter().any(|b| near(&b));
        self.backends.iter().filter(move |b| near(b) || (!any_near && !local_only))
    }
}

/// The whole table, in order of namespace and name. Of the node's own pods `local` knows more than the hub has said.
pub fn table(items: &Items, local: &Local) -> Vec<ServiceEntry> {
    let slices = slices_by_service(items);
    let services = items.of(ItemKind::Service).filter_map(|(key, held)| {
        let service: Service = crate::api::parse(&held.body()).ok()?;
        Some(entry((&key.namespace, &key.name), service, &slices, local))
    });
    services.collect()
}

type Slices = BTreeMap<(String, String), Vec<EndpointSlice>>;

fn slices_by_service(items: &Items) -> Slices {
    let mut slices = Slices::new();
    for (key, held) in items.of(ItemKind::EndpointSlice) {
        let Ok(slice) = crate::api::parse::<EndpointSlice>(&held.body()) else { continue };
        if let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") {
            slices.entry((key.namespace.clone(), service.clone())).or_default().push(slice);
        }
    }
    slices
}

fn entry((namespace, name): (&str, &str), service: Service, slices: &Slices, local: &Local) -> ServiceEntry {
    let spec = service.spec;
    let none: &[EndpointSlice] = &[];
    let own = slices.get(&(namespace.to_string(), name.to_string())).map_or(none, Vec::as_slice);
    let real = |ip: &String| !ip.is_empty() && ip != "None";
    let mut cluster_ips: Vec<String> = spec.cluster_ips.iter().filter(|ip| real(ip)).cloned().collect();
    if cluster_ips.is_empty() && real(&spec.cluster_ip) {
        cluster_ips.push(spec.cluster_ip.clone());
    }
    let publish = spec.publish_not_ready_addresses;
    let mut ports: Vec<ServicePortEntry> = Vec::new();
    for port in &spec.ports {
        let port_name = port.name.clone().unwrap_or_default();
        let mut backends: Vec<Backend> =
            own.iter().flat_map(|slice| backends(slice, Some(&port_name), publish, local)).collect();
        backends.sort();
        backends.dedup();
        ports.push(ServicePortEntry {
            name: port_name,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            port: port.port,
            node_port: port.node_port.unwrap_or(0),
            backends,
        });
    }
    if ports.is_empty() {
        // A headless Service may have no ports, but its addresses still have names.
        let mut backends: Vec<Backend> = own.iter().flat_map(|s| backends(s, None, publish, local)).collect();
        backends.sort();
        ports.push(ServicePortEntry { backends, ..ServicePortEntry::default() });
    }
    let affinity = spec.session_affinity == "ClientIP";
    ServiceEntry {
        namespace: namespace.into(),
        name: name.into(),
        cluster_ips,
        external_ips: spec.external_ips,
        external_name: if spec.type_ == "ExternalName" { spec.external_name } else { String::new() },
        ports,
        affinity_s: if affinity { spec.session_affinity_config.client_ip.timeout_seconds.unwrap_or(10_800) } else { 0 },
        publish_not_ready: publish,
        local_only: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
    }
}

fn backends(slice: &EndpointSlice, port: Option<&str>, publish: bool, local: &Local) -> Vec<Backend> {
    let number = match port {
        None => Some(0),
        Some(name) => {
            let same = |p: &&crate::api::EndpointPort| p.name.as_deref().unwrap_or("") == name;
            slice.ports.iter().find(same).and_then(|p| p.port)
        }
    };
    let Some(number) = number else { return Vec::new() };
    let ready = |e: &crate::api::Endpoint| local.is_ready(e).unwrap_or(e.conditions.ready != Some(false));
    let wanted = slice.endpoints.iter().filter(|e| ready(e) || publish);
    wanted
        .filter_map(|e| {
            Some(Backend {
                ip: local.address(e)?.into(),
                port: number,
                hostname: e.hostname.clone().unwrap_or_default(),
                node: e.node_name.clone().unwrap_or_default(),
                ready: ready(e),
            })
        })
        .collect()
}

/// Variables of the form that Docker links had, for Services of the namespace, and always for the API.
pub fn environment(
    items: &Items,
    namespace: &str,
    links: bool,
    api: Option<&(String, u16)>,
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    let mut has_api = false;
    for (key, held) in items.of(ItemKind::Service) {
        let is_api = key.namespace == "default" && key.name == "kubernetes";
        if !(is_api || links && key.namespace == namespace) {
            continue;
        }
        let Ok(service) = crate::api::parse::<Service>(&held.body()) else { continue };
        let ip = &service.spec.cluster_ip;
        if ip.is_empty() || ip == "None" || service.spec.ports.is_empty() {
            continue;
        }
        has_api |= is_api;
        let ports = service.spec.ports.iter();
        let ports: Vec<(String, String, u16)> = ports
            .map(|p| (p.name.clone().unwrap_or_default(), p.protocol.clone().unwrap_or("TCP".into()), p.port))
            .collect();
        variables(&key.name, ip, &ports, &mut out);
    }
    if let Some((host, port)) = api.filter(|_| !has_api) {
        variables("kubernetes", host, &[("https".into(), "TCP".into(), *port)], &mut out);
    }
    out
}

fn variables(service: &str, ip: &str, ports: &[(String, String, u16)], out: &mut Vec<(String, String)>) {
    let upper = |s: &str| s.to_ascii_uppercase().replace('-', "_");
    let name = upper(service);
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    let Some((_, first_protocol, first_port)) = ports.first() else { return };
    out.push((format!("{name}_SERVICE_HOST"), ip.to_string()));
    out.push((format!("{name}_SERVICE_PORT"), first_port.to_string()));
    for (port_name, _, port) in ports.iter().filter(|(n, _, _)| !n.is_empty()) {
        out.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.to_string()));
    }
    let url = |protocol: &str, port: u16| format!("{}://{host}:{port}", protocol.to_ascii_lowercase());
    out.push((format!("{name}_PORT"), url(first_protocol, *first_port)));
    for (_, protocol, port) in ports {
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        out.push((prefix.clone(), url(protocol, *port)));
        out.push((format!("{prefix}_PROTO"), protocol.to_ascii_lowercase()));
        out.push((format!("{prefix}_PORT"), port.to_string()));
        out.push((format!("{prefix}_ADDR"), ip.to_string()));
    }
}

#[cfg(test)]
mod tests;
