//! How servers of images are reached: straight, or through the board's HTTP proxy.
//!
//! In: the settings `proxy` and `noProxy`. Out: a TCP connection, or why there is none.
//! Never: the proxy for this machine itself; trust in a proxy: TLS ends at the server.

use super::endpoint::Authority;
use crate::link::road::Proxy;
use std::net::IpAddr;
use tokio::net::TcpStream;

#[derive(Clone, Debug, Default)]
pub struct Way {
    proxy: Option<Proxy>,
    /// Names (with those below them), addresses and networks that are reached without it.
    straight: Vec<Straight>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Straight {
    Name(String),
    /// The network's address and the bits that count.
    Network(IpAddr, u8),
}

impl Straight {
    /// As in `NO_PROXY`: `lan.example`, `.lan.example`, `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`.
    fn parse(text: &str) -> Result<Straight, String> {
        let wrong = || format!("noProxy: {text:?} is no name, address or network, such as registry.lan or 10.0.0.0/8");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        if let Ok(ip) = address.parse::<IpAddr>() {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(most), |b| b.parse().map_err(|_| wrong()))?;
            return if bits <= most { Ok(Straight::Network(ip, bits)) } else { Err(wrong()) };
        }
        let name = text.trim_start_matches('.');
        let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        match !name.is_empty() && name.len() <= 253 && name.bytes().all(fit) {
            true => Ok(Straight::Name(name.to_ascii_lowercase())),
            false => Err(wrong()),
        }
    }

    fn holds(&self, host: &str) -> bool {
        match (self, host.parse::<IpAddr>()) {
            (Straight::Name(name), Err(_)) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                host.strip_suffix(name.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            (Straight::Network(IpAddr::V4(net), bits), Ok(IpAddr::V4(ip))) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            (Straight::Network(IpAddr::V6(net), bits), Ok(IpAddr::V6(ip))) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(*bits)).unwrap_or(0);
                net.to_bits() & mask == ip.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl Way {
    pub fn new(proxy: Option<&str>, straight: &[String]) -> Result<Way, String> {
        let proxy = proxy.map(Proxy::parse).transpose()?;
        Ok(Way { proxy, straight: straight.iter().map(|text| Straight::parse(text)).collect::<Result<_, _>>()? })
    }

    fn proxy_to(&self, host: &str) -> Option<&Proxy> {
        let own = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        self.proxy.as_ref().filter(|_| !own && !self.straight.iter().any(|s| s.holds(host)))
    }

    pub async fn connect(&self, to: &Authority) -> Result<TcpStream, String> {
        if let Some(proxy) = self.proxy_to(&to.host) {
            let through = crate::link::road::connect(&to.host, to.port, Some(proxy)).await;
            return through.map_err(|e| format!("no way through the proxy {proxy}: {e}"));
        }
        let addresses = crate::link::mdns::resolve(&to.host, to.port).await;
        let addresses = addresses.map_err(|e| format!("cannot look up {}: {e}", to.host))?;
        let mut last = format!("{} has no address", to.host);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(e) => last = format!("cannot connect to {address}: {e}"),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_networks_are_reached_without_the_proxy() {
        let straight = ["lan.example", ".intern", "10.1.0.0/16", "192.168.7.9", "fd00::/8"].map(String::from);
        let way = Way::new(Some("http://proxy:3128"), &straight).unwrap();
        let through = |host: &str| way.proxy_to(host).is_some();
        let names = ["lan.example", "Registry.LAN.example.", "a.intern", "localhost"];
        for host in names.into_iter().chain(["10.1.2.3", "192.168.7.9", "fd12::1", "127.0.0.1", "::1"]) {
            assert!(!through(host), "{host} goes through the proxy");
        }
        for host in ["example", "notlan.example", "10.2.0.1", "192.168.7.8", "fe80::1", "docker.io", "lan.example.org"] {
            assert!(through(host), "{host} does not go through the proxy");
        }
        assert!(Way::new(None, &straight).unwrap().proxy_to("docker.io").is_none());
        let all = Way::new(Some("proxy"), &["0.0.0.0/0".into(), "::/0".into()]).unwrap();
        assert!(all.proxy_to("8.8.8.8").is_none() && all.proxy_to("2001:db8::1").is_none() && all.proxy_to("a.b").is_some());
        for bad in ["", ".", "10.0.0.0/33", "fd00::/129", "10.0.0.0/x", "a b", "http://x", "*"] {
            assert!(Way::new(None, &[bad.into()]).unwrap_err().contains("noProxy"), "{bad}");
        }
    }
}
