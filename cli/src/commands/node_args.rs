//! What a new node needs to know, as options; shared by `limpet flash` and `limpet node`.
//!
//! In: options, a terminal for the password. Out: a checked wish, with a token of its own where a hub is named or is on this
//! machine.
//! Never: takes a password from the command line, where every user of the machine could read it.

mod country;
mod password;

use crate::duration;
use limpet_device::provision::{Address, Security, Wifi, Wish};
use limpet_hub::{enroll::TokenWish, operate};
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

/// Where this machine's own hub is, as the README and the packages of distributions have it.
pub const OWN_HUB: &str = "/var/lib/limpet-hub";
/// A password is a line; more is not read.
const FILE_BYTES_MAX: u64 = 64 * 1024;

#[derive(clap::Args)]
pub struct NodeArgs {
    /// The node's name; with several cards, NAME-1, NAME-2 and so on [default of a card: its board and four letters]
    #[arg(long, value_name = "NAME", help_heading = "The node")]
    name: Option<String>,
    /// The hub's data directory: each node gets a single-use token of its own [default: /var/lib/limpet-hub, if a hub is there]
    #[arg(long, value_name = "DIR", env = "LIMPET_DATA_DIR", help_heading = "The node")]
    data_dir: Option<PathBuf>,
    /// How long a card may lie in a drawer before it joins
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration::parse, help_heading = "The node")]
    token_ttl: Duration,
    /// A file with a join token instead (`-` is stdin)
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir", help_heading = "The node")]
    token_file: Option<PathBuf>,
    /// The agent's binary for the board [default: the one that came with limpet]
    #[arg(long, value_name = "FILE", help_heading = "The node")]
    pub agent: Option<PathBuf>,
    /// Wi-Fi: name of the network; its password is asked for
    #[arg(long, value_name = "SSID", help_heading = "Network")]
    wifi: Option<String>,
    /// Wi-Fi: file with the password (`-` is stdin) instead; or the environment variable LIMPET_WIFI_PASSWORD
    #[arg(long, value_name = "FILE", requires = "wifi", help_heading = "Network")]
    wifi_password_file: Option<PathBuf>,
    /// Wi-Fi: the country whose radio rules apply, such as DE [default: this machine's, by its time zone or language]
    #[arg(long, value_name = "CC", requires = "wifi", help_heading = "Network")]
    wifi_country: Option<String>,
    /// Wi-Fi: the network does not tell its name
    #[arg(long, requires = "wifi", help_heading = "Network")]
    wifi_hidden: bool,
    /// Wi-Fi: the network has no password
    #[arg(long, requires = "wifi", conflicts_with = "wifi_password_file", help_heading = "Network")]
    wifi_open: bool,
    /// Wi-Fi: WPA2 only [default: WPA3 where network and board do it, WPA2 otherwise]
    #[arg(long, requires = "wifi", conflicts_with = "wifi_open", help_heading = "Network")]
    wifi_wpa2: bool,
    /// Wi-Fi: WPA3 only
    #[arg(long, requires = "wifi", conflicts_with_all = ["wifi_open", "wifi_wpa2"], help_heading = "Network")]
    wifi_wpa3: bool,
    /// Mobile network: the access point's name; for systems with NetworkManager and ModemManager
    #[arg(long, value_name = "APN", help_heading = "Network")]
    apn: Option<String>,
    /// A fixed address instead of DHCP, such as 192.168.1.20/24
    #[arg(long, value_name = "IP/PREFIX", help_heading = "Network")]
    address: Option<String>,
    #[arg(long, value_name = "IP", requires = "address", help_heading = "Network")]
    gateway: Option<IpAddr>,
    #[arg(long, value_name = "IP", requires = "address", help_heading = "Network")]
    dns: Vec<IpAddr>,
    /// Proxy for the system's own downloads
    #[arg(long, value_name = "URL", help_heading = "Network")]
    proxy: Option<String>,
    /// Time server; may be repeated
    #[arg(long, value_name = "HOST", help_heading = "System")]
    ntp: Vec<String>,
    /// Such as Europe/Berlin
    #[arg(long, value_name = "ZONE", help_heading = "System")]
    time_zone: Option<String>,
    /// File with SSH public keys that may log in as root
    #[arg(long, value_name = "FILE", help_heading = "System")]
    ssh_key: Vec<PathBuf>,
    /// Asked for once, whatever the number of cards.
    #[arg(skip)]
    asked: OnceLock<Result<Option<Wifi>, String>>,
}

fn read(path: &PathBuf) -> Result<String, String> {
    use std::io::{Read, read_to_string, stdin};
    let text = match path.as_os_str() == "-" {
        true => read_to_string(stdin().take(FILE_BYTES_MAX)),
        false => std::fs::File::open(path).and_then(|file| read_to_string(file.take(FILE_BYTES_MAX))),
    };
    text.map_err(|e| format!("{}: {e}", path.display()))
}

