//! What U-Boot and a Raspberry Pi's firmware find on the system's partition. Pure.
//!
//! In: a plan, a version. Out: small files: U-Boot's script, the sector that counts tries, a slot's options, config.txt.
//! Never: a word in the script that comes from data; a write of U-Boot to anything but the one sector that counts.

use crate::plan::Plan;
use crate::table::crc32;

/// On the system's partition. Mirrored by `limpet-init`'s counter.rs, as is its content.
pub const COUNTER: &str = "limpet/slots";
/// One sector, written in place: a power cut leaves the old one or the new one, and nothing else of the file system changes.
const COUNTER_BYTES: usize = 512;

/// What comes from a builder has been tried: slot a is good.
pub fn counter() -> Vec<u8> {
    let mut sector = b"limpet_good=a\nlimpet_left=0\n".to_vec();
    sector.resize(COUNTER_BYTES, 0);
    sector
}

/// U-Boot's variables of a slot. Mirrored by `limpet-init`'s counter.rs.
pub fn options(version: &str, plan: &Plan) -> String {
    format!("limpet_options={} limpet.version={version}\n", plan.kernel_command_line)
}

/// A try of a new slot is counted before it is made; when that cannot be written, the good slot is started. Sizes are in hex.
const CHOOSE: &str = r#"setenv limpet_good a
setenv limpet_left 0
if load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} /limpet/slots; then
env import -t ${ramdisk_addr_r} ${filesize} limpet_good limpet_left
fi
setenv limpet_slot a
setenv limpet_other b
if test "${limpet_good}" = "b"; then
setenv limpet_slot b
setenv limpet_other a
fi
setenv limpet_good ${limpet_slot}
setenv limpet_next -
if test "${limpet_left}" = "3"; then setenv limpet_next 2; fi
if test "${limpet_left}" = "2"; then setenv limpet_next 1; fi
if test "${limpet_left}" = "1"; then setenv limpet_next 0; fi
if test "${limpet_next}" != "-"; then
setenv limpet_left ${limpet_next}
if env export -t -s 200 ${ramdisk_addr_r} limpet_good limpet_left; then
if fatwrite ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} /limpet/slots 200; then
setenv limpet_slot ${limpet_other}
setenv limpet_other ${limpet_good}
fi
fi
fi
"#;

/// One slot; whatever is missing ends it, and the other one gets its turn.
const LOAD: &str = "load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} /limpet/${limpet_slot}/options \
     && env import -t ${ramdisk_addr_r} ${filesize} limpet_options \
     && setenv bootargs ${limpet_options} limpet.slot=${limpet_slot} \
     && load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} /limpet/${limpet_slot}/linux";
const LOAD_TREE: &str = "load ${devtype} ${devnum}:${distro_bootpart} ${fdt_addr_r} /limpet/${limpet_slot}/tree";
const LOAD_FILES: &str = "load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} /limpet/${limpet_slot}/initrd";

/// `own_tree`: the slot has a device tree; otherwise U-Boot passes on the one that it was given.
pub fn script(architecture: &str, own_tree: bool) -> Vec<u8> {
    let boot = if architecture == "arm64" { "booti" } else { "bootz" };
    let (load_tree, tree) = match own_tree {
        true => (format!("{LOAD_TREE} && "), "${fdt_addr_r}"),
        false => (String::new(), "${fdt_addr}"),
    };
    let start = format!("{LOAD} && {load_tree}{LOAD_FILES} && {boot} ${{kernel_addr_r}} ${{ramdisk_addr_r}}:${{filesize}} {tree}");
    let text = format!(
        "{CHOOSE}echo Limpet OS: slot ${{limpet_slot}}, tries left: ${{limpet_left}}\nsetenv limpet_start '{start}'\nrun limpet_start\n\
         echo Limpet OS: slot ${{limpet_slot}} does not start\nsetenv limpet_slot ${{limpet_other}}\nrun limpet_start\n\
         echo Limpet OS: neither slot starts\nsleep 20\nreset\n"
    );
    packed(text.as_bytes())
}

/// U-Boot's own wrapping of scripts (include/image.h): a header with checksums, the lengths of the parts, the parts.
fn packed(text: &[u8]) -> Vec<u8> {
    const MAGIC: u32 = 0x2705_1956;
    const LINUX: u8 = 5;
    const ARM: u8 = 2;
    const SCRIPT: u8 = 6;
    let body = [&(text.len() as u32).to_be_bytes()[..], &[0; 4], text].concat();
    let mut head = [0; 64];
    head[..4].copy_from_slice(&MAGIC.to_be_bytes());
    head[12..16].copy_from_slice(&(body.len() as u32).to_be_bytes());
    head[24..28].copy_from_slice(&crc32(&body).to_be_bytes());
    head[28..32].copy_from_slice(&[LINUX, ARM, SCRIPT, 0]);
    head[32..38].copy_from_slice(b"limpet");
    let sum = crc32(&head);
    head[4..8].copy_from_slice(&sum.to_be_bytes());
    [&head[..], &body].concat()
}

/// What a Raspberry Pi before the 5 may start from: `_cd` and `cd` with the least memory for graphics.
pub const FIRMWARE: [&str; 9] = [
    "bootcode.bin", "start.elf", "fixup.dat", "start_cd.elf", "fixup_cd.dat", "start4.elf", "fixup4.dat", "start4cd.elf",
    "fixup4cd.dat",
];
pub const FIRMWARE_PACKAGE: &str = "raspi-firmware";
pub const FIRMWARE_FOLDER: &str = "usr/lib/raspi-firmware/";

/// The least memory for graphics; device trees under the names that Debian's kernels have.
pub fn config(architecture: &str, loader: &str) -> String {
    let wide = if architecture == "arm64" { "arm_64bit=1\n" } else { "" };
    format!(
        "# Limpet OS. U-Boot chooses the slot; what is here concerns the firmware only.\n{wide}kernel={loader}\nenable_uart=1\n\
         upstream_kernel=1\ngpu_mem=16\ndisable_splash=1\nboot_delay=0\n"
    )
}
