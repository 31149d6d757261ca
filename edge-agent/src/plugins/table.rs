//! Which devices there are and who has them.
//!
//! In: registrations, lists, wishes. Out: choices and counts. Never: I/O; a device to two containers.

use super::lister::Held;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const RESOURCES_MAX: usize = 64;
pub const DEVICES_MAX: usize = 1024;

/// Pod and container.
pub type Owner = (String, String);

/// Who answers for a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plugin {
    /// The name of its socket.
    pub endpoint: String,
    /// Of two registrations the later one counts.
    pub generation: u64,
    pub pre_start: bool,
    pub preferred: bool,
}

#[derive(Default)]
struct Resource {
    plugin: Option<Plugin>,
    /// By id: healthy or not.
    devices: BTreeMap<String, bool>,
    taken: BTreeMap<String, Owner>,
    /// The registration whose list ended last.
    lost: u64,
    turn: Arc<tokio::sync::Mutex<()>>,
}

pub struct Table {
    resources: BTreeMap<String, Resource>,
    own: BTreeSet<String>,
    generations: u64,
}

/// For one container.
#[derive(Debug, PartialEq, Eq)]
pub struct Choice {
    pub plugin: Plugin,
    /// As many as were asked for.
    pub chosen: Vec<String>,
    /// Those of them that it has already.
    pub kept: Vec<String>,
    /// Others that it could have.
    pub free: Vec<String>,
}

impl Table {
    pub fn new(known: Vec<String>, own: BTreeSet<String>) -> Table {
        let known = known.into_iter().filter(|name| is_name(name)).take(RESOURCES_MAX);
        Table { resources: known.map(|name| (name, Resource::default())).collect(), own, generations: 0 }
    }

    /// The generation of this registration, and whether the resource is a new one. The error is for the plugin.
    pub fn register(&mut self, resource: &str, plugin: Plugin) -> Result<(u64, bool), String> {
        if !is_name(resource) {
            return Err(format!("the ResourceName {resource:?} is invalid: it must be as example.com/name, not of kubernetes.io"));
        }
        if self.own.contains(resource) {
            return Err(format!("{resource} is offered by the board's own configuration"));
        }
        let is_new = !self.resources.contains_key(resource);
        if is_new && self.resources.len() == RESOURCES_MAX {
            return Err(format!("there are {RESOURCES_MAX} resources already"));
        }
        self.generations += 1;
        let entry = self.resources.entry(resource.to_string()).or_default();
        entry.plugin = Some(Plugin { generation: self.generations, ..plugin });
        entry.devices.values_mut().for_each(|healthy| *healthy = false);
        Ok((self.generations, is_new))
    }

    fn of(&mut self, resource: &str, generation: u64) -> Option<&mut Resource> {
        let found = self.resources.get_mut(resource)?;
        found.plugin.as_ref().is_some_and(|p| p.generation == generation).then_some(found)
    }

    pub fn is_current(&mut self, resource: &str, generation: u64) -> bool {
        self.of(resource, generation).is_some()
    }

    /// What the plugin said of itself when it was asked.
    pub fn options(&mut self, resource: &str, generation: u64, pre_start: bool, preferred: bool) {
        if let Some(plugin) = self.of(resource, generation).and_then(|r| r.plugin.as_mut()) {
            (plugin.pre_start, plugin.preferred) = (pre_start, preferred);
        }
    }

    /// Whether that changes anything.
    pub fn listed(&mut self, resource: &str, generation: u64, devices: BTreeMap<String, bool>) -> bool {
        match self.of(resource, generation) {
            Some(entry) if entry.devices != devices => {
                entry.devices = devices;
                true
            }
            _ => false,
        }
    }

    /// Its list ended: nobody gets its devices until it is back. Who has some keeps them.
    pub fn lost(&mut self, resource: &str, generation: u64) -> bool {
        let Some(entry) = self.of(resource, generation) else { return false };
        entry.devices.values_mut().for_each(|healthy| *healthy = false);
        entry.plugin = None;
        entry.lost = generation;
        true
    }

