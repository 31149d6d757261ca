//! Frames: round trips, refusals, bounds, and the golden bytes of every version.

use super::*;
use crate::SetDigest;
use alloc::{format, string::String, vec};

fn hello() -> Envelope<Up> {
    let hello = Hello { boot_id: "b".into(), speaks: (1, 3), ..Hello::default() };
    Envelope { session: 7, message: Up::Hello(hello) }
}

fn report(len: usize) -> Envelope<Up> {
    let status = r#"{"phase":"Running","podIP":"10.42.0.7","qosClass":"BestEffort","startTime":"2026-11-25T10:00:00Z"}"#;
    let report = PodReport {
        uid: "6b0d4e9e-0a39-4d0f-9f7c-6a4a4f0a8f11".into(),
        namespace: "default".into(),
        name: "web-7d9c".into(),
        version: 9,
        status: status.bytes().cycle().take(len).collect(),
    };
    Envelope { session: 7, message: Up::PodReport(report) }
}

#[test]
fn encodes_and_decodes_in_every_version() {
    for version in PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION {
        for envelope in [hello(), report(0), report(900)] {
            assert_eq!(Envelope::<Up>::decode(&envelope.encode(version)), Ok(envelope));
        }
    }
    assert_eq!(hello().encode(3), hello().encode(1), "greetings are for everybody");
    let (plain, squeezed) = (report(104).encode(1).len(), report(104).encode(2).len());
    assert!(squeezed * 3 < plain * 2, "{squeezed} of {plain}");
}

#[test]
fn versions_meet_in_the_middle() {
    let own = (PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);
    for (theirs, want) in
        [((1, 1), Some(1)), ((1, 2), Some(2)), ((2, 5), Some(4)), ((3, 9), Some(4)), ((5, 9), None), ((0, 0), None)]
    {
        assert_eq!(common_version(theirs, own), want, "{theirs:?}");
    }
}

#[test]
fn refuses_what_is_not_a_message() {
    assert_eq!(Envelope::<Up>::decode(&[]), Err(DecodeError::Empty));
    let mut bytes = hello().encode(1);
    bytes.push(0);
    assert_eq!(Envelope::<Up>::decode(&bytes), Err(DecodeError::LeftOver(1)));
    for head in [0, 5, 0x3f, 0x40, 0x41, 0x80, 0x81, 0xff] {
        bytes[0] = head;
        assert_eq!(Envelope::<Up>::decode(&bytes), Err(DecodeError::Version(head)));
    }
    for cut in [hello().encode(1), report(300).encode(3)] {
        for end in 1..cut.len() {
            assert!(Envelope::<Up>::decode(&cut[..end]).is_err());
        }
    }
    // A frame that unfolds to more than a message may have.
    let bomb = [0x83, 0xff, 0xff, 0xff, 0x7f, 1, 0];
    assert!(matches!(Envelope::<Up>::decode(&bomb), Err(DecodeError::Squeezed(_))));
}

#[test]
fn bounds_hold() {
    let big = StreamFrame::Data { id: 1, lane: 0, bytes: vec![0; limits::STREAM_FRAME_BYTES_MAX + 1] };
    let bytes = Envelope { session: 1, message: Up::Stream(big) }.encode(1);
    assert_eq!(Envelope::<Up>::decode(&bytes), Err(DecodeError::Bound("stream frame")));
    let gone = Up::PodGone(PodGone {
        uid: String::from_utf8(vec![b'a'; 100]).unwrap_or_default(),
        namespace: String::new(),
        name: String::new(),
        version: 1,
    });
    assert!(Envelope::<Up>::decode(&Envelope { session: 1, message: gone }.encode(3)).is_err());
    let many = vec![Extension::default(); limits::EXTENSIONS_MAX + 1];
    let hello = Up::Hello(Hello { extensions: many, ..Hello::default() });
    let bytes = Envelope { session: 1, message: hello }.encode(1);
    assert_eq!(Envelope::<Up>::decode(&bytes), Err(DecodeError::Bound("extensions")));
}

