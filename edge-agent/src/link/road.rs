//! The road to the hub: how a stream of bytes gets there.
//!
//! In: an address as the hub named it or the settings say. Out: a connected stream, and what kind of road it is.
//! `host:port` is TLS on TCP; `wss://host:port/path` is MQTT in a WebSocket for networks that let nothing else through;
//! both go through an HTTP proxy (`CONNECT`) when the settings name one.
//! Never: trusts a proxy: TLS ends at the hub.

use super::{mdns, meter::METER, websocket};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use std::{
    io::{Error, ErrorKind},
    net::IpAddr,
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// What was sent and is not acknowledged by the other end's kernel for so long: the road is cut.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(60);
/// A probe that is not answered is sent again after so long.
const PROBED_AGAIN: Duration = Duration::from_secs(20);
/// What the kernel takes before it can send it: more would wait there before something urgent.
const UNSENT_BYTES: u32 = 16 * 1024;
/// The answer of a proxy or of a WebSocket's door.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
const MQTT_PORT: u16 = 8883;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The hub is in a network of this board: no router between, no bytes to pay for.
    Near,
    Far,
    /// Somebody between ends the TCP connection: its acknowledgements say nothing of the hub.
    Proxied,
}

/// Where to and by which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub host: String,
    pub port: u16,
    /// The path of a WebSocket.
    pub web: Option<String>,
}

impl Target {
    /// `host:port`, `[v6]:port`, `wss://host[:port][/path]`.
    pub fn parse(text: &str) -> Result<Target, Error> {
        let (rest, web, default) = match text.strip_prefix("wss://") {
            Some(rest) => {
                let (rest, path) = rest.split_once('/').unwrap_or((rest, "limpet/v1/mqtt"));
                (rest, Some(format!("/{path}")), 443)
            }
            None => (text, None, MQTT_PORT),
        };
        let (host, port) = split(rest, default)?;
        Ok(Target { host, port, web })
    }
}

fn split(text: &str, default: u16) -> Result<(String, u16), Error> {
    let bad = || Error::new(ErrorKind::InvalidInput, format!("{text:?} is not `host:port`"));
    let (host, port) = match text.strip_prefix('[') {
        Some(v6) => {
            let (host, rest) = v6.split_once(']').ok_or_else(bad)?;
            (host, rest.strip_prefix(':'))
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(default), |p| p.parse().map_err(|_| bad()))?;
    let sound = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/@?#".contains(&b));
    if sound { Ok((host.to_string(), port)) } else { Err(bad()) }
}

/// `http://[user:password@]host[:port]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    /// `user:password`
    credentials: Option<String>,
}

/// Without its password.
impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Proxy {
    pub fn parse(text: &str) -> Result<Proxy, String> {
        let rest = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        if rest.contains("://") {
            return Err(format!("the proxy {text:?} is not `http://host:port`"));
        }
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials.to_string()), address),
            None => (None, rest),
        };
        let (host, port) = split(address, 3128).map_err(|e| format!("the proxy: {e}"))?;
        Ok(Proxy { host, port, credentials })
    }
}

/// The kernel's own word for an idle connection: an empty packet and its acknowledgement keep routers between from forgetting
/// it, for less than the smallest record of TLS.
pub struct Pulse(socket2::Socket);

impl Pulse {
    fn of(tcp: &TcpStream) -> Result<Pulse, Error> {
        Ok(Pulse(tcp.as_fd().try_clone_to_owned()?.into()))
    }

    /// Nothing is to be said for a while: a probe after each `every` of silence, and some more before the road is taken for cut.
    /// The kernel has one patience for data and for probes, and it began with the last word that came.
    pub fn rest(&self, every: Duration) -> Result<(), Error> {
        let probes = socket2::TcpKeepalive::new().with_time(every).with_interval(PROBED_AGAIN);
        self.0.set_tcp_keepalive(&probes)?;
        self.0.set_tcp_user_timeout(Some(every + UNACKNOWLEDGED + PROBED_AGAIN))
    }

    /// Something is said, and shall be acknowledged soon.
    pub fn work(&self) -> Result<(), Error> {
        self.0.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
    }
}

/// A TLS stream to the hub. The caller bounds the time.
pub async fn open(
    target: &Target,
    proxy: Option<&Proxy>,
    tls: Arc<rustls::ClientConfig>,
) -> Result<(Box<dyn Stream>, Kind, Pulse), Error> {
    let tcp = connect(&target.host, target.port, proxy).await?;
    tcp.set_nodelay(true)?;
    let patience = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    if let Err(e) = setsockopt(&tcp, sockopt::TcpUserTimeout, &patience) {
        log::debug!("link: no limit for unacknowledged data: {e}");
    }
    if let Err(e) = socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES) {
        log::debug!("link: no limit for unsent data: {e}");
    }
    let kind = match (proxy, &target.web, tcp.peer_addr()) {
        (None, None, Ok(peer)) if near(peer.ip()) => Kind::Near,
        (None, None, _) => Kind::Far,
        _ => Kind::Proxied,
    };
    let pulse = Pulse::of(&tcp)?;
    let tls = match target.web {
        None => tls,
        Some(_) => {
            let mut web = (*tls).clone();
            web.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(web)
        }
    };
    let name = ServerName::try_from(target.host.clone()).map_err(Error::other)?;
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, METER.wrap(tcp)).await?;
    match &target.web {
        None => Ok((Box::new(stream), kind, pulse)),
        Some(path) => Ok((Box::new(websocket::open(stream, &target.host, path).await?), kind, pulse)),
    }
}

