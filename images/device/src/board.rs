//! Boards as data: one file in boards/ each; its existence makes the board.
//!
//! In: TOML. Out: a checked `Board`. Never: a fact about one board in code.

use crate::limits::BOARD_BYTES_MAX;
use serde::Deserialize;

const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/boards.rs"));

/// Whoever wrote the file mends it.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    #[error("there is no board {name:?}{near}; `limpet flash --list` shows those that there are")]
    Unknown { name: String, near: String },
    #[error("the board file {name} cannot be used: {why}")]
    File { name: String, why: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Board {
    /// The file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// What people call it.
    pub title: String,
    /// As Kubernetes names it: arm, arm64, amd64.
    pub architecture: String,
    /// Rust's name of the static binary that runs on it.
    pub target: String,
    /// The least memory that the board is sold with.
    pub memory_mib: u32,
    /// Other people's systems that run on it, the best first.
    pub os: Vec<Family>,
    pub boot: Boot,
    pub signals: Signals,
    #[serde(default)]
    pub devices: Vec<Device>,
    #[serde(default)]
    pub limpet_os: LimpetOs,
}

/// What Limpet OS is made of on this board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LimpetOs {
    /// The package that names today's kernel; `linux-image-cloud-ARCHITECTURE` without it.
    pub kernel: Option<String>,
    /// As Debian names it, where that is not Kubernetes' word.
    pub architecture: Option<String>,
    /// Debian's suite that has all of it; the builder's default without it.
    pub suite: Option<String>,
    /// Drivers of devices that neither the device tree nor a bus names.
    #[serde(default)]
    pub drivers: Vec<String>,
    /// Its Wi-Fi; without it there is none that Debian's kernel drives.
    pub radio: Option<Radio>,
    /// Why there is none.
    pub refused: Option<String>,
}

/// A board's Wi-Fi.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Radio {
    /// Loaded when a network is wished for, and not otherwise.
    pub drivers: Vec<String>,
    /// Debian's package with the firmware; radios that need none have none.
    pub package: Option<String>,
    /// How the names of the files below lib/firmware begin that this board's radio asks for.
    #[serde(default)]
    pub firmware: Vec<String>,
    /// Names that the driver asks for and the package does not have yet, and the file of the package that is meant.
    #[serde(default)]
    pub firmware_as: std::collections::BTreeMap<String, String>,
    /// Whether driver and firmware do WPA3; a card for a WPA3-only network is refused otherwise.
    #[serde(default)]
    pub wpa3: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    RaspberryPiOs,
    Debian,
    Ubuntu,
    Armbian,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::RaspberryPiOs => "Raspberry Pi OS",
            Family::Debian => "Debian",
            Family::Ubuntu => "Ubuntu",
            Family::Armbian => "Armbian",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Boot {
    pub method: Method,
    /// Below the kernel's folder of device trees; the firmware chooses when there are several.
    #[serde(default)]
    pub device_trees: Vec<String>,
    /// The value of the kernel's `console=`.
    pub console: String,
    pub command_line: Vec<String>,
    /// U-Boot in its parts; none where the board has it in a memory of its own.
    #[serde(default)]
    pub loaders: Vec<Loader>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// config.txt, start*.elf and U-Boot on a FAT partition.
    RaspberryPi,
    /// U-Boot in front of the first partition, its script on it.
    UBoot,
    /// An EFI system partition with systemd-boot.
    Uefi,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Loader {
    /// Below the folder of U-Boot's packages, or of the builder's own loaders.
    pub file: String,
    /// Debian's package that has it; without one the builder brings it.
    pub package: Option<String>,
    /// Where it lies outside of all partitions, in units of 512 bytes; without it: on the first partition.
    pub sector: Option<u32>,
}

impl Loader {
    /// Its name on the first partition.
    pub fn name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or(&self.file)
    }
}

/// Loaders end before this: the first partition of a board whose loader lies outside of partitions.
pub const LOADERS_END: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Signals {
    /// Name below /sys/class/leds.
    pub led: Option<String>,
    /// The longest time that the board's watchdog can count.
    pub watchdog_seconds: u32,
}

/// What pods may ask for as an extended resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Device {
    pub resource: String,
    pub paths: Vec<String>,
}

