//! What only the board itself knows: its power supply, heat, flash wear, clock chip, compressed swap.
//!
//! In: sysfs below a root (a test gives its own). Out: numbers, and conditions whose text is equal for equal facts.
//! Source: Raspberry Pi firmware `get_throttled`; the kernel's hwmon, thermal and mmc interfaces.
//! Never: a figure that changes by itself in a condition: every change is a message to the hub.

use limpet_agent_core::status::BoardCondition;
use std::path::Path;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Board {
    /// Bits of the firmware: 0 under-voltage, 1 frequency capped, 2 throttled, 3 soft temperature limit; 16 to 19 the
    /// same at some time since the start.
    pub throttled: Option<u32>,
    /// Of the hottest zone.
    pub millidegrees: Option<i64>,
    /// Tenths of its life that the worst flash device has used (JEDEC: 1 is up to 10 %, 11 is beyond).
    pub flash_life_tenths: Option<u8>,
    pub rtc: bool,
    /// Bytes of compressed swap in memory.
    pub zram_bytes: u64,
}

/// From here on a board loses speed or is near it.
const HOT_MILLIDEGREES: i64 = 80_000;

pub fn read(root: &Path) -> Board {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok().map(|t| t.trim().to_string());
    let firmware = [
        "sys/devices/platform/soc/soc:firmware/get_throttled",
        "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
    ];
    let hex = |t: String| u32::from_str_radix(t.trim_start_matches("0x"), 16).ok();
    Board {
        throttled: firmware.iter().find_map(|path| text(path)).and_then(hex).or_else(|| alarm(root)),
        millidegrees: below(root, "sys/class/thermal", "thermal_zone")
            .iter()
            .filter_map(|zone| text(&format!("sys/class/thermal/{zone}/temp"))?.parse().ok())
            .max(),
        flash_life_tenths: below(root, "sys/class/block", "mmcblk")
            .iter()
            .filter_map(|disk| life(&text(&format!("sys/class/block/{disk}/device/life_time"))?))
            .max(),
        rtc: !below(root, "sys/class/rtc", "rtc").is_empty(),
        zram_bytes: below(root, "sys/class/block", "zram")
            .iter()
            .filter_map(|disk| text(&format!("sys/class/block/{disk}/disksize"))?.parse::<u64>().ok())
            .sum(),
    }
}

/// Newer kernels tell of under-voltage through a sensor.
fn alarm(root: &Path) -> Option<u32> {
    below(root, "sys/class/hwmon", "hwmon").iter().find_map(|sensor| {
        let read = |file: &str| std::fs::read_to_string(root.join("sys/class/hwmon").join(sensor).join(file)).ok();
        (read("name")?.trim() == "rpi_volt").then_some(())?;
        Some(u32::from(read("in0_lcrit_alarm")?.trim() == "1"))
    })
}

/// `0x01 0x02`: types A and B of an eMMC; the worse counts. Cards without the field say nothing.
fn life(text: &str) -> Option<u8> {
    let tenth = |word: &str| u8::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    text.split_whitespace().filter_map(tenth).max().filter(|tenths| *tenths > 0)
}

fn below(root: &Path, dir: &str, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    // Partitions (`mmcblk0p1`) are no disks.
    names.retain(|n| n.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())));
    names.sort();
    names
}

impl Board {
    /// Node conditions for what this board can tell.
    pub fn conditions(&self) -> Vec<BoardCondition> {
        let mut all = Vec::new();
        let mut add = |kind: &'static str, bad: bool, reason: &'static str, message: &'static str| {
            all.push(BoardCondition { kind, bad, reason, message });
        };
        if let Some(bits) = self.throttled {
            let (now, before) = (bits & 1 != 0, bits & (1 << 16) != 0);
            match (now, before) {
                (true, _) => add("UnderVoltage", true, "PowerSupplyTooWeak",
                    "the supply voltage is too low: use a stronger power supply or a shorter cable"),
                (false, true) => add("UnderVoltage", false, "WasUnderVoltage",
                    "the supply voltage was too low at some time since the board started: use a stronger power supply"),
                (false, false) => add("UnderVoltage", false, "PowerSupplyOk", "the supply voltage is sufficient"),
            }
            let slowed = bits & 0b1110 != 0;
            match slowed {
                true => add("Throttled", true, "FirmwareThrottles",
                    "the firmware slows the processor down, for heat or a weak power supply"),
                false => add("Throttled", false, "FullSpeed", "the processor runs at full speed"),
            }
        }
        if let Some(heat) = self.millidegrees {
            match heat >= HOT_MILLIDEGREES {
                true => add("Overheated", true, "TooHot", "the processor is at 80 degrees or more: give it a heat sink or air"),
                false => add("Overheated", false, "TemperatureOk", "the processor is cooler than 80 degrees"),
            }
        }
        match self.flash_life_tenths {
            Some(9..) => add("FlashWornOut", true, "LifeUsedUp",
                "the flash memory has used up more than eighty percent of its life: copy the board to a new one soon"),
            Some(_) => add("FlashWornOut", false, "LifeLeft", "the flash memory has life left"),
            None => {}
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(files: &[(&str, &str)]) -> Board {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("limpet-board-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = read(&root);
        let _ = std::fs::remove_dir_all(&root);
        found
    }

    fn said(board: &Board) -> Vec<(&'static str, bool, &'static str)> {
        board.conditions().into_iter().map(|c| (c.kind, c.bad, c.reason)).collect()
    }

    #[test]
    fn a_board_that_tells_nothing_has_no_conditions() {
        assert_eq!(board(&[]), Board::default());
        assert!(said(&Board::default()).is_empty());
    }

    #[test]
    fn a_pi_on_a_weak_supply() {
        let pi = board(&[
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
            ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
            ("sys/class/thermal/thermal_zone1/temp", "81000\n"),
            ("sys/class/block/mmcblk0/device/life_time", "0x02 0x0a\n"),
            ("sys/class/block/mmcblk0p1/device/life_time", "0x0b\n"),
            ("sys/class/block/zram0/disksize", "1048576\n"),
            ("sys/class/rtc/rtc0/name", "x"),
        ]);
        assert_eq!((pi.throttled, pi.millidegrees, pi.flash_life_tenths), (Some(0x50005), Some(81_000), Some(10)));
        assert!(pi.rtc && pi.zram_bytes == 1 << 20);
        assert_eq!(said(&pi), [
            ("UnderVoltage", true, "PowerSupplyTooWeak"),
            ("Throttled", true, "FirmwareThrottles"),
            ("Overheated", true, "TooHot"),
            ("FlashWornOut", true, "LifeUsedUp"),
        ]);
        let before = Board { throttled: Some(0x10000), ..Board::default() };
        assert_eq!(said(&before), [("UnderVoltage", false, "WasUnderVoltage"), ("Throttled", false, "FullSpeed")]);
        let sensor = board(&[("sys/class/hwmon/hwmon1/name", "rpi_volt\n"), ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n")]);
        assert_eq!(sensor.throttled, Some(1));
    }
}
