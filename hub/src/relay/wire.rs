//! Frames on a connection between hubs: four bytes of length, then the frame; an empty one only says that its sender is there.
//!
//! In: a connection, frames of a stream. Out: frames. Never: a frame above `FRAME_BYTES_MAX`; waits for somebody who is silent.

use limpet_protocol::{Down, Envelope, PROTOCOL_VERSION_MIN, StreamFrame, Up};
use serde::{Serialize, de::DeserializeOwned};
use std::{io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

/// The lines of a kept log are the longest.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// So often somebody who has nothing to say says so.
const QUIET: Duration = Duration::from_secs(15);
/// Who is not heard of for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);

fn wrong(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

/// The next frame that is not empty. Not to be dropped in the middle.
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "it is silent");
    loop {
        let length = tokio::time::timeout(SILENCE, from.read_u32()).await.map_err(silent)??;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(wrong(format!("a frame of {length} bytes")));
        }
        if length == 0 {
            continue;
        }
        // Room is made for what has come, not for what was announced.
        let mut frame = Vec::new();
        let mut body = (&mut *from).take(length as u64);
        tokio::time::timeout(SILENCE, body.read_to_end(&mut frame)).await.map_err(silent)??;
        return if frame.len() == length { Ok(frame) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
    }
}

pub async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(wrong)?;
    to.write_all(&[&length.to_be_bytes(), frame].concat()).await?;
    to.flush().await
}

pub async fn read_word<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    serde_json::from_slice(&read(from).await?).map_err(wrong)
}

pub async fn write_word(to: &mut (impl AsyncWrite + Unpin), word: &impl Serialize) -> io::Result<()> {
    write(to, &serde_json::to_vec(word)?).await
}

/// Frames of a stream have the words and bounds that they have on their way to a board.
pub async fn read_from_holder(from: &mut (impl AsyncRead + Unpin)) -> io::Result<StreamFrame> {
    match Envelope::<Up>::decode(&read(from).await?).map_err(wrong)?.message {
        Up::Stream(frame) => Ok(frame),
        _ => Err(wrong("a message that is no frame of a stream")),
    }
}

pub async fn read_from_asker(from: &mut (impl AsyncRead + Unpin)) -> io::Result<StreamFrame> {
    match Envelope::<Down>::decode(&read(from).await?).map_err(wrong)?.message {
        Down::Stream(frame) => Ok(frame),
        _ => Err(wrong("a message that is no frame of a stream")),
    }
}

pub fn to_holder(frame: StreamFrame) -> Vec<u8> {
    Envelope { session: 0, message: Down::Stream(frame) }.encode(PROTOCOL_VERSION_MIN)
}

pub fn to_asker(frame: StreamFrame) -> Vec<u8> {
    Envelope { session: 0, message: Up::Stream(frame) }.encode(PROTOCOL_VERSION_MIN)
}

/// Writes what comes until nobody is left who could say more, and shows in between that this side is there.
pub async fn write_all(
    mut to: impl AsyncWrite + Unpin,
    mut frames: mpsc::Receiver<StreamFrame>,
    encode: fn(StreamFrame) -> Vec<u8>,
) -> io::Result<()> {
    loop {
        match tokio::time::timeout(QUIET, frames.recv()).await {
            Ok(Some(frame)) => write(&mut to, &encode(frame)).await?,
            Ok(None) => return to.shutdown().await,
            Err(_) => write(&mut to, &[]).await?,
        }
    }
}
