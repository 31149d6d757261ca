//! All pods of the node.
//!
//! In: `Input`s with the time and the desired set. Out: `Action`s. One input touches the pods it concerns, then each
//! of them is synced; what changed is remembered and reported.
//! Never: forgets a pod of which something still runs.

use super::{
    Action, AdoptedPod, Input, PodMemory, PodNote, StaticPod, Uid,
    admit::{Others, no_room, pressed},
    container::{Container, Cx},
    events::Recorder,
    inputs::{apply, uid_of},
    pod::{Goal, LivePod, Step, Teardown},
    resize::requests_of,
    statics::{Mirrored, Statics},
    status::{logged, pod_status, status_again},
    tokens::Tokens,
};
use crate::{
    api::{self, Pod},
    clock::Now,
    plan::{self, HostFacts, Requests},
    sync::{Items, Record},
};
use limpet_protocol::{ItemKey, ItemKind};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// Room for so many actions stays when all are done; a board that starts its pods has hundreds at once.
const OUT_KEPT: usize = 8;

/// Namespace and name.
pub(super) type Name = (String, String);

#[derive(Debug, Default)]
pub struct PodManager {
    /// Boxed, as a tree's nodes have room for eleven.
    pub(super) pods: BTreeMap<Uid, Box<LivePod>>,
    pub(super) names: BTreeMap<Name, Uid>,
    pub(super) host: HostFacts,
    out: VecDeque<Action>,
    events: Recorder,
    tokens: Tokens,
    pub(super) statics: Statics,
    memories: BTreeMap<String, PodMemory>,
    notes: BTreeMap<String, PodNote>,
    adopted: Vec<AdoptedPod>,
    /// Found at the start without a pod in the set: only to be removed.
    pub(super) orphans: Vec<(Uid, Option<Name>)>,
    begun: bool,
    now: Now,
}

impl PodManager {
    pub fn new() -> PodManager {
        PodManager::default()
    }

    pub fn poll(&mut self) -> Option<Action> {
        let next = self.out.pop_front();
        if next.is_none() && self.out.capacity() > OUT_KEPT {
            self.out.shrink_to(OUT_KEPT);
        }
        next
    }

    /// The next time at which `Input::Tick` is due, and why.
    pub fn wake_at(&self) -> Option<(u64, &'static str)> {
        let pods = self.pods.values().filter_map(|pod| pod.wake_at());
        pods.chain(self.tokens.wake_at(self.now)).min()
    }

