//! What the supplicant is told.
//!
//! In: the network of the node's file (hostile: anybody may have held the card). Out: its settings, in which every value that
//! comes from outside is a number in hexadecimal: nothing can end its line. Pure.

use crate::node::{Security, Wifi};
use ring::pbkdf2;
use std::{fmt::Write, num::NonZeroU32};

/// IEEE 802.11, J.4.1.
const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).unwrap();

pub fn check(wifi: &Wifi) -> Result<(), &'static str> {
    let password = |p: &String| (8..=63).contains(&p.len()) && p.bytes().all(|b| (0x20..0x7f).contains(&b));
    if wifi.ssid.is_empty() || wifi.ssid.len() > 32 {
        return Err("a network's name has 1 to 32 bytes");
    }
    if wifi.password.as_ref().is_some_and(|p| !password(p)) {
        return Err("a password has 8 to 63 printable ASCII characters");
    }
    if wifi.country.len() != 2 || !wifi.country.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err("a country has two capital letters");
    }
    Ok(())
}

/// Whether the kernel's file of rules has the country: magic, version, then (two letters, place) until a place is zero.
pub fn has_country(rules: &[u8], country: &str) -> bool {
    let Some(list) = rules.strip_prefix(b"RGDB").and_then(|rest| rest.get(4..)) else { return false };
    list.chunks_exact(4).take_while(|entry| entry[2..] != [0, 0]).any(|entry| entry[..2] == *country.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `control`: a folder for the control socket.
pub fn text(wifi: &Wifi, control: &str) -> String {
    let country = &wifi.country;
    // Whether radio and network protect management frames is for them to say; WPA3 insists.
    let mut text = format!("ctrl_interface={control}\ncountry={country}\np2p_disabled=1\npmf=1\nsae_pwe=2\nnetwork={{\n");
    let _ = writeln!(text, "ssid={}", hex(wifi.ssid.as_bytes()));
    if wifi.hidden {
        text.push_str("scan_ssid=1\n");
    }
    match &wifi.password {
        None => text.push_str("key_mgmt=NONE\n"),
        Some(password) => {
            let mut key = [0; 32];
            pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, ROUNDS, wifi.ssid.as_bytes(), password.as_bytes(), &mut key);
            if wifi.security != Security::Wpa3 {
                let _ = writeln!(text, "psk={}", hex(&key));
            }
            if wifi.security != Security::Wpa2 {
                let _ = writeln!(text, "sae_password={}", hex(password.as_bytes()));
            }
            text.push_str(match wifi.security {
                Security::Any => "key_mgmt=SAE WPA-PSK-SHA256 WPA-PSK\n",
                Security::Wpa2 => "key_mgmt=WPA-PSK-SHA256 WPA-PSK\n",
                Security::Wpa3 => "key_mgmt=SAE\nieee80211w=2\n",
            });
        }
    }
    text + "}\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wifi() -> Wifi {
        let (ssid, password) = ("IEEE".into(), Some("password".into()));
        Wifi { ssid, password, security: Security::Any, country: "DE".into(), hidden: false }
    }

    #[test]
    fn keys_are_the_standards_own_and_nothing_ends_its_line() {
        let got = text(&wifi(), "/c");
        // The first test vector of IEEE 802.11, J.4.2.
        assert!(got.contains("psk=f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e\n"), "{got}");
        assert!(got.contains("ssid=49454545\n") && got.contains("key_mgmt=SAE WPA-PSK-SHA256 WPA-PSK\n"), "{got}");
        assert!(!got.contains("scan_ssid") && got.contains("country=DE\n"));
        let evil = Wifi {
            ssid: "a\"\n}\nnetwork={\nx=\"".into(),
            password: Some("p\"# }\\ssword".into()),
            hidden: true,
            security: Security::Wpa3,
            ..wifi()
        };
        let got = text(&evil, "/c");
        assert!(!got.contains('"') && !got.contains('#') && !got.contains("psk="), "{got}");
        assert_eq!((got.lines().count(), got.matches('}').count()), (12, 1), "{got}");
        assert!(got.contains("scan_ssid=1\n") && got.contains("ieee80211w=2\n"));
        let open = text(&Wifi { password: None, ..wifi() }, "/c");
        assert!(open.contains("key_mgmt=NONE\n") && !open.contains("sae_password") && !open.contains("psk="));
        let two = text(&Wifi { security: Security::Wpa2, ..wifi() }, "/c");
        assert!(!two.contains("SAE") && !two.contains("sae_password"), "{two}");
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert_eq!(check(&wifi()), Ok(()));
        type Change = fn(&mut Wifi);
        let changes: [(Change, &str); 6] = [
            (|w| w.ssid = String::new(), "1 to 32"),
            (|w| w.ssid = "é".repeat(17), "1 to 32"),
            (|w| w.password = Some("short".into()), "8 to 63"),
            (|w| w.password = Some("x".repeat(64)), "8 to 63"),
            (|w| w.password = Some("long enough\n".into()), "8 to 63"),
            (|w| w.country = "D\n".into(), "two capital"),
        ];
        for (change, says) in changes {
            let mut bad = wifi();
            change(&mut bad);
            assert!(check(&bad).unwrap_err().contains(says));
        }
    }

    #[test]
    fn countries_are_those_of_the_rules() {
        let rules = [b"RGDB", &[0u8, 0, 0, 20][..], b"00", &[0, 9], b"DE", &[0, 5], b"\0\0", &[0, 0], b"FR", &[0, 5]].concat();
        assert!(has_country(&rules, "DE"));
        for (rules, country) in [(&rules[..], "FR"), (&rules, "XX"), (&rules[..10], "DE"), (b"", "DE"), (b"RGDBx", "DE")] {
            assert!(!has_country(rules, country), "{country}");
        }
    }
}
