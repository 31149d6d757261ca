//! What this node was told when its card was written.
//!
//! In: /limpet/node.json on the system's partition (hostile: anybody may have held the card). Out: name, token, addresses.
//! After the join the token is removed from there. Never: a field that is not known here; a name that is not one.

use crate::{log::say, mounts, slots::Slots};
use serde::{Deserialize, Serialize};
use std::{fs, net::IpAddr, os::unix::fs::FileExt, path::Path};

const FILE: &str = "limpet/node.json";
const BYTES_MAX: u64 = 64 * 1024;

/// Mirrors `limpet_device::provision::NodeFile`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    #[serde(default)]
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ntp: Vec<String>,
    /// The way to the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Wifi>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wifi {
    pub ssid: String,
    /// An open network's is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    #[serde(default)]
    pub security: Security,
    /// Two letters of ISO 3166.
    pub country: String,
    /// The network does not tell its name.
    #[serde(default)]
    pub hidden: bool,
}

impl std::fmt::Debug for Wifi {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wifi({:?}, {:?})", self.ssid, self.security)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Security {
    /// WPA3 where network and radio do it, WPA2 otherwise.
    #[default]
    Any,
    Wpa2,
    Wpa3,
}

pub fn load(slots: &Slots) -> Result<Node, String> {
    let read = mounts::with_system(slots.disk(), false, |at| read(&at.join(FILE)));
    let mut node = read.unwrap_or_else(|why| {
        say!("{FILE} cannot be used: {why}; write the card again with `limpet flash`");
        Node::default()
    });
    if !valid_name(&node.name) {
        node.name = name_of_machine();
        say!("this node has no name; it takes {}", node.name);
    }
    nix::unistd::sethostname(&node.name).map_err(|e| format!("the host's name: {e}"))?;
    Ok(node)
}

fn read(path: &Path) -> Result<Node, String> {
    match fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Node::default()),
        Err(e) => return Err(e.to_string()),
        Ok(m) if m.len() > BYTES_MAX => return Err("it is too long".into()),
        Ok(_) => {}
    }
    let text = fs::read(path).map_err(|e| e.to_string())?;
    let node: Node = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    // Blank: it was taken away.
    Ok(Node { token: node.token.filter(|token| !token.trim().is_empty()), ..node })
}

fn valid_name(name: &str) -> bool {
    let fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(fit) && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.'])
}

/// From the first network card's address: the same at every boot.
fn name_of_machine() -> String {
    let mut all: Vec<String> = fs::read_dir("/sys/class/net")
        .map(|d| d.flatten().filter(|e| e.file_name() != "lo").map(|e| e.path().join("address")).collect::<Vec<_>>())
        .unwrap_or_default()
        .iter()
        .filter_map(|p| fs::read_to_string(p).ok())
        .collect();
    all.sort();
    let mac: String = all.first().map(|a| a.trim().replace(':', "")).unwrap_or_default();
    format!("limpet-{}", if mac.is_empty() { "board" } else { &mac })
}

/// The hub's answer to the join is here. The key beside it is older: it is made before the hub is asked.
pub fn has_joined(data: &Path) -> bool {
    data.join("identity/identity.json").is_file()
}

/// Once the agent has its own certificate the token is of no use to it, and of some to whoever finds the card. Whether there
/// was one.
pub fn forget_token(slots: &Slots) -> Result<bool, String> {
    let has = mounts::with_system(slots.disk(), false, |at| Ok(read(&at.join(FILE))?.token.is_some()))?;
    if has {
        mounts::with_system(slots.disk(), true, |at| blank_token(&at.join(FILE)))?;
    }
    Ok(has)
}

