//! Keeps an IPAddress for every address of a Service, and ServiceCIDRs ready.
//!
//! In: Services, IPAddresses, ServiceCIDRs. Out: IPAddresses that say who has an address; those without a Service go; the
//! condition and the finalizer of ServiceCIDRs. The address itself is given at admission, from what is stored.
//! Semantics: https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/
//! Never: touches an IPAddress that somebody else manages.

use super::{
    Controller,
    common::{finalizers_without, set_shared_status, time, with_condition},
};
use crate::{
    Changed, Key, ObjectStore, Plan, Timestamp,
    view::{IPAddress, Kind, Service, ServiceCIDR},
};
use serde_json::json;
use std::net::IpAddr;

const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const ALLOCATOR: &str = "ipallocator.k8s.io";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

#[derive(Debug)]
pub struct AddressController;

impl Controller for AddressController {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn resources(&self) -> &'static [&'static str] {
        &[Service::RESOURCE, IPAddress::RESOURCE, ServiceCIDR::RESOURCE]
    }

    fn keys_for(&self, view: &ObjectStore, changed: &Changed) -> Vec<Key> {
        let mut keys = vec![changed.key.clone()];
        if changed.is::<Service>() {
            let (old, new) = (changed.old_as::<Service>(), changed.new_as::<Service>());
            if old.map(|s| &s.spec.cluster_ips) == new.map(|s| &s.spec.cluster_ips) {
                return vec![];
            }
            let lost = old.into_iter().flat_map(|s| s.spec.cluster_ips.iter());
            keys.extend(lost.filter_map(|ip| name_of(ip)).map(|n| Key::new(IPAddress::RESOURCE, "", &n)));
        } else if changed.is::<IPAddress>() {
            // An address that was taken away comes back with its Service; a range may be free at last.
            let parent = changed.old_as::<IPAddress>().filter(|_| changed.new.is_none()).and_then(|a| parent(a));
            keys.extend(parent.map(|(ns, name)| Key::new(Service::RESOURCE, &ns, &name)));
            let going = view.all::<ServiceCIDR>().filter(|c| c.meta.deleting.is_some());
            keys.extend(going.map(|c| Key::new(ServiceCIDR::RESOURCE, "", &c.meta.name)));
        }
        keys
    }

    fn reconcile(&self, view: &ObjectStore, key: &Key, now: Timestamp, _seed: u64) -> Plan {
        let mut plan = Plan::default();
        match &*key.resource {
            Service::RESOURCE => of_service(view, key, &mut plan),
            IPAddress::RESOURCE => of_address(view, key, &mut plan),
            _ => of_range(view, key, now, &mut plan),
        }
        plan
    }
}

