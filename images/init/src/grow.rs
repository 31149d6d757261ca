//! The data partition grows to the end of the card, at the first boot and after a move to a larger card.
//!
//! In: the disk. Out: a longer partition, a larger file system. A power cut at any point leaves one of two tables that fit.
//! Never: shrinks.

use crate::{log::say, mbr, mounts::Disk, sys, table};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
};

/// Not worth a write to the table.
const WORTH_BYTES: u64 = 16 << 20;

pub fn partition(disk: &Disk) -> Result<(), String> {
    let told = |e: std::io::Error| e.to_string();
    let path = format!("/dev/{}", disk.name);
    let sectors = fs::read_to_string(format!("/sys/block/{}/size", disk.name)).map_err(told)?;
    let bytes = sectors.trim().parse::<u64>().map_err(|e| e.to_string())?.saturating_mul(512);
    let drive = OpenOptions::new().read(true).write(true).open(path).map_err(told)?;
    let grown = if disk.has_gpt { named_table(&drive, bytes, disk)? } else { first_sector(&drive, bytes, disk)? };
    let Some((start, length)) = grown else { return Ok(()) };
    sys::resize_partition(&drive, disk.data_number, start, length).map_err(told)?;
    say!("the data partition has {} MiB now", length >> 20);
    Ok(())
}

/// Start and length of the grown partition.
fn first_sector(drive: &File, bytes: u64, disk: &Disk) -> Result<Option<(u64, u64)>, String> {
    let told = |e: std::io::Error| e.to_string();
    let mut head = vec![0; 512];
    drive.read_exact_at(&mut head, 0).map_err(told)?;
    let Some(grown) = mbr::grow(&head, bytes, disk.data_number)? else { return Ok(None) };
    drive.write_all_at(&grown.sector, 0).map_err(told)?;
    drive.sync_all().map_err(told)?;
    Ok(Some((grown.start, grown.length)))
}

fn named_table(drive: &File, bytes: u64, disk: &Disk) -> Result<Option<(u64, u64)>, String> {
    let told = |e: std::io::Error| e.to_string();
    let mut head = vec![0; table::TABLE_BYTES];
    drive.read_exact_at(&mut head, 0).map_err(told)?;
    let mut last = vec![0; 33 * 512];
    drive.read_exact_at(&mut last, bytes.saturating_sub(33 * 512)).map_err(told)?;
    if let Some(first) = table::heal(&head, &last) {
        drive.write_all_at(&first, 512).map_err(told)?;
        drive.sync_all().map_err(told)?;
        head[512..].copy_from_slice(&first);
        say!("the partition table was damaged, and is whole again from its copy");
    }
    let Some(grown) = table::grow(&head, bytes, disk.data_number)? else { return Ok(None) };
    // The copy at the end first: until the first one is written, the old table is whole.
    drive.write_all_at(&grown.last, bytes - 33 * 512).map_err(told)?;
    drive.sync_all().map_err(told)?;
    drive.write_all_at(&grown.first, 512).map_err(told)?;
    drive.sync_all().map_err(told)?;
    Ok(Some((grown.start, grown.length)))
}

/// The kernel does the work, on the mounted file system.
pub fn file_system(mount_point: &str) -> Result<(), String> {
    let told = |e: std::io::Error| e.to_string();
    let stat = nix::sys::statvfs::statvfs(mount_point).map_err(|e| e.to_string())?;
    #[allow(clippy::unnecessary_cast)] // widths differ between targets
    let (block, blocks) = (stat.block_size() as u64, stat.blocks() as u64);
    let device = fs::read_to_string("/proc/self/mounts").map_err(told)?;
    let device = device.lines().find(|l| l.split(' ').nth(1) == Some(mount_point)).and_then(|l| l.split(' ').next());
    let name = device.and_then(|d| d.strip_prefix("/dev/")).ok_or("it is not mounted from a device")?;
    let sectors = fs::read_to_string(format!("/sys/class/block/{name}/size")).map_err(told)?;
    let bytes = sectors.trim().parse::<u64>().map_err(|e| e.to_string())?.saturating_mul(512);
    if bytes < blocks * block + WORTH_BYTES + bytes / 50 {
        return Ok(());
    }
    let file = File::open(mount_point).map_err(told)?;
    sys::ext4_resize(&file, bytes / block).map_err(told)
}
