//! Bounds on everything that comes from outside.

/// One board file.
pub const BOARD_BYTES_MAX: usize = 64 * 1024;
/// What one block of a write carries; a multiple of every sector and erase size in use.
pub const BLOCK_BYTES: usize = 4 << 20;
/// The beginning of a card that is written last: without it no firmware and no kernel takes the card for a good one.
pub const HEAD_BYTES: usize = 1 << 20;
/// Blocks in memory between the reader and the slowest card.
pub const BLOCKS_AHEAD: usize = 8;
/// A drive smaller than this holds no operating system.
pub const DRIVE_BYTES_MIN: u64 = 64 << 20;
/// A removable drive larger than this is more likely somebody's backup than a card.
pub const DRIVE_BYTES_MAX: u64 = 2 << 40;
/// An image, unpacked. A compressed image that grows beyond it is a bomb.
pub const IMAGE_BYTES_MAX: u64 = 64 << 30;
/// A small text file of the kernel.
pub const SYS_FILE_BYTES_MAX: u64 = 64 * 1024;
/// A file that is read from or put into an image.
pub const INJECTED_BYTES_MAX: usize = 64 << 20;
/// Cards in one run.
pub const CARDS_MAX: usize = 32;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(4096) && HEAD_BYTES.is_multiple_of(4096) && HEAD_BYTES <= BLOCK_BYTES);
const _: () = assert!(HEAD_BYTES as u64 <= DRIVE_BYTES_MIN && DRIVE_BYTES_MIN < IMAGE_BYTES_MAX);
