//! What the operator wants a node to know, checked.
//!
//! In: fields as people give them. Out: the same, or the sentence that says which one cannot be.
//! Never: lets a line break, a quote or a slash through where a file format would take it for its own.

use std::net::IpAddr;

/// The operator mends the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    #[error("{0:?} cannot be a node's name: lower-case letters, digits, '-' and '.', at most 63 between dots")]
    Name(String),
    #[error("this is not a join token (`limpet1.…`); make one with `limpet token create`")]
    Token,
    #[error("the name of a Wi-Fi network has 1 to 32 bytes")]
    Ssid,
    #[error("a Wi-Fi password has 8 to 63 printable ASCII characters")]
    Password,
    #[error("{0:?} is not a country of ISO 3166, such as DE, GB or US; without it the radio stays silent")]
    Country(String),
    #[error("{0:?} cannot be the name of a mobile network's access point, such as internet.example")]
    Apn(String),
    #[error("{0:?} is not an SSH public key: one line such as `ssh-ed25519 AAAA… name`")]
    SshKey(String),
    #[error("{0:?} is not a time zone, such as Europe/Berlin")]
    TimeZone(String),
    #[error("{0:?} is not an address with its network's length, such as 192.168.1.20/24")]
    Address(String),
    #[error("{0:?} is not a proxy, such as http://proxy.example:3128")]
    Proxy(String),
    #[error("{0:?} is neither a name nor an address of a time server")]
    Ntp(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub node_name: String,
    /// `None`: the card joins nothing by itself.
    pub token: Option<String>,
    pub wifi: Option<Wifi>,
    pub ssh_keys: Vec<String>,
    pub time_zone: Option<String>,
    /// `None`: DHCP.
    pub address: Option<Address>,
    pub proxy: Option<String>,
    pub ntp: Vec<String>,
    /// The name under which a mobile network lets the board in.
    pub cellular_apn: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wifi {
    pub ssid: String,
    /// `None`: an open network.
    pub password: Option<String>,
    pub security: Security,
    pub country: String,
    pub hidden: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Security {
    /// WPA3 where network and radio do it, WPA2 otherwise.
    #[default]
    Any,
    Wpa2,
    Wpa3,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub ip: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
    pub dns: Vec<IpAddr>,
}

impl Address {
    pub fn parse(text: &str) -> Result<(IpAddr, u8), WishError> {
        let wrong = || WishError::Address(text.into());
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        if prefix == 0 || prefix > most || ip.is_unspecified() || ip.is_multicast() {
            return Err(wrong());
        }
        Ok((ip, prefix))
    }
}

impl Wish {
    pub fn check(&self) -> Result<(), WishError> {
        if !valid_name(&self.node_name) {
            return Err(WishError::Name(self.node_name.clone()));
        }
        self.token.as_deref().map_or(Ok(()), check_token)?;
        self.wifi.as_ref().map_or(Ok(()), Wifi::check)?;
        if let Some(bad) = self.ssh_keys.iter().find(|k| !valid_ssh_key(k)) {
            return Err(WishError::SshKey(bad.chars().take(80).collect()));
        }
        if let Some(zone) = self.time_zone.as_ref().filter(|z| !valid_zone(z)) {
            return Err(WishError::TimeZone(zone.clone()));
        }
        if let Some(proxy) = self.proxy.as_ref().filter(|p| !valid_proxy(p)) {
            return Err(WishError::Proxy(proxy.clone()));
        }
        if let Some(apn) = self.cellular_apn.as_ref().filter(|a| !valid_host(a)) {
            return Err(WishError::Apn(apn.clone()));
        }
        match self.ntp.iter().find(|n| !valid_host(n)) {
            Some(bad) => Err(WishError::Ntp(bad.clone())),
            None => Ok(()),
        }
    }
}

/// ISO 3166-1: the officially assigned pairs of letters.
const COUNTRIES: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA \
    CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA \
    GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP \
    KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS \
    MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS \
    RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW \
    TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";

pub fn is_country(code: &str) -> bool {
    COUNTRIES.split_whitespace().any(|known| known == code)
}

impl Wifi {
    fn check(&self) -> Result<(), WishError> {
        if self.ssid.is_empty() || self.ssid.len() > 32 || self.ssid.chars().any(char::is_control) {
            return Err(WishError::Ssid);
        }
        let printable = |p: &String| (8..=63).contains(&p.len()) && p.bytes().all(|b| (0x20..0x7f).contains(&b));
        if self.password.as_ref().is_some_and(|p| !printable(p)) {
            return Err(WishError::Password);
        }
        match is_country(&self.country) {
            true => Ok(()),
            false => Err(WishError::Country(self.country.clone())),
        }
    }
}

/// RFC 1123, as `limpet-protocol` wants it.
pub fn valid_name(name: &str) -> bool {
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        !l.is_empty() && l.len() <= 63 && inner && !l.starts_with('-') && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The shape only; the hub knows the rest.
pub fn check_token(token: &str) -> Result<(), WishError> {
    let body = token.strip_prefix("limpet1.").unwrap_or_default();
    let fit = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    match (16..=4096).contains(&body.len()) && body.bytes().all(fit) {
        true => Ok(()),
        false => Err(WishError::Token),
    }
}

fn valid_ssh_key(key: &str) -> bool {
    let mut words = key.split(' ');
    let kind = words.next().unwrap_or_default();
    let body = words.next().unwrap_or_default();
    let known = ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];
    let known = known.contains(&kind) || kind.starts_with("sk-ssh-ed25519@") || kind.starts_with("sk-ecdsa-sha2-");
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    known && body.starts_with("AAAA") && body.bytes().all(base64) && !key.chars().any(char::is_control) && key.len() < 8192
}

fn valid_zone(zone: &str) -> bool {
    let part = |p: &str| {
        let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-');
        !p.is_empty() && p.bytes().all(fit)
    };
    zone.len() <= 64 && zone.split('/').all(part)
}

/// `http://[user:password@]host[:port][/]`: what the agent takes, too.
fn valid_proxy(proxy: &str) -> bool {
    let rest = proxy.strip_prefix("http://").unwrap_or_default();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (who, address) = rest.rsplit_once('@').unwrap_or(("", rest));
    let fit = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\'' | b'\\' | b'`' | b'$' | b'%' | b'#' | b';' | b'/' | b'?');
    let (host, port) = match address.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, rest)) => (v6, rest.strip_prefix(':').unwrap_or(if rest.is_empty() { "3128" } else { "" })),
        None => address.split_once(':').unwrap_or((address, "3128")),
    };
    proxy.len() < 512 && who.bytes().all(fit) && valid_host(host) && port.parse::<u16>().is_ok_and(|p| p > 0)
}

fn valid_host(host: &str) -> bool {
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(fit) && !host.starts_with('-')
}
