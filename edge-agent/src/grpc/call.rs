//! One call: a request, and the messages that come back.
//!
//! In: a connected stream, a method's path, a message. Out: each message as it comes, then the end or the status.
//! Never: a second call on the same connection.

use super::{MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, Stream, frame, hpack, take_message};
use std::io;
use tokio::io::AsyncWriteExt;

/// Frames without a whole message among them.
const FRAMES_MAX: usize = 4096;
const STREAM: u32 = 1;

pub struct Call {
    io: Stream,
    body: Vec<u8>,
    ended: bool,
    status: Option<(String, String)>,
}

impl Call {
    /// `authority`: the host of a TCP address, anything of a Unix socket.
    pub async fn begin(mut io: Stream, authority: &str, path: &str, message: &[u8]) -> io::Result<Call> {
        if message.len() > REQUEST_BYTES_MAX {
            return Err(io::Error::other(format!("the request has {} bytes; {REQUEST_BYTES_MAX} are allowed", message.len())));
        }
        // :method POST, :scheme http, then by the static table: :path, :authority, content-type.
        let mut headers = vec![0x83, 0x86];
        hpack::put(&mut headers, Ok(4), path);
        hpack::put(&mut headers, Ok(1), authority);
        hpack::put(&mut headers, Ok(31), "application/grpc");
        hpack::put(&mut headers, Err("te"), "trailers");
        let mut out = frame::PREFACE.to_vec();
        frame::put_settings(&mut out);
        frame::put(&mut out, frame::HEADERS, frame::END_HEADERS, STREAM, &headers);
        frame::put_data(&mut out, frame::END_STREAM, STREAM, &super::framed(message));
        io.write_all(&out).await?;
        Ok(Call { io, body: Vec::new(), ended: false, status: None })
    }

    /// The next message; `None` at a good end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, String> {
        for _ in 0..FRAMES_MAX {
            if let Some(message) = take_message(&mut self.body)? {
                return Ok(Some(message));
            }
            if self.ended {
                return self.end().map(|()| None);
            }
            self.frame().await?;
        }
        Err("frames came without end, and no message".into())
    }

    async fn frame(&mut self) -> Result<(), String> {
        let text = |e: io::Error| e.to_string();
        let got = frame::read(&mut self.io).await.map_err(text)?;
        let mut out = got.reply().unwrap_or_default();
        match (got.kind, got.stream) {
            (frame::DATA, STREAM) => {
                if self.body.len() + got.body.len() > MESSAGE_BYTES_MAX + frame::FRAME_BYTES_MAX {
                    return Err(format!("more than {MESSAGE_BYTES_MAX} bytes came for one message"));
                }
                self.body.extend_from_slice(&got.body);
                if !got.body.is_empty() {
                    let room = (got.body.len() as u32).to_be_bytes();
                    frame::put(&mut out, frame::WINDOW_UPDATE, 0, 0, &room);
                    frame::put(&mut out, frame::WINDOW_UPDATE, 0, STREAM, &room);
                }
            }
            (frame::HEADERS, STREAM) => self.headers(&got.body)?,
            (frame::RST_STREAM, STREAM) => return Err("the server gave the call up".into()),
            (frame::GOAWAY, _) if got.body.get(4..8) != Some(&[0; 4]) => return Err("the server ended the connection".into()),
            _ => {}
        }
        self.ended |= got.stream == STREAM && got.ends();
        match out.is_empty() || self.ended {
            true => Ok(()),
            false => self.io.write_all(&out).await.map_err(text),
        }
    }

    fn headers(&mut self, block: &[u8]) -> Result<(), String> {
        let fields = hpack::decode(block)?;
        let find = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.clone());
        if let Some(code) = find(":status").filter(|code| code != "200") {
            return Err(format!("the server answered with HTTP status {code}"));
        }
        if let Some(code) = find("grpc-status") {
            self.status = Some((code, find("grpc-message").unwrap_or_default()));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        match self.status.take() {
            Some((code, _)) if code == "0" => Ok(()),
            Some((code, words)) => Err(format!("{} (gRPC status {code})", plain(&words))),
            None => Err("the call ended without a status".into()),
        }
    }
}

/// `grpc-message` is percent-encoded; control characters have no place in a pod's status.
fn plain(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        let code = more.get(..2).and_then(|two| std::str::from_utf8(two).ok()).and_then(|two| u8::from_str_radix(two, 16).ok());
        match code.filter(|_| *first == b'%') {
            Some(code) => {
                bytes.push(code);
                rest = &more[2..];
            }
            None => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    String::from_utf8_lossy(&bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).take(1024).collect()
}
