//! Addresses and ports of Services.
//!
//! In: Services on their way to the store, under a lock. Out: `clusterIP(s)` from 10.96.0.0/16 and node ports
//! from 30000-32767; 422 when a chosen one is taken or out of range. What is taken is read from the stored
//! Services, so that nothing can leak. Never: gives one address to two Services.

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
    match service["spec"]["type"].as_str().unwrap_or("ClusterIP") {
        "ExternalName" => drop_addresses(service),
        type_ => {
            let with_ports = matches!(type_, "NodePort" | "LoadBalancer")
                && !(type_ == "LoadBalancer" && service["spec"]["allocateLoadBalancerNodePorts"] == false);
            errors.extend(address(service, &taken).err());
            if with_ports {
                ports(service, &taken, &mut errors);
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
        for port in spec["ports"].as_array().into_iter().flatten() {
            if let Some(number) = port["nodePort"].as_i64() {
                taken.ports.insert((protocol(port), number));
            }
        }
    }
    taken
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

fn ports(service: &mut Value, taken: &Taken, errors: &mut Vec<FieldError>) {
    let mut own: BTreeSet<(String, i64)> = BTreeSet::new();
    let Some(ports) = service["spec"]["ports"].as_array_mut() else { return };
    for (at, port) in ports.iter().enumerate() {
        let Some(number) = port["nodePort"].as_i64().filter(|n| *n != 0) else { continue };
        let path = format!("spec.ports[{at}].nodePort");
        if !PORTS.contains(&number) {
            let why = "provided port is not in the valid range. The range of valid ports is 30000-32767";
            errors.push(FieldError::invalid(path, number, why));
        } else if taken.ports.contains(&(protocol(port), number)) || !own.insert((protocol(port), number)) {
            errors.push(FieldError::invalid(path, number, "provided port is already allocated"));
        }
    }
    for port in ports.iter_mut() {
        if port["nodePort"].as_i64().unwrap_or(0) != 0 {
            continue;
        }
        let protocol = protocol(port);
        let count = PORTS.end() - PORTS.start() + 1;
        let start = i64::from(random_u16()) % count;
        let free = (0..count).map(|i| PORTS.start() + (start + i) % count).find(|number| {
            let pair = (protocol.clone(), *number);
            !taken.ports.contains(&pair) && !own.contains(&pair)
        });
        match free {
            Some(number) => {
                own.insert((protocol, number));
                port["nodePort"] = json!(number);
            }
            None => errors.push(FieldError::invalid(
                "spec.ports",
                Value::Null,
                "failed to allocate a nodePort: range is full",
            )),
        }
    }
}
