//! Where one piece ends and the next begins: decided by the bytes themselves.
//!
//! In: a file's content. Out: lengths of pieces. Never: more than `MAX` bytes in one, or a boundary that depends on what
//! comes later. The method is FastCDC's (Xia and others, 2016): a rolling sum of a table entry a byte, a boundary where its
//! upper bits are zero, rarer before the usual size and more often after it.

pub const MIN: usize = 4 << 10;
pub const USUAL: usize = 16 << 10;
pub const MAX: usize = 64 << 10;

/// More bits before the usual size, fewer after it (USUAL is 2^14).
const STRICT: u64 = mask(16);
const EASY: u64 = mask(12);

/// The highest bits: they depend on the most bytes.
const fn mask(bits: u32) -> u64 {
    !(u64::MAX >> bits)
}

/// 256 numbers without any pattern, the same for ever: pieces must be cut alike by every version.
const TABLE: [u64; 256] = {
    let mut table = [0; 256];
    let mut state = 0x6c69_6d70_6574_0001_u64;
    let mut at = 0;
    while at < 256 {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = z ^ (z >> 31);
        at += 1;
    }
    table
};

/// Length of the first piece of `bytes`; all of it when it is short or the file ends there.
pub fn first(bytes: &[u8]) -> usize {
    let end = bytes.len().min(MAX);
    if end <= MIN {
        return end;
    }
    let mut sum = 0u64;
    for (at, byte) in bytes[..end].iter().enumerate().skip(MIN) {
        sum = (sum << 1).wrapping_add(TABLE[usize::from(*byte)]);
        let mask = if at < USUAL { STRICT } else { EASY };
        if sum & mask == 0 {
            return at + 1;
        }
    }
    end
}

/// Reads a whole content piece by piece.
pub fn each<R: std::io::Read>(
    mut content: R,
    mut with: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut buffer = vec![0u8; 4 * MAX];
    let (mut start, mut end, mut over) = (0, 0, false);
    loop {
        while !over && end - start < MAX {
            if end == buffer.len() {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            match content.read(&mut buffer[end..]) {
                Ok(0) => over = true,
                Ok(got) => end += got,
                Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        if start == end {
            return Ok(());
        }
        let length = first(&buffer[start..end]);
        with(&buffer[start..start + length])?;
        start += length;
    }
}
