//! The node's set as the hub believes it to be, and the steps from there to the desired one.
//!
//! In: what is wanted, inventories, acknowledgements, issued tokens. Out: numbered steps, of differences
//! where the node speaks that.
//! After `Hello` with another digest nothing is sent until the inventory comes: it says what the node holds.
//! Never: sends a body that the node holds already; keeps a token longer than until it is sent.

use super::{few::Few, is_token};
use crate::{
    ObjectStore, Timestamp, limits,
    nodes::desired::{self, ItemState, TokenWanted, Wanted},
    view::{Sent, Which},
};
use limpet_protocol::{
    Inventory, ItemHash, ItemKey, ItemKind, ItemStep, Removal, SetDigest, SetStep, limits as wire, squeeze,
};
use std::collections::BTreeMap;

const TOKEN_AGAIN_S: i64 = 30;

#[derive(Debug, Default)]
pub(super) struct SetState {
    /// Its items are there only while steps are made: they are found anew each time, and there are many nodes.
    wanted: Wanted,
    dirty: bool,
    /// What the node holds once it has taken in everything sent; `None` until that is known.
    held: Option<Held>,
    seq: u64,
    acknowledged: u64,
    /// When the last step was sent; unacknowledged steps are asked after.
    sent_at: Option<Timestamp>,
    /// An inventory came: the next step goes out even when it is empty, because its digest is the answer.
    asked: bool,
    tokens: Few<ItemKey, Token>,
    /// Asked of the shell, not answered yet.
    issuing: Few<ItemKey, ()>,
    to_issue: Vec<TokenWanted>,
    failed: Few<ItemKey, Timestamp>,
    /// The node takes differences.
    differences: bool,
}

#[derive(Debug, Default)]
struct Held {
    items: Few<ItemKey, ItemState>,
    digest: SetDigest,
}

#[derive(Debug)]
struct Token {
    state: ItemState,
    /// Until it is sent; afterwards only the node has it.
    body: Option<Vec<u8>>,
}

impl Held {
    fn put(&mut self, key: &ItemKey, state: ItemState) {
        if let Some(old) = self.items.insert(key.clone(), state) {
            self.digest.remove(key, old.hash);
        }
        self.digest.add(key, state.hash);
    }

    /// `keys` in their order.
    fn remove(&mut self, keys: &[ItemKey]) {
        if keys.is_empty() {
            return;
        }
        let Held { items, digest } = self;
        items.retain(|key, state| {
            let stays = keys.binary_search(key).is_err();
            if !stays {
                digest.remove(key, state.hash);
            }
            stays
        });
    }
}

impl SetState {
    /// A session begins. Returns the digest that the node should have.
    pub(super) fn opened(&mut self, wanted: Wanted, theirs: SetDigest, differences: bool) -> SetDigest {
        self.differences = differences;
        self.wanted = wanted;
        (self.seq, self.acknowledged) = (0, 0);
        self.issuing = Few::default();
        self.tokens.retain(|key, _| self.wanted.tokens.contains_key(key));
        let items = std::mem::take(&mut self.wanted.items).into_iter().collect();
        let mut target = Held { items, digest: self.wanted.digest };
        for (key, token) in self.tokens.iter() {
            target.put(key, token.state);
        }
        let digest = target.digest;
        self.held = (digest == theirs).then_some(target);
        // Sets may be equal because neither side has a token: it was lost on its way, and the hub restarted.
        self.dirty = self.wanted.tokens.keys().any(|key| !self.tokens.contains_key(key));
        digest
    }

    pub(super) fn closed(&mut self) {
        self.held = None;
    }

    pub(super) fn dirty(&mut self) {
        self.dirty = true;
    }

    pub(super) fn in_sync(&self) -> bool {
        self.held.is_some() && !self.dirty && self.acknowledged >= self.seq && self.issuing.is_empty()
    }