/// A newer agent's greeting has extensions that nobody here knows, and is understood.
#[test]
fn the_future_says_hello() {
    let extension = Extension { tag: 900, bytes: vec![1, 2, 3] };
    let hello = Hello { speaks: (2, 4), extensions: vec![extension], ..Hello::default() };
    let bytes = Envelope { session: 1, message: Up::Hello(hello.clone()) }.encode(4);
    let envelope = Envelope::<Up>::decode(&bytes).unwrap();
    assert_eq!(envelope.message, Up::Hello(hello));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn key() -> ItemKey {
    ItemKey::new(ItemKind::ConfigMap, "default", "m")
}

fn digest() -> SetDigest {
    SetDigest { count: 2, sum: 300 }
}

/// One message of every sort, with the version that it is written in.
fn ups() -> Vec<(u8, Up)> {
    let hello = Hello {
        agent_version: "0.1.0".into(),
        boot_id: "boot".into(),
        instance: [7; 16],
        digest: digest(),
        clock_ms: 1_000_000,
        speaks: (1, 3),
        extensions: vec![Extension { tag: 5, bytes: vec![9] }],
    };
    let entry = InventoryEntry { key: key(), generation: 9, hash: crate::ItemHash([3; 16]) };
    let (uid, namespace, name) = || -> (String, String, String) { ("u".into(), "d".into(), "p".into()) }();
    let report = PodReport {
        uid: uid.clone(),
        namespace: namespace.clone(),
        name: name.clone(),
        version: 5,
        status: b"{}".to_vec(),
    };
    let status = br#"{"hostIP":"192.0.2.1","phase":"Running","qosClass":"BestEffort","startTime":"2026-11-25T10:00:00Z"}"#;
    let place = LogPlace { attempt: 1, file: 2, offset: 300, lines: 4 };
    let piece = LogPiece {
        namespace: "d".into(),
        pod: "p".into(),
        uid: "u".into(),
        container: "c".into(),
        bytes_max: 65_536,
        from: place,
        to: LogPlace { offset: 347, lines: 5, ..place },
        lost: 6,
        text: b"2026-11-25T10:00:00.000000001Z stdout F a line\n".to_vec(),
    };
    let message = BoardMessage {
        number: 9,
        after: 8,
        lost: 1,
        namespace: "d".into(),
        pod: "p".into(),
        topic: "up/t".into(),
        at_ms: 1_000_000,
        payload: b"21.5".to_vec(),
    };
    vec![
        (1, Up::Hello(hello)),
        (1, Up::Inventory(Inventory { entries: vec![entry] })),
        (1, Up::Ack(Ack { seq: 300 })),
        (1, Up::PodReport(report.clone())),
        (2, Up::PodReport(PodReport { status: status.to_vec(), ..report })),
        (1, Up::PodGone(PodGone { uid, namespace, name, version: 6 })),
        (1, Up::NodeReport(NodeReport { version: 7, body: b"{}".to_vec() })),
        (1, Up::Event(b"{}".to_vec())),
        (1, Up::TokenAsk(TokenAsk { key: key() })),
        (1, Up::Stream(StreamFrame::Window { id: 3, lane: 1, bytes: 70_000 })),
        (3, Up::NumberedEvent(NumberedEvent { number: 8, after: 7, json: b"{}".to_vec() })),
        (4, Up::LogPiece(piece)),
        (4, Up::Message(message)),
    ]
}

fn downs() -> Vec<(u8, Down)> {
    let removal = Removal { key: key(), generation: 12 };
    let item = Item { key: key(), generation: 11, body: b"{}".to_vec() };
    let step = ItemStep { key: key(), generation: 11, base: 0xfeed, body: vec![2, 4, 1, 2] };
    let change = SetChange { seq: 1, puts: vec![item], removals: vec![removal.clone()], digest: digest() };
    let welcome = Welcome { time_ms: 5, digest: digest(), speak: 3, extensions: Vec::new() };
    let open = StreamOpen {
        namespace: "d".into(),
        pod: "p".into(),
        uid: "u".into(),
        kind: StreamKind::PortForward { port: 80 },
    };
    vec![
        (1, Down::Welcome(welcome)),
        (1, Down::Change(change)),
        (1, Down::Reported { uid: "u".into(), version: 5 }),
        (1, Down::TokenAnswer(TokenAnswer { key: key(), error: "no".into() })),
        (1, Down::Stream(StreamFrame::Open { id: 1, open })),
        (1, Down::Goodbye { reason: "bye".into() }),
        (3, Down::Step(SetStep { seq: 2, puts: vec![step], removals: vec![removal], digest: digest() })),
        (3, Down::EventsTaken { number: 8 }),
        (4, Down::LogTaken(LogTaken { uid: "u".into(), container: "c".into(), place: LogPlace::default(), refused: true })),
        (4, Down::MessagesTaken { number: 9 }),
        (4, Down::Message(HubMessage { namespace: "d".into(), topic: "t".into(), retain: true, payload: b"on".to_vec() })),
    ]
}

/// The bytes of every message that was ever released decode for ever. Lines are only ever added to the file.
#[test]
fn golden_bytes() {
    let mut now = String::new();
    for (version, message) in ups() {
        assert!(message.since() <= version);
        let bytes = Envelope { session: 7, message: message.clone() }.encode(version);
        assert_eq!(Envelope::<Up>::decode(&bytes).unwrap().message, message);
        now.push_str(&format!("up {version} {}\n", hex(&bytes)));
    }
    for (version, message) in downs() {
        assert!(message.since() <= version);
        let bytes = Envelope { session: 7, message: message.clone() }.encode(version);
        assert_eq!(Envelope::<Down>::decode(&bytes).unwrap().message, message);
        now.push_str(&format!("down {version} {}\n", hex(&bytes)));
    }
    let golden = include_str!("../../golden.txt");
    for (old, new) in golden.lines().zip(now.lines()) {
        // What is squeezed may be squeezed better one day; it has to unfold to the same.
        let squeezed = old.split(' ').nth(2).is_some_and(|h| h.starts_with('8'));
        assert!(squeezed || old == new, "the wire has changed; if that is meant, it is a new version:\n{now}");
        let plain = |line: &str| {
            let bytes = unhex(line.split(' ').nth(2).unwrap());
            match line.starts_with("up") {
                true => format!("{:?}", Envelope::<Up>::decode(&bytes).unwrap()),
                false => format!("{:?}", Envelope::<Down>::decode(&bytes).unwrap()),
            }
        };
        assert_eq!(plain(old), plain(new));
    }
    assert_eq!(golden.lines().count(), now.lines().count(), "every message has a line:\n{now}");
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).unwrap()).collect()
}

