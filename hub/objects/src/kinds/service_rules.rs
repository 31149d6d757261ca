//! What a Service's type allows: fields that only make sense for some types, and what a change of type takes with
//! it.
//!
//! In: specs of Services. Out: field errors; a spec without leftovers. Never: allocates anything.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cidr::{Cidr, NOT_A_CIDR, NOT_AN_IP, special};
use super::fill::{list, remove, text};
use super::rules::{Errors, join, one_of};
use crate::field::FieldError;

/// Upstream keeps services off the kubelet's port, whatever listens there.
const KUBELET_PORT: i64 = 10_250;
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

fn is_balancer(spec: &Value) -> bool {
    spec["type"] == "LoadBalancer"
}

fn reaches_out(spec: &Value) -> bool {
    match text(spec, "type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "externalIPs").is_empty(),
        _ => false,
    }
}

/// Whether a balancer asks the nodes for the health of this Service.
pub fn checks_health(spec: &Value) -> bool {
    is_balancer(spec) && spec["externalTrafficPolicy"] == "Local"
}

/// A client that only changes the type did not mean to keep what the old type had.
pub fn drop_leftovers(spec: &mut Value, old: &Value) {
    let (same, gone): (fn(&Value, &Value, &str) -> bool, _) = (
        |spec, old, field| spec[field] == old[field],
        [
            ("externalTrafficPolicy", reaches_out(old) && !reaches_out(spec)),
            ("healthCheckNodePort", checks_health(old) && !checks_health(spec)),
            ("allocateLoadBalancerNodePorts", is_balancer(old) && !is_balancer(spec)),
            ("loadBalancerClass", is_balancer(old) && !is_balancer(spec)),
        ],
    );
    for (field, _) in gone.iter().filter(|(_, gone)| *gone) {
        if same(spec, old, field) {
            _ = remove(spec, field);
        }
    }
}

pub fn validate(spec: &Value, errors: &mut Errors) {
    for (at, ip) in list(spec, "externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        let valid = ip.parse::<std::net::IpAddr>().is_ok();
        let wrong = if valid { special(ip) } else { Some(NOT_AN_IP) };
        errors.extend(wrong.map(|w| FieldError::invalid(format!("spec.externalIPs[{at}]"), ip, w)));
    }
    balancer(spec, errors);
    let policy = text(spec, "externalTrafficPolicy");
    if !policy.is_empty() && !reaches_out(spec) {
        let words = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", policy, words));
    }
    let check = spec["healthCheckNodePort"].as_i64().unwrap_or(0);
    if check != 0 && !checks_health(spec) {
        let words = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", check, words));
    }
    let choices = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    one_of(spec, "trafficDistribution", "spec", &choices, errors);
    one_of(spec, "ipFamilyPolicy", "spec", &["SingleStack", "PreferDualStack", "RequireDualStack"], errors);
    for (at, family) in list(spec, "ipFamilies").iter().enumerate() {
        if !matches!(family.as_str(), Some("IPv4" | "IPv6")) {
            let path = format!("spec.ipFamilies[{at}]");
            errors.push(FieldError::not_supported(path, family.clone(), &["IPv4", "IPv6"]));
        }
    }
    ports(spec, errors);
}

fn balancer(spec: &Value, errors: &mut Errors) {
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && !is_balancer(spec) {
        errors.push(FieldError::forbidden("spec.LoadBalancerSourceRanges", ONLY_BALANCERS));
    }
    for (at, range) in ranges.iter().enumerate().filter(|_| is_balancer(spec)) {
        if Cidr::parse(range.as_str().unwrap_or_default().trim()).is_none() {
            let path = format!("spec.LoadBalancerSourceRanges[{at}]");
            errors.push(FieldError::invalid(path, range.clone(), NOT_A_CIDR));
        }
    }
    for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !spec[field].is_null() && !is_balancer(spec) {
            errors.push(FieldError::forbidden(join("spec", field), ONLY_BALANCERS));
        }
    }
}

fn ports(spec: &Value, errors: &mut Errors) {
    let mut taken = BTreeSet::new();
    for (at, port) in list(spec, "ports").iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        let number = port["port"].as_i64().unwrap_or(0);
        if is_balancer(spec) && number == KUBELET_PORT {
            let words = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
            errors.push(FieldError::invalid(path.as_str(), number, words));
        }
        super::rules::named(port, "appProtocol", &path, crate::names::qualified_name, errors);
        let node = port["nodePort"].as_i64().unwrap_or(0);
        if node != 0 && !taken.insert((node, text(port, "protocol"))) {
            errors.push(FieldError::duplicate(join(&path, "nodePort"), node));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_and_their_fields() {
        for (spec, expect) in [
            (json!({"type": "ClusterIP", "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"}), ""),
            (
                json!({"type": "ClusterIP", "externalTrafficPolicy": "Local"}),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                json!({"type": "NodePort", "loadBalancerClass": "x"}),
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                json!({"type": "ClusterIP", "ports": [{"appProtocol": "/a"}]}),
                "spec.ports[0].appProtocol: Invalid value: \"/a\": prefix part must be non-empty",
            ),
            (
                json!({"type": "ClusterIP", "externalIPs": ["127.0.0.1"]}),
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                 ::1/128)",
            ),
            (
                json!({"type": "NodePort", "ports": [{"nodePort": 30_001, "protocol": "TCP"},
                    {"nodePort": 30_001, "protocol": "TCP"}, {"nodePort": 30_001, "protocol": "UDP"}]}),
                "spec.ports[1].nodePort: Duplicate value: 30001",
            ),
            (
                json!({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}),
                "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. \
                 10.9.8.0/24 or 2001:db8::/64)",
            ),
        ] {
            let mut errors = Errors::new();
            validate(&spec, &mut errors);
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(said.join("; "), expect, "{spec}");
        }
    }

    #[test]
    fn a_new_type_leaves_the_old_ones_fields() {
        let old = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31_000,
            "allocateLoadBalancerNodePorts": true, "loadBalancerClass": "x"});
        let mut new = old.clone();
        new["type"] = json!("ClusterIP");
        drop_leftovers(&mut new, &old);
        assert_eq!(new, json!({"type": "ClusterIP"}));
    }
}
