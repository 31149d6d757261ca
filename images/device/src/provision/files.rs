//! Which files make a card's system a node.
//!
//! In: the system's traits, a checked wish, the agent. Out: files by place, path, owner-only modes where they hold secrets.
//! Everything is in place before the first boot: no script of ours runs then. Pure.

use super::network::{self, Network};
use super::unit::{CONSOLE, MODULES, agent_unit};
use super::wish::Wish;

/// Where a file goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The FAT partition that the firmware reads.
    Boot,
    /// The system's root.
    Root,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub place: Place,
    /// Absolute within its place.
    pub path: String,
    /// Permission bits; owner is root.
    pub mode: u32,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    File(Vec<u8>),
    Link(String),
    Directory,
    /// These words stand on the one line of the file, once.
    Words(Vec<String>),
}

/// What was found on the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    pub network: Network,
    /// There is a cmdline.txt on the boot partition: a Raspberry Pi's firmware.
    pub raspberry_pi: bool,
    pub cloud_init: bool,
    /// For mobile networks.
    pub modem_manager: bool,
}

impl Put {
    pub fn root(path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Put {
        Put { place: Place::Root, path: path.into(), mode, what: What::File(content.into()) }
    }

    fn link(path: &str, target: &str) -> Put {
        Put { place: Place::Root, path: path.into(), mode: 0o777, what: What::Link(target.into()) }
    }

    fn directory(path: &str, mode: u32) -> Put {
        Put { place: Place::Root, path: path.into(), mode, what: What::Directory }
    }
}

/// In the order in which they are put there.
pub fn recipe(traits: &Traits, wish: &Wish, agent: Vec<u8>, command_line: &[String], led: Option<&str>) -> Vec<Put> {
    let name = &wish.node_name;
    let mut all = vec![
        Put::root("/usr/local/bin/limpet-agent", 0o755, agent),
        Put::directory("/etc/limpet", 0o700),
        Put::root("/etc/limpet/agent.json", 0o600, settings(wish, led)),
        Put::root("/etc/limpet/agent.env", 0o600, environment(wish)),
        Put::root("/etc/systemd/system/limpet-agent.service", 0o644, agent_unit(name)),
        Put::link(
            "/etc/systemd/system/multi-user.target.wants/limpet-agent.service",
            "/etc/systemd/system/limpet-agent.service",
        ),
        Put::root("/etc/modules-load.d/limpet.conf", 0o644, MODULES),
        // The console says what the board waits for.
        Put::root("/etc/tmpfiles.d/limpet.conf", 0o644, CONSOLE),
        Put::root("/etc/hostname", 0o644, format!("{name}\n")),
        Put::root("/etc/hosts", 0o644, format!("127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost\n")),
    ];
    all.extend(network::files(traits.network, wish));
    if traits.cloud_init {
        all.push(Put::root("/etc/cloud/cloud.cfg.d/99-limpet.cfg", 0o644, "preserve_hostname: true\n"));
    }
    if !wish.ssh_keys.is_empty() {
        all.push(Put::directory("/root/.ssh", 0o700));
        all.push(Put::root("/root/.ssh/authorized_keys", 0o600, format!("{}\n", wish.ssh_keys.join("\n"))));
    }
    if let Some(zone) = &wish.time_zone {
        all.push(Put::link("/etc/localtime", &format!("/usr/share/zoneinfo/{zone}")));
        all.push(Put::root("/etc/timezone", 0o644, format!("{zone}\n")));
    }
    if !wish.ntp.is_empty() {
        let text = format!("[Time]\nNTP={}\n", wish.ntp.join(" "));
        all.push(Put::root("/etc/systemd/timesyncd.conf.d/limpet.conf", 0o644, text));
    }
    if let Some(proxy) = &wish.proxy {
        let text = format!("[Manager]\nDefaultEnvironment=http_proxy={proxy} https_proxy={proxy}\n");
        all.push(Put::root("/etc/systemd/system.conf.d/limpet-proxy.conf", 0o644, text));
    }
    all.extend(radio_and_firmware(traits, wish, command_line));
    all
}

/// For `limpet-agent --config`.
fn settings(wish: &Wish, led: Option<&str>) -> String {
    let mut all = serde_json::Map::new();
    all.extend(led.map(|led| ("led".to_string(), led.into())));
    all.extend(wish.proxy.as_ref().map(|proxy| ("proxy".to_string(), proxy.as_str().into())));
    format!("{}\n", serde_json::Value::Object(all))
}

fn environment(wish: &Wish) -> String {
    let mut text = String::new();
    if let Some(token) = &wish.token {
        text.push_str(&format!("LIMPET_JOIN={token}\n"));
    }
    if let Some(proxy) = &wish.proxy {
        text.push_str(&format!("HTTP_PROXY={proxy}\nHTTPS_PROXY={proxy}\n"));
    }
    text
}

fn radio_and_firmware(traits: &Traits, wish: &Wish, command_line: &[String]) -> Vec<Put> {
    let mut all = Vec::new();
    let mut words = Vec::new();
    if let Some(wifi) = &wish.wifi {
        let text = format!("options cfg80211 ieee80211_regdom={}\n", wifi.country);
        all.push(Put::root("/etc/modprobe.d/limpet-wifi.conf", 0o644, text));
        words.push(format!("cfg80211.ieee80211_regdom={}", wifi.country));
    }
    if !traits.raspberry_pi {
        return all;
    }
    words.extend(command_line.iter().filter(|w| w.starts_with("cgroup_")).cloned());
    let what = What::Words(words);
    all.push(Put { place: Place::Boot, path: "/cmdline.txt".into(), mode: 0o644, what });
    if !wish.ssh_keys.is_empty() {
        // Raspberry Pi OS starts its SSH server when it finds this.
        all.push(Put { place: Place::Boot, path: "/ssh".into(), mode: 0o644, what: What::File(Vec::new()) });
    }
    all
}