    /// Pods that are known, with their addresses, for whoever serves names or streams.
    pub fn pods(&self) -> impl Iterator<Item = PodView<'_>> {
        self.pods.values().map(|p| PodView {
            uid: &p.facts.uid,
            object: &p.facts.object,
            ips: &p.facts.ips,
            sandbox_ready: p.sandbox == Step::Ready && p.teardown == Teardown::None,
            ready: super::status::is_ready(p),
            is_static: self.statics.has(&p.facts.uid),
        })
    }

    /// Whether a pod has ended for good, or is not here at all.
    pub fn is_over(&self, uid: &str) -> bool {
        self.pods.get(uid).is_none_or(|p| p.terminal.is_some())
    }

    /// The newest attempt of a container and whether it runs; `None` when there is no such container.
    pub fn container(&self, uid: &str, name: &str) -> Option<ContainerView> {
        let (_, c) = self.found(uid, name)?;
        Some(ContainerView { attempt: c.attempt, running: c.running().is_some() })
    }

    /// The attempt whose log is meant by `kubectl logs`, with or without `--previous`. An error is a sentence.
    pub fn logged(&self, uid: &str, name: &str, previous: bool) -> Result<u32, String> {
        let (pod, c) = self.found(uid, name).ok_or("the container is not known yet")?;
        logged(pod, c, previous)
    }

    fn found(&self, uid: &str, name: &str) -> Option<(&LivePod, &Container)> {
        let pod = self.pods.get(uid)?;
        Some((pod, pod.containers.iter().find(|c| *c.name == *name)?))
    }

    /// The containers of a pod, for whoever shows or measures them.
    pub fn containers_of(&self, uid: &str) -> Vec<ContainerInfo<'_>> {
        let Some(pod) = self.pods.get(uid) else { return Vec::new() };
        let info = |c: &Container| ContainerInfo {
            name: c.name.clone(),
            attempt: c.attempt,
            running: c.running().is_some(),
            started_ms: c.started_ms,
            image: pod.spec_image(&c.name),
            probes: c.probers.iter().map(|p| (p.kind.title(), p.counts)).collect(),
        };
        pod.containers.iter().map(info).collect()
    }

    /// What was reported last of a pod: v1 PodStatus as JSON.
    pub fn status_of(&self, uid: &str) -> Option<Vec<u8>> {
        let pod = self.pods.get(uid).filter(|pod| pod.reported.is_some())?;
        Some(status_again(pod, &self.host, self.now))
    }

    /// When the node took up a pod, by the wall clock.
    pub fn start_ms_of(&self, uid: &str) -> u64 {
        self.pods.get(uid).map_or(0, |pod| pod.start_ms)
    }

    /// There is a hub to talk to: what only it can answer is asked at once.
    pub fn linked(&mut self, now: Now) {
        self.now = now;
        self.tokens.linked();
    }

    /// Since when the node knows of a pod, by the monotonic clock.
    pub fn seen_for_ms(&self, uid: &str) -> u64 {
        self.pods.get(uid).map_or(0, |pod| self.now.mono_ms.saturating_sub(pod.since_ms))
    }

    /// Records for the journal's compaction.
    pub fn snapshot(&self) -> impl Iterator<Item = PodMemory> {
        let early = self.memories.values().cloned();
        self.pods.values().filter_map(|pod| pod.memory()).chain(early)
    }

    /// Records on their way to the journal, and before them what it must have before new sizes of pods that are here: an agent
    /// may be killed before it has looked at those.
    pub fn with_sizes(&self, records: Vec<Record>) -> Vec<Record> {
        let before = records.iter().filter_map(|record| {
            let Record::Put(item) = record else { return None };
            let name = (item.key.namespace.clone(), item.key.name.clone());
            let uid = self.names.get(&name).filter(|_| item.key.kind == ItemKind::Pod)?;
            let manifest: Pod = api::parse(&item.body).ok()?;
            let pod = self.pods.get(uid).filter(|_| manifest.metadata.uid == **uid)?;
            pod.record_before(&manifest).map(Record::Pod)
        });
        before.collect::<Vec<_>>().into_iter().chain(records).collect()
    }

    pub fn handle(&mut self, now: Now, items: &Items, input: Input) {
        self.now = now;
        match input {
            Input::Remembered(memory) => {
                self.memories.insert(memory.uid.clone(), memory);
            }
            Input::Adopted(found) => self.adopted.push(found),
            Input::Noted(note) => {
                self.notes.insert(note.uid.clone(), note);
            }
            Input::Begin => self.begin(items),
            Input::Host(host) => {
                self.host = host;
                self.sync_all(items);
            }
            Input::Static(pods) => self.set_static(items, pods),
            Input::Changed(keys) => self.changed(items, &keys),
            Input::Tick => {
                for key in self.tokens.take_due(now) {
                    self.out.push_back(Action::AskToken(key));
                }
                let due = |pod: &LivePod| pod.wake_at().is_some_and(|(at, _)| at <= now.mono_ms);
                self.sync_some(items, |_, pod| due(pod));
            }
            other => self.about_one(items, other),
        }
        self.share_room(items);
    }

    /// Room that somebody has just left is for those that wait for it: they may have been asked before it was there, and on a
    /// quiet board no other news would come.
    fn share_room(&mut self, items: &Items) {
        let waits = |(uid, pod): (&Uid, &Box<LivePod>)| {
            let seen = pod.resize.pending.as_ref().map(|pending| pending.free)?;
            self.free_for(uid).filter(|free| *free != seen).map(|_| uid.clone())
        };
        if let Some(uid) = self.pods.iter().find_map(waits) {
            self.sync_one(items, &uid);
            self.share_room(items);
        }
    }

    fn begin(&mut self, items: &Items) {
        if self.begun {
            return;
        }
        self.begun = true;
        let adopted = std::mem::take(&mut self.adopted);
        let mut keys: Vec<ItemKey> = items.of(ItemKind::Pod).map(|(key, _)| key.clone()).collect();
        keys.extend(self.statics.keys().filter(|key| items.by_key(key).is_none()).cloned());
        for (key, _) in items.of(ItemKind::Token) {
            self.tokens.changed(key, items);
        }
        for key in keys {
            self.load(items, &key);
        }
        let notes = std::mem::take(&mut self.notes);
        for (uid, pod) in &mut self.pods {
            if let Some(note) = notes.get(&**uid) {
                pod.take_note(note);
            }
        }
        for found in adopted {
            let uid: Uid = Arc::from(found.uid.as_str());
            match self.pods.get_mut(&uid) {
                Some(pod) => {
                    let note = notes.get(&found.uid);
                    pod.adopt(found, note, self.now);
                }
                None => {
                    let name = self.memories.get(&*uid).map(|m| (m.namespace.clone(), m.name.clone()));
                    self.hold_next(name.as_ref());
                    self.orphans.push((uid.clone(), name));
                    self.out.push_back(Action::RemovePod { uid });
                }
            }
        }
        for (uid, _) in std::mem::take(&mut self.memories) {
            self.out.push_back(Action::Forget { uid: Arc::from(uid) });
        }
        self.sync_all(items);
    }

    fn changed(&mut self, items: &Items, keys: &[ItemKey]) {
        if !self.begun {
            return;
        }
        for key in keys {
            match key.kind {
                ItemKind::Pod => self.load(items, key),
                ItemKind::Token => self.tokens.changed(key, items),
                _ => {}
            }
        }
        let others: Vec<ItemKey> = keys.iter().filter(|k| k.kind != ItemKind::Pod).cloned().collect();
        let mut concerned: BTreeSet<Uid> = BTreeSet::new();
        if !others.is_empty() {
            self.each(items, |pod, cx| {
                if pod.set_changed(&others, cx) {
                    concerned.insert(pod.facts.uid.clone());
                }
            });
        }
        // Those that are named themselves, and those that have just lost their place in the set.
        let named = |pod: &LivePod| {
            let m = &pod.facts.object.metadata;
            let is = |k: &&ItemKey| k.kind == ItemKind::Pod && k.namespace == m.namespace && k.name == m.name;
            pod.goal == Goal::Remove || keys.iter().any(|k| is(&k))
        };
        self.sync_some(items, |uid, pod| concerned.contains(uid) || named(pod));
    }

    /// Takes over what the set says about one pod.
    pub(super) fn load(&mut self, items: &Items, key: &ItemKey) {
        let name = (key.namespace.clone(), key.name.clone());
        let object: Option<Pod> = items.by_key(key).and_then(|held| api::parse(&held.body()).ok());
        let object = object.filter(|p| !p.metadata.uid.is_empty());
        let mirrored = self.statics.look(key, object.as_ref());
        let object = match self.statics.get(key) {
            Some(own) => Some(own.object.clone()),
            None => object.filter(|_| mirrored == Mirrored::No),
        };
        self.mirrored(key, mirrored);
        let old = self.names.get(&name).cloned();
        let uid: Option<Uid> = object.as_ref().map(|p| Arc::from(p.metadata.uid.as_str()));
        if let Some(old) = old.filter(|old| Some(old) != uid.as_ref()) {
            self.names.remove(&name);
            if let Some(pod) = self.pods.get_mut(&old) {
                pod.goal = Goal::Remove;
            }
        }
        let (Some(object), Some(uid)) = (object, uid) else { return };
        let waits = self.statics.get(key).is_some() && self.is_ending(&name);
        self.names.insert(name, uid.clone());
        let (now, host) = (self.now, &self.host);
        let mut cx = Cx { now, items, host, out: &mut self.out, events: &mut self.events };
        match self.pods.get_mut(&uid) {
            Some(pod) => pod.update(object, &mut cx),
            None => {
                let memory = self.memories.remove(&*uid);
                let new = self.begun && memory.is_none() && self.statics.get(key).is_none();
                let mut pod = LivePod::new(uid.clone(), object, memory, host, now);
                if new && !pod.deleting() && pod.facts.object.status.phase.is_empty() {
                    let others = others(self.pods.values().map(|pod| &**pod));
                    let object = &pod.facts.object;
                    if let Some(refusal) = pressed(object, host).or_else(|| no_room(object, &others, host)) {
                        pod.refuse(refusal, &mut cx);
                    }
                }
                if waits {
                    pod.goal = Goal::Wait;
                }
                self.pods.insert(uid, Box::new(pod));
            }
        }
    }

    fn set_static(&mut self, items: &Items, pods: Vec<StaticPod>) {
        let changed = self.statics.replace(pods);
        if self.begun && !changed.is_empty() {
            self.out.push_back(Action::Remirror);
            changed.iter().for_each(|key| self.load(items, key));
            self.sync_all(items);
        }
    }

    /// Who a pod is to the hub: itself, or the mirror of a static pod.
    pub fn is_at_hub(&self, pod: &PodView<'_>, uid: &str) -> bool {
        let meta = &pod.object.metadata;
        let key = ItemKey::new(ItemKind::Pod, &meta.namespace, &meta.name);
        self.statics.name_at_hub(&key, pod.uid).is_some_and(|known| *known == *uid)
    }

    /// Mirrors for the hub, in the order of their names.
    pub fn mirrors(&self) -> Vec<serde_json::Value> {
        self.statics.mirrors()
    }

    fn mirrored(&mut self, key: &ItemKey, mirrored: Mirrored) {
        let (namespace, name) = (key.namespace.clone(), key.name.clone());
        match mirrored {
            Mirrored::Deleted(uid) => self.out.push_back(Action::PodGone { uid, namespace, name }),
            // Whatever was said before a mirror came was said to nobody.
            Mirrored::New => {
                let uid = self.statics.get(key).map(|own| own.uid.clone());
                if let Some(pod) = uid.and_then(|uid| self.pods.get_mut(&*uid)) {
                    pod.reported = None;
                }
            }
            Mirrored::Same if self.statics.get(key).is_some() && self.begun => self.out.push_back(Action::Remirror),
            Mirrored::Same | Mirrored::No => {}
        }
    }

    fn each(&mut self, items: &Items, mut f: impl FnMut(&mut LivePod, &mut Cx<'_>)) {
        let (now, host) = (self.now, &self.host);
        let mut cx = Cx { now, items, host, out: &mut self.out, events: &mut self.events };
        self.pods.values_mut().for_each(|pod| f(pod, &mut cx));
    }

    fn sync_all(&mut self, items: &Items) {
        if !self.begun {
            return;
        }
        let uids: Vec<Uid> = self.pods.keys().cloned().collect();
        uids.iter().for_each(|uid| self.sync_one(items, uid));
    }

    /// Those that something is to be done about, and those that wait for room.
    fn sync_some(&mut self, items: &Items, concerned: impl Fn(&Uid, &LivePod) -> bool) {
        if !self.begun {
            return;
        }
        let some = self.pods.iter().filter(|(uid, pod)| concerned(uid, pod) || pod.wants_resize());
        let uids: Vec<Uid> = some.map(|(uid, _)| uid.clone()).collect();
        uids.iter().for_each(|uid| self.sync_one(items, uid));
    }

    pub(super) fn sync_one(&mut self, items: &Items, uid: &Uid) {
        let (now, host) = (self.now, &self.host);
        let free = self.free_for(uid);
        let Some(pod) = self.pods.get_mut(uid).filter(|pod| pod.goal != Goal::Wait) else { return };
        let before = self.out.len();
        let mut cx = Cx { now, items, host, out: &mut self.out, events: &mut self.events };
        match free {
            Some(free) => pod.try_resize(free, &mut cx),
            None => pod.resize.pending = None,
        }
        pod.sync(&mut cx);
        if pod.goal == Goal::Remove && pod.teardown == Teardown::Gone {
            self.out.push_back(Action::Forget { uid: uid.clone() });
            self.events.forget(uid);
            let m = &pod.facts.object.metadata;
            let name = (m.namespace.clone(), m.name.clone());
            self.pods.remove(uid);
            return self.next_of(items, &name);
        }
        if let Some(memory) = pod.memory_if_changed() {
            // Before it is done: whoever comes after an agent that is killed now has to know what was begun.
            self.out.insert(before, Action::Remember(memory));
        }
        if pod.goal == Goal::Remove || pod.hearsay {
            return;
        }
        let status = pod_status(pod, host, now);
        self.out.extend(pod.note_if_changed().map(Action::Note));
        if pod.is_news(&status) {
            let m = &pod.facts.object.metadata;
            let (namespace, name) = (m.namespace.clone(), m.name.clone());
            let key = ItemKey::new(ItemKind::Pod, &namespace, &name);
            if let Some(uid) = self.statics.name_at_hub(&key, uid) {
                self.out.push_back(Action::Report { uid, namespace, name, status });
            }
        }
    }

    /// What the node has for a pod that wants other sizes; `None` when it does not.
    fn free_for(&self, uid: &Uid) -> Option<Requests> {
        self.pods.get(uid).filter(|pod| pod.wants_resize())?;
        let mut free = Requests {
            cpu_milli: self.host.allocatable_cpu_milli,
            memory_bytes: self.host.allocatable_memory_bytes,
        };
        for other in self.pods.values().filter(|p| p.facts.uid != *uid && p.takes_room()) {
            free = free.without(requests_of(other));
        }
        Some(free)
    }

    fn about_one(&mut self, items: &Items, input: Input) {
        let Some(uid) = uid_of(&input) else { return };
        if let Input::PodRemoved { uid } = &input
            && let Some(at) = self.orphans.iter().position(|(o, _)| o == uid)
        {
            let (_, name) = self.orphans.swap_remove(at);
            self.out.push_back(Action::Forget { uid: uid.clone() });
            return name.iter().for_each(|name| self.next_of(items, name));
        }
        let (now, host) = (self.now, &self.host);
        let Some(pod) = self.pods.get_mut(&uid) else { return };
        let mut cx = Cx { now, items, host, out: &mut self.out, events: &mut self.events };
        apply(pod, input, &mut cx);
        self.sync_one(items, &uid);
    }
}

