//! What the board says to whoever stands before it: one sentence in a file, and its lamp.
//!
//! In: what is waited for; what the network itself waits for, as whoever manages it has written it (`network` in the run
//! directory: `person` or `network`, then a sentence): without a network nothing else matters. Out: `waiting` in the run
//! directory, absent when nothing is; the trigger of one of the kernel's lamps.
//! Whoever has a console shows the file: limpet-init does, and agetty by a link in /run/issue.d.
//! Never: writes what stands there already; fails because a board has no lamp.

use std::{
    fs,
    path::{Path, PathBuf},
};

const FILE: &str = "waiting";
const NETWORK_FILE: &str = "network";
const NETWORK_BYTES_MAX: u64 = 4096;
/// What the lamp did before, for as long as it does our work.
const LAMP_FILE: &str = "lamp";
const SENTENCE_CHARS_MAX: usize = 600;
/// Where the kernel has no timer for lamps: any that is seen to be another.
const OTHER_TRIGGERS: [&str; 2] = ["heartbeat", "default-on"];

/// Who can end the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// The hub or the network, by themselves: the lamp blinks once in two seconds.
    Hub,
    /// A person: five times a second.
    Person,
}

impl For {
    /// On and off, in milliseconds.
    fn rhythm(self) -> (u32, u32) {
        match self {
            For::Hub => (200, 1800),
            For::Person => (100, 100),
        }
    }
}

pub struct Sign {
    run: PathBuf,
    lamp: Option<PathBuf>,
    said: Option<String>,
}

impl Sign {
    /// `led`: a name in /sys/class/leds.
    pub fn new(run: &Path, led: Option<&str>) -> Sign {
        Sign::at(run, led.map(|name| Path::new("/sys/class/leds").join(name)))
    }

    fn at(run: &Path, lamp: Option<PathBuf>) -> Sign {
        let said = fs::read_to_string(run.join(FILE)).ok();
        Sign { run: run.into(), lamp: lamp.filter(|dir| dir.join("trigger").exists()), said }
    }

    pub fn waits(&mut self, whom: For, why: &str) {
        let network = if whom == For::Hub { network(&self.run.join(NETWORK_FILE)) } else { None };
        let (whom, why) = network.as_ref().map_or((whom, why), |(whom, why)| (*whom, why.as_str()));
        let line: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SENTENCE_CHARS_MAX).collect();
        let text = format!("{line}\n");
        if self.said.as_ref() == Some(&text) {
            return;
        }
        let fresh = self.run.join("waiting.new");
        let written = fs::write(&fresh, &text).and_then(|()| fs::rename(&fresh, self.run.join(FILE)));
        if let Err(e) = written {
            log::debug!("sign: {e}");
        }
        self.blink(whom);
        self.said = Some(text);
    }

    pub fn nothing(&mut self) {
        if self.said.take().is_none() {
            return;
        }
        let _ = fs::remove_file(self.run.join(FILE));
        let kept = self.run.join(LAMP_FILE);
        if let (Some(lamp), Ok(own)) = (&self.lamp, fs::read_to_string(&kept)) {
            let _ = fs::write(lamp.join("trigger"), own);
            let _ = fs::remove_file(kept);
        }
    }

    fn blink(&self, whom: For) {
        let Some(lamp) = &self.lamp else { return };
        let known = fs::read_to_string(lamp.join("trigger")).unwrap_or_default();
        if !self.run.join(LAMP_FILE).exists() {
            let _ = fs::write(self.run.join(LAMP_FILE), chosen(&known).unwrap_or("none"));
        }
        let has = |name: &str| known.split_whitespace().any(|word| word.trim_matches(['[', ']']) == name);
        let put = |file: &str, text: &str| fs::write(lamp.join(file), text).is_ok();
        let (on, off) = whom.rhythm();
        // The files of the rhythm appear with the trigger.
        let timed = has("timer") && put("trigger", "timer") && put("delay_on", &on.to_string());
        if timed && put("delay_off", &off.to_string()) {
            return;
        }
        if let Some(other) = OTHER_TRIGGERS.into_iter().find(|name| has(name)) {
            put("trigger", other);
        }
    }
}

