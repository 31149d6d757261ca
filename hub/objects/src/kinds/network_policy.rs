//! NetworkPolicies (networking.k8s.io/v1).
//!
//! In: policies as JSON. Out: defaults, rules and the table row. Never: filters packets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{name, selector};
use super::cidr::{Cidr, NOT_A_CIDR};
use super::fill::{each, list, present, set, text};
use super::rules::{Errors, join, label_selector, one_of};
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::{names, table};

#[derive(Debug, Clone, Copy)]
pub struct NetworkPolicy;

impl Behaviour for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        for direction in ["ingress", "egress"] {
            for rule in each(spec, direction) {
                for port in each(rule, "ports") {
                    set(port, "protocol", "TCP");
                }
            }
        }
        if list(spec, "policyTypes").is_empty() {
            let egress = !list(spec, "egress").is_empty();
            spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let spec = &object["spec"];
        label_selector(&spec["podSelector"], "spec.podSelector", &mut errors);
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (at, rule) in list(spec, direction).iter().enumerate() {
                let path = format!("spec.{direction}[{at}]");
                for (at, port) in list(rule, "ports").iter().enumerate() {
                    check_port(port, &format!("{path}.ports[{at}]"), &mut errors);
                }
                for (at, peer) in list(rule, peers).iter().enumerate() {
                    check_peer(peer, &format!("{path}.{peers}[{at}]"), &mut errors);
                }
            }
        }
        let types = list(spec, "policyTypes");
        if types.len() > 2 {
            let words = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid("spec.policyTypes", spec["policyTypes"].clone(), words));
            return errors;
        }
        for (at, type_) in types.iter().enumerate() {
            let choices = ["Egress", "Ingress"];
            if !choices.contains(&type_.as_str().unwrap_or_default()) {
                let path = format!("spec.policyTypes[{at}]");
                errors.push(FieldError::not_supported(path, type_.clone(), &choices));
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Pod-Selector"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(object), json!(selector(&object["spec"]["podSelector"])), table::age(object, now)]
    }
}

fn check_port(port: &Value, path: &str, errors: &mut Errors) {
    one_of(port, "protocol", path, &["TCP", "UDP", "SCTP"], errors);
    let (number, end) = (&port["port"], port["endPort"].as_i64());
    let wrong = match number {
        Value::Null => Vec::new(),
        Value::String(name) => names::port_name(name),
        number => names::port_number(number.as_i64().unwrap_or(0)),
    };
    errors.extend(wrong.into_iter().map(|w| FieldError::invalid(join(path, "port"), number.clone(), w)));
    let Some(end) = end else { return };
    let refused = match number {
        Value::Null => Some("may not be specified when `port` is not specified"),
        Value::String(_) => Some("may not be specified when `port` is non-numeric"),
        number if end < number.as_i64().unwrap_or(0) => Some("must be greater than or equal to `port`"),
        _ => None,
    };
    let wrong = refused.map(str::to_owned).into_iter().chain(names::port_number(end));
    errors.extend(wrong.map(|w| FieldError::invalid(join(path, "endPort"), end, w)));
}

fn check_peer(peer: &Value, path: &str, errors: &mut Errors) {
    let selectors = ["podSelector", "namespaceSelector"];
    for field in selectors {
        if peer[field].is_object() {
            label_selector(&peer[field], &join(path, field), errors);
        }
    }
    let selects = selectors.iter().any(|field| peer[*field].is_object());
    let block = &peer["ipBlock"];
    match (selects, block.is_object()) {
        (false, false) => errors.push(FieldError::required(path, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
    if block.is_object() {
        check_block(block, &join(path, "ipBlock"), errors);
    }
}

fn check_block(block: &Value, path: &str, errors: &mut Errors) {
    let at = join(path, "cidr");
    let cidr = match text(block, "cidr") {
        "" => {
            errors.push(FieldError::required(at, ""));
            return;
        }
        cidr => match Cidr::parse(cidr) {
            Some(parsed) => parsed,
            None => {
                errors.push(FieldError::invalid(at, cidr, NOT_A_CIDR));
                return;
            }
        },
    };
    for (index, except) in list(block, "except").iter().enumerate() {
        let at = format!("{path}.except[{index}]");
        match Cidr::parse(except.as_str().unwrap_or_default()) {
            None => errors.push(FieldError::invalid(at, except.clone(), NOT_A_CIDR)),
            Some(inner) if !cidr.strictly_contains(inner) => {
                errors.push(FieldError::invalid(at, except.clone(), "must be a strict subset of `cidr`"));
            }
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(rule: Value) -> Vec<String> {
        let object = json!({"spec": {"podSelector": {}, "ingress": [rule]}});
        NetworkPolicy.validate_create(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn peers_and_ports() {
        assert_eq!(errors(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "ports": [{"port": 80, "endPort": 90}, {"port": "web"}, {}]})), Vec::<String>::new());
        for (rule, expect) in [
            (json!({"from": [{}]}), "spec.ingress[0].from[0]: Required value: must specify a peer"),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/40"}}]}),
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0/40\": must be a valid CIDR value, \
                 (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of \
                 `cidr`",
            ),
            (
                json!({"ports": [{"port": 99_999}]}),
                "spec.ingress[0].ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"ports": [{"port": 80, "endPort": 70}]}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
            ),
            (
                json!({"ports": [{"endPort": 70}]}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: may not be specified when `port` is not specified",
            ),
            (
                json!({"ports": [{"port": "web", "endPort": 70}]}),
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: may not be specified when `port` is non-numeric",
            ),
        ] {
            assert_eq!(errors(rule), [expect]);
        }
    }
}