/// All boards by name.
pub fn all() -> Result<Vec<Board>, BoardError> {
    FILES.iter().map(|(name, text)| Board::parse(name, text)).collect()
}

pub fn find(name: &str) -> Result<Board, BoardError> {
    match FILES.iter().find(|(known, _)| *known == name) {
        Some((name, text)) => Board::parse(name, text),
        None => Err(BoardError::Unknown { name: name.into(), near: near(name) }),
    }
}

/// A likely meant name, as part of a sentence.
fn near(name: &str) -> String {
    let plain = |s: &str| s.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
    let wanted = plain(name).replace("rpi", "raspberrypi");
    let hit = FILES.iter().find(|(known, _)| {
        let known = plain(known);
        !wanted.is_empty() && (known.contains(&wanted) || wanted.contains(&known))
    });
    hit.map(|(known, _)| format!("; is {known} meant?")).unwrap_or_default()
}

impl Board {
    pub fn parse(name: &str, text: &str) -> Result<Board, BoardError> {
        let wrong = |why: String| BoardError::File { name: format!("{name}.toml"), why };
        if text.len() > BOARD_BYTES_MAX {
            return Err(wrong(format!("it is longer than {BOARD_BYTES_MAX} bytes")));
        }
        let mut board: Board = toml::from_str(text).map_err(|e| wrong(e.to_string().trim().replace('\n', " ")))?;
        board.name = name.into();
        board.check().map_err(wrong)?;
        Ok(board)
    }

    /// As Debian names it.
    pub fn debian_architecture(&self) -> &str {
        self.limpet_os.architecture.as_deref().unwrap_or(&self.architecture)
    }

    /// The package that names today's kernel.
    pub fn kernel(&self) -> String {
        self.limpet_os.kernel.clone().unwrap_or_else(|| format!("linux-image-cloud-{}", self.architecture))
    }

    /// Loaders that no package has.
    pub fn own_loaders(&self) -> Vec<&str> {
        self.boot.loaders.iter().filter(|l| l.package.is_none()).map(|l| l.file.as_str()).collect()
    }

