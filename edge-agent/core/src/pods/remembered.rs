//! What the journal has of a pod.
//!
//! In: a pod as it is. Out: its record, and whether that is another than the one that was written last.
//! Never: kept in memory: a hash of it tells whether it is another.

use super::{ContainerMemory, PodMemory, container::Container, mark, pod::LivePod};
use crate::api;

impl LivePod {
    /// The record for the journal.
    fn record(&self) -> PodMemory {
        let m = &self.facts.object.metadata;
        let containers = self.containers.iter().filter(|c| c.attempt.is_some()).map(|c| {
            let memory = ContainerMemory {
                attempt: c.attempt,
                started_ms: c.started_ms,
                image_id: c.image_id.to_string(),
                image_name: c.image_name.to_string(),
                ended: c.ended.clone().filter(|_| !c.alive()),
                last: c.last.clone(),
                resources: Some(c.actual()).filter(|actual| self.is_sized_otherwise(&c.name, actual)).cloned(),
            };
            (c.name.to_string(), Box::new(memory))
        });
        PodMemory {
            uid: self.facts.uid.to_string(),
            namespace: m.namespace.clone(),
            name: m.name.clone(),
            start_ms: self.start_ms,
            initialized: self.initialized,
            terminal: self.terminal.clone(),
            resources: self.resize.whole_to_remember(&self.facts.object.spec).cloned(),
            resizing: self.resize.in_progress(),
            containers: containers.collect(),
        }
    }

    /// What the journal must have before a manifest that wants other sizes: whoever has only the two would else take these for
    /// what runs.
    pub fn record_before(&self, manifest: &api::Pod) -> Option<PodMemory> {
        let runs = || self.containers.iter().filter(|c| c.attempt.is_some());
        let wanted = |c: &Container| manifest.spec.all_containers().find(|new| new.name == *c.name);
        let whole = self.resize.actual(&self.facts.object.spec);
        let differs = |c: &Container| wanted(c).is_some_and(|new| new.resources != *c.actual());
        if *whole == manifest.spec.resources && !runs().any(differs) {
            return None;
        }
        let mut record = self.record();
        record.resources = Some(whole.clone());
        for container in runs() {
            if let Some(memory) = record.containers.get_mut(&*container.name) {
                memory.resources = Some(container.actual().clone());
            }
        }
        Some(record)
    }

    /// The record for the journal, when it differs from the one that is there.
    pub fn memory_if_changed(&mut self) -> Option<PodMemory> {
        let record = self.record();
        let mark = Some(mark(&record));
        (std::mem::replace(&mut self.remembered, mark) != mark).then_some(record)
    }

    fn is_sized_otherwise(&self, name: &str, actual: &api::Resources) -> bool {
        self.facts.object.spec.all_containers().any(|c| c.name == name && c.resources != *actual)
    }

    /// What the journal has of it.
    pub fn memory(&self) -> Option<PodMemory> {
        self.remembered.map(|_| self.record())
    }
}
