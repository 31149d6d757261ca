//! Every way to a network on every manager of networks, and values that try to break out of their line.

#![allow(clippy::unwrap_used)]

use super::*;

const TOKEN: &str = "limpet1.eyJodWJzIjpbIjE5Mi4wLjIuMTo2NDQzIl19";
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ me@desk";

fn full() -> Wish {
    Wish {
        node_name: "greenhouse-1".into(),
        token: Some(TOKEN.into()),
        wifi: Some(Wifi {
            ssid: "Garden; \"new\"".into(),
            password: Some("pa\\ss \"word\"".into()),
            security: Security::Any,
            country: "DE".into(),
            hidden: true,
        }),
        ssh_keys: vec![KEY.into()],
        time_zone: Some("Europe/Berlin".into()),
        address: Some(Address {
            ip: "192.168.1.20".parse().unwrap(),
            prefix: 24,
            gateway: Some("192.168.1.1".parse().unwrap()),
            dns: vec!["192.168.1.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        }),
        proxy: Some("http://proxy.example:3128".into()),
        ntp: vec!["time.example".into(), "192.0.2.9".into()],
        cellular_apn: Some("internet.example".into()),
    }
}

fn traits(network: Network) -> Traits {
    let modem_manager = network == Network::NetworkManager;
    Traits { network, raspberry_pi: modem_manager, cloud_init: network == Network::Netplan, modem_manager }
}

fn text(put: &Put) -> String {
    let head = format!("== {:?} {} {:o}\n", put.place, put.path, put.mode);
    let body = match &put.what {
        What::File(bytes) if put.path.ends_with("/limpet-agent") => format!("({} bytes)\n", bytes.len()),
        What::File(bytes) => String::from_utf8(bytes.clone()).unwrap(),
        What::Link(to) => format!("-> {to}\n"),
        What::Directory => "(directory)\n".into(),
        What::Words(words) => format!("+ {}\n", words.join(" ")),
    };
    head + &body
}

/// `LIMPET_UPDATE_SNAPSHOTS=1` rewrites them.
#[test]
fn the_files_are_the_ones_that_were_looked_at() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("provisioned");
    let mut wpa3 = full();
    let wifi = wpa3.wifi.as_mut().unwrap();
    (wifi.security, wifi.hidden) = (Security::Wpa3, false);
    wpa3.address = None;
    let wired = Wish { wifi: None, ..full() };
    let open = Wish { address: None, wifi: full().wifi.map(|w| Wifi { password: None, ..w }), ..full() };
    let bare = Wish { node_name: "pi".into(), ..Wish::default() };
    for network in [Network::NetworkManager, Network::Netplan, Network::Ifupdown] {
        for (name, wish) in [("full", &full()), ("wpa3", &wpa3), ("wired", &wired), ("open", &open), ("bare", &bare)] {
            wish.check().unwrap();
            let words = ["cgroup_enable=memory".to_string(), "panic=10".to_string()];
            let files = recipe(&traits(network), wish, vec![1; 5], &words, Some("ACT"));
            let got: String = files.iter().map(text).collect();
            let path = folder.join(format!("{network:?}-{name}.txt").to_lowercase());
            if std::env::var_os("LIMPET_UPDATE_SNAPSHOTS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, &got).unwrap();
            }
            assert_eq!(got, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
        }
    }
}

#[test]
fn secrets_are_for_root_only() {
    for network in [Network::NetworkManager, Network::Netplan, Network::Ifupdown] {
        for put in recipe(&traits(network), &full(), Vec::new(), &[], None) {
            let What::File(content) = &put.what else { continue };
            let content = String::from_utf8_lossy(content);
            if content.contains(TOKEN) || content.contains("word") {
                assert_eq!(put.mode & 0o077, 0, "{}", put.path);
                assert_eq!(put.place, Place::Root, "FAT knows no owners");
            }
        }
    }
}

#[test]
fn wishes_that_break_out_are_refused() {
    type Change = fn(&mut Wish);
    let changes: [(Change, &str); 27] = [
        (|w| w.node_name = "Pi".into(), "node's name"),
        (|w| w.node_name = "pi\nx".into(), "node's name"),
        (|w| w.node_name = "$(reboot)".into(), "node's name"),
        (|w| w.node_name = String::new(), "node's name"),
        (|w| w.token = Some("limpet1.abc".into()), "join token"),
        (|w| w.token = Some(format!("{TOKEN}\nLD_PRELOAD=x")), "join token"),
        (|w| w.token = Some(format!("{TOKEN}'")), "join token"),
        (|w| w.wifi.as_mut().unwrap().ssid = "x".repeat(33), "32 bytes"),
        (|w| w.wifi.as_mut().unwrap().ssid = "a\nwpa-psk b".into(), "32 bytes"),
        (|w| w.wifi.as_mut().unwrap().password = Some("short".into()), "8 to 63"),
        (|w| w.wifi.as_mut().unwrap().password = Some("long enough\n".into()), "8 to 63"),
        (|w| w.wifi.as_mut().unwrap().password = Some("pässwörter".into()), "8 to 63"),
        (|w| w.wifi.as_mut().unwrap().country = "de".into(), "ISO 3166"),
        (|w| w.wifi.as_mut().unwrap().country = "D\n".into(), "ISO 3166"),
        (|w| w.ssh_keys = vec!["-----BEGIN OPENSSH PRIVATE KEY-----".into()], "public key"),
        (|w| w.ssh_keys = vec![format!("{KEY}\ncommand=x")], "public key"),
        (|w| w.time_zone = Some("../../etc/shadow".into()), "time zone"),
        (|w| w.time_zone = Some("Europe/Berlin x".into()), "time zone"),
        (|w| w.proxy = Some("http://x\" evil=\"1".into()), "proxy"),
        (|w| w.proxy = Some("socks5://x".into()), "proxy"),
        (|w| w.proxy = Some("https://x:3128".into()), "proxy"),
        (|w| w.proxy = Some("http://x/y".into()), "proxy"),
        (|w| w.proxy = Some("http://x:".into()), "proxy"),
        (|w| w.ntp = vec!["a b".into()], "time server"),
        (|w| w.cellular_apn = Some("a\n[connection]".into()), "access point"),
        (|w| w.wifi.as_mut().unwrap().country = "UK".into(), "such as DE, GB"),
        (|w| w.wifi.as_mut().unwrap().country = "XX".into(), "ISO 3166"),
    ];
    for (change, says) in changes {
        let mut wish = full();
        change(&mut wish);
        let said = wish.check().unwrap_err().to_string();
        assert!(said.contains(says), "{said}");
    }
    for bad in ["192.168.1.20", "192.168.1.20/33", "0.0.0.0/8", "224.0.0.1/8", "x/24", "1.2.3.4/0"] {
        assert!(Address::parse(bad).is_err(), "{bad}");
    }
    assert!(Address::parse("2001:db8::5/64").is_ok());
}

#[test]
fn the_install_script_is_a_script() {
    let text = install_script("pi-1", Some(TOKEN)).unwrap();
    let mut shell = std::process::Command::new("sh");
    let mut child = shell.arg("-n").stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(install_script("pi-1; reboot", None).is_err());
    assert!(install_script("pi-1", Some("limpet1.'; reboot;'")).is_err());
    assert!(!install_script("pi-1", None).unwrap().contains("LIMPET_JOIN="));
}

#[test]
fn limpet_os_is_told_of_the_network_and_nobody_else_is() {
    let wish = Wish { ssh_keys: Vec::new(), time_zone: None, cellular_apn: None, ..full() };
    let put = limpet_os(&wish).unwrap();
    let What::File(text) = &put.what else { panic!("a file") };
    assert_eq!((put.mode, put.place), (0o600, Place::Boot));
    let file: serde_json::Value = serde_json::from_slice(text).unwrap();
    let wifi = &file["wifi"];
    assert_eq!((wifi["ssid"].as_str(), wifi["password"].as_str()), (Some("Garden; \"new\""), Some("pa\\ss \"word\"")));
    assert_eq!((wifi["security"].as_str(), wifi["country"].as_str()), (Some("any"), Some("DE")));
    assert_eq!(wifi["hidden"], true);
    // What a board cannot do is said before anything is written.
    let find = |name| crate::board::find(name).unwrap();
    assert_eq!(radio_fits(&find("raspberry-pi-4"), &wish), Ok(()));
    assert!(radio_fits(&find("beaglebone-black"), &wish).unwrap_err().contains("use a cable"));
    assert_eq!(radio_fits(&find("beaglebone-black"), &Wish { wifi: None, ..wish.clone() }), Ok(()));
    let mut three = wish;
    three.wifi.as_mut().unwrap().security = Security::Wpa3;
    assert!(radio_fits(&find("raspberry-pi-4"), &three).unwrap_err().contains("does not speak WPA3"));
    assert_eq!(radio_fits(&find("qemu-x86_64-wifi"), &three), Ok(()));
}

#[test]
fn a_mobile_network_is_refused_where_nothing_would_use_it() {
    let wish = full();
    assert_eq!(system_fits(&traits(Network::NetworkManager), &wish), Ok(()));
    let bare = Traits { modem_manager: false, ..traits(Network::NetworkManager) };
    let (netplan, ifupdown) = (traits(Network::Netplan), traits(Network::Ifupdown));
    for (traits, says) in [(bare, "no ModemManager"), (netplan, "netplan"), (ifupdown, "neither")] {
        assert!(system_fits(&traits, &wish).unwrap_err().contains(says));
        assert_eq!(system_fits(&traits, &Wish { cellular_apn: None, ..full() }), Ok(()));
    }
}