/// In its place, so that power may go at any byte: the file's name, length and clusters stay, and what is left of a token is
/// valid text and blanked at the next start. A file of another name would need three sectors of FAT to be written together.
fn blank_token(path: &Path) -> Result<(), String> {
    let told = |e: std::io::Error| format!("{}: {e}", path.display());
    let text = fs::read(path).map_err(told)?;
    let token = read(path)?.token.unwrap_or_default();
    let at = text.windows(token.len().max(1)).position(|bytes| bytes == token.as_bytes());
    let Some(at) = at.filter(|_| token.is_ascii()) else {
        // Somebody has written it by hand, with escapes.
        let node = Node { token: None, ..read(path)? };
        let text = serde_json::to_vec_pretty(&node).map_err(|e| e.to_string())?;
        return crate::slots::replace(path, &text);
    };
    let file = fs::OpenOptions::new().write(true).open(path).map_err(told)?;
    file.write_all_at(&vec![b' '; token.len()], at as u64).map_err(told)?;
    file.sync_all().map_err(told)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_blanked_in_its_place_and_may_be_cut_at_any_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        let token = "limpet1.eyJodWJzIjpb";
        let node = Node { name: "pi".into(), token: Some(token.into()), ntp: vec!["t".into()], ..Node::default() };
        let before = serde_json::to_vec_pretty(&node).unwrap();
        let without = Node { token: None, ..node };
        fs::write(&path, &before).unwrap();
        blank_token(&path).unwrap();
        let after = fs::read(&path).unwrap();
        assert_eq!((after.len(), read(&path).unwrap()), (before.len(), without.clone()));
        assert!(!String::from_utf8(after.clone()).unwrap().contains("limpet1"));
        for cut in 0..before.len() {
            fs::write(&path, [&after[..cut], &before[cut..]].concat()).unwrap();
            assert_eq!(Node { token: None, ..read(&path).unwrap() }, without, "cut at byte {cut}");
            blank_token(&path).unwrap();
            assert_eq!(read(&path).unwrap(), without, "cut at byte {cut}");
        }
        fs::write(&path, r#"{"name":"pi","token":"limpet1\u002eabc","ntp":["t"]}"#).unwrap();
        blank_token(&path).unwrap();
        assert_eq!(read(&path).unwrap(), without);
    }

    #[test]
    fn a_board_that_has_a_key_has_not_joined_yet() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!has_joined(dir.path()));
        fs::create_dir(dir.path().join("identity")).unwrap();
        fs::write(dir.path().join("identity/node.key"), "key").unwrap();
        assert!(!has_joined(dir.path()), "the token is still needed");
        fs::write(dir.path().join("identity/identity.json"), "{}").unwrap();
        assert!(has_joined(dir.path()));
    }

    #[test]
    fn files_are_doubted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        assert_eq!(read(&path).unwrap(), Node::default());
        fs::write(&path, r#"{"name":"pi","address":"10.0.0.2/24","gateway":"10.0.0.1","dns":["10.0.0.1"],"ntp":["t"]}"#).unwrap();
        assert_eq!(read(&path).unwrap().name, "pi");
        let wifi = r#"{"name":"pi","wifi":{"ssid":"home","password":"long enough","security":"wpa3","country":"DE"}}"#;
        fs::write(&path, wifi).unwrap();
        let read_back = read(&path).unwrap();
        assert_eq!(read_back.wifi.as_ref().map(|w| w.security), Some(Security::Wpa3));
        assert!(!format!("{read_back:?}").contains("long enough"), "nobody logs a password");
        let no_country = r#"{"wifi":{"ssid":"x"}}"#;
        let old = r#"{"wifi":{"ssid":"x","country":"DE","security":"wep"}}"#;
        for bad in [no_country, old, "{", "[1]", r#"{"nam":"x"}"#, r#"{"gateway":"x"}"#, r#"{"name":null}"#] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).is_err(), "{bad}");
        }
        fs::write(&path, " ".repeat(BYTES_MAX as usize + 1)).unwrap();
        assert!(read(&path).unwrap_err().contains("too long"));
        for (name, fit) in [("pi-1.shed", true), ("", false), ("Pi", false), ("-a", false), ("a b", false), ("a/../b", false)] {
            assert_eq!(valid_name(name), fit, "{name}");
        }
    }
}
