//! A model hub against the real sync under loss, repetition, reordering and failing journals.

use super::*;
use limpet_protocol::{ItemKind, Removal};
use std::collections::BTreeMap;

fn now(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_795_431_600_000 + ms }
}

/// From four on they are tokens.
fn key(n: u64) -> ItemKey {
    let kind = if n < 4 { ItemKind::ConfigMap } else { ItemKind::Token };
    ItemKey::new(kind, "default", &format!("c{n}"))
}

fn item(n: u64, generation: u64, body: &str) -> Item {
    Item { key: key(n), generation, body: body.as_bytes().to_vec() }
}

fn digest_of(items: &[Item]) -> SetDigest {
    let mut d = SetDigest::default();
    for i in items {
        d.add(&i.key, ItemHash::of(&i.body));
    }
    d
}

fn up(sync: &mut Sync, target: SetDigest) -> Vec<SyncOutput> {
    sync.connected(Hello::default());
    sync.welcome(now(0), &Welcome { time_ms: 5, digest: target, speak: 3, extensions: Vec::new() });
    drain(sync, true)
}

fn drain(sync: &mut Sync, ok: bool) -> Vec<SyncOutput> {
    let mut all = Vec::new();
    while let Some(out) = sync.poll() {
        let persist = matches!(out, SyncOutput::Persist(_));
        all.push(out);
        if persist {
            sync.persisted(ok);
        }
    }
    all
}

fn sends(all: &[SyncOutput]) -> Vec<&Up> {
    all.iter().filter_map(|o| if let SyncOutput::Send(up) = o { Some(up) } else { None }).collect()
}

#[test]
fn persists_before_it_acknowledges() {
    let mut sync = Sync::new();
    up(&mut sync, SetDigest::default());
    let a = item(1, 5, "a");
    sync.change(now(1), SetChange { seq: 1, puts: vec![a.clone()], removals: vec![], digest: digest_of(&[a.clone()]) });
    assert_eq!(sync.poll(), Some(SyncOutput::Persist(vec![Record::Put(a.clone())])));
    assert_eq!(sync.poll(), None);
    assert!(sync.items().is_empty());
    sync.persisted(true);
    assert_eq!(sync.poll(), Some(SyncOutput::Changed(vec![a.key.clone()])));
    assert_eq!(sync.poll(), Some(SyncOutput::Send(Up::Ack(Ack { seq: 1 }))));
    assert_eq!(sync.poll(), None);
    assert!(sync.in_sync());
}

#[test]
fn a_failing_journal_applies_nothing_and_asks_again_later() {
    let mut sync = Sync::new();
    up(&mut sync, SetDigest::default());
    let a = item(1, 5, "a");
    let target = digest_of(&[a.clone()]);
    sync.change(now(1), SetChange { seq: 1, puts: vec![a.clone()], removals: vec![], digest: target });
    let out = drain(&mut sync, false);
    assert_eq!(sends(&out).len(), 0);
    assert!(sync.items().is_empty());
    let (at, _) = sync.wake_at().unwrap();
    sync.tick(now(at));
    assert!(matches!(sends(&drain(&mut sync, true))[..], [Up::Inventory(_)]));
    sync.change(now(at), SetChange { seq: 2, puts: vec![a], removals: vec![], digest: target });
    assert!(matches!(sends(&drain(&mut sync, true))[..], [Up::Ack(Ack { seq: 2 })]));
    assert!(sync.in_sync());
}

#[test]
fn equal_digests_need_nothing_and_older_generations_lose() {
    let mut sync = Sync::new();
    let a = item(1, 5, "a");
    sync.replay(Record::Put(a.clone()));
    let out = up(&mut sync, digest_of(&[a.clone()]));
    assert!(matches!(sends(&out)[..], [Up::Hello(_)]));
    let old = item(1, 4, "old");
    sync.change(now(1), SetChange { seq: 1, puts: vec![old], removals: vec![], digest: digest_of(&[a.clone()]) });
    sync.change(
        now(2),
        SetChange {
            seq: 2,
            puts: vec![],
            removals: vec![Removal { key: key(1), generation: 4 }],
            digest: digest_of(&[a.clone()]),
        },
    );
    let out = drain(&mut sync, true);
    assert!(out.iter().all(|o| matches!(o, SyncOutput::Send(Up::Ack(_)))), "{out:?}");
    assert_eq!(&*sync.items().by_key(&key(1)).unwrap().body(), b"a");
}

