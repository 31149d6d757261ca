//! Boards that go away and come back at random, under a Deployment whose pods may be replaced.
//!
//! In: a seed. Out: a panic that names it. Never: a history that cannot be run again.

use super::*;
use std::collections::{BTreeMap, BTreeSet};

struct Dice(u64);

impl Dice {
    fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn active(w: &World) -> impl Iterator<Item = &Arc<Pod>> {
    w.view.all::<Pod>().filter(|p| p.is_active())
}

struct History {
    world: World,
    seed: u64,
    boards: u64,
    replicas: usize,
    /// Boards that are away, and who was there when they went.
    gone: BTreeMap<String, BTreeSet<String>>,
    /// Nobody else was away since these boards were last all there.
    alone: bool,
}

impl History {
    fn new(seed: u64, d: &mut Dice) -> History {
        let (boards, replicas) = (3 + d.roll(5), 1 + d.roll(6) as usize);
        let mut world = World::with_nodes(boards as usize);
        let word = ["keep-original", "keep-replacement", "longest-running"][d.roll(3) as usize];
        let annotations = json!({LOST_AFTER: "5m", REPLACE: "true", RECONCILE: word});
        world.create("apps/deployments", json!({"metadata": {"name": "x", "namespace": "a"}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "x"}}, "template": {
                "metadata": {"labels": {"app": "x"}, "annotations": annotations},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
        world.settle();
        History { world, seed, boards, replicas, gone: BTreeMap::new(), alone: true }
    }

    fn goes(&mut self, board: String) {
        let there = active(&self.world).filter(|p| p.node.as_deref() == Some(&*board));
        let there = there.map(|p| p.meta.name.to_string()).collect();
        self.alone = self.gone.is_empty();
        away(&mut self.world, &board);
        self.gone.insert(board, there);
    }

    fn returns(&mut self, board: &str) {
        self.gone.remove(board);
        back(&mut self.world, board);
    }

    fn check(&self) {
        let seed = self.seed;
        let counted = active(&self.world).filter(|p| !is_lost(p)).count();
        assert_eq!(counted, self.replicas, "seed {seed}: pods that count");
        if let (1, true, Some((board, there))) = (self.gone.len(), self.alone, self.gone.first_key_value()) {
            let still: BTreeSet<String> = active(&self.world)
                .filter(|p| p.node.as_deref() == Some(&**board))
                .map(|p| p.meta.name.to_string())
                .collect();
            assert_eq!(still, *there, "seed {seed}: nothing is deleted or placed on {board} while it is away");
        }
        if self.gone.is_empty() {
            assert_eq!(active(&self.world).count(), self.replicas, "seed {seed}: all are back and nothing runs twice");
        }
    }
}

/// How many pods were replaced, and how many pairs came to an end.
fn history(seed: u64) -> (usize, usize) {
    let mut d = Dice(seed);
    let mut h = History::new(seed, &mut d);
    for _ in 0..20 {
        let board = format!("n{}", d.roll(h.boards));
        match (d.roll(4), h.gone.contains_key(&board)) {
            (0 | 1, false) => h.goes(board),
            (0..=2, true) => h.returns(&board),
            _ => h.world.pass(30 + d.roll(900) as i64),
        }
        h.world.settle();
        h.check();
    }
    for board in h.gone.keys().cloned().collect::<Vec<_>>() {
        h.returns(&board);
        h.world.settle();
    }
    h.world.pass(900);
    h.world.settle();
    h.check();
    let told = |reason: &str| h.world.events.iter().filter(|e| e.2 == reason).count();
    (told("Lost"), told("Reconciled"))
}

#[test]
fn whoever_comes_and_goes_the_number_of_pods_is_right_in_the_end() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(60);
    let (mut lost, mut reconciled) = (0, 0);
    for seed in 0..seeds {
        let (more_lost, more_reconciled) = history(seed);
        lost += more_lost;
        reconciled += more_reconciled;
    }
    assert!(lost > 0 && reconciled > 0, "{lost} were replaced, {reconciled} pairs ended: the histories prove nothing");
}