/// What the pods that are here take, those that end included.
fn others<'a>(pods: impl Iterator<Item = &'a LivePod>) -> Others {
    let mut others = Others::default();
    for pod in pods.filter(|p| p.takes_room()) {
        others.pods += 1;
        others.requests = others.requests.with(requests_of(pod));
        others.ports.extend(plan::host_ports(&pod.facts.object.spec));
    }
    others
}

/// One pod, for readers.
#[derive(Clone, Copy, Debug)]
pub struct PodView<'a> {
    pub uid: &'a Uid,
    pub object: &'a Pod,
    pub ips: &'a [String],
    pub sandbox_ready: bool,
    /// The condition Ready.
    pub ready: bool,
    /// Its manifest lies on the board: nobody would bring it back, so it is never evicted (as on a kubelet).
    pub is_static: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerInfo<'a> {
    pub name: Arc<str>,
    /// The newest attempt; `None` before the first.
    pub attempt: Option<u32>,
    pub running: bool,
    /// Of the newest attempt, by the wall clock.
    pub started_ms: u64,
    pub image: &'a str,
    /// Kind, and how many of its tries succeeded, failed, came to nothing.
    pub probes: Vec<(&'static str, [u32; 3])>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerView {
    pub attempt: Option<u32>,
    pub running: bool,
}
