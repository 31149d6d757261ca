//! Under which names and addresses the hub is reached.
//!
//! In: the options and this machine's interfaces. Out: names for the certificate, `host:port` for tokens and devices,
//! the URL for the operator's kubeconfig. The endpoints are kept in `hub.json` for `limpet token` while no hub runs.
//! Never: asks the network.

use crate::{enroll::Endpoints, hub::HubOptions, meeting::BrokerSettings};
use serde_json::{Value, json};
use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
};

const FILE: &str = "hub.json";

pub(crate) struct Addresses {
    /// In order of preference.
    hosts: Vec<String>,
    /// What this machine itself uses.
    local: String,
}

impl Addresses {
    pub fn find(options: &HubOptions) -> Addresses {
        let listen = options.api_listen.ip();
        let own = match listen.is_unspecified() {
            true => own_addresses(),
            false => vec![listen],
        };
        let mut hosts = options.advertise_hosts.clone();
        if hosts.is_empty() {
            hosts.extend(own.iter().map(IpAddr::to_string));
            hosts.extend(host_name());
        }
        hosts.dedup();
        let local = match listen.is_unspecified() {
            true => Ipv4Addr::LOCALHOST.to_string(),
            false => listen.to_string(),
        };
        if hosts.is_empty() {
            hosts.push(local.clone());
        }
        Addresses { hosts, local }
    }

    /// Names for the certificate, besides the fixed ones.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.hosts.clone();
        names.push(self.local.clone());
        names.extend(own_addresses().iter().map(IpAddr::to_string));
        names.extend(host_name());
        names
    }

    /// For `admin.kubeconfig`.
    pub fn local_url(&self, port: u16) -> String {
        format!("https://{}", host_port(&self.local, port))
    }

    /// For everybody else: the first name under which the hub is reached.
    pub fn public_url(&self, port: u16) -> String {
        format!("https://{}", host_port(self.hosts.first().unwrap_or(&self.local), port))
    }

    /// Addresses of the API as pods reach it.
    pub fn api_endpoints(&self, port: u16) -> Vec<(IpAddr, u16)> {
        let addresses = self.hosts.iter().filter_map(|h| h.parse::<IpAddr>().ok());
        addresses.filter(|ip| !ip.is_loopback()).map(|ip| (ip, port)).collect()
    }

    /// `mqtt`: none when devices do not come to this hub for it.
    pub fn endpoints(&self, (api, mqtt, registry): (u16, Option<u16>, u16), cluster_name: &str) -> Endpoints {
        let all = |port| self.hosts.iter().map(|h| host_port(h, port)).collect();
        let mqtt = mqtt.map(all).unwrap_or_default();
        Endpoints { api: all(api), mqtt, registry: all(registry), cluster_name: cluster_name.into(), broker: None }
    }
}

/// IPv6 addresses need brackets.
fn host_port(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(v6)) => SocketAddr::new(v6.into(), port).to_string(),
        _ => format!("{host}:{port}"),
    }
}

/// Addresses of this machine that others may reach, the one of the default route first.
fn own_addresses() -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = default_source().into_iter().collect();
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    for address in interfaces.filter_map(|i| i.address) {
        let ip = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (_, Some(v6)) => IpAddr::V6(v6.ip()),
            _ => continue,
        };
        let of_link = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !ip.is_loopback() && !of_link && !all.contains(&ip) {
            all.push(ip);
        }
    }
    all
}

/// Connecting a UDP socket sends nothing, but picks the address that packets to the outside would have.
fn default_source() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_lowercase();
    limpet_protocol::topic::valid_node_name(&name).then_some(name)
}

/// Keeps the endpoints for `limpet token` while no hub runs, and the broker for a start without `--broker`.
pub(crate) fn remember(data_dir: &Path, endpoints: &Endpoints, broker: Option<&BrokerSettings>) -> std::io::Result<()> {
    let value = json!({
        "api": endpoints.api,
        "mqtt": endpoints.mqtt,
        "registry": endpoints.registry,
        "clusterName": endpoints.cluster_name,
        "broker": broker.map(BrokerSettings::with_whole_paths),
    });
    let (path, temporary) = (data_dir.join(FILE), data_dir.join("hub.json.new"));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(value.to_string().as_bytes())?;
    file.sync_all()?;
    std::fs::rename(temporary, path)
}

