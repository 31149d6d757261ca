//! gRPC over HTTP/2 as far as a board needs it: one call on a connection, or a small service behind a Unix socket.
//!
//! In: a stream of bytes, a path, a message. Out: messages, or the status with its words.
//! Only what is needed of RFC 9113, RFC 7541 and gRPC's own mapping is here: no compression, no TLS, no state between header
//! blocks (the other side is told to keep none).
//! Never: a frame, a header block or a message without a bound.

mod call;
mod frame;
mod hpack;
mod serve;
pub mod wire;

pub use call::Call;
pub use serve::{Answer, Answering, serve};

use tokio::io::{AsyncRead, AsyncWrite};

/// One message, in either direction.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What may be sent before the other side gives more room (RFC 9113, 6.9.2), without the frame around it.
pub const REQUEST_BYTES_MAX: usize = 60_000;
/// Of a kind that has no name.
pub const UNKNOWN: u8 = 2;
/// Method or service that is not there.
pub const UNIMPLEMENTED: u8 = 12;
pub const INVALID_ARGUMENT: u8 = 3;
const RESOURCE_EXHAUSTED: u8 = 8;
pub const UNAVAILABLE: u8 = 14;

/// TCP and Unix sockets by one piece of code.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

pub type Stream = Box<dyn Io>;

/// The first whole message in front of `body`, taken out of it.
fn take_message(body: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some((head, rest)) = body.split_at_checked(5) else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 {
        return Err("the message is compressed, which was not asked for".into());
    }
    if length > MESSAGE_BYTES_MAX {
        return Err(format!("the message has {length} bytes; {MESSAGE_BYTES_MAX} are allowed"));
    }
    if rest.len() < length {
        return Ok(None);
    }
    let message = rest[..length].to_vec();
    body.drain(..5 + length);
    Ok(Some(message))
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out
}

#[cfg(test)]
mod tests;
