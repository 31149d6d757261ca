//! Where a registry's content can be had: mirrors first, then the registry itself; the hub's own registry by its name.
//!
//! In: a reference, the agent's configuration, the hub's addresses. Out: endpoints to try in order.
//! Never: http for a registry that nobody allowed it for.

use super::pace::Pace;
use super::tls::{self, TlsChoice};
use super::way::Way;
use crate::images::error::ImageError;
use limpet_oci::Reference;
use limpet_oci::reference::host_without_port;
use rustls::time_provider::TimeProvider;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Images of this host come from the hub, wherever the hub is.
pub const HUB_HOST: &str = "hub.limpet";

#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// `docker.io` → `https://mirror.example`, `http://10.0.0.1:5000`, …
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// `host[:port]` that are asked over http; `localhost`, 127.0.0.0/8 and `::1` always are.
    pub insecure: Vec<String>,
    /// PEM files with CAs, besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Of all pulls together; no limit when absent.
    pub bytes_per_second: Option<u64>,
    /// The board's proxy, where it has one.
    pub way: Way,
    /// The clock for certificates; the system's if there is none.
    pub time: Option<Arc<dyn TimeProvider>>,
}

/// How to reach the hub's registry; from the answer to joining or renewing.
#[derive(Clone)]
pub struct HubAccess {
    pub registries: Vec<String>,
    pub ca_pem: String,
    pub certificate_pem: String,
    pub key: crate::link::NodeKey,
}

impl std::fmt::Debug for HubAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HubAccess({:?})", self.registries)
    }
}

/// One server to ask.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub authority: Authority,
    /// The name under which credentials are looked up.
    pub registry: String,
    pub tls: TlsChoice,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Authority {
    pub https: bool,
    /// Without brackets for IPv6.
    pub host: String,
    pub port: u16,
}

impl Authority {
    /// For the Host header.
    pub fn host_header(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.https, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    pub fn parse(https: bool, host_port: &str) -> Option<Authority> {
        let default = if https { 443 } else { 80 };
        let host = host_without_port(host_port).to_string();
        let after = host_port.rsplit_once(']').map_or(host_port, |(_, after)| after);
        let port = match after.split_once(':') {
            Some((_, port)) => port.parse().ok()?,
            None => default,
        };
        (!host.is_empty()).then_some(Authority { https, host, port })
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.host_header())
    }
}

/// The configuration, ready for use.
pub struct Registries {
    options: RegistryOptions,
    public: tls::Public,
    pub pace: Pace,
    hub: std::sync::RwLock<Option<(HubAccess, TlsChoice)>>,
}

impl Registries {
    pub fn new(options: RegistryOptions) -> Registries {
        let public = tls::Public::new(&options);
        let pace = Pace::new(options.bytes_per_second);
        Registries { options, public, pace, hub: std::sync::RwLock::new(None) }
    }

    pub fn set_hub(&self, access: Option<HubAccess>) -> Result<(), ImageError> {
        let ready = match access {
            Some(access) => {
                let tls = tls::hub(&access, &self.options).map_err(ImageError::Config)?;
                Some((access, tls))
            }
            None => None,
        };
        *self.hub.write().unwrap_or_else(std::sync::PoisonError::into_inner) = ready;
        Ok(())
    }

    pub fn way(&self) -> Way {
        self.options.way.clone()
    }

    /// For redirects and token servers.
    pub fn public_tls(&self) -> Result<TlsChoice, String> {
        self.public.get()
    }

    /// Servers to ask for `reference`, in order. A server that cannot be used is an error text instead.
    pub fn endpoints(&self, reference: &Reference) -> Vec<Result<Endpoint, String>> {
        if reference.host() == HUB_HOST {
            return self.hub_endpoints();
        }
        let mirrors = self.options.mirrors.get(&reference.registry).map_or(&[][..], Vec::as_slice);
        let mut all: Vec<_> = mirrors.iter().map(|url| self.mirror(url)).collect();
        let host = reference.api_host();
        let https = !self.is_insecure(&reference.registry);
        all.push(self.endpoint(https, host, &reference.registry));
        all
    }

    fn mirror(&self, url: &str) -> Result<Endpoint, String> {
        let url = url.trim_end_matches('/');
        let (https, host) = match url.split_once("://") {
            Some(("https", host)) => (true, host),
            Some(("http", host)) => (false, host),
            _ => return Err(format!("mirror {url:?} is no http:// or https:// address")),
        };
        self.endpoint(https, host, host)
    }

    fn endpoint(&self, https: bool, host: &str, registry: &str) -> Result<Endpoint, String> {
        let authority =
            Authority::parse(https, host).ok_or_else(|| format!("{host:?} is no host with an optional port"))?;
        let tls = if https { self.public.get()? } else { TlsChoice::None };
        Ok(Endpoint { authority, registry: registry.to_string(), tls })
    }

    fn hub_endpoints(&self) -> Vec<Result<Endpoint, String>> {
        let hub = self.hub.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some((access, tls)) = &*hub else {
            return vec![Err("this device has not joined a hub yet, and the image is the hub's".to_string())];
        };
        access
            .registries
            .iter()
            .map(|host| {
                let authority = Authority::parse(true, host).ok_or_else(|| format!("bad hub address {host:?}"))?;
                Ok(Endpoint { authority, registry: HUB_HOST.to_string(), tls: tls.clone() })
            })
            .collect()
    }

    fn is_insecure(&self, registry: &str) -> bool {
        let host = host_without_port(registry);
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        let listed = |entry: &String| entry == registry || entry == host;
        host == "localhost" || loopback || self.options.insecure.iter().any(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_in_order() {
        let options = RegistryOptions {
            mirrors: BTreeMap::from([(
                "docker.io".to_string(),
                vec!["http://10.0.0.1:5000/".to_string(), "ftp://x".to_string()],
            )]),
            insecure: vec!["lan.example:5000".to_string(), "other.example".to_string()],
            ..RegistryOptions::default()
        };
        let registries = Registries::new(options);
        let of = |image: &str| -> Vec<String> {
            let list = registries.endpoints(&Reference::parse(image).unwrap());
            list.into_iter().filter_map(|e| e.ok()).map(|e| e.authority.to_string()).collect()
        };
        assert_eq!(of("nginx")[0], "http://10.0.0.1:5000");
        assert_eq!(of("lan.example:5000/a"), ["http://lan.example:5000"]);
        assert_eq!(of("other.example:81/a"), ["http://other.example:81"]);
        assert_eq!(of("localhost:5000/a"), ["http://localhost:5000"]);
        assert_eq!(of("127.0.0.1/a"), ["http://127.0.0.1"]);
        assert_eq!(of("[::1]:5000/a"), ["http://[::1]:5000"]);
        assert!(of("hub.limpet/a").is_empty());
        assert!(of("hub.limpet:5000/a").is_empty());
    }

    #[test]
    fn authorities() {
        let a = Authority::parse(true, "[2001:db8::1]:5000").unwrap();
        assert_eq!((a.host.as_str(), a.port, a.host_header().as_str()), ("2001:db8::1", 5000, "[2001:db8::1]:5000"));
        assert_eq!(Authority::parse(true, "a.b").unwrap().host_header(), "a.b");
        assert_eq!(Authority::parse(false, "a.b:99999"), None);
        assert_eq!(Authority::parse(false, ":5000"), None);
    }
}
