//! IP addresses and networks in objects, with Kubernetes' words for wrong ones.
//!
//! In: texts. Out: what is wrong with them; networks that can be compared. Never: resolves a name.

use std::net::IpAddr;

pub const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
pub const NOT_A_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// A network: its address as a number, the bits of the family, the bits that are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: u128,
    bits: u8,
    fixed: u8,
}

impl Cidr {
    pub fn parse(text: &str) -> Option<Cidr> {
        let (address, fixed) = text.split_once('/')?;
        let (address, bits) = match address.parse().ok()? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        // `/08` and `/+8` are no lengths.
        let plain = fixed == "0" || (fixed.bytes().all(|b| b.is_ascii_digit()) && !fixed.starts_with('0'));
        let fixed: u8 = fixed.parse().ok().filter(|fixed| plain && *fixed <= bits)?;
        Some(Cidr { address, bits, fixed })
    }

    pub fn is_v4(self) -> bool {
        self.bits == 32
    }

    /// Whether `other` lies in this network and is smaller.
    pub fn strictly_contains(self, other: Cidr) -> bool {
        let network = |address: u128| address.checked_shr(u32::from(self.bits - self.fixed)).unwrap_or(0);
        self.bits == other.bits && self.fixed < other.fixed && network(self.address) == network(other.address)
    }
}

/// What forbids an address as an endpoint or an external address.
pub fn special(text: &str) -> Option<&'static str> {
    let address: IpAddr = text.parse().ok()?;
    let (link_local, link_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if address.is_unspecified() {
        Some("may not be unspecified (0.0.0.0 or ::)")
    } else if address.is_loopback() {
        Some("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    } else if link_local {
        Some("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    } else if link_multicast {
        Some("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0/8", "::/129", "x/8", "10.0.0.0/-1", "1.1.1.1/"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
        let contains = |a: &str, b: &str| Cidr::parse(a).unwrap().strictly_contains(Cidr::parse(b).unwrap());
        for (a, b, expect) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("10.0.0.0/8", "11.0.0.0/16", false),
            ("0.0.0.0/0", "11.0.0.0/16", true),
            ("::/0", "2001:db8::/32", true),
            ("::/0", "10.0.0.0/8", false),
        ] {
            assert_eq!(contains(a, b), expect, "{a} {b}");
        }
        assert!(special("127.0.0.1").is_some() && special("169.254.1.1").is_some() && special("::").is_some());
        assert_eq!(special("192.0.2.1"), None);
    }
}
