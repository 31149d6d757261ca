//! A node's own facts for Limpet OS: one JSON file on the partition that the firmware reads.
//!
//! In: a checked wish. Out: the file. The first boot takes the token from there and removes it. Pure.
//! Never: a field that the board's side does not know (`limpet-init` refuses unknown ones).

use super::files::{Place, Put, What};
use super::wish::{Security, Wish};
use crate::board::Board;
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wifi: Option<NodeWifi>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeWifi {
    pub ssid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `any`, `wpa2` or `wpa3`.
    pub security: &'static str,
    pub country: String,
    pub hidden: bool,
}

/// Whether the board has a radio for the wish, as far as its file knows.
pub fn radio_fits(board: &Board, wish: &Wish) -> Result<(), String> {
    let Some(wifi) = &wish.wifi else { return Ok(()) };
    let title = &board.title;
    match &board.limpet_os.radio {
        None => Err(format!(
            "Limpet OS drives no Wi-Fi on the {title}: leave --wifi out and use a cable, or take another system's image with --image"
        )),
        Some(radio) if wifi.security == Security::Wpa3 && !radio.wpa3 => {
            Err(format!("the radio of the {title} does not speak WPA3: leave --wifi-wpa3 out, and let the network speak WPA2, too"))
        }
        Some(_) => Ok(()),
    }
}

/// What Limpet OS cannot do yet is refused instead of forgotten.
pub fn limpet_os(wish: &Wish) -> Result<Put, String> {
    for (given, what) in [
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
        wifi: wish.wifi.as_ref().map(|wifi| NodeWifi {
            ssid: wifi.ssid.clone(),
            password: wifi.password.clone(),
            security: match wifi.security {
                Security::Any => "any",
                Security::Wpa2 => "wpa2",
                Security::Wpa3 => "wpa3",
            },
            country: wifi.country.clone(),
            hidden: wifi.hidden,
        }),
    };
    let text = serde_json::to_string_pretty(&file).map_err(|e| e.to_string())?;
    let what = What::File(format!("{text}\n").into_bytes());
    Ok(Put { place: Place::Boot, path: NODE_FILE.into(), mode: 0o600, what })
}
