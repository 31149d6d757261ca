#![allow(unsafe_code)] // four ioctls that no safe wrapper offers
//! The system calls of this program that have no safe wrapper.
//!
//! In: open files, numbers. Out: results. Never: a pointer that outlives its call.

use std::{fs::File, os::fd::AsRawFd};

/// include/uapi/linux/ext4.h: `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: u64 = 0x4008_6610;
/// include/uapi/linux/blkpg.h
const BLKPG: u64 = 0x1269;
const BLKPG_RESIZE_PARTITION: i32 = 3;

/// include/uapi/linux/loop.h
const LOOP_CTL_GET_FREE: u64 = 0x4C82;
const LOOP_SET_FD: u64 = 0x4C00;

#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: i32,
    names: [u8; 128],
}

#[repr(C)]
struct BlkpgArgument {
    operation: i32,
    flags: i32,
    length: i32,
    data: *mut BlkpgPartition,
}

fn told(result: i32) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Grows a mounted ext4 file system to so many of its blocks.
pub fn ext4_resize(mount_point: &File, blocks: u64) -> std::io::Result<()> {
    // SAFETY: the request reads one u64 from the pointer during the call, and `blocks` lives until it returns.
    told(unsafe { libc::ioctl(mount_point.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &raw const blocks) })
}

/// Tells the kernel that a partition of an open drive is longer now; works while it is in use.
pub fn resize_partition(drive: &File, number: u32, start: u64, length: u64) -> std::io::Result<()> {
    let (start, length) = (start as i64, length as i64);
    let mut partition = BlkpgPartition { start, length, number: number as i32, names: [0; 128] };
    let size = size_of::<BlkpgPartition>() as i32;
    let argument =
        BlkpgArgument { operation: BLKPG_RESIZE_PARTITION, flags: 0, length: size, data: &raw mut partition };
    // SAFETY: the request reads the argument and the partition that it points to during the call; both live until it
    // returns, and have the layout of linux/blkpg.h.
    told(unsafe { libc::ioctl(drive.as_raw_fd(), BLKPG as _, &raw const argument) })
}

/// A block device of an open file, read-only as the file is: its path in /dev. Lives until the restart.
pub fn loop_device(file: &File) -> std::io::Result<String> {
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    // SAFETY: the request takes no argument and returns a number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    told(number)?;
    let path = format!("/dev/loop{number}");
    let device = File::open(&path)?;
    // SAFETY: the argument is the number of a file that is open during the call; the kernel keeps a reference of its own.
    told(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_FD as _, file.as_raw_fd()) })?;
    Ok(path)
}
