//! The board's Wi-Fi: drivers, firmware, rules of its country, and Debian's supplicant, started and watched.
//!
//! In: the network that the node's file names, the file system that the image's builder made for the radio. Out: a card with a
//! carrier; one sentence of what is waited for, on the console and in the agent's run directory, from where the lamp has it.
//! Never: a password in an argument, in a file that others may read or in a sentence; a radio that sends without a country.

mod control;
mod kept;
mod settings;
mod sight;

use crate::{log::say, modules, net, node::Wifi, sys};
use control::Control;
use nix::mount::{MsFlags, mount};
use sight::{Sight, Who};
use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What the builder made; in memory until it is on the card.
const FILE: &str = "/radio.squashfs";
const CARD_FILE: &str = "/data/os/radio.squashfs";
const AT: &str = "/radio";
const RUN: &str = "/run/limpet-radio";
/// Read by the agent: who can end the wait, and the sentence.
pub const WAITING: &str = "/run/limpet/network";
const FIRMWARE_PATH: &str = "/sys/module/firmware_class/parameters/path";
/// Firmware is on its way into the radio; cards at USB take longer than others.
const CARD: Duration = Duration::from_secs(20);
/// A supplicant that ends is started again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a network may take to give an address before that is said.
const ADDRESS: Duration = Duration::from_secs(12);

/// Without a network in the node's file the radio stays silent, and its part of the system gives back memory and room.
pub fn start(wifi: Option<&Wifi>) {
    let Some(wifi) = wifi.cloned() else {
        let _ = fs::remove_file(FILE);
        let _ = fs::remove_file(CARD_FILE);
        return;
    };
    // The drivers' own work goes on beside everything else.
    std::thread::spawn(move || {
        let mut sign = Sign(None);
        loop {
            let Err((who, why)) = attempt(&wifi, &mut sign);
            sign.waits(Some((who, why)));
            std::thread::sleep(AGAIN);
        }
    });
}

/// What is said of the radio; each sentence once.
struct Sign(Option<(Who, String)>);

impl Sign {
    fn waits(&mut self, now: Option<(Who, String)>) {
        if now == self.0 {
            return;
        }
        match &now {
            Some((who, why)) => {
                say!("{why}");
                let _ = fs::create_dir_all("/run/limpet");
                let text = format!("{}\n{why}\n", who.word());
                crate::slots::replace(Path::new(WAITING), text.as_bytes()).unwrap_or_else(|why| say!("{why}"));
            }
            None => {
                say!("the Wi-Fi network has let this board in");
                let _ = fs::remove_file(WAITING);
            }
        }
        self.0 = now;
    }
}

type Wait = (Who, String);

fn person(why: String) -> Wait {
    (Who::Person, why)
}

/// Ends only with what is in the way.
fn attempt(wifi: &Wifi, sign: &mut Sign) -> Result<std::convert::Infallible, Wait> {
    settings::check(wifi).map_err(|why| person(format!("the Wi-Fi in limpet/node.json cannot be used: {why}; {AGAIN_CARD}")))?;
    mounted().map_err(person)?;
    let rules = fs::read(format!("{AT}/firmware/regulatory.db")).unwrap_or_default();
    if !settings::has_country(&rules, &wifi.country) {
        let country = &wifi.country;
        return Err(person(format!("no rules for radios are known for the country {country:?}: the radio stays silent; {AGAIN_CARD}")));
    }
    let card = card().map_err(person)?;
    let mut supplicant = Supplicant::start(&card, wifi).map_err(person)?;
    let mut control = supplicant.control(&card)?;
    let can = control.ask("GET_CAPABILITY key_mgmt").unwrap_or_default();
    let mut sight = Sight::new(wifi, can.split_whitespace().any(|word| word == "SAE"));
    let mut since: Option<Instant> = None;
    loop {
        if !supplicant.runs() {
            return Err((Who::Network, "the Wi-Fi's supplicant has ended; it is started again".into()));
        }
        for event in control.events(Duration::from_secs(1)) {
            if sight.heard(&event) && let Some(list) = control.ask("SCAN_RESULTS") {
                sight.saw(&list);
            }
        }
        since = if sight.connected() { since.or_else(|| Some(Instant::now())) } else { None };
        let no_address = since.is_some_and(|at| at.elapsed() > ADDRESS) && !net::has_address(&card);
        sign.waits(sight.waits(no_address));
    }
}

const AGAIN_CARD: &str = "write the card again with `limpet flash`";

/// Once; what is mounted stays.
fn mounted() -> Result<(), String> {
    if Path::new(AT).join("bin").exists() {
        return Ok(());
    }
    let none = || "this image has no drivers for a radio: use a cable, or an image for a board with Wi-Fi".to_string();
    let image = match kept::on_card(Path::new(FILE), Path::new(CARD_FILE)) {
        Ok(image) => image,
        Err(why) => {
            let image = File::open(FILE).map_err(|_| none())?;
            say!("the radio's files stay in memory: {CARD_FILE}: {why}");
            image
        }
    };
    fs::create_dir_all(AT).map_err(|e| format!("{AT}: {e}"))?;
    let device = sys::loop_device(&image).map_err(|e| format!("the radio's files: {e}"))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    mount(Some(device.as_str()), AT, Some("squashfs"), flags, None::<&str>).map_err(|e| format!("the radio's files: {e}"))?;
    // Its memory is free again once nobody has it open, which is at once where the card has it.
    let _ = fs::remove_file(FILE);
    fs::write(FIRMWARE_PATH, format!("{AT}/firmware")).map_err(|e| format!("{FIRMWARE_PATH}: {e}"))?;
    modules::load(&Path::new(AT).join("modules"));
    Ok(())
}

/// The first card of a radio, once its driver is ready.
fn card() -> Result<String, String> {
    let begun = Instant::now();
    loop {
        if let Some(card) = net::radios().into_iter().next() {
            return Ok(card);
        }
        if begun.elapsed() > CARD {
            return Err("no radio answers: this board has none that Limpet OS can drive, or it needs a new start".into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Supplicant(Child);

impl Supplicant {
    fn start(card: &str, wifi: &Wifi) -> Result<Supplicant, String> {
        let told = |e: std::io::Error| format!("{RUN}: {e}");
        let _ = fs::remove_dir_all(RUN);
        fs::DirBuilder::new().mode(0o700).create(RUN).map_err(told)?;
        let path = format!("{RUN}/settings");
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(told)?;
        file.write_all(settings::text(wifi, &format!("{RUN}/control")).as_bytes()).map_err(told)?;
        let mut command = Command::new(format!("{AT}/lib/ld.so"));
        command.args(["--library-path", &format!("{AT}/lib"), &format!("{AT}/bin/wpa_supplicant")]);
        command.args(["-i", card, "-D", "nl80211", "-c", &path]).env_clear();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.map(Supplicant).map_err(|e| format!("the Wi-Fi's supplicant does not start: {e}"))
    }

    /// The first process reaps everybody: whoever is gone has ended.
    fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    fn control(&mut self, card: &str) -> Result<Control, Wait> {
        let begun = Instant::now();
        loop {
            match Control::open(&format!("{RUN}/control/{card}"), &format!("{RUN}/own")) {
                Ok(control) => return Ok(control),
                Err(e) if begun.elapsed() > CARD || !self.runs() => {
                    return Err((Who::Network, format!("the Wi-Fi's supplicant does not answer ({e}); it is started again")));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for Supplicant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
