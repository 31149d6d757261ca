//! A session between a hub and a node, and what somebody between them can try.
//!
//! In: keys made here. Out: what each side takes. Never: a packet that was changed, copied, left out or moved goes through.

use limpet_sealed::{
    Asking, Greeting, Inside, Key, Kind, Opener, Pending, Point, Reset, SealError, Sealer, Session, SystemRandom, answer, kind,
};

fn key() -> Key {
    let pair = rcgen::KeyPair::generate().unwrap();
    Key::from_pkcs8(&pair.serialize_der(), &SystemRandom::new()).unwrap()
}

/// In these tests a certificate is the bare point; this trusts exactly one.
fn only(hub: &Key) -> impl Fn(&[u8]) -> Option<Point> + '_ {
    |certificate| (certificate == hub.point()).then_some(*hub.point())
}

struct World {
    hub: Key,
    node: Key,
    random: SystemRandom,
}

fn world() -> World {
    World { hub: key(), node: key(), random: SystemRandom::new() }
}

impl World {
    fn ask(&self, name: &str) -> Asking {
        Asking::new(name, &self.node, (340, true), "0123456789abcdef", &self.random).unwrap()
    }

    fn answer(&self, name: &str, hello: &[u8]) -> (Vec<u8>, Pending) {
        answer(name, hello, (&self.hub, self.hub.point()), 7, &self.random).unwrap()
    }

    fn session(&self, name: &str) -> (Session, Pending) {
        let asking = self.ask(name);
        let (packet, mut pending) = self.answer(name, asking.hello());
        let answered = asking.check(&packet, only(&self.hub)).unwrap();
        let (session, confirm) = asking.finish(&answered, &self.node, &self.random).unwrap();
        pending.confirm(&confirm).unwrap();
        (session, pending)
    }
}

fn part(text: &str) -> Inside {
    Inside::Part { channel: b's', last: true, bytes: text.into() }
}

#[test]
fn both_sides_understand_each_other() {
    let world = world();
    let (mut node, mut hub) = world.session("pi-1");
    assert_eq!((node.epoch, hub.greeting.keepalive_s, hub.greeting.hardware.as_str()), (7, 340, "0123456789abcdef"));
    assert_eq!(hub.greeting.point, *world.node.point());
    for n in 0..100 {
        let said = part(&format!("message {n}"));
        let packet = node.up.seal(&said).unwrap();
        assert!(!packet.windows(7).any(|w| w == b"message"));
        assert_eq!(hub.up.open(&packet).unwrap(), said);
        let packet = hub.down.seal(&said).unwrap();
        assert_eq!((kind(&packet), node.down.open(&packet).unwrap()), (Some(Kind::Sealed), said));
    }
    assert_eq!(node.down.open(&hub.down.seal(&Inside::Over("ä".repeat(2000))).unwrap()).unwrap(), Inside::Over("ä".repeat(512)));
}

/// What the one in the middle does to the handshake, and who notices.
#[test]
fn a_changed_handshake_makes_no_session() {
    let world = world();
    let asking = world.ask("pi-1");
    let hello = asking.hello().to_vec();
    let (packet, _) = world.answer("pi-1", &hello);
    // Every bit of the answer counts.
    for at in 0..packet.len() * 8 {
        let mut changed = packet.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let trust_any = |certificate: &[u8]| certificate.try_into().ok();
        assert!(asking.check(&changed, trust_any).is_err(), "bit {at}");
    }
    for len in 0..packet.len() {
        assert!(asking.check(&packet[..len], only(&world.hub)).is_err(), "cut at {len}");
    }
    // Another's key, another's name, an answer to another greeting.
    let stranger = key();
    let (false_hub, _) = answer("pi-1", &hello, (&stranger, stranger.point()), 7, &world.random).unwrap();
    let (borrowed, _) = answer("pi-1", &hello, (&stranger, world.hub.point()), 7, &world.random).unwrap();
    let (for_other, _) = world.answer("pi-2", &hello);
    let (to_other, _) = world.answer("pi-1", world.ask("pi-1").hello());
    for wrong in [&false_hub, &borrowed, &for_other, &to_other, &hello] {
        assert!(asking.check(wrong, only(&world.hub)).is_err());
    }
    // A greeting that was changed on its way: the node does not take the answer.
    for at in 1..hello.len() {
        let mut changed = hello.clone();
        changed[at] ^= 1;
        if let Ok((packet, _)) = answer("pi-1", &changed, (&world.hub, world.hub.point()), 7, &world.random) {
            assert_eq!(asking.check(&packet, only(&world.hub)), Err(SealError::Forged), "byte {at}");
        }
    }
    // The true answer still counts after all of that.
    let answered = asking.check(&packet, only(&world.hub)).unwrap();
    asking.finish(&answered, &world.node, &world.random).unwrap();
}