/// A TCP connection to the hub, or to the proxy that carries it there.
pub async fn connect(host: &str, port: u16, proxy: Option<&Proxy>) -> Result<TcpStream, Error> {
    match proxy {
        Some(proxy) => through(proxy, host, port).await,
        None => mdns::connect(host, port).await,
    }
}

async fn through(proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, Error> {
    let mut tcp = mdns::connect(&proxy.host, proxy.port).await?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let to = format!("{host}:{port}");
    let mut ask = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
    if let Some(credentials) = &proxy.credentials {
        use base64::{Engine, engine::general_purpose::STANDARD};
        ask.push_str(&format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(credentials)));
    }
    ask.push_str("\r\n");
    tcp.write_all(ask.as_bytes()).await?;
    let head = read_head(&mut tcp).await?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        let line: String = head.lines().next().unwrap_or_default().chars().take(200).collect();
        return Err(Error::other(format!("the proxy {} does not connect to {to}: {line}", proxy.host)));
    }
    Ok(tcp)
}

/// An HTTP/1.1 answer without its body, byte by byte: what comes behind belongs to somebody else.
pub(super) async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<String, Error> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= ANSWER_BYTES_MAX {
            return Err(Error::new(ErrorKind::InvalidData, "an answer without end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Whether an address is in a network that this board is in itself, so that no router lies between.
fn near(peer: IpAddr) -> bool {
    if peer.is_loopback() {
        return true;
    }
    let Ok(all) = nix::ifaddrs::getifaddrs() else { return false };
    let mut pairs = all.filter_map(|i| Some((ip_of(i.address?)?, ip_of(i.netmask?)?)));
    pairs.any(|(own, mask)| same_network(own, mask, peer))
}

fn ip_of(address: nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
}

fn same_network(own: IpAddr, mask: IpAddr, peer: IpAddr) -> bool {
    match (own, mask, peer) {
        (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(peer)) => {
            mask.to_bits() != 0 && own.to_bits() & mask.to_bits() == peer.to_bits() & mask.to_bits()
        }
        (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(peer)) => {
            mask.to_bits() != 0 && own.to_bits() & mask.to_bits() == peer.to_bits() & mask.to_bits()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let target = |host: &str, port, web: Option<&str>| Target { host: host.into(), port, web: web.map(String::from) };
        for (text, want) in [
            ("hub.test:8883", Some(target("hub.test", 8883, None))),
            ("192.0.2.1", Some(target("192.0.2.1", 8883, None))),
            ("[2001:db8::1]:99", Some(target("2001:db8::1", 99, None))),
            ("wss://hub.test", Some(target("hub.test", 443, Some("/limpet/v1/mqtt")))),
            ("wss://hub.test:6443/a/b", Some(target("hub.test", 6443, Some("/a/b")))),
            ("", None),
            ("hub:x", None),
            ("a b:1", None),
            ("user@hub:1", None),
            ("[::1", None),
        ] {
            assert_eq!(Target::parse(text).ok(), want, "{text}");
        }
        let proxy = Proxy::parse("http://me:s3cr:et@proxy.test:8080/").unwrap();
        assert_eq!((proxy.port, proxy.credentials.as_deref()), (8080, Some("me:s3cr:et")));
        assert_eq!(Proxy::parse("proxy.test").unwrap().port, 3128);
        assert!(Proxy::parse("socks5://proxy.test").is_err() && Proxy::parse("http://").is_err());
    }

    #[test]
    fn near_is_what_needs_no_router() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (own, mask, peer, want) in [
            ("10.1.2.3", "255.255.255.0", "10.1.2.99", true),
            ("10.1.2.3", "255.255.255.0", "10.1.3.99", false),
            ("10.1.2.3", "0.0.0.0", "192.0.2.1", false),
            ("fd00::1", "ffff:ffff:ffff:ffff::", "fd00::2", true),
            ("fd00::1", "ffff:ffff:ffff:ffff::", "10.1.2.3", false),
        ] {
            assert_eq!(same_network(ip(own), ip(mask), ip(peer)), want, "{own} {peer}");
        }
    }

    #[tokio::test]
    async fn a_proxy_is_asked_and_its_refusal_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy::parse(&format!("http://u:p@127.0.0.1:{port}")).unwrap();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in ["HTTP/1.1 200 OK\r\nVia: x\r\n\r\nmore", "HTTP/1.1 403 Forbidden\r\n\r\n"] {
                let (mut socket, _) = listener.accept().await.unwrap();
                asked.push(read_head(&mut socket).await.unwrap());
                socket.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        let target = Target::parse("[2001:db8::1]:8883").unwrap();
        let mut tcp = through(&proxy, &target.host, target.port).await.unwrap();
        let mut more = [0; 4];
        tcp.read_exact(&mut more).await.unwrap();
        assert_eq!(&more, b"more", "what follows the answer is the hub's");
        let refused = through(&proxy, &target.host, target.port).await.unwrap_err().to_string();
        assert!(refused.contains("403 Forbidden"), "{refused}");
        let asked = server.await.unwrap();
        assert!(asked[0].starts_with("CONNECT [2001:db8::1]:8883 HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[0].contains("Proxy-Authorization: Basic dTpw\r\n"), "{asked:?}");
    }
}
