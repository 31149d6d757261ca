//! The real scheduler, all real controllers and the watch over nodes, over the simulated hub.
//!
//! In: changes of the view, time. Out: plans, whose changes are carried out a moment later and one after the other.
//! As in the shell: one plan a key at a time, what was refused comes again after a growing pause.
//! Never: a decision on what the view does not have yet; anything that outlives the hub's process.

use crate::{Rng, Sabotage, clock::HubClock, hub::Hub, misrule, sabotage};
use limpet_hub_core::{
    Change, Changed, Key, ObjectStore, Timestamp,
    clocks::WallClock,
    control::{self, Settings},
    nodes::offline,
    world::{Managers, Work},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const PAUSE_FIRST_S: i64 = 1;
const PAUSE_MAX_S: i64 = 60;

/// Whose plan is carried out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    Controller(Work),
    Scheduler(Key),
    Node(String),
}

pub struct Control {
    managers: Option<Managers>,
    busy: BTreeSet<By>,
    again: BTreeSet<By>,
    failures: BTreeMap<Work, u32>,
    look: BTreeSet<String>,
    look_at: BTreeMap<String, Timestamp>,
    stirred: bool,
}

/// Signs by writing the claims down.
struct Scribe;

impl control::accounttoken::TokenSigner for Scribe {
    fn sign(&self, claims: &serde_json::Value) -> Option<String> {
        Some(claims.to_string())
    }
}

impl Control {
    /// Without controllers: only the watch over nodes.
    pub fn new(on: bool, clock: &Arc<HubClock>, mistake: Sabotage) -> Control {
        let managers = on.then(|| {
            let tokens = Arc::new(Scribe);
            let all = control::all(&Settings { ca_pem: "CA".into(), tokens, clock: clock.clone(), ..Settings::default() });
            Managers::new(sabotage::spoil(all, mistake))
        });
        Control {
            managers,
            busy: BTreeSet::new(),
            again: BTreeSet::new(),
            failures: BTreeMap::new(),
            look: BTreeSet::new(),
            look_at: BTreeMap::new(),
            stirred: false,
        }
    }

    pub fn is_on(&self) -> bool {
        self.managers.is_some()
    }

    pub fn changed(&mut self, view: &ObjectStore, changed: &Changed) {
        self.stirred = true;
        if let Some(managers) = &mut self.managers {
            managers.observe(view, changed);
        }
    }

    /// The wall clock is set by so much.
    pub fn shift(&mut self, by_ms: i64) {
        let by = |at: Timestamp| Timestamp::from_millisecond(at.as_millisecond() + by_ms).unwrap_or(at);
        self.managers.iter_mut().for_each(|m| m.shift(by));
        self.look_at.values_mut().for_each(|at| *at = by(*at));
    }

    pub fn look_at(&mut self, node: &str) {
        self.stirred = true;
        self.look.insert(node.into());
    }

    /// Whether anything happened since the last decision.
    pub fn is_stirred(&self) -> bool {
        self.stirred
    }

    /// When to decide again without any event.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let managers = self.managers.as_ref().and_then(Managers::wake_at);
        managers.into_iter().chain(self.look_at.values().copied()).min()
    }

    /// A plan was carried out, or refused.
    fn done(&mut self, by: &By, now: Timestamp, refused: bool) {
        self.busy.remove(by);
        let again = self.again.remove(by);
        self.stirred |= again;
        match by {
            By::Controller(work) => {
                let Some(managers) = &mut self.managers else { return };
                if refused {
                    let failures = self.failures.entry(work.clone()).or_default();
                    let pause = (PAUSE_FIRST_S << (*failures).min(10)).min(PAUSE_MAX_S);
                    *failures += 1;
                    managers.set_timer(work, later(now, pause));
                } else {
                    self.failures.remove(work);
                }
                if again {
                    managers.add(work.clone());
                }
            }
            By::Node(node) if refused => {
                self.look_at.extend(later(now, PAUSE_FIRST_S).map(|at| (node.clone(), at)));
            }
            By::Node(node) if again => {
                self.look.insert(node.clone());
            }
            By::Node(_) | By::Scheduler(_) => {}
        }
    }
}

fn later(now: Timestamp, seconds: i64) -> Option<Timestamp> {
    now.checked_add(std::time::Duration::from_secs(seconds.unsigned_abs())).ok()
}

/// A plan's changes on their way.
pub type Plans = Vec<(By, Vec<Change>)>;

impl Hub {
    /// Everybody who has something to decide does.
    pub fn decide(&mut self, rng: &mut Rng) -> Plans {
        self.control.stirred = false;
        self.look_at_the_clock();
        let mut plans = Plans::new();
        self.decide_controllers(rng, &mut plans);
        self.decide_placements(rng, &mut plans);
        self.decide_nodes(&mut plans);
        plans
    }