#[test]
fn a_session_needs_the_nodes_own_key() {
    let world = world();
    // Somebody greets with the node's public key, which is no secret.
    let asking = world.ask("pi-1");
    let (packet, mut pending) = world.answer("pi-1", asking.hello());
    let answered = asking.check(&packet, only(&world.hub)).unwrap();
    let (mut session, confirm) = asking.finish(&answered, &key(), &world.random).unwrap();
    assert_eq!(pending.confirm(&confirm), Err(SealError::Forged));
    assert_eq!(pending.confirm(&session.up.seal(&part("x")).unwrap()), Err(SealError::Forged), "nor without confirming");
    // A greeting that was recorded: its answer leads nowhere.
    let old = world.ask("pi-1");
    let (packet, mut first) = world.answer("pi-1", old.hello());
    let recorded = old.hello().to_vec();
    let answered = old.check(&packet, only(&world.hub)).unwrap();
    let (_, confirm) = old.finish(&answered, &world.node, &world.random).unwrap();
    first.confirm(&confirm).unwrap();
    let (_, mut again) = world.answer("pi-1", &recorded);
    assert_eq!(again.confirm(&confirm), Err(SealError::Foreign));
    // The hub's session id, put onto it, does not help.
    let mut renamed = confirm.clone();
    renamed[1..5].copy_from_slice(&again.id());
    assert_eq!(again.confirm(&renamed), Err(SealError::Forged));
}

#[test]
fn sealed_packets_come_once_whole_and_in_order() {
    let world = world();
    let (mut node, mut hub) = world.session("pi-1");
    let all: Vec<Vec<u8>> = (0..5).map(|n| hub.down.seal(&part(&n.to_string())).unwrap()).collect();
    assert_eq!(node.down.open(&all[0]).unwrap(), part("0"));
    // Every bit counts; nothing of it moves the opener on.
    for at in 0..all[1].len() * 8 {
        let mut changed = all[1].clone();
        changed[at / 8] ^= 1 << (at % 8);
        let refused = node.down.open(&changed).unwrap_err();
        assert!(!matches!(refused, SealError::Lost { .. }), "bit {at}: {refused}");
    }
    for len in 0..all[1].len() {
        assert!(node.down.open(&all[1][..len]).is_err(), "cut at {len}");
    }
    assert_eq!(node.down.open(&all[0]), Err(SealError::Repeated { number: 0 }));
    assert_eq!(node.down.open(&all[2]), Err(SealError::Lost { expected: 1, got: 2 }), "swapped, or one is missing");
    assert_eq!(node.down.open(&all[1]).unwrap(), part("1"));
    assert_eq!(node.down.open(&all[2]).unwrap(), part("2"));
    // A packet goes back where it came from.
    let up = node.up.seal(&part("up")).unwrap();
    assert!(node.down.open(&up).is_err());
    hub.up.open(&up).unwrap();
    assert!(hub.up.open(&all[3]).is_err());
    // Another session's, another node's.
    let (_, mut later) = world.session("pi-1");
    let (_, mut other) = world.session("pi-2");
    assert_eq!(node.down.open(&later.down.seal(&part("x")).unwrap()), Err(SealError::Foreign));
    let mut crossed = other.down.seal(&part("x")).unwrap();
    crossed[1..9].copy_from_slice(&all[3][1..9]);
    assert_eq!(node.down.open(&crossed), Err(SealError::Forged));
    assert_eq!(node.down.open(&all[3]).unwrap(), part("3"), "all of that changed nothing");
}

