//! All controllers with their queue and their timers.
//!
//! In: changes, time. Out: what is to be reconciled, plans, and their changes carried out. The seed is the caller's.
//! Never: loses a key: what was refused comes again.

use super::Api;
use crate::{Change, Changed, Key, ObjectStore, Plan, Timestamp, control::Controller};
use std::collections::{BTreeMap, BTreeSet};

/// A controller, by its place in the list, and what it is to reconcile.
pub type Work = (usize, Key);

pub struct Managers {
    list: Vec<Box<dyn Controller>>,
    by_resource: BTreeMap<&'static str, Vec<usize>>,
    of_all: Vec<usize>,
    waiting: BTreeSet<Work>,
    timers: BTreeMap<Work, Timestamp>,
    by_time: BTreeSet<(Timestamp, Work)>,
}

impl Managers {
    pub fn new(list: Vec<Box<dyn Controller>>) -> Managers {
        let mut by_resource: BTreeMap<&'static str, Vec<usize>> = BTreeMap::new();
        let mut of_all = Vec::new();
        for (index, controller) in list.iter().enumerate() {
            for resource in controller.resources() {
                match *resource {
                    "*" => of_all.push(index),
                    resource => by_resource.entry(resource).or_default().push(index),
                }
            }
        }
        let (waiting, timers, by_time) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        Managers { list, by_resource, of_all, waiting, timers, by_time }
    }

    pub fn list(&self) -> &[Box<dyn Controller>] {
        &self.list
    }

    /// Who must look again because of a change that the view has.
    pub fn observe(&mut self, view: &ObjectStore, changed: &Changed) {
        let own = self.by_resource.get(&*changed.key.resource).into_iter().flatten();
        for index in own.chain(&self.of_all) {
            let keys = self.list[*index].keys_for(view, changed);
            self.waiting.extend(keys.into_iter().map(|key| (*index, key)));
        }
    }

    /// Those whose time has come wait too.
    pub fn tick(&mut self, now: Timestamp) {
        while let Some((at, work)) = self.by_time.first().cloned()
            && at <= now
        {
            self.set_timer(&work, None);
            self.waiting.insert(work);
        }
    }

    /// Everything that waits, in the order of the controllers.
    pub fn take(&mut self) -> BTreeSet<Work> {
        std::mem::take(&mut self.waiting)
    }

    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What is to be done about one key; its timer is set anew.
    pub fn plan(&mut self, view: &ObjectStore, work: &Work, now: Timestamp, seed: u64) -> Plan {
        let plan = self.list[work.0].reconcile(view, &work.1, now, seed);
        self.set_timer(work, plan.again_at);
        plan
    }

    /// Comes again without a new event.
    pub fn add(&mut self, work: Work) {
        self.waiting.insert(work);
    }

    /// Until one is refused, and then tells the object's owner; whoever calls says when the key comes again.
    pub fn carry_out(&self, api: &mut Api, work: &Work, changes: Vec<Change>) -> Result<(), String> {
        for change in changes {
            if let Err(error) = api.apply(&change) {
                // As in the shell: what only came too late is tried again, and nobody is told.
                if error.starts_with("conflict on") || error.starts_with("uid of") || error.ends_with("not found") {
                    return Err(error);
                }
                let plan = self.list[work.0].refused(&api.view, &work.1, &change, &error, api.now);
                for change in plan.changes {
                    let told = api.apply(&change);
                    assert!(told.is_ok() || !api.strict, "{change:?} was refused: {told:?}");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub fn set_timer(&mut self, work: &Work, at: Option<Timestamp>) {
        if let Some(old) = self.timers.remove(work) {
            self.by_time.remove(&(old, work.clone()));
        }
        if let Some(at) = at {
            self.timers.insert(work.clone(), at);
            self.by_time.insert((at, work.clone()));
        }
    }

    /// The wall clock is set: waits stay as long as they were.
    pub fn shift(&mut self, by: impl Fn(Timestamp) -> Timestamp) {
        self.timers.values_mut().for_each(|at| *at = by(*at));
        self.by_time = self.timers.iter().map(|(work, at)| (*at, work.clone())).collect();
    }

    pub fn timer(&self, work: &Work) -> Option<Timestamp> {
        self.timers.get(work).copied()
    }

    /// What waits for its time, the earliest first.
    pub fn timers(&self) -> impl Iterator<Item = &(Timestamp, Work)> {
        self.by_time.iter()
    }

    pub fn wake_at(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(at, _)| *at)
    }
}
