//! The time: never before the last good one, from time servers as soon as there is a network.
//!
//! In: /data/os/time, SNTP (RFC 4330). Out: the system's clock; the last good time, kept once a day.
//! Never: believes an answer that it did not ask for; a write a minute to the card.

use crate::{log::say, net::Network, node::Node};
use nix::{sys::time::TimeSpec, time::{ClockId, clock_settime}};
use std::{
    fs,
    net::{ToSocketAddrs, UdpSocket},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const FILE: &str = "/data/os/time";
/// 2026: this program is not older.
const BUILT: u64 = 1_767_225_600;
const NTP_EPOCH: u64 = 2_208_988_800;
const ANSWER: Duration = Duration::from_secs(3);
const AGAIN_MIN: Duration = Duration::from_secs(15);
const AGAIN_MAX: Duration = Duration::from_secs(4 * 3600);
const KEEP_EVERY: u64 = 24 * 3600;

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn set(to: Duration) -> bool {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(to)).is_ok()
}

fn kept(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

/// Boards without a clock wake up in 1970, where no certificate is valid yet.
pub fn restore() {
    let floor = kept(Path::new(FILE)).max(BUILT);
    if now().as_secs() < floor {
        set(Duration::from_secs(floor));
    }
}

pub struct Keeper {
    servers: Vec<String>,
    next: Instant,
    wait: Duration,
    kept: u64,
    answers: Option<std::sync::mpsc::Receiver<Option<Duration>>>,
}

impl Keeper {
    pub fn new(node: &Node, network: &Network) -> Keeper {
        let mut servers: Vec<String> = node.ntp.clone();
        servers.extend(network.ntp.iter().map(ToString::to_string));
        if servers.is_empty() {
            servers.extend((0..4).map(|n| format!("{n}.debian.pool.ntp.org")));
        }
        Keeper { servers, next: Instant::now(), wait: AGAIN_MIN, kept: kept(Path::new(FILE)), answers: None }
    }

    /// Asking may block on names: a thread does it, this only looks for its answer.
    pub fn look_after(&mut self) {
        if let Some(answers) = &self.answers {
            match answers.try_recv() {
                Ok(answer) => {
                    self.answers = None;
                    self.wait = if answer.is_some() { AGAIN_MAX } else { (self.wait * 2).min(AGAIN_MAX) };
                    self.next = Instant::now() + self.wait;
                    answer.into_iter().for_each(|time| self.believe(time));
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(_) => self.answers = None,
            }
        } else if Instant::now() >= self.next {
            let (servers, (send, receive)) = (self.servers.clone(), std::sync::mpsc::channel());
            self.answers = Some(receive);
            std::thread::spawn(move || send.send(servers.iter().find_map(|s| ask(s))));
        }
    }

    fn believe(&mut self, time: Duration) {
        let off = time.as_millis() as i128 - now().as_millis() as i128;
        if off.abs() > 200 && time.as_secs() >= BUILT && set(time) {
            say!("the clock was {off} ms off");
        }
        if time.as_secs() >= self.kept + KEEP_EVERY {
            self.kept = time.as_secs();
            let _ = crate::slots::replace(Path::new(FILE), format!("{}\n", self.kept).as_bytes());
        }
    }
}

fn ask(server: &str) -> Option<Duration> {
    let address = (server, 123).to_socket_addrs().ok()?.next()?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.set_read_timeout(Some(ANSWER)).ok()?;
    // A connected socket hears only whom it asked.
    socket.connect(address).ok()?;
    let start = Instant::now();
    let mut question = [0u8; 48];
    question[0] = 0b00_100_011;
    // Not the time, but a number that the answer must repeat.
    let nonce = (now().as_nanos() as u64 ^ u64::from(std::process::id())).to_be_bytes();
    question[40..48].copy_from_slice(&nonce);
    socket.send(&question).ok()?;
    let mut answer = [0u8; 48];
    let got = socket.recv(&mut answer).ok()?;
    parse(&answer[..got], &nonce).map(|time| time + start.elapsed() / 2)
}

fn parse(answer: &[u8], nonce: &[u8; 8]) -> Option<Duration> {
    let stratum = *answer.get(1)?;
    let leap = answer[0] >> 6;
    let is_answer = answer.len() >= 48 && answer[0] & 7 == 4 && leap != 3 && (1..16).contains(&stratum);
    if !is_answer || answer[24..32] != *nonce {
        return None;
    }
    let word = |at: usize| u64::from(u32::from_be_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]));
    // Era 1 begins in 2036: smaller numbers are later.
    let seconds = word(40) + if word(40) < NTP_EPOCH { 1 << 32 } else { 0 };
    Some(Duration::new(seconds.checked_sub(NTP_EPOCH)?, ((word(44) * 1_000_000_000) >> 32) as u32))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_doubted() {
        let nonce = [7; 8];
        let mut answer = [0u8; 48];
        (answer[0], answer[1]) = (0b00_100_100, 2);
        answer[24..32].copy_from_slice(&nonce);
        answer[40..44].copy_from_slice(&((1_800_000_000 + NTP_EPOCH) as u32).to_be_bytes());
        answer[44] = 0x80;
        assert_eq!(parse(&answer, &nonce), Some(Duration::from_millis(1_800_000_000_500)));
        answer[40..44].copy_from_slice(&5u32.to_be_bytes());
        assert_eq!(parse(&answer, &nonce).unwrap().as_secs(), (1u64 << 32) + 5 - NTP_EPOCH);
        assert_eq!(parse(&answer, &[8; 8]), None);
        assert_eq!(parse(&answer[..47], &nonce), None);
        assert_eq!(parse(&[], &nonce), None);
        for (at, value) in [(0, 0b11_100_100), (0, 0b00_100_011), (1, 0), (1, 16)] {
            let mut bad = answer;
            bad[at] = value;
            assert_eq!(parse(&bad, &nonce), None);
        }
    }
}