/// Signs of life are short, count with everything else, and are nobody else's.
#[test]
fn signs_of_life_come_once_and_in_their_turn() {
    let world = world();
    let (mut node, mut hub) = world.session("pi-1");
    let first = node.up.seal(&Inside::Beat).unwrap();
    assert_eq!((first.len(), kind(&first)), (15, Some(Kind::Sealed)));
    for at in 0..first.len() * 8 {
        let mut changed = first.clone();
        changed[at / 8] ^= 1 << (at % 8);
        let refused = hub.up.open(&changed).unwrap_err();
        assert!(!matches!(refused, SealError::Lost { .. }), "bit {at}: {refused}");
    }
    for len in 0..first.len() {
        assert!(hub.up.open(&first[..len]).is_err(), "cut at {len}");
    }
    assert!(node.down.open(&first).is_err(), "it goes back where it came from");
    assert_eq!(hub.up.open(&first), Ok(Inside::Beat));
    assert!(matches!(hub.up.open(&first), Err(SealError::Repeated { .. })));
    let said = node.up.seal(&part("x")).unwrap();
    let next = node.up.seal(&Inside::Beat).unwrap();
    assert!(matches!(hub.up.open(&next), Err(SealError::Lost { .. })), "something before it is missing");
    hub.up.open(&said).unwrap();
    hub.up.open(&next).unwrap();
    // The number is longer than what a packet says of it.
    for _ in 0..70_000 {
        let beat = hub.down.seal(&Inside::Beat).unwrap();
        assert_eq!(node.down.open(&beat), Ok(Inside::Beat));
    }
    // Another session's, another node's.
    for name in ["pi-1", "pi-2"] {
        let (mut other, _) = world.session(name);
        for _ in 0..8 {
            let mut beat = other.up.seal(&Inside::Beat).unwrap();
            assert_eq!(hub.up.open(&beat), Err(SealError::Foreign));
            beat[1..5].copy_from_slice(&node.up.id());
            assert!(matches!(hub.up.open(&beat), Err(SealError::Forged | SealError::Repeated { .. })));
        }
    }
    assert_eq!(hub.up.open(&node.up.seal(&Inside::Beat).unwrap()), Ok(Inside::Beat), "all of that changed nothing");
}

/// A hub or a node from before: signs of life are sealed as everything else.
#[test]
fn who_knows_no_beats_gets_none() {
    let world = world();
    let asking = Asking::new("pi-1", &world.node, (340, false), "", &world.random).unwrap();
    let (packet, mut hub) = world.answer("pi-1", asking.hello());
    let answered = asking.check(&packet, only(&world.hub)).unwrap();
    let (mut node, confirm) = asking.finish(&answered, &world.node, &world.random).unwrap();
    hub.confirm(&confirm).unwrap();
    let beat = node.up.seal(&Inside::Beat).unwrap();
    assert_eq!((beat.len(), hub.up.open(&beat)), (26, Ok(Inside::Beat)));
    let (mut modern, _) = world.session("pi-1");
    let mut beat = modern.up.seal(&Inside::Beat).unwrap();
    beat[1..5].copy_from_slice(&hub.up.id());
    beat[5..7].copy_from_slice(&2u16.to_be_bytes());
    assert_eq!(hub.up.open(&beat), Err(SealError::Malformed), "it has no key for such");
}

/// Two sessions of one node share nothing: who has the keys of one reads nothing of the other (forward secrecy is the fresh
/// X25519 key of each).
#[test]
fn sessions_have_keys_of_their_own() {
    let world = world();
    let (mut a, mut b): (Vec<(Sealer, Opener)>, Vec<_>) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let (node, hub) = world.session("pi-1");
        a.push((node.up, node.down));
        b.push((hub.down, hub.up));
    }
    assert_ne!(a[0].0.id(), a[1].0.id());
    let mut packet = b[0].0.seal(&part("x")).unwrap();
    packet[1..5].copy_from_slice(&a[1].1.id());
    assert_eq!(a[1].1.open(&packet), Err(SealError::Forged));
}

