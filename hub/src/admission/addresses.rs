//! Addresses and ports of Services.
//!
//! In: Services on their way to the store, under a lock. Out: `clusterIP(s)` from 10.96.0.0/16 and node ports
//! from 30000-32767; 422 when a chosen one is taken or out of range. What is taken is read from the stored
//! Services, so that nothing can leak. A LoadBalancer that serves locally gets one more, to ask for its health.
//! Never: gives one address to two Services.

use crate::api::{fill_random, object, write::Ask};
use limpet_objects::{field::FieldError, status::Status};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::Ipv4Addr};

const NETWORK: [u8; 2] = [10, 96];
/// Below it, addresses are only given to who asks for one (upstream keeps a band for that, too).
const DYNAMIC_FROM: u16 = 256;
const PORTS: std::ops::RangeInclusive<i64> = 30000..=32767;

#[derive(Default)]
struct Taken {
    addresses: BTreeSet<String>,
    ports: BTreeSet<(String, i64)>,
}

pub(super) fn allocate(ask: &Ask, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    let taken = taken(ask, object::uid(service));
    if let Some(old) = old {
        carry_over(service, old);
    }
    let mut errors = Vec::new();
    let kind = service["spec"]["type"].as_str().unwrap_or("ClusterIP").to_owned();
    match kind.as_str() {
        "ExternalName" => drop_addresses(service),
        type_ => {
            let with_ports = matches!(type_, "NodePort" | "LoadBalancer")
                && !(type_ == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"] == false);
            families(&service["spec"], &mut errors);
            errors.extend(address(service, &taken).err());
            if with_ports {
                ports(service, &taken, &mut errors);
            }
            if type_ == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local" {
                health_port(service, &taken, &mut errors);
            }
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Service", object::name(service), &errors))
}

fn taken(ask: &Ask, own_uid: &str) -> Taken {
    let mut taken = Taken::default();
    for record in ask.api.store.list("/services", None).records {
        let Ok(service) = serde_json::from_slice::<Value>(&record.bytes) else { continue };
        if object::uid(&service) == own_uid {
            continue;
        }
        let spec = &service["spec"];
        taken.addresses.extend(object::strings(&spec["clusterIPs"]).map(str::to_owned));
        taken.addresses.extend(spec["clusterIP"].as_str().map(str::to_owned));
        taken.ports.extend(own_ports(spec));
    }
    taken
}

/// The node ports of one Service.
fn own_ports(spec: &Value) -> impl Iterator<Item = (String, i64)> + '_ {
    let ports = spec["ports"].as_array().into_iter().flatten();
    let ports = ports.filter_map(|port| Some((protocol(port), port["nodePort"].as_i64().filter(|n| *n != 0)?)));
    let health = spec["healthCheckNodePort"].as_i64().filter(|n| *n != 0);
    ports.chain(health.map(|number| ("TCP".to_owned(), number)))
}

fn protocol(port: &Value) -> String {
    port["protocol"].as_str().unwrap_or("TCP").to_owned()
}

/// An update that does not name the addresses keeps them.
fn carry_over(service: &mut Value, old: &Value) {
    let needs = |v: &Value| v["spec"]["type"] != "ExternalName";
    if needs(service) && needs(old) && service["spec"]["clusterIP"].as_str().unwrap_or_default().is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            if let Some(value) = old["spec"].get(field) {
                service["spec"][field] = value.clone();
            }
        }
    }
    let has_ports = |v: &Value| matches!(v["spec"]["type"].as_str(), Some("NodePort" | "LoadBalancer"));
    let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let Some(ports) = service["spec"]["ports"].as_array().cloned() else { return };
    let keeps = has_ports(service);
    let was = has_ports(old);
    for (at, port) in ports.iter().enumerate() {
        let same = before.iter().find(|b| b["port"] == port["port"] && protocol(b) == protocol(port));
        let old_number = same.and_then(|b| b["nodePort"].as_i64());
        let Some(number) = old_number else { continue };
        let slot = &mut service["spec"]["ports"][at];
        if keeps && slot["nodePort"].as_i64().unwrap_or(0) == 0 {
            slot["nodePort"] = json!(number);
        } else if !keeps && was && slot["nodePort"].as_i64() == Some(number) {
            slot.as_object_mut().map(|p| p.remove("nodePort"));
        }
    }
}

