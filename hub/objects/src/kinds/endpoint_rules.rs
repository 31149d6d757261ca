//! Rules for Endpoints and EndpointSlices (`ValidateEndpoints`, `ValidateEndpointSlice`).
//!
//! In: defaulted objects. Out: field errors. Never: asks whether anybody answers at an address.

use std::{collections::BTreeSet, net::IpAddr};

use serde_json::Value;

use super::fill::{list, map, text};
use super::rules::{Errors, join, named, one_of, required};
use crate::field::FieldError;
use crate::names;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

pub fn endpoints(object: &Value) -> Errors {
    let mut errors = Errors::new();
    for (at, subset) in list(object, "subsets").iter().enumerate() {
        let path = format!("subsets[{at}]");
        if ["addresses", "notReadyAddresses"].iter().all(|field| list(subset, field).is_empty()) {
            errors.push(FieldError::required(path.as_str(), "must specify `addresses` or `notReadyAddresses`"));
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (at, address) in list(subset, field).iter().enumerate() {
                let path = format!("{path}.{field}[{at}]");
                let ip = text(address, "ip");
                match ip.parse::<IpAddr>() {
                    Ok(parsed) => reachable(parsed, ip, &join(&path, "ip"), &mut errors),
                    Err(_) => {
                        let words = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                        errors.push(FieldError::invalid(join(&path, "ip"), ip, words));
                    }
                }
                named(address, "hostname", &path, names::dns_label, &mut errors);
                named(address, "nodeName", &path, names::dns_subdomain, &mut errors);
            }
        }
        let ports = list(subset, "ports");
        for (at, port) in ports.iter().enumerate() {
            let path = format!("{path}.ports[{at}]");
            if ports.len() > 1 {
                _ = required(port, "name", &path, &mut errors);
            }
            named(port, "name", &path, names::dns_label, &mut errors);
            let number = port["port"].as_i64().unwrap_or(0);
            let wrong = names::port_number(number).into_iter();
            errors.extend(wrong.map(|words| FieldError::invalid(join(&path, "port"), number, words)));
            _ = required(port, "protocol", &path, &mut errors);
            one_of(port, "protocol", &path, &PROTOCOLS, &mut errors);
            named(port, "appProtocol", &path, names::qualified_name, &mut errors);
        }
    }
    errors
}

/// Addresses that mean the board itself, or nobody, are no endpoints.
fn reachable(ip: IpAddr, shown: &str, path: &str, errors: &mut Errors) {
    let (link_local, local_multicast) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.segments()[0] & 0xff0f == 0xff02),
    };
    let words = if ip.is_unspecified() {
        "may not be unspecified (0.0.0.0 or ::)"
    } else if ip.is_loopback() {
        "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    } else if link_local {
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    } else if local_multicast {
        "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, shown, words));
}

pub fn slice(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let (type_, choices) = (text(object, "addressType"), ["FQDN", "IPv4", "IPv6"]);
    match type_ {
        "" => errors.push(FieldError::required("addressType", "")),
        type_ if choices.contains(&type_) => {}
        type_ => errors.push(FieldError::not_supported("addressType", type_, &choices)),
    }
    let endpoints = list(object, "endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many("endpoints", endpoints.len(), ENDPOINTS_MAX));
        return errors;
    }
    for (at, endpoint) in endpoints.iter().enumerate() {
        let path = format!("endpoints[{at}]");
        let addresses = list(endpoint, "addresses");
        match addresses.len() {
            0 => errors.push(FieldError::required(join(&path, "addresses"), "must contain at least 1 address")),
            count if count > ADDRESSES_MAX => {
                errors.push(FieldError::too_many(join(&path, "addresses"), count, ADDRESSES_MAX));
            }
            _ => {}
        }
        for (at, shown) in addresses.iter().enumerate().filter_map(|(at, ip)| Some((at, ip.as_str()?))) {
            address(type_, shown, &format!("{path}.addresses[{at}]"), &mut errors);
        }
        named(endpoint, "nodeName", &path, names::dns_subdomain, &mut errors);
        named(endpoint, "hostname", &path, names::dns_label, &mut errors);
        topology(endpoint, &path, &mut errors);
    }
    slice_ports(list(object, "ports"), &mut errors);
    errors
}