    /// What the node holds, in its own words.
    pub(super) fn inventory(&mut self, mut inventory: Inventory) {
        let mut held = Held::default();
        // In order, whatever the node did: each is put behind the one before. Of one that comes twice the last counts.
        inventory.entries.sort_by(|a, b| a.key.cmp(&b.key));
        for entry in inventory.entries {
            let state = ItemState { generation: entry.generation, hash: entry.hash };
            // A token that this hub does not remember (it restarted) but the node still holds is as good as issued.
            if is_token(&entry.key) && self.wanted.tokens.contains_key(&entry.key) {
                self.tokens.or_insert_with(entry.key.clone(), || Token { state, body: None });
            }
            held.put(&entry.key, state);
        }
        // One that was sent but is not there was lost: it has to be issued again.
        self.tokens.retain(|key, token| token.body.is_some() || held.items.contains_key(key));
        self.held = Some(held);
        self.acknowledged = self.seq;
        (self.dirty, self.asked) = (true, true);
    }

    pub(super) fn acknowledged(&mut self, seq: u64) {
        if seq <= self.seq {
            self.acknowledged = self.acknowledged.max(seq);
        }
    }

    pub(super) fn token(&mut self, key: ItemKey, generation: u64, body: Vec<u8>) {
        self.issuing.remove(&key);
        self.failed.remove(&key);
        if self.wanted.tokens.contains_key(&key) && body.len() <= wire::ITEM_BYTES_MAX {
            let state = ItemState { generation, hash: ItemHash::of(&body) };
            self.tokens.insert(key, Token { state, body: Some(body) });
            self.dirty = true;
        }
    }

    pub(super) fn token_refused(&mut self, now: Timestamp, key: &ItemKey) {
        self.issuing.remove(key);
        self.failed.insert(key.clone(), now);
    }

    /// The node asks for a fresh token before the one it has ends.
    pub(super) fn renew_token(&mut self, key: &ItemKey) {
        if let Some(wanted) = self.wanted.tokens.get(key)
            && self.issuing.insert(key.clone(), ()).is_none()
        {
            self.to_issue.push(wanted.clone());
        }
    }

    pub(super) fn tokens_to_issue(&mut self) -> Vec<TokenWanted> {
        std::mem::take(&mut self.to_issue)
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let after = |at: Timestamp, s| at.checked_add(jiff::SignedDuration::from_secs(s)).ok();
        let token = self.failed.values().min().and_then(|at| after(*at, TOKEN_AGAIN_S));
        let waits = self.held.is_some() && self.acknowledged < self.seq;
        let probe = self.sent_at.filter(|_| waits).and_then(|at| after(at, limits::RESEND_AFTER_S));
        [token, probe].into_iter().flatten().min()
    }

    /// An empty step, when acknowledgements are overdue: a node that missed something sees the gap and sends its
    /// inventory; one whose acknowledgement was lost acknowledges this one.
    fn probe(&mut self, now: Timestamp) -> Option<SetStep> {
        let overdue =
            self.sent_at.is_some_and(|at| now.duration_since(at).as_secs() >= limits::RESEND_AFTER_S);
        (overdue && self.acknowledged < self.seq).then(|| self.empty_step()).flatten()
    }

    fn empty_step(&mut self) -> Option<SetStep> {
        let digest = self.held.as_ref()?.digest;
        self.seq += 1;
        Some(SetStep { seq: self.seq, digest, ..SetStep::default() })
    }

    /// The next steps, as far as unacknowledged ones leave room.
    pub(super) fn steps(&mut self, now: Timestamp, view: &ObjectStore, node: &str) -> Vec<SetStep> {
        let mut steps = Vec::new();
        self.retry_tokens(now);
        steps.extend(self.probe(now));
        if !steps.is_empty() {
            self.sent_at = Some(now);
        }
        if !self.dirty || self.held.is_none() {
            return steps;
        }
        let room = (limits::CHANGES_IN_FLIGHT_MAX as u64).saturating_sub(self.seq - self.acknowledged);
        if room == 0 {
            return steps;
        }
        self.wanted = desired::wanted(view, node);
        self.tokens.retain(|key, _| self.wanted.tokens.contains_key(key));
        self.failed.retain(|key, _| self.wanted.tokens.contains_key(key));
        self.want_tokens();
        for _ in 0..room {
            match self.step(view) {
                Some(step) => steps.push(step),
                None => {
                    self.dirty = false;
                    break;
                }
            }
        }
        self.wanted.items = BTreeMap::new();
        if std::mem::take(&mut self.asked) && steps.is_empty() {
            steps.extend(self.empty_step());
        }
        if !steps.is_empty() {
            self.sent_at = Some(now);
        }
        steps
    }

