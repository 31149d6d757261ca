//! What the radio sees, and the one sentence that says what is waited for.
//!
//! In: the supplicant's events and lists, in which strangers' networks choose the words. Out: who can end the wait, and how.
//! Pure.
//! Never: a password; a character from the air that is not a letter of its own.

use crate::node::{Security, Wifi};

/// Who can end the wait; the agent's lamp tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The network, by itself.
    Network,
    Person,
}

impl Who {
    pub fn word(self) -> &'static str {
        match self {
            Who::Network => "network",
            Who::Person => "person",
        }
    }
}

/// Other networks that a sentence names.
const NAMED_MAX: usize = 4;

/// How a network lets boards in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Doors {
    open: bool,
    wpa2: bool,
    wpa3: bool,
    /// User names, WPS only, WEP, the first WPA.
    other: bool,
}

pub struct Sight {
    wifi: Wifi,
    /// As the supplicant writes it.
    name: String,
    /// The radio does WPA3.
    wpa3: bool,
    connected: bool,
    refused: bool,
    /// The network's doors, when it is in reach.
    doors: Option<Doors>,
    others: Vec<String>,
    looked: bool,
}

impl Sight {
    /// `wpa3`: what the radio's driver says of itself.
    pub fn new(wifi: &Wifi, wpa3: bool) -> Sight {
        let (wifi, name) = (wifi.clone(), written(wifi.ssid.as_bytes()));
        Sight { wifi, name, wpa3, connected: false, refused: false, doors: None, others: Vec::new(), looked: false }
    }

    pub fn connected(&self) -> bool {
        self.connected
    }

    /// Whether the list of networks is worth another look.
    pub fn heard(&mut self, event: &str) -> bool {
        let text = event.split_once('>').map_or(event, |(_, text)| text);
        let word = text.split_whitespace().next().unwrap_or_default();
        match word {
            "CTRL-EVENT-CONNECTED" => (self.connected, self.refused) = (true, false),
            "CTRL-EVENT-DISCONNECTED" => self.connected = false,
            "CTRL-EVENT-SSID-TEMP-DISABLED" => self.refused = true,
            "CTRL-EVENT-SCAN-RESULTS" | "CTRL-EVENT-NETWORK-NOT-FOUND" => return !self.connected,
            _ => {}
        }
        false
    }

    /// The supplicant's list: a head, then address, frequency, strength, flags and name between tabs.
    pub fn saw(&mut self, list: &str) {
        let mut doors: Option<Doors> = None;
        let mut others = Vec::new();
        for line in list.lines().skip(1) {
            let mut fields = line.splitn(5, '\t').skip(3);
            let (Some(flags), Some(name)) = (fields.next(), fields.next()) else { continue };
            if name == self.name {
                let (had, more) = (doors.unwrap_or_default(), read(flags));
                doors = Some(Doors {
                    open: had.open || more.open,
                    wpa2: had.wpa2 || more.wpa2,
                    wpa3: had.wpa3 || more.wpa3,
                    other: had.other || more.other,
                });
            } else if !name.is_empty() && !name.starts_with("\\x00") && !others.contains(&name.to_string()) {
                others.push(name.to_string());
            }
        }
        others.truncate(NAMED_MAX);
        (self.doors, self.others, self.looked) = (doors, others, true);
    }

    pub fn waits(&self, no_address: bool) -> Option<(Who, String)> {
        let name = &self.name;
        if self.connected {
            let why = format!("the Wi-Fi network \"{name}\" has let this board in and gives it no address");
            return no_address.then_some((Who::Network, why));
        }
        let Some(doors) = self.doors else {
            if !self.looked {
                return Some((Who::Network, format!("this board looks for the Wi-Fi network \"{name}\"")));
            }
            let others = match self.others.is_empty() {
                true => "no other is either".to_string(),
                false => format!("in reach are \"{}\"", self.others.join("\", \"")),
            };
            return Some((Who::Network, format!("the Wi-Fi network \"{name}\" is not in reach; {others}")));
        };
        if let Some(why) = self.shut(doors) {
            return Some((Who::Person, format!("the Wi-Fi network \"{name}\" {why}")));
        }
        if self.refused {
            let why = format!(
                "the Wi-Fi network \"{name}\" does not let this board in: if the password is wrong, write the card again with \
                 `limpet flash`"
            );
            return Some((Who::Person, why));
        }
        Some((Who::Network, format!("this board asks the Wi-Fi network \"{name}\" to let it in")))
    }