fn address(type_: &str, shown: &str, path: &str, errors: &mut Errors) {
    let wrong = match (type_, shown.parse::<IpAddr>()) {
        ("IPv4", Ok(ip @ IpAddr::V4(_))) | ("IPv6", Ok(ip @ IpAddr::V6(_))) => {
            reachable(ip, shown, path, errors);
            Vec::new()
        }
        ("IPv4", _) => vec!["must be an IPv4 address".to_owned()],
        ("IPv6", _) => vec!["must be an IPv6 address".to_owned()],
        ("FQDN", _) => {
            let plain = shown.strip_suffix('.').unwrap_or(shown);
            match (names::dns_subdomain(plain), plain.contains('.')) {
                (wrong, _) if !wrong.is_empty() => wrong,
                (_, false) => vec!["should be a domain with at least two segments separated by dots".to_owned()],
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    errors.extend(wrong.into_iter().map(|words| FieldError::invalid(path, shown, words)));
}

fn topology(endpoint: &Value, path: &str, errors: &mut Errors) {
    let path_topology = join(path, "deprecatedTopology");
    for key in map(endpoint, "deprecatedTopology").keys() {
        let wrong = names::qualified_name(key).into_iter();
        errors.extend(wrong.map(|words| FieldError::invalid(path_topology.as_str(), key.as_str(), words)));
    }
    for (field, name) in [("forZones", "zones"), ("forNodes", "nodes")] {
        let hints = list(&endpoint["hints"], field);
        let path = format!("{path}.hints.{field}");
        if hints.len() > HINTS_MAX {
            errors.push(FieldError::too_many(path.as_str(), hints.len(), HINTS_MAX));
            continue;
        }
        let mut seen = BTreeSet::new();
        for (at, hint) in hints.iter().enumerate() {
            let name_at = format!("{path}[{at}].name");
            let own = text(hint, "name");
            if !seen.insert(own) {
                errors.push(FieldError::duplicate(name_at.as_str(), own));
            }
            let wrong = if name == "zones" { names::label_value(own) } else { names::dns_subdomain(own) };
            errors.extend(wrong.into_iter().map(|words| FieldError::invalid(name_at.as_str(), own, words)));
        }
    }
}

fn slice_ports(ports: &[Value], errors: &mut Errors) {
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many("ports", ports.len(), PORTS_MAX));
        return;
    }
    let mut seen = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let path = format!("ports[{at}]");
        named(port, "name", &path, names::dns_label, errors);
        if !seen.insert(text(port, "name")) {
            errors.push(FieldError::duplicate(join(&path, "name"), text(port, "name")));
        }
        if let Some(number) = port["port"].as_i64() {
            let wrong = names::port_number(number).into_iter();
            errors.extend(wrong.map(|words| FieldError::invalid(join(&path, "port"), number, words)));
        }
        _ = required(port, "protocol", &path, errors);
        one_of(port, "protocol", &path, &PROTOCOLS, errors);
        named(port, "appProtocol", &path, names::qualified_name, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn endpoints_in_kubernetes_words() {
        let addresses = json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]);
        let good = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80, "protocol": "TCP"}]}]});
        assert_eq!(words(endpoints(&good)), Vec::<String>::new());
        let addresses: Vec<_> =
            ["127.0.0.1", "x", "169.254.0.1", "ff02::1", "::"].into_iter().map(|ip| json!({ "ip": ip })).collect();
        let bad = json!({"subsets": [{}, {"addresses": addresses,
            "ports": [{"port": 0, "protocol": "tcp"}, {"name": "A", "port": 1, "protocol": "UDP"}]}]});
        assert_eq!(
            words(endpoints(&bad)),
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[1].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
                 ::1/128)",
                "subsets[1].addresses[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
                 2001:db8::ffff)",
                "subsets[1].addresses[2].ip: Invalid value: \"169.254.0.1\": may not be in the link-local range \
                 (169.254.0.0/16, fe80::/10)",
                "subsets[1].addresses[3].ip: Invalid value: \"ff02::1\": may not be in the link-local multicast range \
                 (224.0.0.0/24, ff02::/10)",
                "subsets[1].addresses[4].ip: Invalid value: \"::\": may not be unspecified (0.0.0.0 or ::)",
                "subsets[1].ports[0].name: Required value",
                "subsets[1].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "subsets[1].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                &format!("subsets[1].ports[1].name: Invalid value: \"A\": {}", names::dns_label("A")[0]),
            ]
        );
    }

    #[test]
    fn slices_hold_addresses_of_their_type() {
        let slice = |type_: &str, address: &str| {
            let object = json!({"addressType": type_, "endpoints": [{"addresses": [address]}],
                "ports": [{"name": "", "port": 80, "protocol": "TCP"}]});
            words(super::slice(&object))
        };
        for (type_, address) in [("IPv4", "10.0.0.1"), ("IPv6", "fd00::1"), ("FQDN", "a.example")] {
            assert_eq!(slice(type_, address), Vec::<String>::new(), "{type_}");
        }
        for (type_, address, words) in [
            ("IPv4", "fd00::1", "must be an IPv4 address"),
            ("IPv6", "10.0.0.1", "must be an IPv6 address"),
            ("IPv4", "127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
            ("FQDN", "alone", "should be a domain with at least two segments separated by dots"),
        ] {
            let expect = format!("endpoints[0].addresses[0]: Invalid value: \"{address}\": {words}");
            assert_eq!(slice(type_, address), [expect]);
        }
        let ports = json!({"addressType": "IPv4", "ports": [{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "x"}]});
        assert_eq!(
            words(super::slice(&ports)),
            [
                "ports[1].name: Duplicate value: \"a\"",
                "ports[1].protocol: Unsupported value: \"x\": supported values: \"SCTP\", \"TCP\", \"UDP\""
            ]
        );
    }
}
