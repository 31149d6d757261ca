//! Services (v1).
//!
//! In: Services as JSON. Out: defaults, rules and the table row.
//! Never: allocates addresses or node ports: the API does, before `prepare_create`'s result is stored.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, labels, name};
use super::fill::{child, copy, each, list, map, present, remove, set, set_absent, text};
use super::rules::{Errors, IMMUTABLE, join, one_of};
use super::service_rules;
use crate::behaviour::{Behaviour, Column, Ctx};
use crate::field::FieldError;
use crate::{metadata, names, table};

const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;

#[derive(Debug, Clone, Copy)]
pub struct Service;

impl Behaviour for Service {
    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let spec = &new["spec"];
        let mut warnings = Vec::new();
        if spec["clusterIP"] == "None" {
            let ignored = [
                ("loadBalancerIP", !text(spec, "loadBalancerIP").is_empty()),
                ("externalIPs", !list(spec, "externalIPs").is_empty()),
                ("SessionAffinity", text(spec, "sessionAffinity") == "ClientIP"),
            ];
            for (field, _) in ignored.iter().filter(|(_, set)| *set) {
                warnings.push(format!("spec.{field} is ignored for headless services"));
            }
        }
        if spec["type"] != "ExternalName" && !text(spec, "externalName").is_empty() {
            warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
        }
        warnings
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = present(object, "spec") else { return };
        set(spec, "sessionAffinity", "None");
        set(spec, "type", "ClusterIP");
        if spec["sessionAffinity"] == "ClientIP" {
            let client = child(spec, "sessionAffinityConfig").and_then(|config| child(config, "clientIP"));
            if let Some(client) = client {
                set_absent(client, "timeoutSeconds", AFFINITY_SECONDS);
            }
        } else {
            _ = remove(spec, "sessionAffinityConfig");
        }
        for port in each(spec, "ports") {
            set(port, "protocol", "TCP");
            let unset = matches!(&port["targetPort"], Value::Null)
                || port["targetPort"] == 0
                || port["targetPort"] == "";
            if unset {
                port["targetPort"] = json!(port["port"].as_i64().unwrap_or(0));
            }
        }
        let kind = text(spec, "type").to_owned();
        let external_ips = !list(spec, "externalIPs").is_empty();
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || kind == "ClusterIP" && external_ips {
            set(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind != "ExternalName" {
            set(spec, "internalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            set_absent(spec, "allocateLoadBalancerNodePorts", true);
        }
        set_absent(object, "status", json!({"loadBalancer": {}}));
    }

    fn prepare_create(&self, object: &mut Value, _ctx: &Ctx<'_>) {
        let Some(spec) = present(object, "spec") else { return };
        if spec["type"] != "ExternalName" {
            set(spec, "ipFamilyPolicy", "SingleStack");
            set_absent(spec, "ipFamilies", json!(["IPv4"]));
        }
        mirror_cluster_ip(spec);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value, subresource: &str, _ctx: &Ctx<'_>) {
        if subresource == "status" {
            return;
        }
        let Some(spec) = present(new, "spec") else { return };
        keep_allocated(spec, &old["spec"]);
        service_rules::drop_leftovers(spec, &old["spec"]);
        mirror_cluster_ip(spec);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        names::dns1035_label(name)
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        validate(&object["spec"])
    }

    fn validate_update(&self, new: &Value, old: &Value, subresource: &str) -> Vec<FieldError> {
        if subresource == "status" {
            return Vec::new();
        }
        let mut errors = validate(&new["spec"]);
        let (new, old) = (&new["spec"], &old["spec"]);
        let (before, after) = (text(old, "clusterIP"), text(new, "clusterIP"));
        let external = old["type"] == "ExternalName" || new["type"] == "ExternalName";
        if !external && !before.is_empty() && before != after {
            errors.push(FieldError::invalid("spec.clusterIPs[0]", json!([after]), "may not change once set"));
        }
        let family = |spec: &Value| list(spec, "ipFamilies").first().cloned();
        if !external && family(old).is_some() && family(new) != family(old) {
            let (at, shown) = ("spec.ipFamilies[0]", new["ipFamilies"].clone());
            errors.push(FieldError::invalid(at, shown, "may not change once set"));
        }
        let port = |spec: &Value| spec["healthCheckNodePort"].as_i64().unwrap_or(0);
        if service_rules::checks_health(old) && service_rules::checks_health(new) && port(old) != port(new) {
            errors.push(FieldError::invalid("spec.healthCheckNodePort", port(new), IMMUTABLE));
        }
        if new["type"] == "LoadBalancer"
            && !old["loadBalancerClass"].is_null()
            && new["loadBalancerClass"] != old["loadBalancerClass"]
        {
            errors.push(FieldError::invalid(
                "spec.loadBalancerClass",
                new["loadBalancerClass"].clone(),
                IMMUTABLE,
            ));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("Type"),
                Column::text("Cluster-IP"),
                Column::text("External-IP"),
                Column::text("Port(s)"),
                Column::AGE,
                Column::text("Selector").wide(),
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let cluster_ip = match list(spec, "clusterIPs").first().and_then(Value::as_str) {
            Some(ip) if !ip.is_empty() => ip,
            _ if !text(spec, "clusterIP").is_empty() => text(spec, "clusterIP"),
            _ => NONE,
        };
        vec![
            name(object),
            json!(text(spec, "type")),
            json!(cluster_ip),
            json!(external_ip(object)),
            json!(ports(spec)),
            table::age(object, now),
            json!(labels(map(spec, "selector"))),
        ]
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let field = |name: &str| text(&object["spec"], name).to_owned();
        vec![("spec.clusterIP", field("clusterIP")), ("spec.type", field("type"))]
    }
}

/// `clusterIP` and `clusterIPs[0]` say the same.
fn mirror_cluster_ip(spec: &mut Value) {
    if spec["type"] == "ExternalName" {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            _ = remove(spec, field);
        }
        return;
    }
    let first = list(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = text(spec, "clusterIP").to_owned();
    match (own.is_empty(), first.is_empty()) {
        (false, true) => spec["clusterIPs"] = json!([own]),
        (true, false) => spec["clusterIP"] = json!(first),
        _ => {}
    }
}

/// A client that sends no addresses or node ports means those that the Service has.
fn keep_allocated(spec: &mut Value, old: &Value) {
    let needs_ip = |spec: &Value| spec["type"] != "ExternalName";
    if needs_ip(spec) && needs_ip(old) {
        let empty = text(spec, "clusterIP").is_empty() && list(spec, "clusterIPs").is_empty();
        if empty {
            copy(spec, old, "clusterIP");
            copy(spec, old, "clusterIPs");
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if spec[field].is_null() {
                copy(spec, old, field);
            }
        }
    }
    let has_node_ports = |spec: &Value| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    if !has_node_ports(spec) {
        for port in each(spec, "ports") {
            let same = list(old, "ports").iter().any(|before| before["nodePort"] == port["nodePort"]);
            if same && has_node_ports(old) {
                _ = remove(port, "nodePort");
            }
        }
        return;
    }
    for port in each(spec, "ports").filter(|port| port["nodePort"].as_i64().unwrap_or(0) == 0) {
        let key =
            |port: &Value| (port["port"].clone(), port["protocol"].as_str().unwrap_or("TCP").to_owned());
        if let Some(before) = list(old, "ports").iter().find(|before| key(before) == key(port)) {
            copy(port, before, "nodePort");
        }
    }
    if spec["healthCheckNodePort"].as_i64().unwrap_or(0) == 0 && spec["externalTrafficPolicy"] == "Local" {
        copy(spec, old, "healthCheckNodePort");
    }
}

fn validate(spec: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let headless = spec["clusterIP"] == "None";
    let kind = text(spec, "type");
    let ports = list(spec, "ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let words = format!("may not be set to 'None' for {kind} services");
            errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", words));
        }
        "ExternalName" => match text(spec, "externalName").trim_end_matches('.') {
            "" => errors.push(FieldError::required("spec.externalName", "")),
            name => {
                for wrong in names::dns_subdomain(name) {
                    errors.push(FieldError::invalid("spec.externalName", name, wrong));
                }
            }
        },
        _ => {}
    }
    validate_ports(ports, kind, &mut errors);
    errors.extend(metadata::labels(&spec["selector"], "spec.selector"));
    one_of(spec, "type", "spec", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"], &mut errors);
    one_of(spec, "sessionAffinity", "spec", &["ClientIP", "None"], &mut errors);
    one_of(spec, "internalTrafficPolicy", "spec", &["Cluster", "Local"], &mut errors);
    one_of(spec, "externalTrafficPolicy", "spec", &["Cluster", "Local"], &mut errors);
    let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
    if let Some(seconds) = seconds.as_i64().filter(|seconds| !(1..=AFFINITY_SECONDS_MAX).contains(seconds)) {
        let words = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
        errors.push(FieldError::invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            seconds,
            words,
        ));
    }
    service_rules::validate(spec, &mut errors);
    let ip = text(spec, "clusterIP");
    if !matches!(ip, "" | "None") && ip.parse::<std::net::IpAddr>().is_err() {
        let words = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
        errors.push(FieldError::invalid("spec.clusterIPs[0]", ip, words));
    }
    errors
}

fn validate_ports(ports: &[Value], kind: &str, errors: &mut Errors) {
    let mut names_seen = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{at}]");
        match text(port, "name") {
            "" if ports.len() > 1 => errors.push(FieldError::required(join(&path, "name"), "")),
            "" => {}
            name => {
                let wrong = names::dns_label(name);
                if wrong.is_empty() && !names_seen.insert(name) {
                    errors.push(FieldError::duplicate(join(&path, "name"), name));
                }
                errors.extend(
                    wrong.into_iter().map(|words| FieldError::invalid(join(&path, "name"), name, words)),
                );
            }
        }
        let number = port["port"].as_i64().unwrap_or(0);
        for wrong in names::port_number(number) {
            errors.push(FieldError::invalid(join(&path, "port"), number, wrong));
        }
        one_of(port, "protocol", &path, &["SCTP", "TCP", "UDP"], errors);
        let wrong = match &port["targetPort"] {
            Value::String(name) => names::port_name(name),
            Value::Null => Vec::new(),
            number => names::port_number(number.as_i64().unwrap_or(0)),
        };
        let target = port["targetPort"].clone();
        errors.extend(
            wrong.into_iter().map(|w| FieldError::invalid(join(&path, "targetPort"), target.clone(), w)),
        );
        if !numbers.insert((number, text(port, "protocol").to_owned())) {
            let shown = json!({"name": port["name"], "port": number, "protocol": port["protocol"]});
            errors.push(FieldError::duplicate(path.as_str(), shown));
        }
        if kind == "ClusterIP" && port["nodePort"].as_i64().unwrap_or(0) != 0 {
            let words = "may not be used when `type` is 'ClusterIP'";
            errors.push(FieldError::forbidden(join(&path, "nodePort"), words));
        }
    }
}