/// Who can end the network's wait, and its sentence.
fn network(path: &Path) -> Option<(For, String)> {
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(fs::File::open(path).ok()?, NETWORK_BYTES_MAX), &mut text).ok()?;
    let (who, why) = text.split_once('\n')?;
    let whom = match who {
        "person" => For::Person,
        "network" => For::Hub,
        _ => return None,
    };
    Some((whom, why.trim().to_string())).filter(|(_, why)| !why.is_empty())
}

/// The one in brackets.
fn chosen(triggers: &str) -> Option<&str> {
    triggers.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("limpet-sign-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn lamp(dir: &Path, triggers: &str) -> PathBuf {
        let lamp = dir.join("ACT");
        fs::create_dir_all(&lamp).unwrap();
        fs::write(lamp.join("trigger"), triggers).unwrap();
        lamp
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_sentence_and_a_lamp_until_nothing_is_waited_for() {
        let dir = folder("both");
        let lamp = lamp(&dir, "none timer [mmc0] heartbeat\n");
        let mut sign = Sign::at(&dir, Some(lamp.clone()));
        sign.waits(For::Hub, "waits for the hub\nat 10.0.0.1");
        assert_eq!(read(dir.join(FILE)), "waits for the hub at 10.0.0.1\n");
        assert_eq!((read(lamp.join("trigger")), read(lamp.join("delay_off"))), ("timer".into(), "1800".into()));
        // What stands there is not written again; another process goes on with it.
        fs::remove_file(lamp.join("delay_on")).unwrap();
        sign.waits(For::Hub, "waits for the hub\nat 10.0.0.1");
        assert!(!lamp.join("delay_on").exists());
        let mut sign = Sign::at(&dir, Some(lamp.clone()));
        sign.waits(For::Person, "the token has expired");
        assert_eq!((read(dir.join(FILE)), read(lamp.join("delay_off"))), ("the token has expired\n".into(), "100".into()));
        sign.nothing();
        assert_eq!(read(lamp.join("trigger")), "mmc0", "as it was before");
        assert!(!dir.join(FILE).exists() && !dir.join(LAMP_FILE).exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn without_a_network_that_is_what_is_said() {
        let dir = folder("network");
        let lamp = lamp(&dir, "none timer [mmc0]\n");
        let mut sign = Sign::at(&dir, Some(lamp.clone()));
        fs::write(dir.join(NETWORK_FILE), "person\nthe Wi-Fi network \"home\" does not let this board in\n").unwrap();
        sign.waits(For::Hub, "waits for the hub");
        assert_eq!(read(dir.join(FILE)), "the Wi-Fi network \"home\" does not let this board in\n");
        assert_eq!(read(lamp.join("delay_off")), "100");
        fs::write(dir.join(NETWORK_FILE), "network\nthe Wi-Fi network \"home\" is not in reach\n").unwrap();
        sign.waits(For::Hub, "waits for the hub");
        assert_eq!(read(lamp.join("delay_off")), "1800");
        // Whoever has to do something for the hub has to do it with or without a network.
        sign.waits(For::Person, "the token has expired");
        assert_eq!(read(dir.join(FILE)), "the token has expired\n");
        for odd in ["", "person", "person\n", "somebody\nx\n", "\u{0}\n\n"] {
            fs::write(dir.join(NETWORK_FILE), odd).unwrap();
            sign.waits(For::Hub, "waits for the hub");
            assert_eq!(read(dir.join(FILE)), "waits for the hub\n", "{odd:?}");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn boards_without_lamp_or_timer_have_the_sentence() {
        let dir = folder("bare");
        let lamp = lamp(&dir, "[none] heartbeat\n");
        let mut sign = Sign::at(&dir, Some(lamp.clone()));
        sign.waits(For::Person, "x");
        assert_eq!(read(lamp.join("trigger")), "heartbeat");
        sign.nothing();
        let mut sign = Sign::at(&dir, Some(dir.join("nowhere")));
        sign.waits(For::Hub, &"é".repeat(5000));
        assert_eq!(read(dir.join(FILE)).chars().count(), SENTENCE_CHARS_MAX + 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