    /// It did not come back in time.
    pub fn forget_devices(&mut self, resource: &str, generation: u64) -> bool {
        match self.resources.get_mut(resource) {
            Some(entry) if entry.plugin.is_none() && entry.lost == generation && !entry.devices.is_empty() => {
                entry.devices.clear();
                true
            }
            _ => false,
        }
    }

    pub fn counts(&self) -> BTreeMap<String, (u64, u64)> {
        let count = |r: &Resource| (r.devices.len() as u64, r.devices.values().filter(|healthy| **healthy).count() as u64);
        self.resources.iter().map(|(name, r)| (name.clone(), count(r))).collect()
    }

    /// By resource, what a container has.
    pub fn held_by(&self, owner: &Owner) -> Vec<Held> {
        self.ids(|r| r.taken.iter().filter(|(_, who)| *who == owner).map(|(id, _)| id.clone()).collect())
    }

    /// By resource, what can be given, whether somebody has it or not.
    pub fn healthy(&self) -> Vec<Held> {
        self.ids(|r| r.devices.iter().filter(|(_, healthy)| **healthy).map(|(id, _)| id.clone()).collect())
    }

    fn ids(&self, of: impl Fn(&Resource) -> Vec<String>) -> Vec<Held> {
        let all = self.resources.iter().map(|(name, r)| (name.clone(), of(r)));
        all.filter(|(_, ids)| !ids.is_empty()).collect()
    }

    pub fn names(&self) -> Vec<&String> {
        self.resources.keys().collect()
    }

    pub fn knows(&self, resource: &str) -> bool {
        self.resources.contains_key(resource)
    }

    /// Held while devices of this resource are being given.
    pub fn turn(&self, resource: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.resources.get(resource).map(|r| r.turn.clone()).unwrap_or_default()
    }

    /// Its own first, then those of containers of its pod that do not run any more, then free ones.
    pub fn choose(&self, owner: &Owner, live: &BTreeSet<String>, resource: &str, count: u64) -> Result<Choice, String> {
        let missing = || format!("no device plugin of {resource} has registered since the agent began: its pods wait for it");
        let entry = self.resources.get(resource).ok_or_else(missing)?;
        let plugin = entry.plugin.clone().ok_or_else(missing)?;
        let (mut own, mut left, mut free) = (Vec::new(), Vec::new(), Vec::new());
        for (id, healthy) in &entry.devices {
            match entry.taken.get(id) {
                // It keeps what it has, also when that is ill now: another one would not heal its data.
                Some(who) if who == owner => own.push(id.clone()),
                Some((uid, name)) if *healthy && *uid == owner.0 && !live.contains(name) => left.push(id.clone()),
                None if *healthy => free.push(id.clone()),
                _ => {}
            }
        }
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        own.truncate(wanted);
        let others: Vec<String> = left.into_iter().chain(free).collect();
        let available = own.len() + others.len();
        if available < wanted {
            return Err(format!(
                "Allocate failed due to requested number of devices unavailable for {resource}. Requested: {count}, \
                 Available: {available}"
            ));
        }
        let chosen = own.iter().chain(&others).take(wanted).cloned().collect();
        Ok(Choice { plugin, chosen, kept: own, free: others })
    }

    /// From now on they are its own.
    pub fn take(&mut self, owner: &Owner, resource: &str, ids: &[String]) {
        let entry = self.resources.entry(resource.to_string()).or_default();
        for id in ids.iter().take(DEVICES_MAX) {
            entry.taken.insert(id.clone(), owner.clone());
        }
    }

    /// Its plugin refused: it has what it had before.
    pub fn put_back(&mut self, owner: &Owner, resource: &str, kept: &[String]) {
        if let Some(entry) = self.resources.get_mut(resource) {
            entry.taken.retain(|id, who| who != owner || kept.contains(id));
        }
    }

    pub fn release(&mut self, pod_uid: &str) {
        self.resources.values_mut().for_each(|r| r.taken.retain(|_, (uid, _)| uid != pod_uid));
    }
}

/// An extended resource: `example.com/name`.
fn is_name(name: &str) -> bool {
    let fine = |part: &str| {
        !part.is_empty() && part.len() <= 253 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let good = name.split_once('/').is_some_and(|(domain, word)| fine(domain) && fine(word) && word.len() <= 63);
    good && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}