    /// Whoever notices that the wall clock was set has the times of boards that are away written anew.
    fn look_at_the_clock(&mut self) {
        self.clock.even(self.api.now);
        let times = self.clock.times_set();
        if std::mem::replace(&mut self.times_set, times) < times {
            self.liveness.clock_was_set();
            let away: Vec<String> = self.away.keys().cloned().collect();
            away.iter().for_each(|node| self.control.look_at(node));
        }
    }

    fn decide_controllers(&mut self, rng: &mut Rng, plans: &mut Plans) {
        let now = self.clock_ms();
        let Hub { api, control, promises, broken, away, .. } = self;
        let Some(managers) = &mut control.managers else { return };
        managers.tick(api.now);
        for work in managers.take() {
            let by = By::Controller(work);
            if control.busy.contains(&by) {
                control.again.insert(by);
                continue;
            }
            let By::Controller(work) = &by else { continue };
            let mut plan = managers.plan(&api.view, work, api.now, rng.next());
            let name = managers.list()[work.0].name();
            if let Err(e) = promises.decided(&api.view, name, &work.1, &plan, (away, now)) {
                broken.get_or_insert(e);
            }
            plan.changes.retain(|c| !matches!(c, Change::Event { .. }));
            if plan.changes.is_empty() {
                control.failures.remove(work);
                continue;
            }
            control.busy.insert(by.clone());
            plans.push((by, plan.changes));
        }
    }

    fn decide_placements(&mut self, rng: &mut Rng, plans: &mut Plans) {
        let Hub { api, control, promises, broken, mistake, .. } = self;
        if control.managers.is_none() {
            return;
        }
        let now = api.steady();
        while let Some(key) = api.scheduler.next(now) {
            let mut plan = api.scheduler.plan(&api.view, &key, now, rng.next());
            plan.changes.retain(|c| !matches!(c, Change::Event { .. }));
            if *mistake == Sabotage::PlacesAnywhere {
                misrule::place_anywhere(&api.view, &mut plan);
            }
            if let Err(e) = promises.limits.placed(&api.view, &plan) {
                broken.get_or_insert(e);
            }
            plan.changes.iter().for_each(|c| api.assume(c));
            if !plan.changes.is_empty() {
                plans.push((By::Scheduler(key), plan.changes));
            }
        }
    }

    fn decide_nodes(&mut self, plans: &mut Plans) {
        let even = self.even();
        let Hub { api, control, liveness, .. } = self;
        let due: Vec<String> = control.look_at.iter().filter(|(_, at)| **at <= api.now).map(|(n, _)| n.clone()).collect();
        control.look.extend(due);
        for node in std::mem::take(&mut control.look) {
            let by = By::Node(node);
            if control.busy.contains(&by) {
                control.again.insert(by);
                continue;
            }
            let By::Node(node) = &by else { continue };
            let mut plan = offline::reconcile(&api.view, liveness, node, api.now, even);
            match plan.again_at {
                Some(at) => control.look_at.insert(node.clone(), at),
                None => control.look_at.remove(node),
            };
            plan.changes.retain(|c| !matches!(c, Change::Event { .. }));
            if !plan.changes.is_empty() {
                control.busy.insert(by.clone());
                plans.push((by, plan.changes));
            }
        }
    }

    /// Carries a plan out; true when the hub died on the way.
    pub fn carry_out(&mut self, by: &By, changes: Vec<Change>) -> bool {
        let mut refused = self.disk_bad;
        for change in changes {
            if refused {
                break;
            }
            if self.point() {
                return true;
            }
            refused = match (by, &self.control.managers) {
                (By::Controller(work), Some(managers)) => managers.carry_out(&mut self.api, work, vec![change]).is_err(),
                _ => self.api.apply(&change).is_err(),
            };
            if self.point() {
                return true;
            }
        }
        if let By::Scheduler(key) = by
            && refused
        {
            self.unassume(key);
        }
        self.control.done(by, self.api.now, refused);
        false
    }

    /// A binding that did not come to be: as in the shell scheduler and controllers are told.
    fn unassume(&mut self, key: &Key) {
        let stored = self.api.objects.get(key);
        let unbound = stored.filter(|p| p["spec"]["nodeName"].is_null()).and_then(|p| p["metadata"]["uid"].as_str());
        if let Some(uid) = unbound.map(String::from)
            && let Some(changed) = self.api.view.assume_bound(&key.namespace, &key.name, &uid, "")
        {
            let now = self.api.steady();
            self.api.scheduler.observe(&self.api.view, &changed, now);
            self.control.changed(&self.api.view, &changed);
        }
        let now = self.api.steady();
        self.api.scheduler.failed(key, now);
        self.control.stirred = true;
    }

    /// When somebody wants to decide without any event; simulated milliseconds.
    pub fn control_at(&self) -> Option<u64> {
        let scheduler = self.control.managers.as_ref().and_then(|_| self.api.scheduler.wake_at());
        let scheduler = scheduler.map(|at| self.comes(at, self.steady()));
        let control = self.control.wake_at().map(|at| self.comes(at, self.api.now));
        control.into_iter().chain(scheduler).min()
    }
}