/// The canonical text of an address, which is the object's name.
fn name_of(ip: &str) -> Option<String> {
    ip.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

fn parent(address: &IPAddress) -> Option<(String, String)> {
    let parent = address.field("/spec/parentRef");
    let text = |f: &str| parent[f].as_str().unwrap_or_default().to_owned();
    let service = text("resource") == "services" && text("group").is_empty();
    service.then(|| (text("namespace"), text("name")))
}

fn of_service(view: &ObjectStore, key: &Key, plan: &mut Plan) {
    let Some(service) = view.get::<Service>(&key.namespace, &key.name) else { return };
    if service.meta.deleting.is_some() {
        return;
    }
    for ip in service.spec.cluster_ips.iter().filter_map(|ip| name_of(ip)) {
        if view.get::<IPAddress>("", &ip).is_none() {
            let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
            let address = json!({
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IPAddress",
                "metadata": {"name": ip, "labels": {MANAGED_BY: ALLOCATOR, FAMILY: family}},
                "spec": {"parentRef": {"group": "", "resource": "services", "namespace": key.namespace, "name": key.name}},
            });
            plan.create(IPAddress::RESOURCE, "", address);
        }
    }
}

fn of_address(view: &ObjectStore, key: &Key, plan: &mut Plan) {
    let Some(address) = view.get::<IPAddress>("", &key.name) else { return };
    if address.meta.labels.get(MANAGED_BY) != Some(ALLOCATOR) || address.meta.deleting.is_some() {
        return;
    }
    let held = parent(address).is_some_and(|(namespace, name)| {
        let service = view.get::<Service>(&namespace, &name);
        service.is_some_and(|s| s.spec.cluster_ips.iter().any(|ip| name_of(ip).as_deref() == Some(&key.name)))
    });
    if !held {
        plan.because("Unused", format!("no Service has the address {}", key.name));
        plan.delete(IPAddress::RESOURCE, &address.meta);
    }
}

fn of_range(view: &ObjectStore, key: &Key, now: Timestamp, plan: &mut Plan) {
    let Some(range) = view.get::<ServiceCIDR>("", &key.name) else { return };
    let protected = range.meta.has_finalizer(FINALIZER);
    if range.meta.deleting.is_none() {
        if !protected {
            let mut all: Vec<&str> = range.meta.finalizers.iter().map(|f| &**f).collect();
            all.push(FINALIZER);
            plan.patch_exact(ServiceCIDR::RESOURCE, &range.meta, None, json!({"metadata": {"finalizers": all}}));
        }
        let message = "Kubernetes Service CIDR is ready";
        return say(range, true, "", message, now, plan);
    }
    let covered = |ip: &str| others_hold(view, range, ip);
    let used = view.all::<IPAddress>().any(|a| holds(range, &a.meta.name) && !covered(&a.meta.name));
    if used {
        let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        say(range, false, "Terminating", message, now, plan);
    } else if protected {
        plan.patch_exact(ServiceCIDR::RESOURCE, &range.meta, None, finalizers_without(&range.meta, FINALIZER));
    }
}

fn say(range: &ServiceCIDR, ready: bool, reason: &str, message: &str, now: Timestamp, plan: &mut Plan) {
    let status = if ready { "True" } else { "False" };
    let all = range.field("/status/conditions");
    let old = all.as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let since = old.filter(|c| c["status"] == status).map(|c| c["lastTransitionTime"].clone());
    let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| time(now))});
    set_shared_status(plan, range, json!({"conditions": with_condition(&all, condition)}));
}

fn holds(range: &ServiceCIDR, ip: &str) -> bool {
    let Ok(ip) = ip.parse::<IpAddr>() else { return false };
    range.spec.cidrs.iter().any(|cidr| contains(cidr, ip).unwrap_or(false))
}

fn others_hold(view: &ObjectStore, range: &ServiceCIDR, ip: &str) -> bool {
    let mut others = view.all::<ServiceCIDR>().filter(|r| r.meta.uid != range.meta.uid && r.meta.deleting.is_none());
    others.any(|r| holds(r, ip))
}

