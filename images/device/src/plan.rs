//! What a card with Limpet OS looks like, for each board: partitions, who boots whom, the kernel's command line.
//!
//! In: a board. Out: a `Plan`, and its text for people and for the snapshots. Pure.
//! Never: a size or an offset that is decided anywhere else.

use crate::board::{Board, LOADERS_END, Method};
use std::fmt;

/// Partitions begin at multiples of this: erase blocks of cards are not larger.
pub const ALIGN: u64 = 4 << 20;
const MIB: u64 = 1 << 20;
/// Kernel and initial file system of two slots, and of a third while an update is written.
const SYSTEM_BYTES: u64 = 256 * MIB;
/// As small as its journal allows; it is grown to the card's end at the first boot.
const DATA_BYTES: u64 = 64 * MIB;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Gpt,
    /// For firmware that does not know GPT, or keeps its loader where a GPT would be.
    Mbr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Fat32,
    /// With a journal.
    Ext4,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// GPT name and file system label.
    pub name: &'static str,
    pub start: u64,
    pub bytes: u64,
    pub format: Format,
    pub why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub board: Board,
    pub scheme: Scheme,
    pub partitions: Vec<Partition>,
    pub kernel_command_line: String,
    /// Who starts whom, and what happens when a slot does not come up.
    pub boot: &'static str,
}

pub fn limpet_os(board: &Board) -> Plan {
    use Format::{Ext4, Fat32};
    let data = ("limpet-data", DATA_BYTES, Ext4, "journal, images, pods, logs; grown at the first boot");
    let (scheme, parts, boot): (_, Vec<(&'static str, u64, Format, &'static str)>, _) = match board.boot.method {
        Method::Uefi => (
            Scheme::Gpt,
            vec![("limpet-system", SYSTEM_BYTES, Fat32, "EFI system partition: systemd-boot, slots a and b"), data],
            "UEFI -> systemd-boot, which counts tries in the entry's file name: a slot that was not called good \
             three times in a row is passed over for the other",
        ),
        Method::RaspberryPi => (
            Scheme::Mbr,
            vec![("limpet-system", SYSTEM_BYTES, Fat32, "firmware, U-Boot and its script, device trees, slots a and b"), data],
            "firmware -> U-Boot -> boot.scr, which counts tries in one sector: a slot that was not called good three times in \
             a row is left for the other",
        ),
        Method::UBoot => (
            Scheme::Mbr,
            vec![("limpet-system", SYSTEM_BYTES, Fat32, "U-Boot's script, slots a and b"), data],
            "U-Boot -> boot.scr, which counts tries in one sector: a slot that was not called good three times in a row is \
             left for the other",
        ),
    };
    let outside = board.boot.loaders.iter().any(|l| l.sector.is_some());
    let mut at = if outside { LOADERS_END } else { ALIGN };
    let partitions = parts
        .into_iter()
        .map(|(name, bytes, format, why)| {
            let start = at;
            at = (at + bytes).next_multiple_of(ALIGN);
            Partition { name, start, bytes, format, why }
        })
        .collect();
    let mut words = vec![format!("console={}", board.boot.console), "quiet".into(), "loglevel=4".into()];
    words.extend(board.boot.command_line.iter().cloned());
    words.push(format!("limpet.board={}", board.name));
    words.push(format!("limpet.watchdog={}", board.signals.watchdog_seconds));
    words.extend(board.signals.led.iter().map(|led| format!("limpet.led={led}")));
    Plan { board: board.clone(), scheme, partitions, kernel_command_line: words.join(" "), boot }
}