    /// Why no password can be the right one.
    fn shut(&self, doors: Doors) -> Option<&'static str> {
        let Doors { open, wpa2, wpa3, .. } = doors;
        if self.wifi.password.is_none() {
            return (!open).then_some("wants a password, and the card has none: write the card again with `limpet flash`");
        }
        let fits = match self.wifi.security {
            Security::Any => wpa2 || (wpa3 && self.wpa3),
            Security::Wpa2 => wpa2,
            Security::Wpa3 => wpa3 && self.wpa3,
        };
        if fits {
            return None;
        }
        Some(match (open, wpa2, wpa3, self.wifi.security) {
            (_, _, true, _) if !self.wpa3 => "speaks WPA3 only, which this board's radio does not: let the network speak WPA2, too",
            (_, _, true, _) => "speaks WPA3 only, and the card says WPA2: write the card again without --wifi-wpa2",
            (_, true, _, Security::Wpa3) if !self.wpa3 => "is to be asked by WPA3, which this board's radio does not do: write the card again without --wifi-wpa3",
            (_, true, ..) => "speaks WPA2 only, and the card says WPA3: write the card again without --wifi-wpa3",
            (true, ..) => "is open, and the card has a password for it: write the card again with --wifi-open, or look for the right network",
            _ => "lets nobody in by a password alone (WPA2, WPA3): choose another network",
        })
    }
}

/// `[WPA2-PSK+SAE-CCMP][ESS]`
fn read(flags: &str) -> Doors {
    let mut doors = Doors::default();
    let parts = flags.split(['[', ']']).filter(|p| !p.is_empty());
    let mut locked = false;
    for part in parts {
        let Some((kind, rest)) = part.split_once('-') else {
            locked |= part == "WEP";
            continue;
        };
        let keys = || rest.split(['-', '+']);
        match kind {
            "WPA2" | "RSN" => {
                locked = true;
                doors.wpa2 |= keys().any(|k| k == "PSK");
                doors.wpa3 |= keys().any(|k| k == "SAE");
                doors.other |= keys().any(|k| k == "EAP" || k == "OWE");
            }
            "WPA" | "OSEN" => (locked, doors.other) = (true, true),
            _ => {}
        }
    }
    doors.open = !locked;
    doors
}

