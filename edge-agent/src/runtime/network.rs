//! The runtime's side of the network: the node's range, addresses of pods, the rules for Services and host ports.
//!
//! In: the range and the Services that the hub tells. Out: leases, and the one nft table when something changed.
//! Never: rules that forget the other half: Services and host ports are always applied together.

use super::spec::SandboxSpec;
use super::{Runtime, RuntimeError, lock, rt};
use crate::net::conntrack;
use crate::net::ipam::Ipam;
use crate::net::services::{self, PortRule, ServiceRule};
use crate::net::{Cidr, set_up_node};
use std::net::Ipv4Addr;

#[derive(Default)]
pub struct Network {
    cidr: Option<Cidr>,
    services: Vec<ServiceRule>,
}

impl Runtime {
    /// The node's range of pod addresses, from the journal or new from the hub: bridge, forwarding and rules.
    pub fn set_pod_cidr(&self, cidr: Cidr) -> Result<(), RuntimeError> {
        if lock(&self.shared.network).cidr == Some(cidr) {
            return Ok(());
        }
        set_up_node(cidr).map_err(|err| RuntimeError::io("set up the pod network", err))?;
        lock(&self.shared.network).cidr = Some(cidr);
        self.apply_rules(true)
    }

    /// Every Service port that this node must translate. The same list again does nothing.
    pub fn set_services(&self, mut wanted: Vec<ServiceRule>) -> Result<(), RuntimeError> {
        wanted.sort_unstable();
        wanted.dedup();
        let before = {
            let mut network = lock(&self.shared.network);
            if network.services == wanted {
                return Ok(());
            }
            std::mem::replace(&mut network.services, wanted.clone())
        };
        self.apply_rules(true)?;
        // The rules decide about new connections only.
        match conntrack::forget_stale(&before, &wanted) {
            Ok(0) => {}
            Ok(count) => log::debug!("net: forgot {count} UDP connections to endpoints that are gone"),
            Err(err) => log::warn!("net: cannot forget UDP connections to dead endpoints: {err}"),
        }
        Ok(())
    }

    /// The pod's address as leased, also before the sandbox stands.
    pub fn pod_ip(&self, pod_uid: &str) -> Option<Ipv4Addr> {
        self.ipam().ok()?.0.leased(pod_uid)
    }

    pub(super) fn lease(&self, pod_uid: &str) -> Result<(Ipv4Addr, Cidr), RuntimeError> {
        let (ipam, cidr) = self.ipam()?;
        Ok((ipam.lease(pod_uid)?, cidr))
    }

    pub(super) fn release(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        match self.ipam() {
            Ok((ipam, _)) => ipam.release(pod_uid),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn apply_rules(&self, changed: bool) -> Result<(), RuntimeError> {
        let network = lock(&self.shared.network);
        let Some(cidr) = network.cidr.filter(|_| changed) else { return Ok(()) };
        services::apply(cidr, &network.services, &self.port_rules())
            .map_err(|err| RuntimeError::io("apply the rules of Services and host ports", err))
    }

    fn port_rules(&self) -> Vec<PortRule> {
        let run_dir = &self.shared.options.run_dir;
        let sandboxes = self.list_sandboxes();
        let specs = sandboxes.iter().filter_map(|uid| rt::sandbox::read(run_dir, uid).ok());
        let mut rules: Vec<PortRule> = specs.flat_map(|spec| self.ports_of(&spec)).collect();
        // One port of the host leads to one pod: the first by order of uid, as the scheduler lets only one through.
        rules.sort_by_key(|rule| (rule.host_ip, rule.protocol, rule.host_port));
        rules.dedup_by_key(|rule| (rule.host_ip, rule.protocol, rule.host_port));
        rules
    }

    fn ports_of(&self, spec: &SandboxSpec) -> Vec<PortRule> {
        let (false, Some(pod_ip)) = (spec.host_network, self.leased_ip(&spec.pod_uid)) else { return Vec::new() };
        spec.host_ports
            .iter()
            .map(|port| PortRule {
                host_ip: port.host_ip.filter(|ip| !ip.is_unspecified()),
                host_port: port.host_port,
                protocol: port.protocol,
                pod_ip,
                pod_port: port.container_port,
            })
            .collect()
    }

    fn leased_ip(&self, pod_uid: &str) -> Option<Ipv4Addr> {
        let ipam = Ipam::new(self.shared.options.run_dir.join("ips"), Cidr::new(Ipv4Addr::UNSPECIFIED, 0)?);
        ipam.leased(pod_uid)
    }

    fn ipam(&self) -> Result<(Ipam, Cidr), RuntimeError> {
        let Some(cidr) = lock(&self.shared.network).cidr else {
            let why = "the node has no range of pod addresses yet: it comes with the first connection to the hub";
            return Err(RuntimeError::Create(why.into()));
        };
        Ok((Ipam::new(self.shared.options.run_dir.join("ips"), cidr), cidr))
    }
}
