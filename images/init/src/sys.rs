#![allow(unsafe_code)] // two ioctls that no safe wrapper offers
//! The two system calls of this program that have no safe wrapper.
//!
//! In: open files, numbers. Out: results. Never: a pointer that outlives its call.

use std::{fs::File, os::fd::AsRawFd};

/// include/uapi/linux/ext4.h: `_IOW('f', 16, __u64)`.
const EXT4_IOC_RESIZE_FS: u64 = 0x4008_6610;
/// include/uapi/linux/blkpg.h
const BLKPG: u64 = 0x1269;
const BLKPG_RESIZE_PARTITION: i32 = 3;

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
