//! Every parser of the link on the board against spoilt input: what a hub, a proxy or whoever sits between could send.
//!
//! In: answers that were good once (`corpus.txt`, and what once was trouble), spoilt by a seed. Out: an answer or a refusal,
//! within bounds. `LIMPET_FUZZ_ROUNDS` for more than CI has time for.

use super::{der, http, join, mqtt, road, websocket::WebSocket};
use limpet_protocol::join::{JoinAnswer, JoinWaits};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const CORPUS: &str = include_str!("corpus.txt");
const PACKET_BYTES_MAX: usize = 4096;

/// Lines of a kind: `kind hex`.
fn corpus(kind: &str) -> Vec<Vec<u8>> {
    let lines = CORPUS.lines().filter_map(|l| l.strip_prefix(kind)?.strip_prefix(' '));
    let byte = |line: &str, i: usize| u8::from_str_radix(&line[i * 2..i * 2 + 2], 16).unwrap();
    lines.map(|l| (0..l.len() / 2).map(|i| byte(l, i)).collect()).collect()
}

fn rounds(usual: usize) -> usize {
    std::env::var("LIMPET_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// xorshift; chance with a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % n.max(1) as u64) as usize
    }

    fn spoilt(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                _ if bytes.is_empty() => bytes.push(0),
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, self.below(256) as u8),
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Packets until the end; how many, and that none is over the bound.
async fn packets(mut reader: mqtt::Reader<&[u8]>) -> usize {
    let mut count = 0;
    while let Ok(packet) = reader.next().await {
        if let mqtt::Packet::Publish(payload) = &packet {
            assert!(payload.len() <= PACKET_BYTES_MAX);
        }
        count += 1;
    }
    count
}

#[test]
fn mqtt_from_the_hub() {
    let (seeds, mut chance, mut good) = (corpus("mqtt"), Chance(0x5eed), 0);
    let rounds = rounds(20_000);
    block(async {
        for _ in 0..rounds {
            good += packets(mqtt::Reader::new(&chance.spoilt(&seeds), PACKET_BYTES_MAX)).await;
        }
    });
    assert!(good > rounds / 4, "the spoiling is too rough to reach anything: {good}");
}

#[test]
fn mqtt_5_from_a_broker() {
    let (seeds, mut chance, mut good) = (corpus("mqtt5"), Chance(0x5eed), 0);
    let rounds = rounds(20_000);
    block(async {
        for _ in 0..rounds {
            let bytes = chance.spoilt(&seeds);
            good += packets(mqtt::Reader::patient(&bytes, PACKET_BYTES_MAX, mqtt::Version::V5)).await;
        }
    });
    assert!(good > rounds / 4, "the spoiling is too rough to reach anything: {good}");
}

#[test]
fn frames_of_a_web_socket() {
    let (seeds, mut chance, mut good) = (corpus("frames"), Chance(7), 0);
    block(async {
        for _ in 0..rounds(10_000) {
            let bytes = chance.spoilt(&seeds);
            let (near, mut far) = duplex(64 * 1024);
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let mut socket = WebSocket::new(near);
            let mut read = Vec::new();
            if (&mut socket).take(1 << 16).read_to_end(&mut read).await.is_ok() {
                good += 1;
            }
            assert!(read.len() <= bytes.len(), "bytes out of nothing");
        }
    });
    assert!(good > 1000, "{good}");
}

/// A hub that asks for ever whether somebody is there, and takes no answer.
#[test]
fn endless_pings_cost_nothing() {
    block(async {
        let (near, mut far) = duplex(1 << 20);
        let ping = [&[0x89, 125][..], &[0; 125]].concat();
        for _ in 0..8000 {
            far.write_all(&ping).await.unwrap();
        }
        far.shutdown().await.unwrap();
        let mut socket = WebSocket::new(near);
        assert_eq!(socket.read(&mut [0; 16]).await.unwrap(), 0);
        assert!(socket.waiting_bytes() <= 8192, "{} bytes of answers wait", socket.waiting_bytes());
    });
}

#[test]
fn heads_of_proxies_and_of_web_sockets() {
    let (seeds, mut chance) = (corpus("head"), Chance(11));
    let endless = vec![b'a'; 1 << 16];
    block(async {
        assert!(road::read_head(&mut &endless[..]).await.is_err(), "an answer without end");
        for _ in 0..rounds(10_000) {
            let bytes = chance.spoilt(&seeds);
            if let Ok(head) = road::read_head(&mut &bytes[..]).await {
                assert!(head.ends_with("\r\n\r\n"));
            }
        }
    });
}

#[test]
fn certificates_answers_and_addresses() {
    let mut chance = Chance(13);
    let (ders, answers, texts) = (corpus("der"), corpus("answer"), corpus("text"));
    assert!(der::validity(&ders[0]).is_some() && serde_json::from_slice::<JoinAnswer>(&answers[0]).is_ok());
    for _ in 0..rounds(20_000) {
        let _ = der::validity(&chance.spoilt(&ders));
        let answer = chance.spoilt(&answers);
        let _ = (serde_json::from_slice::<JoinAnswer>(&answer), serde_json::from_slice::<JoinWaits>(&answer));
        assert!(join::reason(&answer).chars().count() <= 500);
        let text = chance.spoilt(&texts);
        let text = String::from_utf8_lossy(&text);
        let _ = (road::Target::parse(&text), road::Proxy::parse(&text), join::parse_token(&text));
        let _ = (http::host_of(&text), http::port_of(&text));
    }
}

/// The hub's HTTP answers, through a real socket: a refusal or an answer within its bound, never a hang.
#[test]
fn http_from_the_hub() {
    let (seeds, mut chance, mut good) = (corpus("http"), Chance(17), 0);
    block(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        for _ in 0..rounds(400).min(5000) {
            let bytes = chance.spoilt(&seeds);
            let answer = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 1024]).await;
                let _ = socket.write_all(&bytes).await;
            };
            let request = hyper::Request::get("/").header("host", "hub").body(http_body_util::Full::default()).unwrap();
            let ask = http::send((&target, None), None, request, http::Body::Whole(256), Duration::from_secs(20));
            let (said, ()) = tokio::join!(ask, answer);
            if let Ok(answer) = said {
                assert!(answer.body.len() <= 256);
                good += 1;
            }
        }
    });
    assert!(good > 20, "{good}");
}
