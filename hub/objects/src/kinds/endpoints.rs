//! Endpoints (v1) and EndpointSlices (discovery.k8s.io/v1).
//!
//! In: objects as JSON. Out: defaults, rules and table rows. Never: computes endpoints.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{NONE, name};
use super::fill::{each, list, set, set_absent, text};
use super::endpoint_rules;
use super::rules::IMMUTABLE;
use crate::behaviour::{Behaviour, Column};
use crate::field::FieldError;
use crate::table;

/// How many entries a cell shows before "+ N more...".
const SHOWN_MAX: usize = 3;

#[derive(Debug, Clone, Copy)]
pub struct Endpoints;

impl Behaviour for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in each(object, "subsets") {
            for port in each(subset, "ports") {
                set(port, "protocol", "TCP");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        endpoint_rules::endpoints(object)
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::NAME, Column::text("Endpoints"), Column::AGE] }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut entries = Vec::new();
        for subset in list(object, "subsets") {
            let addresses = || list(subset, "addresses").iter().map(|address| text(address, "ip"));
            let ports = list(subset, "ports");
            if ports.is_empty() {
                entries.extend(addresses().map(str::to_owned));
            }
            for port in ports {
                let number = port["port"].as_i64().unwrap_or(0);
                entries.extend(addresses().map(|ip| host_port(ip, number)));
            }
        }
        vec![name(object), json!(shorten(entries)), table::age(object, now)]
    }
}

fn host_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// `a,b,c + 2 more...`
pub fn shorten(entries: Vec<String>) -> String {
    match entries.len() {
        0 => NONE.to_owned(),
        count if count > SHOWN_MAX => {
            format!("{} + {} more...", entries[..SHOWN_MAX].join(","), count - SHOWN_MAX)
        }
        _ => entries.join(","),
    }
}

#[derive(Debug, Clone, Copy)]
pub struct EndpointSlice;

impl Behaviour for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in each(object, "ports") {
            set_absent(port, "name", "");
            set(port, "protocol", "TCP");
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        endpoint_rules::slice(object)
    }

    fn validate_update(&self, new: &Value, old: &Value, _subresource: &str) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        if new["addressType"] != old["addressType"] {
            errors.push(FieldError::invalid("addressType", new["addressType"].clone(), IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::NAME,
                Column::text("AddressType"),
                Column::text("Ports"),
                Column::text("Endpoints"),
                Column::AGE,
            ]
        }
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = list(object, "ports")
            .iter()
            .map(|port| match (port["port"].as_i64(), text(port, "name")) {
                (Some(number), _) => number.to_string(),
                (None, "") => "*".to_owned(),
                (None, name) => name.to_owned(),
            })
            .collect();
        let addresses: Vec<String> = list(object, "endpoints")
            .iter()
            .flat_map(|endpoint| list(endpoint, "addresses"))
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        let or_unset =
            |entries: Vec<String>| if entries.is_empty() { "<unset>".to_owned() } else { shorten(entries) };
        vec![
            name(object),
            json!(text(object, "addressType")),
            json!(or_unset(ports)),
            json!(or_unset(addresses)),
            table::age(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        let object = json!({"metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "1.1.1.1"}, {"ip": "::1"}],
            "ports": [{"port": 80}, {"port": 81}]}]});
        let row = Endpoints.row(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(row[1], "1.1.1.1:80,[::1]:80,1.1.1.1:81 + 1 more...");
        let slice = json!({"metadata": {"name": "e"}, "addressType": "IPv4", "ports": [{"port": 80}],
            "endpoints": [{"addresses": ["10.0.0.1"]}]});
        let mut slice = slice;
        EndpointSlice.default(&mut slice);
        let row = EndpointSlice.row(&slice, Timestamp::UNIX_EPOCH);
        assert_eq!(json!(row), json!(["e", "IPv4", "80", "10.0.0.1", "<unknown>"]));
        assert_eq!(EndpointSlice.validate_create(&slice), []);
    }
}
