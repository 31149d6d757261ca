//! The emulated machine itself.
//!
//! In: a kernel, its first files, a disk, a folder for logs. Out: what it says, as it says it, and by program in the folder; how
//! each of its programs ended.
//! Never: a network, or anything of this machine but these files.

use super::results::{Heard, Results};
use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const MEMORY_MIB: &str = "3072";
/// Nobody attacks this machine. Looking at a second clock, to trust the first one less, costs. Where others want the processors,
/// too, the timer may come late: a kernel that checks it ends there.
const KERNEL_WORDS: &str = "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off tsc=reliable no_timer_check";
/// Four levels of page tables and narrow vectors: what programs do without more of them is quicker here.
const PROCESSOR: &str = "max,la57=off,avx=off,avx2=off";

/// Shows what the machine says until it is off.
pub fn boot(kernel: &Path, initrd: &Path, disk: &Path, logs: &Path, limit: Duration) -> Result<Results, String> {
    let mut command = Command::new("timeout");
    command.arg(limit.as_secs().to_string()).arg("qemu-system-x86_64");
    command.args(["-machine", "q35", "-cpu", PROCESSOR, "-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY_MIB]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", KERNEL_WORDS]);
    // What it wrote is of no use after a cut.
    command.arg("-drive").arg(format!("if=none,id=disk,format=raw,cache=unsafe,file={}", disk.display()));
    command.args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot start QEMU: {e}"))?;
    let mut heard = Heard::new(logs);
    if let Some(console) = child.stdout.take() {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while let Ok(1..) = console.read_until(b'\n', &mut line) {
            let _ = std::io::stdout().write_all(&line).and_then(|()| std::io::stdout().flush());
            heard.line(&String::from_utf8_lossy(&line))?;
            line.clear();
        }
    }
    child.wait().map_err(|e| format!("QEMU: {e}"))?;
    Ok(heard.results)
}