/// Chance with a seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// A few bytes flipped, cut, doubled or put in.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = [0, 0x7f, 0x80, 0xff][self.below(4)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at.min(bytes.len()), self.next() as u8),
                _ => bytes.extend_from_within(at.min(bytes.len())..),
            }
            bytes.truncate(64 * 1024);
        }
    }
}

/// What decodes is a message: within its bounds, and the same after another round.
fn sound<M>(bytes: &[u8]) -> bool
where
    M: Serialize + DeserializeOwned + Bounded + PartialEq + core::fmt::Debug,
{
    let Ok(envelope) = Envelope::<M>::decode(bytes) else { return false };
    for version in PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION {
        let again = envelope.encode(version);
        if again.len() <= limits::ENVELOPE_BYTES_MAX {
            assert_eq!(Envelope::<M>::decode(&again).as_ref(), Ok(&envelope));
        }
    }
    true
}

/// Both directions' parser against spoilt messages: the golden ones, and whatever once was trouble (`corpus.txt`).
/// `LIMPET_FUZZ_ROUNDS` for more than CI has time for.
#[test]
fn spoilt_messages_do_no_harm() {
    let corpus = [include_str!("../../golden.txt"), include_str!("../../corpus.txt")].concat();
    let lines = corpus.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let seeds: Vec<Vec<u8>> = lines.map(|l| unhex(l.rsplit(' ').next().unwrap())).collect();
    let rounds = option_env!("LIMPET_FUZZ_ROUNDS").and_then(|n| n.parse().ok()).unwrap_or(60_000);
    let (mut chance, mut decoded) = (Chance(0x5eed), 0);
    for seed in &seeds {
        sound::<Up>(seed);
        sound::<Down>(seed);
    }
    for _ in 0..rounds {
        let mut bytes = seeds[chance.below(seeds.len())].clone();
        chance.spoil(&mut bytes);
        decoded += usize::from(sound::<Up>(&bytes)) + usize::from(sound::<Down>(&bytes));
    }
    assert!(decoded > rounds / 100, "the spoiling is too rough to reach anything: {decoded}");
}

#[test]
fn a_receiver_with_little_memory_has_its_own_bound() {
    let envelope = report(900);
    let (plain, squeezed) = (envelope.encode_plain(4), envelope.encode(4));
    assert!(squeezed.len() < 500 && plain.len() > 900);
    assert_eq!(Envelope::<Up>::decode(&plain), Ok(envelope.clone()), "nobody has to squeeze");
    assert_eq!(Envelope::<Up>::decode_within(&squeezed, 2000), Ok(envelope));
    assert_eq!(Envelope::<Up>::decode_within(&plain, 500), Err(DecodeError::TooLarge(plain.len())));
    let unfolded = Envelope::<Up>::decode_within(&squeezed, 500);
    assert_eq!(unfolded, Err(DecodeError::Squeezed(squeeze::SqueezeError::Long)), "small on the wire, large in memory");
}
