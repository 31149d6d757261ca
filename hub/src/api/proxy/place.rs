//! Which pod and port are meant by `[scheme:]name[:port]`.
//!
//! In: the name in a path; pods, services and their endpoint slices. Out: a `Route`.
//! Never: an address that belongs to no pod: the hub opens nothing in its own network.

use super::Route;
use crate::api::{Api, Target, dispatch::Call, fill_random, object};
use limpet_objects::status::Status;
use serde_json::Value;

const SLICES: &str = "discovery.k8s.io/endpointslices";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// `https:name:port`, `name:port`, `name`, `https:name:`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

fn parse(id: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    let https = match scheme {
        "" | "http" => false,
        "https" => true,
        _ => return None,
    };
    (!name.is_empty()).then_some(Named { https, name, port })
}

fn named<'a>(what: &str, id: &'a str) -> Result<Named<'a>, Status> {
    parse(id).ok_or_else(|| Status::bad_request(format!("invalid {what} request {id:?}")))
}

pub fn pod(call: &Call, target: &Target) -> Result<Route, Status> {
    let wanted = named("pod", &target.name)?;
    let pod = read(&call.api, "/pods", &target.namespace, wanted.name);
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", wanted.name))?;
    let default = if wanted.https { 443 } else { 80 };
    let port = match wanted.port {
        "" => first_port(&pod).unwrap_or(default),
        text => text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))?,
    };
    route(target, &pod, port, wanted.https)
}

fn first_port(pod: &Value) -> Option<u16> {
    let mut containers = pod["spec"]["containers"].as_array()?.iter();
    let port = containers.find_map(|c| c["ports"].as_array()?.first()?["containerPort"].as_u64())?;
    u16::try_from(port).ok()
}

pub fn service(api: &Api, target: &Target) -> Result<Route, Status> {
    let wanted = named("service", &target.name)?;
    let service = read(api, "/services", &target.namespace, wanted.name);
    let service = service.ok_or_else(|| Status::not_found("", "services", wanted.name))?;
    let none = || Status::unavailable(format!("no endpoints available for service {:?}", target.name));
    let port_name = port_name(&service, &wanted)?;
    let listing = api.store.list(SLICES, Some(&target.namespace));
    let slices = listing.records.iter().filter_map(|r| serde_json::from_slice::<Value>(&r.bytes).ok());
    let of_service = slices.filter(|s| s["metadata"]["labels"][SERVICE_NAME] == wanted.name);
    let mut ends: Vec<(String, u16)> = of_service.flat_map(|slice| ready(&slice, &port_name)).collect();
    if ends.is_empty() {
        return Err(none());
    }
    let mut chance = [0; 2];
    fill_random(&mut chance);
    let (name, port) = ends.swap_remove(usize::from(u16::from_le_bytes(chance)) % ends.len());
    let pod = read(api, "/pods", &target.namespace, &name).ok_or_else(none)?;
    route(target, &pod, port, wanted.https)
}

/// The name of the wanted port: given as such, or as the Service's number.
fn port_name(service: &Value, wanted: &Named<'_>) -> Result<String, Status> {
    let Ok(number) = wanted.port.parse::<u64>() else { return Ok(wanted.port.to_owned()) };
    let mut ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let port = ports.find(|p| p["port"] == number);
    let found = port.map(|p| p["name"].as_str().unwrap_or_default().to_owned());
    let none = || Status::unavailable(format!("no service port {number} found for service {:?}", wanted.name));
    found.ok_or_else(none)
}

/// The pods of a slice that are ready, with the number that the port has there.
fn ready(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let mut ports = slice["ports"].as_array().into_iter().flatten();
    let port = ports.find(|p| p["name"].as_str().unwrap_or_default() == port_name);
    let port = port.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok());
    let Some(port) = port else { return Vec::new() };
    let ends = slice["endpoints"].as_array().into_iter().flatten();
    ends.filter(|e| e["conditions"]["ready"] != false && e["targetRef"]["kind"] == "Pod")
        .filter_map(|e| Some((e["targetRef"]["name"].as_str()?.to_owned(), port)))
        .collect()
}

fn read(api: &Api, resource: &str, namespace: &str, name: &str) -> Option<Value> {
    let record = api.store.get(&limpet_store::Key::new(resource, namespace, name))?;
    serde_json::from_slice(&record.bytes).ok()
}

fn route(target: &Target, pod: &Value, port: u16, https: bool) -> Result<Route, Status> {
    let mut target = target.clone();
    target.name = object::name(pod).to_owned();
    let place = crate::api::subresources::place(&target, pod)?;
    Ok(Route { place, port, https })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        let of = |https, name, port| Some(Named { https, name, port });
        for (id, expect) in [
            ("a", of(false, "a", "")),
            ("a:80", of(false, "a", "80")),
            ("a:web", of(false, "a", "web")),
            ("https:a:443", of(true, "a", "443")),
            ("https:a:", of(true, "a", "")),
            ("http:a:1", of(false, "a", "1")),
            ("ftp:a:1", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(parse(id), expect, "{id}");
        }
    }

    #[test]
    fn ports() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}, {"name": "x", "port": 81}]}});
        let name = |port| {
            port_name(&service, &Named { https: false, name: "s", port }).map_err(|s| s.message)
        };
        assert_eq!(name("80"), Ok("web".into()));
        assert_eq!(name("x"), Ok("x".into()));
        assert_eq!(name("82"), Err("no service port 82 found for service \"s\"".into()));
        let slice = json!({"ports": [{"name": "web", "port": 8080}], "endpoints": [
            {"targetRef": {"kind": "Pod", "name": "a"}, "conditions": {"ready": true}},
            {"targetRef": {"kind": "Pod", "name": "b"}, "conditions": {"ready": false}},
            {"addresses": ["10.0.0.9"]}, {"targetRef": {"kind": "Pod", "name": "c"}}]});
        assert_eq!(ready(&slice, "web"), [("a".to_owned(), 8080), ("c".to_owned(), 8080)]);
        assert!(ready(&slice, "other").is_empty());
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"ports": [{"containerPort": 7}]}]}});
        assert_eq!(first_port(&pod), Some(7));
    }
}