#[test]
fn resets_are_signed_fresh_and_for_one_node() {
    let world = world();
    let (node, _) = world.session("pi-1");
    let id = node.up.id();
    let own = (&world.hub, world.hub.point().as_slice());
    let packet = Reset { epoch: 9, session: Some(id) }.sign("pi-1", own, &world.random).unwrap();
    let read = |node: &str, packet: &[u8]| Reset::read(node, packet, only(&world.hub));
    let reset = read("pi-1", &packet).unwrap();
    assert!(reset.ends(id, 7) && !reset.ends([0; 4], 7));
    let all = Reset { epoch: 9, session: None }.sign("pi-1", own, &world.random).unwrap();
    let all = read("pi-1", &all).unwrap();
    assert!(all.ends(id, 7) && !all.ends(id, 9), "a copy that comes after the next session ends nothing");
    assert_eq!(read("pi-2", &packet), Err(SealError::Forged));
    for at in 0..packet.len() * 8 {
        let mut changed = packet.clone();
        changed[at / 8] ^= 1 << (at % 8);
        assert!(read("pi-1", &changed).is_err(), "bit {at}");
    }
    for len in 0..packet.len() {
        assert!(read("pi-1", &packet[..len]).is_err());
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let world = world();
    let (mut node, mut hub) = world.session("pi-1");
    let asking = world.ask("pi-1");
    let mut x = 7u32;
    for round in 0..50_000 {
        let bytes: Vec<u8> = (0..round % 130).map(|n| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            if n == 0 { 0x11 + (x % 6) as u8 } else { x as u8 }
        }).collect();
        let trust_any = |certificate: &[u8]| certificate.try_into().ok();
        assert!(asking.check(&bytes, trust_any).is_err());
        assert!(node.down.open(&bytes).is_err() && hub.up.open(&bytes).is_err());
        assert!(Reset::read("pi-1", &bytes, trust_any).is_err());
        if round % 50 == 0 {
            let _ = answer("pi-1", &bytes, (&world.hub, world.hub.point()), 7, &world.random);
        }
    }
}

/// Both directions' parsers: packets of a living session and those that once were trouble (`corpus.txt`), spoilt. Only what was
/// not spoilt is taken, and a session goes on after all of it. `LIMPET_FUZZ_ROUNDS` for more than CI has time for.
#[test]
fn spoilt_packets_do_no_harm() {
    let world = world();
    let (mut node, mut hub) = world.session("pi-1");
    let asking = world.ask("pi-1");
    let hello = asking.hello().to_vec();
    let (answered, mut pending) = world.answer("pi-1", &hello);
    let own = (&world.hub, world.hub.point().as_slice());
    let reset = Reset { epoch: 9, session: Some(node.up.id()) }.sign("pi-1", own, &world.random).unwrap();
    // Copies of packets that are on their way still.
    let (up, down) = (node.up.seal(&part("up")).unwrap(), hub.down.seal(&part("down")).unwrap());
    let beat = node.up.seal(&Inside::Beat).unwrap();
    let live = [hello.clone(), answered.clone(), reset.clone(), up.clone(), down.clone(), beat];
    let unhex = |l: &str| (0..l.len() / 2).map(|i| u8::from_str_radix(&l[i * 2..i * 2 + 2], 16).unwrap()).collect();
    let lines = include_str!("../corpus.txt").lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let seeds: Vec<Vec<u8>> = live.iter().cloned().chain(lines.map(unhex)).collect();
    let mut x = 0x5eed_u64;
    let mut chance = |n: usize| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        ((x >> 11) % n.max(1) as u64) as usize
    };
    let rounds = option_env!("LIMPET_FUZZ_ROUNDS").and_then(|n| n.parse().ok()).unwrap_or(40_000);
    let mut greetings = 0;
    for _ in 0..rounds {
        let mut bytes = seeds[chance(seeds.len())].clone();
        for _ in 0..1 + chance(3) {
            let at = chance(bytes.len());
            match chance(5) {
                _ if bytes.is_empty() => bytes.push(0x13),
                0 => bytes[at] ^= 1 << chance(8),
                1 => bytes[at] = [0, 0x7f, 0x80, 0xff][chance(4)],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, chance(256) as u8),
                _ => bytes.extend_from_within(at..),
            }
            bytes.truncate(16 * 1024);
        }
        greetings += usize::from(Greeting::decode(&bytes).is_ok());
        if live.contains(&bytes) {
            continue;
        }
        assert!(asking.check(&bytes, only(&world.hub)).is_err(), "{bytes:?}");
        assert!(Reset::read("pi-1", &bytes, only(&world.hub)).is_err(), "{bytes:?}");
        assert!(pending.confirm(&bytes).is_err(), "{bytes:?}");
        assert!(hub.up.open(&bytes).is_err() && node.down.open(&bytes).is_err(), "{bytes:?}");
    }
    assert!(greetings > rounds / 50, "the spoiling is too rough to reach anything: {greetings}");
    assert_eq!((hub.up.open(&up).unwrap(), node.down.open(&down).unwrap()), (part("up"), part("down")));
    asking.check(&answered, only(&world.hub)).unwrap();
}