impl Plan {
    /// Bytes of the whole image: the last partition, and room for the second copy of a GPT.
    pub fn image_bytes(&self) -> u64 {
        let end = self.partitions.last().map_or(ALIGN, |p| p.start + p.bytes);
        (end + MIB).next_multiple_of(ALIGN)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let board = &self.board;
        writeln!(f, "{}: {}", board.name, board.title)?;
        writeln!(f, "architecture  {} ({}), at least {} MiB", board.architecture, board.target, board.memory_mib)?;
        writeln!(f, "boot          {}", self.boot)?;
        for tree in &board.boot.device_trees {
            writeln!(f, "device tree   {tree}")?;
        }
        for loader in &board.boot.loaders {
            let place = match loader.sector {
                Some(sector) => format!("at byte {}", u64::from(sector) * 512),
                None => "on the first partition".into(),
            };
            let from = loader.package.as_deref().unwrap_or("yours: Debian has none");
            writeln!(f, "loader        {} {place} ({from})", loader.file)?;
        }
        match &board.limpet_os.refused {
            Some(why) => writeln!(f, "limpet os     not yet: {why}")?,
            None => {
                let suite = board.limpet_os.suite.as_deref().unwrap_or("any suite");
                writeln!(f, "limpet os     {} of Debian ({}, {suite})", board.kernel(), board.debian_architecture())?;
                match &board.limpet_os.radio {
                    None => writeln!(f, "wi-fi         none")?,
                    Some(radio) => {
                        let firmware = radio.package.as_deref().unwrap_or("without firmware");
                        let up_to = if radio.wpa3 { "WPA2, WPA3" } else { "WPA2" };
                        writeln!(f, "wi-fi         {} ({firmware}), {up_to}", radio.drivers.join(", "))?;
                    }
                }
            }
        }
        writeln!(f, "command line  {}", self.kernel_command_line)?;
        writeln!(f, "led           {}", board.signals.led.as_deref().unwrap_or("none"))?;
        writeln!(f, "watchdog      {} s", board.signals.watchdog_seconds)?;
        let scheme = if self.scheme == Scheme::Gpt { "GPT" } else { "MBR" };
        writeln!(f, "image         {} MiB, {scheme}", self.image_bytes() / MIB)?;
        for (number, p) in self.partitions.iter().enumerate() {
            let (from, size) = (p.start / MIB, p.bytes / MIB);
            let format = format!("{:?}", p.format).to_lowercase();
            writeln!(f, "  {}  {:13} {from:>4} +{size:<4} MiB {format:5}  {}", number + 1, p.name, p.why)?;
        }
        for device in &board.devices {
            writeln!(f, "device        {}: {}", device.resource, device.paths.join(", "))?;
        }
        let names: Vec<&str> = board.os.iter().map(|family| family.name()).collect();
        writeln!(f, "also runs     {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board;

    /// One text file a board; `LIMPET_UPDATE_SNAPSHOTS=1` rewrites them.
    #[test]
    fn every_boards_plan_is_the_one_that_was_looked_at() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots");
        let update = std::env::var_os("LIMPET_UPDATE_SNAPSHOTS").is_some();
        let mut known = Vec::new();
        for board in board::all().unwrap() {
            let text = limpet_os(&board).to_string();
            let path = folder.join(format!("{}.txt", board.name));
            if update {
                std::fs::write(&path, &text).unwrap();
            }
            let want = std::fs::read_to_string(&path)
                .unwrap_or_else(|e| panic!("{}: {e}; write it with LIMPET_UPDATE_SNAPSHOTS=1", path.display()));
            assert_eq!(text, want, "{}", board.name);
            known.push(format!("{}.txt", board.name));
        }
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(known.contains(&name), "snapshots/{name} belongs to no board");
        }
    }

    #[test]
    fn partitions_are_aligned_and_apart() {
        for board in board::all().unwrap() {
            let plan = limpet_os(&board);
            let outside = board.boot.loaders.iter().any(|l| l.sector.is_some());
            let mut at = if outside { LOADERS_END } else { 2048 * 512 };
            for p in &plan.partitions {
                assert!(p.start >= at && p.start.is_multiple_of(ALIGN), "{}: {}", board.name, p.name);
                at = p.start + p.bytes;
            }
            assert!(plan.image_bytes() >= at + MIB / 2);
            assert!(plan.kernel_command_line.len() < 1024);
        }
    }
}
