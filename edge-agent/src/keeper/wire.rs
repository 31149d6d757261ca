//! The packets between keeper and agent: one packet one message, tag byte first, integers in native order.
//!
//! In and out: byte slices, both ends are the same binary on the same machine. Never: fds (they travel beside the
//! bytes as SCM_RIGHTS) or anything longer than `PACKET_BYTES_MAX`.

/// Longest packet; both ends read into a buffer of this size.
pub const PACKET_BYTES_MAX: usize = 512;
/// Longest key of a stored fd.
pub const KEY_BYTES_MAX: usize = 200;
/// Most fds that the keeper holds.
pub const FDS_MAX: usize = 2048;
/// Most exits that wait for an acknowledgement.
pub const EXITS_MAX: usize = 1024;

const _: () = assert!(KEY_BYTES_MAX + 16 <= PACKET_BYTES_MAX);

/// A child's end as the keeper saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Counts up for the life of a keeper; names the exit in the acknowledgement.
    pub seq: u64,
    pub pid: i32,
    /// As from waitpid(2).
    pub status: i32,
    /// Milliseconds since 1970 by this machine's clock at that moment.
    pub at_ms: i64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// Agent: give me everything you hold.
    Hello,
    /// Agent: keep the fd that travels with this.
    Put { request: u32, key: &'a str },
    /// Agent: close the fd of this key.
    Drop { request: u32, key: &'a str },
    /// Agent: the exit is on record.
    Ack { seq: u64 },
    /// Keeper: the request is done.
    Done { request: u32 },
    /// Keeper: the request was refused.
    Refused { request: u32, why: &'a str },
    /// Keeper: one stored fd, which travels with this.
    Stored { key: &'a str },
    Exited(Exit),
    /// Keeper: everything that was there at `Hello` has been told. `lost`: exits that did not fit since the start.
    Ready { lost: u64, restarts: u32 },
}

impl<'a> Packet<'a> {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Packet::Hello => out.push(b'H'),
            Packet::Put { request, key } => keyed(out, b'P', *request, key),
            Packet::Drop { request, key } => keyed(out, b'D', *request, key),
            Packet::Ack { seq } => {
                out.push(b'A');
                out.extend_from_slice(&seq.to_ne_bytes());
            }
            Packet::Done { request } => keyed(out, b'K', *request, ""),
            Packet::Refused { request, why } => keyed(out, b'E', *request, cut(why)),
            Packet::Stored { key } => {
                out.push(b'F');
                out.extend_from_slice(key.as_bytes());
            }
            Packet::Exited(exit) => {
                out.push(b'X');
                out.extend_from_slice(&exit.seq.to_ne_bytes());
                out.extend_from_slice(&exit.pid.to_ne_bytes());
                out.extend_from_slice(&exit.status.to_ne_bytes());
                out.extend_from_slice(&exit.at_ms.to_ne_bytes());
            }
            Packet::Ready { lost, restarts } => {
                out.push(b'Z');
                out.extend_from_slice(&lost.to_ne_bytes());
                out.extend_from_slice(&restarts.to_ne_bytes());
            }
        }
    }

    /// `None` for anything that `encode` cannot have written.
    pub fn decode(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let (&tag, rest) = bytes.split_first()?;
        Some(match tag {
            b'H' if rest.is_empty() => Packet::Hello,
            b'P' | b'D' => {
                let (request, key) = (u32_at(rest, 0)?, std::str::from_utf8(rest.get(4..)?).ok()?);
                if key.is_empty() || key.len() > KEY_BYTES_MAX {
                    return None;
                }
                if tag == b'P' { Packet::Put { request, key } } else { Packet::Drop { request, key } }
            }
            b'A' if rest.len() == 8 => Packet::Ack { seq: u64_at(rest, 0)? },
            b'K' if rest.len() == 4 => Packet::Done { request: u32_at(rest, 0)? },
            b'E' => Packet::Refused { request: u32_at(rest, 0)?, why: std::str::from_utf8(rest.get(4..)?).ok()? },
            b'F' => Packet::Stored { key: std::str::from_utf8(rest).ok()? },
            b'X' if rest.len() == 24 => Packet::Exited(Exit {
                seq: u64_at(rest, 0)?,
                pid: u32_at(rest, 8)? as i32,
                status: u32_at(rest, 12)? as i32,
                at_ms: u64_at(rest, 16)? as i64,
            }),
            b'Z' if rest.len() == 12 => Packet::Ready { lost: u64_at(rest, 0)?, restarts: u32_at(rest, 8)? },
            _ => return None,
        })
    }
}

fn keyed(out: &mut Vec<u8>, tag: u8, request: u32, text: &str) {
    out.push(tag);
    out.extend_from_slice(&request.to_ne_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(PACKET_BYTES_MAX - 16);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_comes_back_and_cut_ones_do_not_panic() {
        let exit = Exit { seq: 7, pid: 4_000_000, status: 0x2a00, at_ms: -1 };
        let packets = [
            Packet::Hello,
            Packet::Put { request: 1, key: "c1/out" },
            Packet::Drop { request: 2, key: "c1/out" },
            Packet::Ack { seq: u64::MAX },
            Packet::Done { request: 3 },
            Packet::Refused { request: 4, why: "full" },
            Packet::Stored { key: "k" },
            Packet::Exited(exit),
            Packet::Ready { lost: 1, restarts: 2 },
        ];
        let mut bytes = Vec::new();
        for packet in packets {
            packet.encode(&mut bytes);
            assert!(bytes.len() <= PACKET_BYTES_MAX);
            assert_eq!(Packet::decode(&bytes), Some(packet));
            for len in 0..bytes.len() {
                let _ = Packet::decode(&bytes[..len]);
            }
        }
        let long = "é".repeat(400);
        Packet::Refused { request: 1, why: &long }.encode(&mut bytes);
        assert!(bytes.len() <= PACKET_BYTES_MAX && Packet::decode(&bytes).is_some());
    }

    #[test]
    fn bad_packets_are_refused() {
        for bad in [&b""[..], b"H1", b"P\0\0\0\0", b"D\0\0\0\0\xff", b"A1234567", b"X", b"Q"] {
            assert_eq!(Packet::decode(bad), None, "{bad:?}");
        }
        let mut long = vec![b'P', 0, 0, 0, 0];
        long.extend(std::iter::repeat_n(b'a', KEY_BYTES_MAX + 1));
        assert_eq!(Packet::decode(&long), None);
    }
}