fn read(data_dir: &Path) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(data_dir.join(FILE)).ok()?).ok()
}

/// At which external broker the last hub of this data directory met its boards.
pub fn remembered_broker(data_dir: &Path) -> Option<BrokerSettings> {
    let mut value = read(data_dir)?;
    serde_json::from_value(value.get_mut("broker")?.take()).ok()
}

/// What the last hub of this data directory was reached under; `None` when there was none.
pub(crate) fn recall(data_dir: &Path) -> Option<Endpoints> {
    let value = read(data_dir)?;
    let list = |name: &str| -> Vec<String> {
        let items = value[name].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(String::from).collect()
    };
    Some(Endpoints {
        api: list("api"),
        mqtt: list("mqtt"),
        registry: list("registry"),
        cluster_name: value["clusterName"].as_str().unwrap_or_default().into(),
        broker: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_advertised_comes_first_and_is_recalled() {
        let options = HubOptions {
            guard: Default::default(),
            data_dir: "/nowhere".into(),
            api_listen: ([0, 0, 0, 0], 6443).into(),
            mqtt_listen: Some(([0, 0, 0, 0], 8883).into()),
            broker: None,
            registry_listen: ([0, 0, 0, 0], 5000).into(),
            advertise_hosts: vec!["hub.example".into(), "10.1.2.3".into(), "fd00::1".into()],
            cluster_name: "c".into(),
            scheduler_config: None,
            cluster_cidrs: Default::default(),
            etcd: None,
        };
        let addresses = Addresses::find(&options);
        let endpoints = addresses.endpoints((1, Some(2), 3), "c");
        assert_eq!(endpoints.api, ["hub.example:1", "10.1.2.3:1", "[fd00::1]:1"]);
        assert_eq!(endpoints.registry[0], "hub.example:3");
        assert_eq!(addresses.local_url(6443), "https://127.0.0.1:6443");
        assert_eq!(addresses.api_endpoints(1)[0], ("10.1.2.3".parse().unwrap(), 1));
        let bound = HubOptions { api_listen: ([10, 0, 0, 1], 6443).into(), advertise_hosts: vec![], ..options };
        let addresses = Addresses::find(&bound);
        assert_eq!(addresses.local_url(1), "https://10.0.0.1:1");
        assert_eq!(addresses.endpoints((1, Some(2), 3), "c").mqtt[0], "10.0.0.1:2");
        assert!(addresses.endpoints((1, None, 3), "c").mqtt.is_empty());
    }

    #[test]
    fn the_broker_is_remembered_with_whole_paths_until_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        assert!(remembered_broker(dir.path()).is_none());
        let endpoints =
            Endpoints { api: vec![], mqtt: vec![], registry: vec![], cluster_name: "c".into(), broker: None };
        let settings = BrokerSettings {
            url: "mqtts://broker.test".into(),
            ca: Some("broker/ca.crt".into()),
            certificate: Some(("hub.crt".into(), "/etc/hub.key".into())),
            node_password_file: Some("boards".into()),
            ..BrokerSettings::default()
        };
        remember(dir.path(), &endpoints, Some(&settings)).unwrap();
        let known = remembered_broker(dir.path()).unwrap();
        assert_eq!(known, settings.with_whole_paths());
        let here = std::env::current_dir().unwrap();
        assert_eq!(known.ca, Some(here.join("broker/ca.crt")));
        assert_eq!(known.certificate, Some((here.join("hub.crt"), "/etc/hub.key".into())));
        remember(dir.path(), &endpoints, None).unwrap();
        assert!(remembered_broker(dir.path()).is_none());
        // What an older version wrote, or what is spoiled, names none.
        for text in ["{\"api\":[]}", "{\"broker\":{\"url\":7}}", "{"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(remembered_broker(dir.path()).is_none(), "{text}");
        }
    }
}
