//! Small clients: WebSocket through tokio-tungstenite, SPDY through the codec in client's role.

use super::*;
use crate::streaming::spdy::{Decoder, Encoder, Frame, Headers};
use futures_util::{SinkExt, StreamExt};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;

pub struct WsClient {
    socket: WebSocketStream<DuplexStream>,
    pub protocol: String,
}

impl WsClient {
    /// The refusal is "code: body".
    pub async fn connect(io: DuplexStream, protocols: &str) -> Result<WsClient, String> {
        let mut request = "ws://hub/x".into_client_request().unwrap();
        if !protocols.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
        }
        match tokio_tungstenite::client_async(request, io).await {
            Ok((socket, response)) => {
                let protocol =
                    response.headers().get("sec-websocket-protocol").map(|v| v.to_str().unwrap().to_owned());
                Ok(WsClient { socket, protocol: protocol.unwrap_or_default() })
            }
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err(format!("{}: {}", response.status().as_u16(), String::from_utf8_lossy(&body)))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.send(Message::Binary(Bytes::copy_from_slice(bytes))).await.unwrap();
    }

    /// The very first message, and whether more came in a tenth of a second in which nothing was answered.
    pub async fn first(&mut self) -> (Message, bool) {
        let first = self.socket.next().await.unwrap().unwrap();
        let mut byte = [0];
        let more = timeout(Duration::from_millis(100), self.socket.get_mut().read(&mut byte)).await;
        (first, more.is_ok())
    }

    /// All bytes until the end, from a client that sends nothing.
    pub async fn silent(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        let io = self.socket.get_mut();
        while !all.ends_with(&[0x88, 2, 3, 0xe8]) {
            if io.read_buf(&mut all).await.unwrap() == 0 {
                break;
            }
        }
        all
    }

    /// The next message with content; None at the close.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => return Some(bytes),
                Some(Ok(Message::Text(text))) => return Some(text.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(frame))) => {
                    assert_eq!(
                        frame.map(|f| u16::from(f.code)),
                        Some(1000),
                        "Go's clients want to hear that all is well"
                    );
                    return None;
                }
                None => return None,
                other => panic!("{other:?}"),
            }
        }
    }
}

pub enum SpdyWire {
    Tunnel(Box<WsClient>),
    Bare(DuplexStream),
}

pub struct SpdyClient {
    wire: SpdyWire,
    encoder: Encoder,
    decoder: Decoder,
    next_id: u32,
}

impl SpdyClient {
    pub fn new(wire: SpdyWire) -> SpdyClient {
        SpdyClient { wire, encoder: Encoder::new().unwrap(), decoder: Decoder::new(), next_id: 1 }
    }

    /// The upgrade of the bare connection, by hand.
    pub async fn upgrade(mut io: DuplexStream, protocol: &str) -> SpdyClient {
        let head = format!(
            "POST /x HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: \
                SPDY/3.1\r\nX-Stream-Protocol-Version: {protocol}\r\n\r\n"
        );
        io.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(io.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{answer}");
        assert!(answer.contains(&format!("x-stream-protocol-version: {protocol}")), "{answer}");
        SpdyClient::new(SpdyWire::Bare(io))
    }

    pub async fn send(&mut self, frame: Frame) {
        let bytes = self.encoder.frame(&frame).unwrap();
        match &mut self.wire {
            SpdyWire::Tunnel(socket) => socket.send(&bytes).await,
            SpdyWire::Bare(io) => io.write_all(&bytes).await.unwrap(),
        }
    }

    pub async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        self.send(Frame::SynStream { id, fin: false, headers: Headers::of(headers) }).await;
        id
    }

    pub async fn data(&mut self, id: u32, bytes: &'static [u8], fin: bool) {
        self.send(Frame::Data { id, fin, bytes: Bytes::from_static(bytes) }).await;
    }

    /// The next frame but replies; None at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next().unwrap() {
                Some(Frame::SynReply { .. }) => continue,
                Some(frame) => return Some(frame),
                None => {}
            }
            match &mut self.wire {
                SpdyWire::Tunnel(socket) => self.decoder.push(&socket.next().await?),
                SpdyWire::Bare(io) => {
                    let mut buffer = vec![0; 4096];
                    match io.read(&mut buffer).await.unwrap() {
                        0 => return None,
                        n => self.decoder.push(&buffer[..n]),
                    }
                }
            }
        }
    }

    /// Frames until the end, data joined by stream: (id, bytes, finished).
    pub async fn rest(&mut self) -> Vec<(u32, String, bool)> {
        let mut found: Vec<(u32, String, bool)> = Vec::new();
        while let Some(frame) = self.next().await {
            note(&mut found, frame);
        }
        found.sort();
        found
    }

    /// Frames until these streams are finished.
    pub async fn until_finished(&mut self, ids: &[u32]) -> Vec<(u32, String, bool)> {
        let mut found = Vec::new();
        while !ids.iter().all(|id| found.iter().any(|(i, _, fin)| i == id && *fin)) {
            note(&mut found, self.next().await.expect("the connection goes on"));
        }
        found.sort();
        found
    }
}

fn note(found: &mut Vec<(u32, String, bool)>, frame: Frame) {
    let Frame::Data { id, fin, bytes } = frame else { panic!("{frame:?}") };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    match found.iter_mut().find(|(i, _, _)| *i == id) {
        Some((_, all, finished)) => {
            assert!(!*finished, "a frame behind the last one");
            all.push_str(&text);
            *finished = fin;
        }
        None => found.push((id, text, fin)),
    }
}