/// Four letters and digits of chance: two cards of one kind are two nodes.
fn letters() -> String {
    use std::hash::{BuildHasher, RandomState};
    let mut chance = RandomState::new().hash_one(std::process::id());
    let mut one = || {
        let letter = b"abcdefghijklmnopqrstuvwxyz23456789"[(chance % 34) as usize];
        chance /= 34;
        char::from(letter)
    };
    (0..4).map(|_| one()).collect()
}

impl NodeArgs {
    /// Names for so many nodes; `board` gives one to a card that was given none.
    pub fn names(&self, count: usize, board: Option<&str>) -> Result<Vec<String>, String> {
        // x86_64 is a board's name, and no node's.
        let own = board.map(|board| format!("{}-{}", board.replace('_', "-"), letters()));
        let name = self.name.clone().or(own).ok_or("name the node with --name, such as --name greenhouse-1")?;
        match count {
            1 => Ok(vec![name]),
            n if self.address.is_some() => Err(format!("{n} cards cannot have the same --address; flash them one by one")),
            n if self.token_file.is_some() => {
                Err(format!("{n} cards need a token each: name the hub with --data-dir instead of --token-file"))
            }
            n => Ok((1..=n).map(|i| format!("{name}-{i}")).collect()),
        }
    }

    /// `with_token`: makes the token; without, only checks everything else.
    pub fn wish(&self, name: &str, with_token: bool) -> Result<Wish, String> {
        let wish = Wish {
            node_name: name.into(),
            token: None,
            wifi: self.asked.get_or_init(|| self.wifi()).clone()?,
            ssh_keys: self.ssh_keys()?,
            time_zone: self.time_zone.clone(),
            address: self.address()?,
            proxy: self.proxy.clone(),
            ntp: self.ntp.clone(),
            cellular_apn: self.apn.clone(),
        };
        wish.check().map_err(|e| e.to_string())?;
        if !with_token {
            return Ok(wish);
        }
        let wish = Wish { token: self.token(name)?, ..wish };
        wish.check().map_err(|e| e.to_string())?;
        Ok(wish)
    }

    pub fn token(&self, name: &str) -> Result<Option<String>, String> {
        if let Some(file) = &self.token_file {
            return Ok(Some(read(file)?.trim().to_string()));
        }
        let Some(dir) = self.hub() else { return Ok(None) };
        let (ttl_seconds, node) = (self.token_ttl.as_secs(), Some(name.into()));
        let wish = TokenWish { ttl_seconds, uses: Some(1), node, ..TokenWish::default() };
        operate::create_token(&dir, &wish).map(|made| Some(made.token)).map_err(|e| e.to_string())
    }

    /// The hub that makes the token: the one that is named, or this machine's own.
    pub fn hub(&self) -> Option<PathBuf> {
        let own = Path::new(OWN_HUB);
        // Whoever may not read the hub's keys makes no tokens there.
        let has_own = || std::fs::read_dir(own.join("pki")).is_ok().then(|| own.into());
        if self.token_file.is_some() { None } else { self.data_dir.clone().or_else(has_own) }
    }

    fn wifi(&self) -> Result<Option<Wifi>, String> {
        let Some(ssid) = self.wifi.clone() else { return Ok(None) };
        let country = match &self.wifi_country {
            Some(country) => country.clone(),
            None => country::here()?,
        };
        let from_environment = std::env::var("LIMPET_WIFI_PASSWORD").ok();
        let password = match (&self.wifi_password_file, from_environment) {
            _ if self.wifi_open => None,
            (Some(file), _) => Some(read(file)?.trim_end_matches(['\r', '\n']).to_string()),
            (None, Some(password)) => Some(password),
            (None, None) => Some(password::ask(&format!("Password of the Wi-Fi network {ssid:?}: "))?),
        };
        let security = match (self.wifi_wpa2, self.wifi_wpa3) {
            (true, _) => Security::Wpa2,
            (_, true) => Security::Wpa3,
            _ => Security::Any,
        };
        Ok(Some(Wifi { ssid, password, security, country, hidden: self.wifi_hidden }))
    }

    fn ssh_keys(&self) -> Result<Vec<String>, String> {
        let mut keys = Vec::new();
        for file in &self.ssh_key {
            let text = read(file)?;
            keys.extend(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(String::from));
        }
        Ok(keys)
    }

    fn address(&self) -> Result<Option<Address>, String> {
        let Some(text) = &self.address else { return Ok(None) };
        let (ip, prefix) = Address::parse(text).map_err(|e| e.to_string())?;
        Ok(Some(Address { ip, prefix, gateway: self.gateway, dns: self.dns.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args as _, FromArgMatches as _};
    use limpet_device::{board, provision};

    #[test]
    fn every_board_gives_its_cards_a_name() {
        let command = NodeArgs::augment_args(clap::Command::new("flash"));
        let args = NodeArgs::from_arg_matches(&command.get_matches_from(["flash"])).unwrap();
        for board in board::all().unwrap() {
            let name = args.names(1, Some(&board.name)).unwrap().remove(0);
            let wish = Wish { node_name: name.clone(), ..Wish::default() };
            assert!(wish.check().is_ok() && provision::install_script(&name, None).is_ok(), "{name}");
        }
    }
}
