//! Limpet OS in an emulated machine that reaches its hub over Wi-Fi and nothing else.
//!
//! In: `limpet flash`, an image as boards get it but for the script in front of its first process (lab.sh: an access point of
//! Debian's hostapd at the second of the kernel's two simulated radios, in a network namespace with the machine's cable).
//! Out: Ready over the air, and what a board says that no network lets in. Drivers, supplicant, provisioning are the card's own.
//! Never: a cable for the board; KVM; a judgement about time.

mod lab;

use lab::{Lab, NODE};
use limpet_device::provision::{Address, Security, Wifi, Wish};
use limpet_e2e::world::is_ready;
use limpet_e2e::{Result, until, wait};
use std::time::Duration;

/// An emulated board on a busy machine.
const LONG: Duration = Duration::from_secs(600);
/// Asks for every case.
const ALL: &str = "LIMPET_WIFI_ALL";
/// So many are tried on each push.
const OFTEN: usize = 2;
const PASSWORD: &str = "three \"words\" # and $more\\";

/// As everybody has one, WPA2 alone, WPA3 alone, and one that hides.
const NETWORKS: [(&str, &str); 4] = [
    ("home", "wpa_key_mgmt=WPA-PSK SAE\nieee80211w=1\n"),
    ("two", "wpa_key_mgmt=WPA-PSK\n"),
    ("three", "wpa_key_mgmt=SAE\nieee80211w=2\n"),
    ("shy", "wpa_key_mgmt=WPA-PSK\nignore_broadcast_ssid=1\n"),
];

fn network(ssid: &str) -> Wifi {
    let (ssid, password, country) = (ssid.into(), Some(PASSWORD.into()), "DE".into());
    Wifi { ssid, password, country, security: Security::Any, hidden: false }
}

fn wish(wifi: Wifi) -> Wish {
    Wish { node_name: NODE.into(), wifi: Some(wifi), ..Wish::default() }
}

fn lab(test: impl FnOnce(&mut Lab) -> Result<()>) {
    if let Some(why) = lab::missing() {
        println!("skipped: {why}");
        return;
    }
    let Some(mut lab) = Lab::new(&NETWORKS, PASSWORD).unwrap_or_else(|why| panic!("{why}")) else {
        println!("skipped: the board's binaries are not built");
        return;
    };
    if let Err(why) = test(&mut lab) {
        panic!("{why}\n{}", lab.machine.last_words());
    }
}

/// The address of the node that became Ready after the start `since`, and that start.
fn ready(lab: &mut Lab, since: &str) -> Result<(String, String)> {
    until("the board is Ready", LONG, || {
        if let Err(why) = lab.machine.check() {
            return Ok(Err(why));
        }
        let node = lab.kubectl.json(&format!("get node {NODE}"))?;
        let boot = node["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_string();
        wait::yes(is_ready(&node) && boot != since, || format!("{}", node["status"]["conditions"]))?;
        let address = node["status"]["addresses"][0]["address"].as_str().unwrap_or_default().to_string();
        Ok(Ok((address, boot)))
    })?
}

#[test]
fn a_board_becomes_ready_over_wifi_alone_by_dhcp_and_behind_a_hidden_name() {
    lab(|lab| {
        let password = lab.file("password", &format!("{PASSWORD}\n"))?;
        lab.flash(&["--wifi", "home", "--wifi-country", "DE", "--wifi-password-file", &password])?;
        lab.machine.switch_on()?;
        lab.machine.says("the Wi-Fi network has let this board in", 1, LONG)?;
        lab.machine.says("address 10.0.2.15/24", 1, LONG)?;
        let (address, boot) = ready(lab, "")?;
        wait::yes(address == "10.0.2.15", || format!("the node's address is {address}"))?;
        lab.memory()?;
        lab.packed()?;
        lab.machine.power_cut();
        // Its certificate is on the card by now, and the token gone.
        let ip = "10.0.2.77".parse().map_err(|e| format!("{e}"))?;
        let gateway = Some("10.0.2.2".parse().map_err(|e| format!("{e}"))?);
        let hidden = Wifi { hidden: true, ..network("shy") };
        lab.put(&Wish { address: Some(Address { ip, prefix: 24, gateway, dns: Vec::new() }), ..wish(hidden) })?;
        lab.machine.switch_on()?;
        ready(lab, &boot)?;
        // It began before there was a network.
        until("the board's address is the fixed one", LONG, || {
            let node = lab.kubectl.json(&format!("get node {NODE}"))?;
            let address = &node["status"]["addresses"][0]["address"];
            wait::yes(address == "10.0.2.77", || format!("the node's address is {address}"))
        })?;
        // From the card at both starts; the second one found it there.
        let kept = lab.machine.said("the radio's files stay in memory");
        wait::yes(kept == 0, || "the radio's files were not used from the card".into())
    });
}

#[test]
fn a_board_that_no_network_lets_in_says_why() {
    lab(|lab| {
        let wrong = |ssid: &str| Wifi { password: Some("not the password".into()), ..network(ssid) };
        let two_only = Wifi { security: Security::Wpa2, ..network("three") };
        let three_only = Wifi { security: Security::Wpa3, ..network("two") };
        let words = [
            (wrong("three"), "the Wi-Fi network \"three\" does not let this board in: if the password is wrong"),
            (network("nowhere"), "the Wi-Fi network \"nowhere\" is not in reach; in reach are \""),
            (wrong("two"), "the Wi-Fi network \"two\" does not let this board in: if the password is wrong"),
            (two_only, "the Wi-Fi network \"three\" speaks WPA3 only, and the card says WPA2"),
            (three_only, "the Wi-Fi network \"two\" speaks WPA2 only, and the card says WPA3"),
            (Wifi { country: "XX".into(), ..network("home") }, "no rules for radios are known for the country \"XX\""),
        ];
        // An emulated board takes a minute for each.
        let many = if std::env::var_os(ALL).is_some() { words.len() } else { OFTEN };
        if many < words.len() {
            println!("skipped in part: {many} of {} networks that let nobody in; {ALL}=1 tries all", words.len());
        }
        for (wifi, says) in words.into_iter().take(many) {
            lab.put(&wish(wifi))?;
            lab.machine.switch_on()?;
            lab.machine.says(says, 1, LONG)?;
            // Who waits for a person blinks as fast as the agent says so: it has the sentence, too.
            lab.machine.power_cut();
        }
        Ok(())
    });
}
