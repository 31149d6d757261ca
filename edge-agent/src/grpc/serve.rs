//! A service of unary calls on one connection.
//!
//! In: a stream, a function from path and message to an answer. Out: answers in the order in which requests are whole.
//! Never: more than a few requests at a time, or one that is read without a bound.

use super::{MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX, RESOURCE_EXHAUSTED, Stream, UNIMPLEMENTED, frame, hpack, take_message};
use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::pin::Pin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const STREAMS_MAX: usize = 8;
/// Of one connection; whoever needs more connects again.
const FRAMES_MAX: usize = 10_000;

/// The message, or a status with its words.
pub type Answer = std::result::Result<Vec<u8>, (u8, String)>;

/// What becomes an answer. The connection's next request waits for it.
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Until the other side goes.
pub async fn serve(mut io: Stream, answer: &(dyn Fn(&str, &[u8]) -> Answering + Sync)) -> Result<()> {
    let mut preface = [0; frame::PREFACE.len()];
    io.read_exact(&mut preface).await?;
    if preface != *frame::PREFACE {
        return Err(Error::other("this is not HTTP/2"));
    }
    let mut out = Vec::new();
    frame::put_settings(&mut out);
    io.write_all(&out).await?;
    let mut open: BTreeMap<u32, (String, Vec<u8>)> = BTreeMap::new();
    for _ in 0..FRAMES_MAX {
        let got = frame::read(&mut io).await?;
        let mut out = got.reply().unwrap_or_default();
        match got.kind {
            frame::HEADERS => {
                let fields = hpack::decode(&got.body).map_err(Error::other)?;
                let path = fields.into_iter().find(|(name, _)| name == ":path").map(|(_, value)| value);
                // Trailers of a request say nothing that matters.
                open.entry(got.stream).or_insert_with(|| (path.unwrap_or_default(), Vec::new()));
                if open.len() > STREAMS_MAX {
                    return Err(Error::other("too many requests at a time"));
                }
            }
            frame::DATA => {
                let Some((_, body)) = open.get_mut(&got.stream) else { continue };
                if body.len() + got.body.len() > MESSAGE_BYTES_MAX {
                    return Err(Error::other("a request is too large"));
                }
                body.extend_from_slice(&got.body);
                if !got.body.is_empty() {
                    let room = (got.body.len() as u32).to_be_bytes();
                    frame::put(&mut out, frame::WINDOW_UPDATE, 0, 0, &room);
                    frame::put(&mut out, frame::WINDOW_UPDATE, 0, got.stream, &room);
                }
            }
            frame::RST_STREAM => drop(open.remove(&got.stream)),
            _ => {}
        }
        if got.ends()
            && let Some((path, mut body)) = open.remove(&got.stream)
        {
            let done = match take_message(&mut body) {
                Ok(Some(message)) => answer(&path, &message).await.and_then(short),
                Ok(None) => Err((UNIMPLEMENTED, "a request without a message".into())),
                Err(why) => Err((UNIMPLEMENTED, why)),
            };
            put_answer(&mut out, got.stream, done);
        }
        if !out.is_empty() {
            io.write_all(&out).await?;
        }
    }
    Ok(())
}

/// More would need room that the other side has not given.
fn short(message: Vec<u8>) -> Answer {
    match message.len() > REQUEST_BYTES_MAX {
        true => Err((RESOURCE_EXHAUSTED, format!("the answer has {} bytes", message.len()))),
        false => Ok(message),
    }
}

fn put_answer(out: &mut Vec<u8>, stream: u32, answer: Answer) {
    // :status 200 and content-type by the static table.
    let mut headers = vec![0x88];
    hpack::put(&mut headers, Ok(31), "application/grpc");
    match answer {
        Ok(message) => {
            frame::put(out, frame::HEADERS, frame::END_HEADERS, stream, &headers);
            frame::put_data(out, 0, stream, &super::framed(&message));
            let mut trailers = Vec::new();
            hpack::put(&mut trailers, Err("grpc-status"), "0");
            frame::put(out, frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, stream, &trailers);
        }
        Err((code, words)) => {
            let plain = |b: &u8| (b' '..=b'~').contains(b) && *b != b'%';
            let words: String =
                words.bytes().map(|b| if plain(&b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect();
            hpack::put(&mut headers, Err("grpc-status"), &code.to_string());
            hpack::put(&mut headers, Err("grpc-message"), &words);
            frame::put(out, frame::HEADERS, frame::END_HEADERS | frame::END_STREAM, stream, &headers);
        }
    }
}