#[test]
fn a_replayed_set_says_the_same_before_and_after_it_rests() {
    let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c1","namespace":"default"}}"#;
    let (mut sync, mut put) = (Sync::new(), Sync::new());
    for generation in 1..4 {
        sync.replay(Record::Put(item(1, generation, text)));
        sync.replay(Record::Put(item(2, generation, &generation.to_string())));
    }
    sync.replay(Record::Put(item(3, 1, "gone")));
    sync.replay(Record::Remove(key(3)));
    [item(1, 3, text), item(2, 3, "3")].into_iter().for_each(|i| put.items.put(i.key, i.generation, &i.body));
    let says = |sync: &Sync| {
        let bodies: Vec<_> = sync.items().all().map(|(k, held)| (k.clone(), held.generation, held.body())).collect();
        (bodies, sync.items().digest(), sync.snapshot().collect::<Vec<_>>())
    };
    assert_eq!(says(&sync).0.len(), 2);
    assert_eq!(says(&sync), says(&put));
    sync.rest();
    assert_eq!(says(&sync), says(&put));
    let size = |sync: &Sync| sync.items().all().map(|(_, held)| held.size()).sum::<usize>();
    assert_eq!(size(&sync), size(&put), "as small as if it had come from the hub");
}

#[test]
fn a_repeated_step_is_acknowledged_again_and_a_gap_asks_for_the_differences() {
    let mut sync = Sync::new();
    up(&mut sync, SetDigest::default());
    let (a, b) = (item(1, 1, "a"), item(2, 2, "b"));
    let one = SetChange { seq: 1, puts: vec![a.clone()], removals: vec![], digest: digest_of(&[a.clone()]) };
    sync.change(now(1), one.clone());
    drain(&mut sync, true);
    sync.change(now(2), one);
    assert!(matches!(sends(&drain(&mut sync, true))[..], [Up::Ack(Ack { seq: 1 })]));
    let c = item(3, 3, "c");
    let target = digest_of(&[a.clone(), b.clone(), c.clone()]);
    sync.change(now(3), SetChange { seq: 3, puts: vec![c], removals: vec![], digest: target });
    assert!(matches!(sends(&drain(&mut sync, true))[..], [Up::Inventory(_)]));
    sync.change(now(4), SetChange { seq: 4, puts: vec![b], removals: vec![], digest: target });
    assert!(matches!(sends(&drain(&mut sync, true))[..], [Up::Ack(Ack { seq: 4 })]));
}

#[test]
fn sessions_grow_across_restarts() {
    let mut sync = Sync::new();
    sync.connected(Hello::default());
    let ceiling = drain(&mut sync, true)
        .into_iter()
        .find_map(|o| match o {
            SyncOutput::Persist(r) => r.into_iter().next(),
            _ => None,
        })
        .unwrap();
    let first = sync.session();
    let mut again = Sync::new();
    again.replay(ceiling);
    again.connected(Hello::default());
    assert!(again.session() > first);
}

/// A hub that keeps what it wants and answers inventories; enough of the other side to converge against.
#[derive(Default)]
struct Hub {
    want: BTreeMap<ItemKey, Item>,
    seq: u64,
    revision: u64,
}

impl Hub {
    fn digest(&self) -> SetDigest {
        digest_of(&self.want.values().cloned().collect::<Vec<_>>())
    }

    fn step(&mut self, puts: Vec<Item>, removals: Vec<Removal>) -> SetChange {
        self.seq += 1;
        SetChange { seq: self.seq, puts, removals, digest: self.digest() }
    }

