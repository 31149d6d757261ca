//! Cluster names: which addresses belong to a DNS question.
//!
//! In: the table of Services, a question. Out: records, "no such name", or "not ours".
//! Source: the Kubernetes DNS-based service discovery specification, schema 1.1.0.
//! Never: forwards; that is the shell's part.

use super::{ServiceEntry, ServicePortEntry};
use std::{collections::BTreeMap, net::IpAddr};

#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Address(IpAddr),
    /// Port and target name.
    Srv { port: u16, target: String },
    Cname(String),
    /// For a reverse question.
    Ptr(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The name exists; the list may be empty for this type.
    Records(Vec<Record>),
    /// The name lies in the cluster's domain and does not exist.
    NoSuchName,
    /// Not a cluster name: ask the host's resolvers.
    NotOurs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    A,
    Aaaa,
    Srv,
    Ptr,
    Any,
}

/// All names of the cluster, rebuilt when a Service or EndpointSlice changes.
#[derive(Clone, Debug, Default)]
pub struct Names {
    domain: String,
    services: BTreeMap<(String, String), ServiceEntry>,
    namespaces: std::collections::BTreeSet<String>,
    reverse: BTreeMap<IpAddr, String>,
}

impl Names {
    pub fn new(domain: &str, table: Vec<ServiceEntry>) -> Names {
        let mut names = Names { domain: domain.to_ascii_lowercase(), ..Names::default() };
        for entry in table {
            for ip in entry.cluster_ips.iter().filter_map(|ip| ip.parse().ok()) {
                let name = format!("{}.{}.svc.{}", entry.name, entry.namespace, names.domain);
                names.reverse.insert(ip, name);
            }
            names.namespaces.insert(entry.namespace.clone());
            names.services.insert((entry.namespace.clone(), entry.name.clone()), entry);
        }
        names
    }

    /// `name` without the final dot, in any case.
    pub fn lookup(&self, name: &str, wanted: Wanted) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(ip) = reverse_ip(&name) {
            return match self.reverse.get(&ip) {
                Some(target) => Answer::Records(vec![Record::Ptr(target.clone())]),
                None => Answer::NotOurs,
            };
        }
        let inside = if name == self.domain { Some("") } else { name.strip_suffix(&format!(".{}", self.domain)) };
        let Some(inside) = inside else { return Answer::NotOurs };
        let labels: Vec<&str> = inside.split('.').filter(|l| !l.is_empty()).rev().collect();
        match labels.as_slice() {
            [] | ["svc"] | ["pod"] => Answer::Records(Vec::new()),
            ["svc", namespace] if self.namespaces.contains(*namespace) => Answer::Records(Vec::new()),
            ["svc", namespace, service, rest @ ..] => self.service(namespace, service, rest, wanted),
            ["pod", _, dashed] => match dashed.replace('-', ".").parse::<IpAddr>() {
                Ok(ip) => Answer::Records(addresses([ip].into_iter(), wanted)),
                Err(_) => Answer::NoSuchName,
            },
            _ => Answer::NoSuchName,
        }
    }

    fn service(&self, namespace: &str, service: &str, rest: &[&str], wanted: Wanted) -> Answer {
        let Some(entry) = self.services.get(&(namespace.to_string(), service.to_string())) else {
            return Answer::NoSuchName;
        };
        let base = format!("{service}.{namespace}.svc.{}", self.domain);
        if !entry.external_name.is_empty() {
            let target = entry.external_name.trim_end_matches('.').to_string();
            return if rest.is_empty() { Answer::Records(vec![Record::Cname(target)]) } else { Answer::NoSuchName };
        }
        match rest {
            [] if wanted == Wanted::Srv => Answer::Records(entry.ports.iter().flat_map(|p| srv(entry, p, &base)).collect()),
            [] => Answer::Records(addresses(ips(entry), wanted)),
            [protocol, port] if protocol.starts_with('_') && port.starts_with('_') => {
                let same = |p: &&ServicePortEntry| {
                    p.name == port[1..] && p.protocol.eq_ignore_ascii_case(&protocol[1..])
                };
                match entry.ports.iter().find(same) {
                    Some(p) if matches!(wanted, Wanted::Srv | Wanted::Any) => Answer::Records(srv(entry, p, &base)),
                    Some(_) => Answer::Records(Vec::new()),
                    None => Answer::NoSuchName,
                }
            }
            [host] if entry.cluster_ips.is_empty() => {
                let mut found: Vec<IpAddr> = Vec::new();
                for b in entry.ports.iter().flat_map(|p| &p.backends) {
                    if let Ok(ip) = b.ip.parse()
                        && (b.hostname == *host || b.ip.replace(['.', ':'], "-") == *host)
                        && !found.contains(&ip)
                    {
                        found.push(ip);
                    }
                }
                if found.is_empty() {
                    return Answer::NoSuchName;
                }
                Answer::Records(addresses(found.into_iter(), wanted))
            }
            _ => Answer::NoSuchName,
        }
    }
}

fn ips(entry: &ServiceEntry) -> impl Iterator<Item = IpAddr> + use<> {
    let mut all: Vec<IpAddr> = entry.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    if all.is_empty() {
        all = entry.ports.iter().flat_map(|p| &p.backends).filter_map(|b| b.ip.parse().ok()).collect();
        all.sort();
        all.dedup();
    }
    all.into_iter()
}

fn addresses(ips: impl Iterator<Item = IpAddr>, wanted: Wanted) -> Vec<Record> {
    let fits = |ip: &IpAddr| match wanted {
        Wanted::A => ip.is_ipv4(),
        Wanted::Aaaa => ip.is_ipv6(),
        Wanted::Any => true,
        Wanted::Srv | Wanted::Ptr => false,
    };
    ips.filter(fits).map(Record::Address).collect()
}

fn srv(entry: &ServiceEntry, port: &ServicePortEntry, base: &str) -> Vec<Record> {
    if !entry.cluster_ips.is_empty() {
        return vec![Record::Srv { port: port.port, target: base.to_string() }];
    }
    let target = |b: &super::Backend| {
        let host = if b.hostname.is_empty() { b.ip.replace(['.', ':'], "-") } else { b.hostname.clone() };
        Record::Srv { port: b.port, target: format!("{host}.{base}") }
    };
    port.backends.iter().map(target).collect()
}

fn reverse_ip(name: &str) -> Option<IpAddr> {
    let four = name.strip_suffix(".in-addr.arpa")?;
    let parts: Vec<&str> = four.split('.').rev().collect();
    if parts.len() == 4 { parts.join(".").parse().ok() } else { None }
}
