//! URLs, IP addresses and networks.
//!
//! In: text. Out: parsed values and their parts. Source: RFC 3986 as Go's net/url reads it, and net/netip.
//! Never: looks names up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::eval::{Meter, Outcome, error};
use crate::value::{Key, Value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

pub fn call(function: &str, values: &[Value], meter: &mut Meter) -> Option<Outcome> {
    let outcome = match (function, values) {
        ("url", [Value::String(text)]) => match Url::parse(text) {
            Some(url) => Ok(Value::Url(Arc::new(url))),
            None => error(format!(
                "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
            )),
        },
        ("isURL", [Value::String(text)]) => Ok(Value::Bool(Url::parse(text).is_some())),
        ("ip", [Value::String(text)]) => match address(text) {
            Ok(address) => Ok(Value::Ip(address)),
            Err(why) => error(format!(
                "IP Address {text:?} parse error during conversion from string: {why}"
            )),
        },
        ("isIP", [Value::String(text)]) => Ok(Value::Bool(address(text).is_ok())),
        ("ip.isCanonical", [Value::String(text)]) => match address(text) {
            Ok(address) => Ok(Value::Bool(address.to_string() == **text)),
            Err(why) => error(format!(
                "IP Address {text:?} parse error during conversion from string: {why}"
            )),
        },
        ("cidr", [Value::String(text)]) => match Cidr::parse(text) {
            Some(cidr) => Ok(Value::Cidr(cidr)),
            None => error(format!(
                "network address parse error during conversion from string: {text:?}"
            )),
        },
        ("isCIDR", [Value::String(text)]) => Ok(Value::Bool(Cidr::parse(text).is_some())),
        (function, [Value::Url(url)]) => url.part(function)?,
        (function, [Value::Ip(address)]) => of_address(function, *address)?,
        (function, [Value::Cidr(cidr), rest @ ..]) => of_cidr(function, cidr, rest)?,
        _ => return None,
    };
    Some(
        meter
            .walk(values.first().map_or(1, Value::size).max(1))
            .and(outcome),
    )
}

/// Zones and IPv4 in IPv6 are not for Kubernetes.
fn address(text: &str) -> Result<IpAddr, &'static str> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            Err("IPv4-mapped IPv6 address is not allowed")
        }
        Ok(address) => Ok(address),
        Err(_) => Err("unable to parse IP"),
    }
}

fn of_address(function: &str, address: IpAddr) -> Option<Outcome> {
    let v6 = |test: fn(&Ipv6Addr) -> bool, v4: fn(&Ipv4Addr) -> bool| match &address {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => test(address),
    };
    let multicast_local = |a: &Ipv6Addr| a.segments()[0] & 0xff0f == 0xff02;
    let unicast_local = |a: &Ipv6Addr| a.segments()[0] & 0xffc0 == 0xfe80;
    Some(Ok(match function {
        "family" => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(address.is_unspecified()),
        "isLoopback" => Value::Bool(address.is_loopback()),
        "isLinkLocalMulticast" => {
            Value::Bool(v6(multicast_local, |a| a.octets()[..3] == [224, 0, 0]))
        }
        "isLinkLocalUnicast" => Value::Bool(v6(unicast_local, |a| a.octets()[..2] == [169, 254])),
        "isGlobalUnicast" => Value::Bool(
            !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_multicast()
                && !v6(unicast_local, |a| {
                    a.octets()[..2] == [169, 254] || a.is_broadcast()
                }),
        ),
        _ => return None,
    }))
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address = self::address(address).ok()?;
        let plain = bits.len() <= 3
            && bits.bytes().all(|b| b.is_ascii_digit())
            && (bits == "0" || !bits.starts_with('0'));
        let bits: u8 = bits.parse().ok().filter(|_| plain)?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
    }

    fn masked(&self) -> IpAddr {
        mask(self.address, self.bits)
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && mask(address, self.bits) == self.masked()
    }
}

fn mask(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
        }
    }
}

fn of_cidr(function: &str, cidr: &Cidr, rest: &[Value]) -> Option<Outcome> {
    let bad = |text: &str| {
        error(format!(
            "network address parse error during conversion from string: {text:?}"
        ))
    };
    Some(match (function, rest) {
        ("containsIP", [Value::Ip(address)]) => Ok(Value::Bool(cidr.contains(*address))),
        ("containsIP", [Value::String(text)]) => match address(text) {
            Ok(address) => Ok(Value::Bool(cidr.contains(address))),
            Err(_) => bad(text),
        },
        ("containsCIDR", [Value::Cidr(other)]) => Ok(Value::Bool(
            other.bits >= cidr.bits && cidr.contains(other.address),
        )),
        ("containsCIDR", [Value::String(text)]) => match Cidr::parse(text) {
            Some(other) => Ok(Value::Bool(
                other.bits >= cidr.bits && cidr.contains(other.address),
            )),
            None => bad(text),
        },
        ("ip", []) => Ok(Value::Ip(cidr.address)),
        ("masked", []) => Ok(Value::Cidr(Cidr {
            address: cidr.masked(),
            bits: cidr.bits,
        })),
        ("prefixLength", []) => Ok(Value::Int(i64::from(cidr.bits))),
        _ => return None,
    })
}

impl Url {
    /// An absolute URI, or an absolute path.
    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|b| b < b' ' || b == 0x7f || b == b' ') {
            return None;
        }
        let (scheme, rest) = if text.starts_with('/') {
            ("", text)
        } else {
            let (scheme, rest) = text.split_once(':')?;
            let fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
            (fits && !rest.is_empty()).then_some((scheme, rest))?
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let end = rest.find('/').unwrap_or(rest.len());
                (&rest[..end], &rest[end..])
            }
            None => ("", rest),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let port_fits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
        let fits = match host.rsplit_once(':') {
            Some((name, port)) if !host.ends_with(']') => {
                port_fits(port) && (!name.contains(':') || name.starts_with('['))
            }
            _ => true,
        };
        let escapes = |text: &str| {
            text.split('%')
                .skip(1)
                .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
        };
        (fits && escapes(path) && escapes(host)).then(|| Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    fn split_host(&self) -> (&str, &str) {
        match self.host.rsplit_once(':') {
            Some((name, port)) if !self.host.ends_with(']') => (name, port),
            _ => (&self.host, ""),
        }
    }

    fn part(&self, function: &str) -> Option<Outcome> {
        Some(Ok(match function {
            "getScheme" => Value::text(&self.scheme),
            "getHost" => Value::text(&self.host),
            "getHostname" => Value::text(
                self.split_host()
                    .0
                    .trim_start_matches('[')
                    .trim_end_matches(']'),
            ),
            "getPort" => Value::text(self.split_host().1),
            "getEscapedPath" => Value::text(escaped(&self.path)),
            "getQuery" => self.query_map(),
            _ => return None,
        }))
    }

    fn query_map(&self) -> Value {
        let mut map: std::collections::BTreeMap<String, Vec<Value>> =
            std::collections::BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            map.entry(unescaped(name))
                .or_default()
                .push(Value::text(unescaped(value)));
        }
        Value::map(
            map.into_iter()
                .map(|(name, values)| (Key::from(name.as_str()), Value::list(values))),
        )
    }
}

fn escaped(path: &str) -> String {
    path.bytes()
        .map(|b| {
            if b.is_ascii() {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = text
            .get(at + 1..at + 3)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
