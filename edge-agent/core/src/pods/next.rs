//! Who comes after whom of one name: a static pod waits for the end of the one that its file was before, as on a kubelet.
//!
//! In: a name, pods that come and go. Out: who waits, and who begins now.
//! Never: holds pods of the hub: it binds the next one when it wants both.

use super::{
    container::Container,
    manager::{Name, PodManager},
    pod::{Goal, LivePod},
};
use crate::{api::Meta, sync::Items};
use limpet_protocol::{ItemKey, ItemKind};

impl PodManager {
    /// A pod of this name, or what is left of one, is on its way out.
    pub(super) fn is_ending(&self, name: &Name) -> bool {
        let named = |m: &Meta| (&m.namespace, &m.name) == (&name.0, &name.1);
        self.pods.values().any(|pod| pod.goal == Goal::Remove && named(&pod.facts.object.metadata))
            || self.orphans.iter().any(|(_, of)| of.as_ref() == Some(name))
    }

    /// A static pod that has not begun leaves the one of its name before it the time to end.
    pub(super) fn hold_next(&mut self, name: Option<&Name>) {
        let next = name.and_then(|name| self.names.get(name)).filter(|uid| self.statics.has(uid)).cloned();
        let begun = |pod: &LivePod| pod.containers.iter().any(Container::alive);
        if let Some(pod) = next.and_then(|uid| self.pods.get_mut(&uid)).filter(|pod| !begun(pod)) {
            pod.goal = Goal::Wait;
        }
    }

    /// A pod is gone: whoever has its name now may begin. That may be itself, when it was wanted again while it was ending.
    pub(super) fn next_of(&mut self, items: &Items, name: &Name) {
        let Some(uid) = self.names.get(name).cloned().filter(|_| !self.is_ending(name)) else { return };
        match self.pods.get_mut(&uid) {
            Some(pod) if pod.goal == Goal::Wait => pod.goal = Goal::Run,
            Some(_) => return,
            None => self.load(items, &ItemKey::new(ItemKind::Pod, &name.0, &name.1)),
        }
        self.sync_one(items, &uid);
    }
}