    fn check(&self) -> Result<(), String> {
        const TARGETS: [(&str, &str); 5] = [
            ("arm64", "aarch64-unknown-linux-musl"),
            ("amd64", "x86_64-unknown-linux-musl"),
            ("arm", "armv7-unknown-linux-musleabihf"),
            ("arm", "arm-unknown-linux-musleabihf"),
            ("riscv64", "riscv64gc-unknown-linux-musl"),
        ];
        if !TARGETS.contains(&(self.architecture.as_str(), self.target.as_str())) {
            return Err(format!("target {:?} does not fit architecture {:?}", self.target, self.architecture));
        }
        let words = self.boot.command_line.iter().chain([&self.boot.console]);
        if let Some(bad) = words.clone().find(|w| w.is_empty() || !w.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(format!("{bad:?} cannot stand on the kernel's command line"));
        }
        let loaders = &self.boot.loaders;
        if self.boot.method == Method::Uefi && !loaders.is_empty() {
            return Err("boot.loaders are for the methods u-boot and raspberry-pi".into());
        }
        if self.boot.method == Method::RaspberryPi && loaders.iter().any(|l| l.sector.is_some()) {
            return Err("a Raspberry Pi's firmware takes loaders from the first partition only, not from a sector".into());
        }
        let files = self.boot.device_trees.iter().chain(self.boot.loaders.iter().map(|l| &l.file));
        let radios = self.limpet_os.radio.iter();
        let files = files.chain(radios.clone().flat_map(|r| &r.firmware));
        let files = files.chain(radios.flat_map(|r| r.firmware_as.keys().chain(r.firmware_as.values())));
        if let Some(bad) = files.clone().find(|f| f.starts_with('/') || f.split('/').any(|p| p.is_empty() || p == "..")) {
            return Err(format!("{bad:?} is not a path below the package's folder"));
        }
        let last = (LOADERS_END / 512) as u32;
        if loaders.iter().filter_map(|l| l.sector).any(|sector| sector == 0 || sector >= last) {
            return Err(format!("a loader lies between the partition table (sector 0) and the first partition ({last})"));
        }
        let os = &self.limpet_os;
        let radio = os.radio.iter();
        let packages = loaders.iter().filter_map(|l| l.package.as_ref()).chain(&os.kernel);
        let packages = packages.chain(radio.clone().flat_map(|r| r.package.iter().chain(&r.drivers)));
        if radio.clone().any(|r| r.drivers.is_empty() || r.package.is_some() == r.firmware.is_empty()) {
            return Err("a radio needs a driver, and firmware exactly where it names a package".into());
        }
        let fit = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"-+._".contains(&b));
        let words = packages.chain(&os.architecture).chain(&os.suite).chain(&os.drivers);
        if let Some(bad) = words.into_iter().find(|w| !fit(w) || w.starts_with('-')) {
            return Err(format!("{bad:?} is no name of a package, an architecture, a suite or a driver"));
        }
        let devices = self.devices.iter();
        if let Some(bad) = devices.clone().find(|d| !d.resource.contains('/') || d.paths.is_empty()) {
            return Err(format!("the device {:?} needs a name like vendor.example/thing and at least one path", bad.resource));
        }
        if let Some(bad) = devices.flat_map(|d| &d.paths).find(|p| !p.starts_with("/dev/") || p.contains("..")) {
            return Err(format!("{bad:?} is not below /dev"));
        }
        if self.signals.watchdog_seconds < 5 {
            return Err("a watchdog of less than 5 seconds bites a busy board".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_board() {
        let boards = all().unwrap();
        assert!(boards.len() >= 15);
        for board in boards {
            let whole = board.boot.method == Method::Uefi || board.boot.loaders.is_empty();
            assert!(whole || !board.boot.device_trees.is_empty(), "{}", board.name);
            // Who cannot have Limpet OS is told why, and nothing else about it.
            let os = &board.limpet_os;
            assert!(os.refused.is_none() || (os.kernel.is_none() && os.drivers.is_empty()), "{}", board.name);
            assert!(!board.os.is_empty(), "{}", board.name);
        }
    }

    #[test]
    fn wrong_names_are_answered_with_likely_ones() {
        for (asked, meant) in [("rpi4", "raspberry-pi-4"), ("raspberry_pi_5", "raspberry-pi-5"), ("rock-5b", "rock-5")] {
            let said = find(asked).unwrap_err().to_string();
            assert!(said.contains(&format!("is {meant} meant?")), "{said}");
        }
        assert!(!find("toaster").unwrap_err().to_string().contains("meant"));
    }

    #[test]
    fn unfit_files_end_in_one_sentence() {
        let good = FILES.iter().find(|(name, _)| *name == "orange-pi-zero-2").unwrap().1;
        assert!(Board::parse("x", good).is_ok());
        for (from, to, says) in [
            ("title =", "titel =", "unknown field"),
            ("\"arm64\"", "\"arm\"", "does not fit architecture"),
            ("\"ttyS0,115200\"", "\"ttyS0 init=/bin/sh\"", "kernel's command line"),
            ("sector = 256", "sector = 32768", "first partition"),
            ("sector = 256", "sector = 0", "first partition"),
            ("\"u-boot\"", "\"uefi\"", "for the methods u-boot"),
            ("\"u-boot\"", "\"raspberry-pi\"", "not from a sector"),
            ("linux-image-arm64", "-o=Dir::Bin::dpkg=x", "no name of a package"),
            ("\"u-boot\"", "\"luck\"", "unknown variant"),
            ("orangepi_zero2/", "../", "not a path below"),
            ("/dev/gpiochip0", "/dev/../etc/shadow", "not below /dev"),
            ("[limpet-os]", "[limpet-os.radio]\ndrivers = []\n[limpet-os]", "a radio needs a driver"),
            ("[limpet-os]", "[limpet-os.radio]\ndrivers = [\"x\"]\nfirmware = [\"x\"]\n[limpet-os]", "a radio needs a driver"),
            ("watchdog-seconds = 16", "watchdog-seconds = 1", "bites"),
            ("title = ", "title = \"a\"\ntitle = ", "duplicate key"),
        ] {
            assert!(good.contains(from), "{from}");
            let said = Board::parse("x", &good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(said.contains(says) && said.starts_with("the board file x.toml cannot be used: "), "{said}");
            assert!(!said.contains('\n'));
        }
        assert!(Board::parse("x", &"#".repeat(BOARD_BYTES_MAX + 1)).is_err());
    }
}
