//! Wi-Fi, mobile networks and static addresses, in the words of whoever manages the network on the card's system.
//!
//! In: a checked wish. Out: one or two files. Pure.
//! Never: a password in a file that others than root may read.

use super::files::{Put, Traits};
use super::wish::{Address, Security, Wifi, Wish};
use std::fmt::Write;

/// Who manages the network there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    NetworkManager,
    Netplan,
    /// /etc/network/interfaces
    Ifupdown,
}

const SECRET: u32 = 0o600;

/// What a system cannot do is refused instead of forgotten.
pub fn system_fits(traits: &Traits, wish: &Wish) -> Result<(), String> {
    if wish.cellular_apn.is_none() || (traits.network == Network::NetworkManager && traits.modem_manager) {
        return Ok(());
    }
    let lacks = match traits.network {
        Network::NetworkManager => "has no ModemManager",
        Network::Netplan => "has netplan without NetworkManager",
        Network::Ifupdown => "has neither NetworkManager nor ModemManager",
    };
    Err(format!("the image's system {lacks}, so that --apn would do nothing: take an image with both, such as Raspberry Pi OS"))
}

pub fn files(network: Network, wish: &Wish) -> Vec<Put> {
    match network {
        Network::NetworkManager => network_manager(wish),
        Network::Netplan => netplan(wish),
        Network::Ifupdown => ifupdown(wish),
    }
}

fn network_manager(wish: &Wish) -> Vec<Put> {
    let mut files = Vec::new();
    let mut connection = |name: &str, kind: &str, middle: String, address: Option<&Address>| {
        let mut text = format!("[connection]\nid={name}\ntype={kind}\nautoconnect=true\n\n{middle}");
        text.push_str(&nm_address(address));
        let path = format!("/etc/NetworkManager/system-connections/{name}.nmconnection");
        files.push(Put::root(&path, SECRET, text));
    };
    if let Some(wifi) = &wish.wifi {
        connection("limpet-wifi", "wifi", nm_wifi(wifi), wish.address.as_ref());
    } else if wish.address.is_some() {
        connection("limpet-wired", "ethernet", String::new(), wish.address.as_ref());
    }
    if let Some(apn) = &wish.cellular_apn {
        connection("limpet-cellular", "gsm", format!("[gsm]\napn={apn}\n\n"), None);
    }
    files
}

fn nm_wifi(wifi: &Wifi) -> String {
    // A list of bytes needs no escaping.
    let ssid: String = wifi.ssid.bytes().map(|b| format!("{b};")).collect();
    let mut text = format!("[wifi]\nmode=infrastructure\nssid={ssid}\n");
    if wifi.hidden {
        text.push_str("hidden=true\n");
    }
    if let Some(password) = &wifi.password {
        let management = if wifi.security == Security::Wpa3 { "sae" } else { "wpa-psk" };
        let escaped = password.replace('\\', "\\\\").replace(' ', "\\s");
        let _ = write!(text, "\n[wifi-security]\nkey-mgmt={management}\npsk={escaped}\n");
    }
    text.push('\n');
    text
}

fn nm_address(address: Option<&Address>) -> String {
    let Some(a) = address else { return "[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n".into() };
    let gateway = a.gateway.map(|g| format!(",{g}")).unwrap_or_default();
    let dns: String = a.dns.iter().map(|d| format!("{d};")).collect();
    let dns = if dns.is_empty() { dns } else { format!("dns={dns}\n") };
    let fixed = format!("method=manual\naddress1={}/{}{gateway}\n{dns}", a.ip, a.prefix);
    let auto = "method=auto\n";
    let (v4, v6) = if a.ip.is_ipv4() { (fixed.as_str(), auto) } else { (auto, fixed.as_str()) };
    format!("[ipv4]\n{v4}\n[ipv6]\n{v6}")
}

/// YAML takes JSON's strings.
fn quoted(text: &str) -> String {
    serde_json::Value::String(text.into()).to_string()
}