    fn retry_tokens(&mut self, now: Timestamp) {
        let before = self.failed.len();
        self.failed.retain(|_, at| now.duration_since(*at).as_secs() < TOKEN_AGAIN_S);
        self.dirty |= before != self.failed.len();
    }

    fn want_tokens(&mut self) {
        for (key, wanted) in &self.wanted.tokens {
            let known = self.tokens.contains_key(key) || self.failed.contains_key(key);
            if !known && self.issuing.insert(key.clone(), ()).is_none() {
                self.to_issue.push(wanted.clone());
            }
        }
    }

    /// One bounded step; `None` when nothing differs.
    fn step(&mut self, view: &ObjectStore) -> Option<SetStep> {
        let held = self.held.as_mut()?;
        let mut change = SetStep::default();
        let surplus: Vec<ItemKey> = held
            .items
            .keys()
            .filter(|k| !self.wanted.items.contains_key(*k) && !self.tokens.contains_key(*k))
            .take(wire::ITEMS_PER_CHANGE_MAX)
            .cloned()
            .collect();
        held.remove(&surplus);
        let removal = |key| Removal { key, generation: view.revision() };
        change.removals.extend(surplus.into_iter().map(removal));
        let mut bytes = 0;
        let tokens = self.tokens.iter().map(|(key, token)| (key, token.state));
        for (key, state) in self.wanted.items.iter().map(|(k, s)| (k, *s)).chain(tokens) {
            if held.items.get(key).is_some_and(|h| h.hash == state.hash) {
                continue;
            }
            if change.puts.len() >= wire::ITEMS_PER_CHANGE_MAX || bytes >= wire::SET_CHANGE_BYTES_TARGET {
                break;
            }
            let sent = match is_token(key) {
                true => self.tokens.get(key).and_then(|t| t.body.as_deref()).map(whole),
                false => {
                    let before = held.items.get(key).filter(|_| self.differences).map(|h| h.hash);
                    item(view, key, state.hash, before)
                }
            };
            let Some(Sent { whole, base, body }) = sent.filter(|s| s.whole <= wire::ITEM_BYTES_MAX) else { continue };
            bytes += whole;
            let body = body.to_vec();
            held.put(key, state);
            change.puts.push(ItemStep { key: key.clone(), generation: state.generation, base, body });
        }
        if change.puts.is_empty() && change.removals.is_empty() {
            return None;
        }
        for put in change.puts.iter().filter(|p| is_token(&p.key)) {
            if let Some(token) = self.tokens.get_mut(&put.key) {
                token.body = None;
            }
        }
        self.seq += 1;
        change.seq = self.seq;
        change.digest = held.digest;
        Some(change)
    }
}

fn whole(body: &[u8]) -> Sent {
    Sent { whole: body.len(), base: 0, body: body.into() }
}

/// An item for a node that holds `before` of it, as a difference where that is known and worth it.
fn item(view: &ObjectStore, key: &ItemKey, hash: ItemHash, before: Option<ItemHash>) -> Option<Sent> {
    // Pods and Nodes are for one node only.
    if !matches!(key.kind, ItemKind::ConfigMap | ItemKind::Secret | ItemKind::Service | ItemKind::EndpointSlice) {
        return desired::body(view, key).map(|body| whole(&body));
    }
    let before = before.filter(|hash| hash.prefix() != 0 && desired::before(view, key, *hash).is_some());
    let make = || {
        let body = desired::body(view, key)?;
        let base = before.and_then(|hash| Some((hash.prefix(), desired::previous(view, key, hash)?)));
        let folded = base.map(|(prefix, old)| (prefix, squeeze::fold(&old, &body)));
        let worth = folded.filter(|(_, folded)| folded.len() < body.len() / limits::DIFFERENCE_WORTH);
        Some(worth.map_or_else(|| whole(&body), |(base, folded)| Sent { whole: body.len(), base, body: folded.into() }))
    };
    view.sent(&Which { key: key.clone(), hash, before }, make)
}