fn drop_addresses(service: &mut Value) {
    if let Some(spec) = object::map(service, "spec") {
        ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"].iter().for_each(|f| _ = spec.remove(*f));
    }
}

/// This cluster has one family. A headless Service without a selector may say what it likes: its endpoints are its own.
fn families(spec: &Value, errors: &mut Vec<FieldError>) {
    let selects = spec["selector"].as_object().is_some_and(|labels| !labels.is_empty());
    if spec["clusterIP"] == "None" && !selects {
        return;
    }
    for (at, family) in object::strings(&spec["ipFamilies"]).enumerate().filter(|(_, family)| *family != "IPv4") {
        let path = format!("spec.ipFamilies[{at}]");
        errors.push(FieldError::invalid(path, family, "not configured on this cluster"));
    }
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let words = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", "RequireDualStack", words));
    }
}

fn address(service: &mut Value, taken: &Taken) -> Result<(), FieldError> {
    let spec = &service["spec"];
    let asked = spec["clusterIP"].as_str().filter(|a| !a.is_empty());
    let asked = asked.or_else(|| object::strings(&spec["clusterIPs"]).next()).unwrap_or_default().to_owned();
    let chosen = match asked.as_str() {
        "" => free_address(taken).ok_or_else(|| {
            FieldError::invalid(
                "spec.clusterIPs",
                Value::Null,
                "failed to allocate a serviceIP: range is full",
            )
        })?,
        "None" => asked,
        _ => check_address(&asked, taken)?,
    };
    let Some(spec) = object::map(service, "spec") else { return Ok(()) };
    spec.insert("clusterIP".into(), json!(chosen));
    spec.insert("clusterIPs".into(), json!([chosen]));
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
    Ok(())
}

fn check_address(asked: &str, taken: &Taken) -> Result<String, FieldError> {
    let wrong = |why: &str| {
        FieldError::invalid(
            "spec.clusterIPs",
            json!([asked]),
            format!("failed to allocate IP {asked}: {why}"),
        )
    };
    let parsed: Ipv4Addr = asked.parse().map_err(|_| wrong("it is not an IPv4 address"))?;
    let [a, b, c, d] = parsed.octets();
    if [a, b] != NETWORK || matches!((c, d), (0, 0) | (255, 255)) {
        return Err(wrong(&format!(
            "the provided IP ({asked}) is not in the valid range. The range of valid IPs is 10.96.0.0/16"
        )));
    }
    if taken.addresses.contains(asked) {
        return Err(wrong("provided IP is already allocated"));
    }
    Ok(asked.to_owned())
}

fn random_u16() -> u16 {
    let mut bytes = [0; 2];
    fill_random(&mut bytes);
    u16::from_le_bytes(bytes)
}

fn free_address(taken: &Taken) -> Option<String> {
    let start = random_u16();
    let text = |n: u16| {
        let [c, d] = n.to_be_bytes();
        Ipv4Addr::new(NETWORK[0], NETWORK[1], c, d).to_string()
    };
    let candidates =
        (0..=u16::MAX).map(|i| start.wrapping_add(i)).filter(|n| (DYNAMIC_FROM..u16::MAX).contains(n));
    candidates.map(text).find(|address| !taken.addresses.contains(address))
}

const OUT_OF_RANGE: &str = "provided port is not in the valid range. The range of valid ports is 30000-32767";
const ALLOCATED: &str = "provided port is already allocated";

fn ports(service: &mut Value, taken: &Taken, errors: &mut Vec<FieldError>) {
    let mut own: BTreeSet<(String, i64)> = BTreeSet::new();
    let Some(ports) = service["spec"]["ports"].as_array_mut() else { return };
    for (at, port) in ports.iter().enumerate() {
        let Some(number) = port["nodePort"].as_i64().filter(|n| *n != 0) else { continue };
        let path = format!("spec.ports[{at}].nodePort");
        if !PORTS.contains(&number) {
            errors.push(FieldError::invalid(path, number, OUT_OF_RANGE));
        } else if taken.ports.contains(&(protocol(port), number)) || !own.insert((protocol(port), number)) {
            errors.push(FieldError::invalid(path, number, ALLOCATED));
        }
    }
    for port in ports.iter_mut() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        match free_port(&protocol(port), taken, &own) {
            Some(number) => {
                own.insert((protocol(port), number));
                port["nodePort"] = json!(number);
            }
            None => errors.push(full("spec.ports")),
        }
    }
}