fn netplan(wish: &Wish) -> Vec<Put> {
    if wish.wifi.is_none() && wish.address.is_none() {
        return Vec::new();
    }
    let mut text = String::from("network:\n  version: 2\n");
    let address = |text: &mut String| match &wish.address {
        None => text.push_str("      dhcp4: true\n      optional: true\n"),
        Some(a) => {
            let _ = writeln!(text, "      dhcp4: false\n      addresses: [\"{}/{}\"]", a.ip, a.prefix);
            if let Some(gateway) = a.gateway {
                let to = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                let _ = writeln!(text, "      routes: [{{to: \"{to}\", via: \"{gateway}\"}}]");
            }
            let dns: Vec<String> = a.dns.iter().map(|d| format!("\"{d}\"")).collect();
            if !dns.is_empty() {
                let _ = writeln!(text, "      nameservers: {{addresses: [{}]}}", dns.join(", "));
            }
        }
    };
    if let Some(wifi) = &wish.wifi {
        text.push_str("  wifis:\n    wlan0:\n");
        address(&mut text);
        let _ = writeln!(text, "      regulatory-domain: {}", quoted(&wifi.country));
        let _ = writeln!(text, "      access-points:\n        {}:", quoted(&wifi.ssid));
        let _ = writeln!(text, "          hidden: {}", wifi.hidden);
        if let Some(password) = &wifi.password {
            let management = if wifi.security == Security::Wpa3 { "sae" } else { "psk" };
            let _ = writeln!(text, "          auth: {{key-management: {management}, password: {}}}", quoted(password));
        }
    } else if wish.address.is_some() {
        // networkd goes by the first file that fits, and images have one of their own, for DHCP: this name is before theirs.
        text.push_str("  ethernets:\n    aa-limpet-wired:\n      match: {name: \"e*\"}\n");
        address(&mut text);
    }
    vec![Put::root("/etc/netplan/60-limpet.yaml", SECRET, text)]
}

fn ifupdown(wish: &Wish) -> Vec<Put> {
    let Some((interface, mut text)) = (match (&wish.wifi, &wish.address) {
        (Some(wifi), _) => Some(("wlan0", ifupdown_wifi(wifi))),
        (None, Some(_)) => Some(("eth0", String::new())),
        (None, None) => None,
    }) else {
        return Vec::new();
    };
    let head = match &wish.address {
        None => format!("allow-hotplug {interface}\niface {interface} inet dhcp\n"),
        Some(a) => {
            let family = if a.ip.is_ipv4() { "inet" } else { "inet6" };
            let mut head = format!("allow-hotplug {interface}\niface {interface} {family} static\n");
            let _ = writeln!(head, "    address {}/{}", a.ip, a.prefix);
            if let Some(gateway) = a.gateway {
                let _ = writeln!(head, "    gateway {gateway}");
            }
            let dns: Vec<String> = a.dns.iter().map(ToString::to_string).collect();
            if !dns.is_empty() {
                let _ = writeln!(head, "    dns-nameservers {}", dns.join(" "));
            }
            head
        }
    };
    text.insert_str(0, &head);
    vec![Put::root("/etc/network/interfaces.d/limpet", SECRET, text)]
}

fn ifupdown_wifi(wifi: &Wifi) -> String {
    let mut text = format!("    wpa-ssid {}\n", wifi.ssid);
    if wifi.hidden {
        text.push_str("    wpa-scan-ssid 1\n");
    }
    match (&wifi.password, wifi.security) {
        (None, _) => text.push_str("    wpa-key-mgmt NONE\n"),
        (Some(password), Security::Any | Security::Wpa2) => text.push_str(&format!("    wpa-psk {password}\n")),
        (Some(password), Security::Wpa3) => {
            let _ = write!(text, "    wpa-key-mgmt SAE\n    wpa-ieee80211w 2\n    wpa-sae-password {password}\n");
        }
    }
    text
}
