//! A node's own facts for Limpet OS: one JSON file on the partition that the firmware reads.
//!
//! In: a checked wish. Out: the file. The first boot takes the token from there and removes it. Pure.
//! Never: a field that the board's side does not know (`limpet-init` refuses unknown ones).

use super::files::{Place, Put, What};
use super::wish::Wish;
use serde::Serialize;

pub const NODE_FILE: &str = "/limpet/node.json";

/// Mirrored by `images/init/src/node.rs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFile {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// `address/prefix`; DHCP when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

/// What Limpet OS cannot do yet is refused instead of forgotten.
pub fn limpet_os(wish: &Wish) -> Result<Put, String> {
    for (given, what) in [
        (wish.wifi.is_some(), "Wi-Fi"),
        (wish.cellular_apn.is_some(), "mobile networks"),
        (!wish.ssh_keys.is_empty(), "SSH (it has no shell; use kubectl)"),
        (wish.time_zone.is_some(), "time zones (its logs are in UTC)"),
    ] {
        if given {
            return Err(format!("Limpet OS does not know {what} yet; leave the option out, or take another system's image"));
        }
    }
    let file = NodeFile {
        name: wish.node_name.clone(),
        token: wish.token.clone(),
        address: wish.address.as_ref().map(|a| format!("{}/{}", a.ip, a.prefix)),
        gateway: wish.address.as_ref().and_then(|a| a.gateway).map(|g| g.to_string()),
        dns: wish.address.iter().flat_map(|a| &a.dns).map(ToString::to_string).collect(),
        ntp: wish.ntp.clone(),
        proxy: wish.proxy.clone(),
    };
    let text = serde_json::to_string_pretty(&file).map_err(|e| e.to_string())?;
    let what = What::File(format!("{text}\n").into_bytes());
    Ok(Put { place: Place::Boot, path: NODE_FILE.into(), mode: 0o600, what })
}