fn full(path: &str) -> FieldError {
    FieldError::invalid(path, Value::Null, "failed to allocate a nodePort: range is full")
}

fn free_port(protocol: &str, taken: &Taken, own: &BTreeSet<(String, i64)>) -> Option<i64> {
    let count = PORTS.end() - PORTS.start() + 1;
    let start = i64::from(random_u16()) % count;
    (0..count).map(|i| PORTS.start() + (start + i) % count).find(|number| {
        let pair = (protocol.to_owned(), *number);
        !taken.ports.contains(&pair) && !own.contains(&pair)
    })
}

/// Where a load balancer asks a node whether it has endpoints of the Service.
fn health_port(service: &mut Value, taken: &Taken, errors: &mut Vec<FieldError>) {
    let path = "spec.healthCheckNodePort";
    let asked = service["spec"]["healthCheckNodePort"].as_i64().unwrap_or(0);
    let mut own: BTreeSet<_> = own_ports(&service["spec"]).collect();
    if asked == 0 {
        match free_port("TCP", taken, &own) {
            Some(number) => service["spec"]["healthCheckNodePort"] = json!(number),
            None => errors.push(full(path)),
        }
        return;
    }
    // Its own entry is in there once; another of the same number belongs to one of its ports.
    own = own_ports(&json!({"ports": service["spec"]["ports"]})).collect();
    let pair = ("TCP".to_owned(), asked);
    if !PORTS.contains(&asked) {
        errors.push(FieldError::invalid(path, asked, OUT_OF_RANGE));
    } else if taken.ports.contains(&pair) || own.contains(&pair) {
        errors.push(FieldError::invalid(path, asked, ALLOCATED));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(health: i64) -> Value {
        json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": health,
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30_001}]}})
    }

    #[test]
    fn the_port_for_health_is_one_of_its_own() {
        let taken = Taken { ports: BTreeSet::from([("TCP".to_owned(), 30_002)]), ..Taken::default() };
        for (asked, said) in [
            (0, None),
            (30_003, None),
            (30_001, Some(ALLOCATED)),
            (30_002, Some(ALLOCATED)),
            (80, Some(OUT_OF_RANGE)),
        ] {
            let (mut service, mut errors) = (service(asked), Vec::new());
            health_port(&mut service, &taken, &mut errors);
            let number = service["spec"]["healthCheckNodePort"].as_i64().unwrap();
            match said {
                Some(words) => assert!(errors[0].to_string().contains(words), "{asked}: {}", errors[0]),
                None => assert!(errors.is_empty() && PORTS.contains(&number) && ![30_001, 30_002].contains(&number)),
            }
        }
    }

    #[test]
    fn one_family_is_there() {
        let check = |spec: Value| {
            let mut errors = Vec::new();
            families(&spec, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let none = Vec::<String>::new();
        assert_eq!(check(json!({})), none);
        assert_eq!(check(json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"})), none);
        let v6 = "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster";
        assert_eq!(check(json!({"ipFamilies": ["IPv6"]})), [v6]);
        assert_eq!(check(json!({"ipFamilies": ["IPv6"], "clusterIP": "None"})), none);
        assert_eq!(check(json!({"ipFamilies": ["IPv6"], "clusterIP": "None", "selector": {"a": "b"}})), [v6]);
        let both = check(json!({"ipFamilyPolicy": "RequireDualStack"}));
        let words = "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for \
                     dual-stack services";
        assert_eq!(both, [words]);
    }

    #[test]
    fn the_last_free_port_is_found_and_then_none() {
        let mut taken = Taken { ports: PORTS.map(|n| ("TCP".to_owned(), n)).collect(), ..Taken::default() };
        assert_eq!(free_port("TCP", &taken, &BTreeSet::new()), None);
        assert!(free_port("UDP", &taken, &BTreeSet::new()).is_some());
        taken.ports.remove(&("TCP".to_owned(), 31_234));
        assert_eq!(free_port("TCP", &taken, &BTreeSet::new()), Some(31_234));
    }
}