    fn answer(&mut self, inventory: &Inventory) -> SetChange {
        let held: BTreeMap<_, _> = inventory.entries.iter().map(|e| (e.key.clone(), e.hash)).collect();
        let differs = |i: &&Item| held.get(&i.key) != Some(&ItemHash::of(&i.body));
        let puts = self.want.values().filter(differs).cloned().collect();
        let generation = self.revision;
        let gone = held.keys().filter(|k| !self.want.contains_key(*k));
        let removals = gone.map(|key| Removal { key: key.clone(), generation }).collect();
        self.step(puts, removals)
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// How many histories a test looks at: `SEEDS`, where it is set.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    0..std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(usual)
}

/// The hub's step with the newest token of each pod, and what comes of it.
fn renewed(sync: &mut Sync, ms: u64, seq: u64, tokens: &[Item]) -> Vec<SyncOutput> {
    let digest = digest_of(tokens);
    sync.change(now(ms), SetChange { seq, puts: tokens.to_vec(), removals: vec![], digest });
    drain(sync, true)
}

#[test]
fn a_renewed_token_waits_for_an_occasion_to_be_written() {
    let mut sync = Sync::new();
    up(&mut sync, SetDigest::default());
    let (first, second) = (item(4, 1, "first"), item(4, 2, "second"));
    // A pod's first token is written before it is acknowledged.
    let all = renewed(&mut sync, 1, 1, std::slice::from_ref(&first));
    assert_eq!(all[0], SyncOutput::Persist(vec![Record::Put(first.clone())]));
    assert_eq!(sync.owed(), []);
    // Its successor is there, told and acknowledged without.
    let all = renewed(&mut sync, 2, 2, std::slice::from_ref(&second));
    assert_eq!(all, [SyncOutput::Changed(vec![second.key.clone()]), SyncOutput::Send(Up::Ack(Ack { seq: 2 }))]);
    assert_eq!(sync.owed(), [Record::Put(second.clone())]);
    // With anything else in the same step it is written as before.
    let (third, other) = (item(4, 3, "third"), item(1, 1, "other"));
    let all = renewed(&mut sync, 3, 3, &[third.clone(), other.clone()]);
    assert_eq!(all[0], SyncOutput::Persist(vec![Record::Put(third.clone()), Record::Put(other)]));
    // What was owed before is what is held now, and whoever has written it says so.
    assert_eq!(sync.owed(), [Record::Put(third)]);
    sync.recorded();
    assert_eq!(sync.owed(), []);
}

#[test]
fn a_renewed_token_waits_for_a_day_at_most() {
    let mut sync = Sync::new();
    up(&mut sync, SetDigest::default());
    renewed(&mut sync, 0, 1, &[item(4, 1, "0")]);
    let hours = |h: u64| h * 3_600_000;
    for hour in 1..=24 {
        let all = renewed(&mut sync, hours(hour), hour + 1, &[item(4, hour + 1, &hour.to_string())]);
        assert!(!matches!(all[0], SyncOutput::Persist(_)), "{hour}: {all:?}");
    }
    let last = item(4, 99, "last");
    let all = renewed(&mut sync, hours(25), 26, std::slice::from_ref(&last));
    assert_eq!(all[0], SyncOutput::Persist(vec![Record::Put(last)]));
}

#[test]
fn a_token_lost_with_the_power_is_asked_for_again() {
    let mut sync = Sync::new();
    up(&mut sync, SetDigest::default());
    let (first, second) = (item(4, 1, "first"), item(4, 2, "second"));
    let mut reborn = Sync::new();
    for out in renewed(&mut sync, 1, 1, std::slice::from_ref(&first)) {
        if let SyncOutput::Persist(records) = out {
            records.into_iter().for_each(|r| reborn.replay(r));
        }
    }
    renewed(&mut sync, 2, 2, std::slice::from_ref(&second));
    assert_eq!(reborn.items().by_key(&first.key).map(|held| held.generation), Some(1));
    let all = up(&mut reborn, digest_of(std::slice::from_ref(&second)));
    assert!(sends(&all).iter().any(|up| matches!(up, Up::Inventory(_))), "{all:?}");
}

#[test]
fn what_waits_is_bounded() {
    let mut sync = Sync::new();
    up(&mut sync, SetDigest::default());
    let large = "t".repeat(9 << 10);
    renewed(&mut sync, 1, 1, &[item(4, 1, "first")]);
    let all = renewed(&mut sync, 2, 2, &[item(4, 2, &large)]);
    assert!(matches!(all[0], SyncOutput::Persist(_)), "{all:?}");
    let tokens = |generation| (4..604).map(|n| item(n, generation, &generation.to_string())).collect::<Vec<_>>();
    let digest = digest_of(&tokens(3));
    sync.change(now(3), SetChange { seq: 3, puts: tokens(3), removals: vec![], digest });
    drain(&mut sync, true);
    let all = renewed(&mut sync, 4, 4, &tokens(4));
    assert!(matches!(all[0], SyncOutput::Persist(_)), "more than are kept in mind");
}

#[test]
fn converges_under_loss_repetition_reordering_and_crashes() {
    for seed in seeds(300) {
        run_world(seed);
    }
}

fn run_world(seed: u64) {
    let mut dice = Dice(seed);
    let mut hub = Hub::default();
    let mut journal: Vec<Record> = Vec::new();
    let mut sync = Sync::new();
    let mut wire: Vec<SetChange> = Vec::new();
    let mut clock = 0;
    for round in 0..60 {
        clock += 1000;
        let calm = round >= 50;
        if round % 17 == 0 || round == 50 || (!calm && dice.roll(12) == 0) {
            // Power cut or reconnection: only the journal survives.
            sync = Sync::new();
            journal.iter().cloned().for_each(|r| sync.replay(r));
            wire.clear();
            hub.seq = 0;
            sync.connected(Hello::default());
            sync.welcome(now(clock), &Welcome { time_ms: 0, digest: hub.digest(), speak: 3, extensions: Vec::new() });
        }
        if !calm {
            hub.revision += 1;
            let k = key(dice.roll(6));
            let revision = hub.revision;
            let change = if dice.roll(3) == 0 && hub.want.remove(&k).is_some() {
                hub.step(vec![], vec![Removal { key: k, generation: revision }])
            } else {
                let put = Item { key: k.clone(), generation: revision, body: vec![dice.roll(9) as u8] };
                hub.want.insert(k, put.clone());
                hub.step(vec![put], vec![])
            };
            wire.push(change);
        } else {
            clock += INVENTORY_AGAIN_MS;
        }
        pump(&mut sync, &mut hub, &mut journal, &mut wire, &mut dice, clock, calm);
    }
    assert_eq!(sync.items().digest(), hub.digest(), "seed {seed}");
    let mut reborn = Sync::new();
    journal.into_iter().chain(sync.owed()).for_each(|r| reborn.replay(r));
    assert_eq!(reborn.items().digest(), hub.digest(), "seed {seed}: journal");
}

fn pump(
    sync: &mut Sync,
    hub: &mut Hub,
    journal: &mut Vec<Record>,
    wire: &mut Vec<SetChange>,
    dice: &mut Dice,
    clock: u64,
    calm: bool,
) {
    for _ in 0..20 {
        sync.tick(now(clock));
        while let Some(out) = sync.poll() {
            match out {
                SyncOutput::Persist(records) => {
                    let ok = calm || dice.roll(10) != 0;
                    if ok {
                        journal.extend(sync.owed());
                        sync.recorded();
                        journal.extend(records);
                    }
                    sync.persisted(ok);
                }
                SyncOutput::Send(Up::Inventory(i)) if calm || dice.roll(4) != 0 => {
                    let answer = hub.answer(&i);
                    wire.push(answer);
                }
                _ => {}
            }
        }
        if wire.is_empty() {
            return;
        }
        let at = if calm { 0 } else { dice.roll(wire.len() as u64) as usize };
        let change = if !calm && dice.roll(5) == 0 { wire[at].clone() } else { wire.remove(at) };
        if calm || dice.roll(5) != 0 {
            sync.change(now(clock), change);
        }
    }
}