/// As the supplicant writes bytes: printable ASCII as it is, everything else behind a backslash.
fn written(bytes: &[u8]) -> String {
    let one = |b: &u8| match b {
        b'"' => "\\\"".into(),
        b'\\' => "\\\\".into(),
        0x1b => "\\e".into(),
        b'\n' => "\\n".into(),
        b'\r' => "\\r".into(),
        b'\t' => "\\t".into(),
        0x20..=0x7e => char::from(*b).to_string(),
        other => format!("\\x{other:02x}"),
    };
    bytes.iter().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sight(security: Security, wpa3: bool) -> Sight {
        let (ssid, password) = ("home".into(), Some("password".into()));
        Sight::new(&Wifi { ssid, password, security, country: "DE".into(), hidden: false }, wpa3)
    }

    fn list(networks: &[(&str, &str)]) -> String {
        let mut text = "bssid / frequency / signal level / flags / ssid\n".to_string();
        networks.iter().for_each(|(flags, name)| text.push_str(&format!("02:00:00:00:01:00\t2412\t-30\t{flags}\t{name}\n")));
        text
    }

    #[test]
    fn each_wait_has_its_sentence() {
        let mut s = sight(Security::Any, true);
        assert!(s.waits(false).unwrap().1.contains("looks for"));
        assert!(s.heard("<3>CTRL-EVENT-SCAN-RESULTS "));
        s.saw(&list(&[("[ESS]", "caf\\xc3\\xa9"), ("[ESS]", ""), ("[ESS]", "\\x00\\x00")]));
        let (who, why) = s.waits(false).unwrap();
        assert_eq!(who, Who::Network);
        assert_eq!(why, "the Wi-Fi network \"home\" is not in reach; in reach are \"caf\\xc3\\xa9\"");
        s.saw(&list(&[("[WPA2-PSK-CCMP][ESS]", "home")]));
        assert!(s.waits(false).unwrap().1.contains("asks the Wi-Fi network"));
        assert!(!s.heard("<3>CTRL-EVENT-SSID-TEMP-DISABLED id=0 ssid=\"home\" auth_failures=1 duration=10 reason=WRONG_KEY"));
        let (who, why) = s.waits(false).unwrap();
        assert!(who == Who::Person && why.contains("password is wrong") && !why.contains("\"password\""), "{why}");
        s.heard("<3>CTRL-EVENT-CONNECTED - Connection to 02:00:00:00:01:00 completed [id=0 id_str=]");
        assert!(s.connected() && s.waits(false).is_none() && s.waits(true).unwrap().1.contains("no address"));
        assert!(!s.heard("<3>CTRL-EVENT-SCAN-RESULTS "), "nobody looks around while it is connected");
        s.heard("<3>CTRL-EVENT-DISCONNECTED bssid=02:00:00:00:01:00 reason=3");
        assert!(!s.connected());
    }

    #[test]
    fn doors_that_do_not_fit_are_said_with_what_to_do() {
        use Security::{Any, Wpa2, Wpa3};
        let (both, two, three) = ("[WPA2-PSK+SAE-CCMP][ESS]", "[WPA2-PSK-CCMP][WPS][ESS]", "[WPA2-SAE-CCMP][SAE-H2E][ESS]");
        for (security, radio, flags, says) in [
            (Any, false, both, "asks the"),
            (Any, false, two, "asks the"),
            (Any, true, three, "asks the"),
            (Any, false, three, "which this board's radio does not"),
            (Wpa2, true, three, "the card says WPA2"),
            (Wpa2, true, both, "asks the"),
            (Wpa3, true, two, "the card says WPA3"),
            (Wpa3, true, both, "asks the"),
            (Wpa3, false, two, "without --wifi-wpa3"),
            (Any, true, "[ESS]", "is open"),
            (Any, true, "[WPA2-EAP-CCMP][ESS]", "choose another"),
            (Any, true, "[WPA-PSK-TKIP][ESS]", "choose another"),
            (Any, true, "[WEP][ESS]", "choose another"),
        ] {
            let mut s = sight(security, radio);
            s.saw(&list(&[(flags, "home")]));
            let (_, why) = s.waits(false).unwrap();
            assert!(why.contains(says), "{security:?} {flags}: {why}");
        }
        let mut open = sight(Any, true);
        open.wifi.password = None;
        open.saw(&list(&[(two, "home")]));
        assert!(open.waits(false).unwrap().1.contains("the card has none"));
    }

    #[test]
    fn what_comes_out_of_the_air_is_bounded() {
        let mut s = sight(Security::Any, true);
        let many: Vec<(String, String)> = (0..500).map(|i| ("[ESS]".into(), format!("n{i}"))).collect();
        s.saw(&list(&many.iter().map(|(f, n)| (f.as_str(), n.as_str())).collect::<Vec<_>>()));
        assert!(s.waits(false).unwrap().1.len() < 200);
        for odd in ["", "x", "x\ny", "x\n\t\t\t\t", "x\na\tb\tc\t[", "x\na\tb\tc\t[WPA2-\thome"] {
            s.saw(odd);
            let _ = s.waits(false);
        }
        assert_eq!(written("a\"\\\x1b\né".as_bytes()), "a\\\"\\\\\\e\\n\\xc3\\xa9");
    }
}