fn contains(cidr: &str, ip: IpAddr) -> Option<bool> {
    let (base, bits) = cidr.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    Some(match (base.parse().ok()?, ip) {
        (IpAddr::V4(base), IpAddr::V4(ip)) if bits <= 32 => {
            let drop = 32 - bits;
            u32::from(base).checked_shr(drop) == u32::from(ip).checked_shr(drop)
        }
        (IpAddr::V6(base), IpAddr::V6(ip)) if bits <= 128 => {
            let drop = 128 - bits;
            u128::from(base).checked_shr(drop) == u128::from(ip).checked_shr(drop)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::World;
    use serde_json::Value;

    const ADDRESSES: &str = "networking.k8s.io/ipaddresses";
    const RANGES: &str = "networking.k8s.io/servicecidrs";

    fn service(w: &mut World, name: &str, ips: Value) {
        w.create("/services", json!({"metadata": {"name": name, "namespace": "a"},
            "spec": {"clusterIPs": ips, "ports": [{"port": 80}]}}));
    }

    #[test]
    fn every_address_of_a_service_has_its_object() {
        let mut w = World::new();
        service(&mut w, "both", json!(["10.96.0.9", "fd00:0::9"]));
        service(&mut w, "headless", json!(["None"]));
        w.create(ADDRESSES, json!({"metadata": {"name": "10.96.7.7"}, "spec": {}}));
        w.settle();
        let names: Vec<&str> = w.list(ADDRESSES).iter().map(|a| a["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["10.96.0.9", "10.96.7.7", "fd00::9"]);
        assert_eq!(w.get(ADDRESSES, "", "10.96.0.9")["spec"]["parentRef"]["name"], "both");
        w.delete(ADDRESSES, "", "10.96.0.9");
        w.settle();
        assert!(w.exists(ADDRESSES, "", "10.96.0.9"));
        w.delete("/services", "a", "both");
        w.settle();
        assert_eq!(w.list(ADDRESSES).len(), 1, "what others manage stays");
    }

    #[test]
    fn a_range_goes_when_nobody_needs_it() {
        let mut w = World::new();
        w.create(RANGES, json!({"metadata": {"name": "r"}, "spec": {"cidrs": ["10.96.0.0/24"]}}));
        service(&mut w, "s", json!(["10.96.0.9"]));
        w.settle();
        assert_eq!(w.get(RANGES, "", "r")["status"]["conditions"][0]["status"], "True");
        w.delete(RANGES, "", "r");
        w.settle();
        assert_eq!(w.get(RANGES, "", "r")["status"]["conditions"][0]["reason"], "Terminating");
        w.delete("/services", "a", "s");
        w.settle();
        assert!(!w.exists(RANGES, "", "r"));
    }

    /// What upstream's tests of the controller tell apart: who else holds the addresses of a range that is being deleted.
    #[test]
    fn a_range_waits_only_for_addresses_that_no_other_holds() {
        // Other ranges, whether they are going as well, addresses; whether the range stays.
        let cases: [(&[(&str, bool)], &[&str], bool); 8] = [
            (&[], &[], false),
            (&[], &["10.96.0.9"], true),
            (&[], &["10.97.0.9"], false),
            (&[("10.96.0.0/24", false)], &["10.96.0.9"], false),
            (&[("10.96.0.0/16", false)], &["10.96.0.9", "10.96.0.10"], false),
            (&[("10.96.0.0/28", false)], &["10.96.0.9", "10.96.0.200"], true),
            (&[("10.96.0.0/24", true)], &["10.96.0.9"], true),
            (&[("10.96.0.0/24", true), ("10.96.0.0/16", false)], &["10.96.0.9"], false),
        ];
        for (others, ips, stays) in cases {
            let mut w = World::new();
            w.create(RANGES, json!({"metadata": {"name": "r"}, "spec": {"cidrs": ["10.96.0.0/24"]}}));
            for (at, (cidr, _)) in others.iter().enumerate() {
                w.create(RANGES, json!({"metadata": {"name": format!("o{at}")}, "spec": {"cidrs": [cidr]}}));
            }
            service(&mut w, "s", json!(ips));
            w.settle();
            for (at, _) in others.iter().enumerate().filter(|(_, o)| o.1) {
                w.patch(RANGES, "", &format!("o{at}"), json!({"metadata": {"finalizers": ["x.io/hold"],
                    "deletionTimestamp": "2026-11-23T10:00:00Z"}}));
            }
            w.delete(RANGES, "", "r");
            w.settle();
            assert_eq!(w.exists(RANGES, "", "r"), stays, "{others:?} {ips:?}");
        }
    }

    #[test]
    fn ranges_hold_what_is_in_them() {
        let cases = [
            ("10.96.0.0/16", "10.96.255.255", true),
            ("10.96.0.0/16", "10.97.0.0", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("fd00::/64", "fd00::1", true),
            ("fd00::/64", "fd00:0:0:1::1", false),
            ("fd00::/64", "10.0.0.1", false),
            ("10.0.0.0/99", "10.0.0.1", false),
        ];
        for (cidr, ip, want) in cases {
            assert_eq!(contains(cidr, ip.parse().unwrap()), Some(want), "{cidr} {ip}");
        }
    }
}
