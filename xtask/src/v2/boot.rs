//! The emulated machine itself.
//!
//! In: a kernel, its first files, a disk. Out: what it says, as it says it; success when it came to its end and nothing failed.
//! Never: a network, or anything of this machine but these three files.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const MEMORY_MIB: &str = "2048";

/// Shows what the machine says until it is off; what its tests ended with decides.
pub fn boot(kernel: &Path, initrd: &Path, disk: &Path, limit: Duration) -> Result<(), String> {
    let mut command = Command::new("timeout");
    command.arg(limit.as_secs().to_string()).arg("qemu-system-x86_64");
    command.args(["-machine", "q35", "-cpu", "max", "-accel", "tcg,thread=multi", "-smp", "2", "-m", MEMORY_MIB]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"]);
    command.arg("-drive").arg(format!("if=none,id=disk,format=raw,file={}", disk.display()));
    command.args(["-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot start QEMU: {e}"))?;
    let mut said = Vec::new();
    if let Some(mut console) = child.stdout.take() {
        let mut chunk = [0u8; 4096];
        while let Ok(n @ 1..) = console.read(&mut chunk) {
            print!("{}", String::from_utf8_lossy(&chunk[..n]));
            let _ = std::io::stdout().flush();
            said.extend_from_slice(&chunk[..n]);
        }
    }
    child.wait().map_err(|e| format!("QEMU: {e}"))?;
    match String::from_utf8_lossy(&said).contains("limpet-v2-result 0") {
        true => Ok(()),
        false => Err("the tests failed on cgroup v2, or the machine did not come to their end; what it said is above".into()),
    }
}
