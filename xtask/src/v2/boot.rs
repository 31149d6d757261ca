//! The emulated machine itself.
//!
//! In: a kernel, its first files, a disk; or another machine's command; who listens. Out: what it says, as it says it; how each
//! of its programs ended.
//! Never: a network, or anything of this machine but these files.

use super::results::{Heard, Results};
use limpet_e2e::machine::AMD64;
use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

pub const MEMORY_MIB: &str = "3072";
/// Nobody attacks this machine. Looking at a second clock, to trust the first one less, costs. Where others want the processors,
/// too, the timer may come late: a kernel that checks it ends there.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off tsc=reliable no_timer_check";
/// Where a processor changes its pace: `/proc/cpuinfo` says that of the moment there, not the time-stamp counter's.
const CHANGES_PACE: &str = "/sys/devices/system/cpu/cpu0/cpufreq";

/// Debian's kernel in QEMU, with a disk and nothing else.
pub fn emulated(kernel: &Path, initrd: &Path, disk: &Path) -> Vec<OsString> {
    let words = format!("{KERNEL_WORDS}{}", pace());
    let mut command: Vec<OsString> = ["qemu-system-x86_64", "-machine", "q35", "-cpu", AMD64, "-accel", "tcg,thread=multi"]
        .into_iter()
        .chain(["-smp", "2", "-m", MEMORY_MIB, "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .map(OsString::from)
        .collect();
    command.extend(["-kernel".into(), kernel.into(), "-initrd".into(), initrd.into(), "-append".into(), words.into()]);
    // What it wrote is of no use after a cut.
    command.extend(["-drive".into(), format!("if=none,id=disk,format=raw,cache=unsafe,file={}", disk.display()).into()]);
    command.extend(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"].map(OsString::from));
    command
}

/// Shows what the machine says until it is off.
pub fn boot(machine: &[OsString], mut heard: Heard, limit: Duration) -> Result<Results, String> {
    // Whoever ends this program ends the machine, too.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM", "timeout"]).arg(limit.as_secs().to_string()).args(machine);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| format!("cannot start the machine: {e}"))?;
    if let Some(console) = child.stdout.take() {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while let Ok(1..) = console.read_until(b'\n', &mut line) {
            let _ = std::io::stdout().write_all(&line).and_then(|()| std::io::stdout().flush());
            heard.line(&String::from_utf8_lossy(&line))?;
            line.clear();
        }
    }
    child.wait().map_err(|e| format!("the machine: {e}"))?;
    Ok(heard.results)
}

/// The emulated time-stamp counter is this machine's own. A kernel that measures its pace where others want the processors may be
/// wrong by a factor of ten, and all of its times with it: it is told, where this machine knows.
fn pace() -> String {
    let changes = Path::new(CHANGES_PACE).exists();
    let text = std::fs::read_to_string("/proc/cpuinfo").ok().filter(|_| !changes);
    text.and_then(|text| khz(&text)).map(|khz| format!(" tsc_early_khz={khz}")).unwrap_or_default()
}

/// What `/proc/cpuinfo` calls `cpu MHz`, of the first processor.
fn khz(text: &str) -> Option<u32> {
    let mhz = text.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split_once(':'))?.1;
    let (whole, part) = mhz.trim().split_once('.')?;
    (part.len() == 3).then(|| format!("{whole}{part}").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_told_in_kilohertz() {
        let text = "processor\t: 0\nmodel name\t: AMD EPYC\ncpu MHz\t\t: 2596.138\ncpu MHz\t\t: 1.000\n";
        assert_eq!(khz(text), Some(2_596_138));
        assert_eq!(khz("cpu MHz\t\t: unknown\n"), None);
        assert_eq!(khz("processor\t: 0\n"), None);
    }
}