fn external_ip(object: &Value) -> String {
    let spec = &object["spec"];
    let ips: Vec<&str> = list(spec, "externalIPs").iter().filter_map(Value::as_str).collect();
    let ingress: Vec<&str> = list(&object["status"]["loadBalancer"], "ingress")
        .iter()
        .map(|entry| if text(entry, "ip").is_empty() { text(entry, "hostname") } else { text(entry, "ip") })
        .collect();
    match text(spec, "type") {
        "ExternalName" => text(spec, "externalName").to_owned(),
        "LoadBalancer" if ips.is_empty() && ingress.is_empty() => "<pending>".to_owned(),
        "LoadBalancer" => ingress.into_iter().chain(ips).collect::<Vec<_>>().join(","),
        "ClusterIP" | "NodePort" if ips.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => ips.join(","),
        _ => "<unknown>".to_owned(),
    }
}

fn ports(spec: &Value) -> String {
    let texts: Vec<String> = list(spec, "ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (port["port"].as_i64().unwrap_or(0), text(port, "protocol"));
            match port["nodePort"].as_i64().unwrap_or(0) {
                0 => format!("{number}/{protocol}"),
                node => format!("{number}:{node}/{protocol}"),
            }
        })
        .collect();
    if texts.is_empty() { NONE.to_owned() } else { texts.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "s", "creationTimestamp": "1970-01-01T00:00:00Z"}});
        object["spec"] = spec;
        Service.default(&mut object);
        object
    }

    #[test]
    fn defaults() {
        let object =
            made(json!({"ports": [{"port": 80}], "type": "NodePort", "sessionAffinity": "ClientIP"}));
        assert_eq!(
            object["spec"],
            json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "NodePort",
                "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
                "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster"})
        );
    }

    #[test]
    fn an_update_keeps_the_address() {
        let mut old = made(json!({"ports": [{"port": 80, "nodePort": 30001}], "type": "NodePort",
            "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}));
        old["spec"]["ipFamilies"] = json!(["IPv4"]);
        let mut new = made(json!({"ports": [{"port": 80}], "type": "NodePort"}));
        let ctx = Ctx { now: Timestamp::UNIX_EPOCH, user: "", groups: &[], uid: "", suffix: "" };
        Service.prepare_update(&mut new, &old, "", &ctx);
        assert_eq!(new["spec"], old["spec"]);
        new["spec"]["clusterIP"] = json!("10.0.0.2");
        assert_eq!(
            Service.validate_update(&new, &old, "")[0].to_string(),
            "spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"
        );
        new["spec"]["clusterIP"] = json!("10.0.0.1");
        new["spec"]["ipFamilies"] = json!(["IPv6"]);
        assert_eq!(
            Service.validate_update(&new, &old, "")[0].to_string(),
            "spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: may not change once set"
        );
    }

    #[test]
    fn rules_in_kubernetes_words() {
        let cases = [
            (json!({}), "spec.ports: Required value"),
            (
                json!({"ports": [{"port": 0}]}),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (json!({"ports": [{"port": 1, "name": "a"}, {"port": 2}]}), "spec.ports[1].name: Required value"),
            (
                json!({"ports": [{"port": 1}], "type": "x"}),
                "spec.type: Unsupported value: \"x\": supported values: \"ClusterIP\", \"ExternalName\", \
                 \"LoadBalancer\", \"NodePort\"",
            ),
            (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
        ];
        for (spec, expect) in cases {
            let errors: Vec<String> =
                Service.validate_create(&made(spec)).iter().map(ToString::to_string).collect();
            assert!(errors.contains(&expect.to_owned()), "{errors:?}");
        }
    }

    #[test]
    fn row() {
        let mut object =
            made(json!({"ports": [{"port": 80, "nodePort": 30001}, {"port": 53, "protocol": "UDP"}],
            "type": "LoadBalancer", "clusterIP": "10.0.0.1", "selector": {"a": "b"}}));
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(
            json!(Service.row(&object, now)),
            json!(["s", "LoadBalancer", "10.0.0.1", "<pending>", "80:30001/TCP,53/UDP", "0s", "a=b"])
        );
        object["status"]["loadBalancer"]["ingress"] = json!([{"ip": "1.2.3.4"}]);
        assert_eq!(Service.row(&object, now)[3], "1.2.3.4");
    }
}
