//! Kubernetes' channel protocols over WebSocket: the first byte of a message says which stream it belongs
//! to.
//!
//! In: messages, or channel and bytes. Out: the one from the other; binary, or base64 with the channel as
//! a digit.
//! Never: knows what the channels are for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::Message;

pub const STDIN: u8 = 0;
pub const STDOUT: u8 = 1;
pub const STDERR: u8 = 2;
pub const ERROR: u8 = 3;
pub const RESIZE: u8 = 4;
/// v5: the payload's first byte is the channel that the client has finished with.
pub const CLOSE: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Binary,
    Base64,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub form: Form,
    /// From v4 on the error channel carries a metav1.Status, before that plain text.
    pub status: bool,
    /// From v5 on a client can end its stdin.
    pub close: bool,
    number: u8,
}

pub const EXEC_PROTOCOLS: &[&str] = &[
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.base64.channel.k8s.io",
    "v2.base64.channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

impl Version {
    pub fn of(protocol: &str) -> Version {
        let form = if protocol.contains("base64.") { Form::Base64 } else { Form::Binary };
        let number = protocol
            .strip_prefix('v')
            .and_then(|rest| rest.split('.').next()?.parse::<u8>().ok())
            .unwrap_or(1);
        Version { form, status: number >= 4, close: number >= 5, number }
    }

    /// From v3 on terminals have sizes.
    pub fn resizes(self) -> bool {
        self.number >= 3
    }
}

impl Form {
    pub fn encode(self, channel: u8, bytes: &[u8]) -> Message {
        match self {
            Form::Binary => {
                let mut message = BytesMut::with_capacity(bytes.len() + 1);
                message.extend_from_slice(&[channel]);
                message.extend_from_slice(bytes);
                Message::Binary(message.freeze())
            }
            Form::Base64 => {
                let mut text = String::with_capacity(bytes.len() * 4 / 3 + 5);
                text.push(char::from(b'0'.wrapping_add(channel)));
                STANDARD.encode_string(bytes, &mut text);
                Message::text(text)
            }
        }
    }

    /// None for messages that are not of this protocol (pings and the like).
    pub fn decode(self, message: Message) -> Option<(u8, Bytes)> {
        match (self, message) {
            (Form::Binary, Message::Binary(mut bytes)) => {
                let channel = *bytes.first()?;
                Some((channel, bytes.split_off(1)))
            }
            (Form::Base64, Message::Text(text)) => base64(text.as_bytes()),
            // Some clients send the text in binary messages.
            (Form::Base64, Message::Binary(bytes)) => base64(&bytes),
            _ => None,
        }
    }
}

fn base64(text: &[u8]) -> Option<(u8, Bytes)> {
    let (channel, data) = text.split_first()?;
    Some((channel.wrapping_sub(b'0'), STANDARD.decode(data).ok()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let cases = [
            ("", Form::Binary, false, false),
            ("channel.k8s.io", Form::Binary, false, false),
            ("base64.channel.k8s.io", Form::Base64, false, false),
            ("v2.channel.k8s.io", Form::Binary, false, false),
            ("v4.channel.k8s.io", Form::Binary, true, false),
            ("v4.base64.channel.k8s.io", Form::Base64, true, false),
            ("v5.channel.k8s.io", Form::Binary, true, true),
        ];
        for (protocol, form, status, close) in cases {
            let version = Version::of(protocol);
            assert_eq!((version.form, version.status, version.close), (form, status, close), "{protocol}");
        }
    }

    #[test]
    fn messages_round_trip() {
        for form in [Form::Binary, Form::Base64] {
            for (channel, bytes) in [(0, &b"hi"[..]), (4, b""), (3, b"\xff\x00")] {
                let message = form.encode(channel, bytes);
                assert_eq!(form.decode(message), Some((channel, Bytes::copy_from_slice(bytes))));
            }
        }
        assert_eq!(Form::Base64.encode(1, b"hello"), Message::text("1aGVsbG8="));
        assert_eq!(Form::Base64.decode(Message::text("0#")), None);
        assert_eq!(Form::Binary.decode(Message::Binary(Bytes::new())), None);
        assert_eq!(Form::Binary.decode(Message::Ping(Bytes::new())), None);
    }
}
