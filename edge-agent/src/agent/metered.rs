//! The metered link between the core that decides, the meter, and everything that asks whether it may travel.
//!
//! In: the node's annotation, bytes, time. Out: gates for pulls, streams, updates, Events and logs; the node's condition; the
//! link's keep-alive and its closing.
//! Never: decides by itself.

use super::state::Agent;
use crate::link::{Hold, METER};
use limpet_agent_core::metered::{Gates, LINK, LOOK_IN_FOR_MS, Metered, Policy, Traffic, Use};
use limpet_protocol::ItemKind;
use std::sync::Arc;
use tokio::sync::watch;

pub struct Meters {
    pub core: Metered,
    policy: Option<Policy>,
    pub gates: watch::Sender<Gates>,
    /// Shared with the link's task.
    pub hold: Arc<Hold>,
    /// On hold and connected: until then.
    close_at_ms: Option<u64>,
}

impl Meters {
    pub fn new(used: Use, gates: watch::Sender<Gates>) -> Meters {
        Meters { core: Metered::new(used), policy: None, gates, hold: Arc::default(), close_at_ms: None }
    }

    pub fn wake_at(&self, now: limpet_agent_core::Now) -> Option<u64> {
        self.core.wake_at(now).into_iter().chain(self.close_at_ms).min()
    }
}

impl Agent {
    /// Reads the policy anew, then looks.
    pub(super) fn read_link_policy(&mut self) {
        let name = self.identity.borrow().answer.node_name.clone();
        let node: Option<serde_json::Value> = self.sync.items().read(ItemKind::Node, "", &name);
        let text = node.as_ref().and_then(|n| n.get("metadata")?.get("annotations")?.get(LINK)?.as_str());
        let policy = text.and_then(Policy::parse);
        if policy != self.meters.policy {
            match &policy {
                Some(policy) => log::info!("link: the policy of {} holds", policy.name),
                None => log::info!("link: no policy"),
            }
            let seconds = policy.as_ref().map_or(0, |p| p.keepalive_seconds);
            self.meters.policy = policy;
            if self.meters.hold.set_keepalive(seconds) && self.lanes.is_some() {
                // Only a new connection has another rhythm.
                self.hang_up.notify_one();
            }
        }
        self.look_at_link();
    }

    /// Bytes, time or the policy may have changed what may travel.
    pub(super) fn look_at_link(&mut self) {
        let now = self.clock.now();
        let core = &mut self.meters.core;
        let (sent, received) = METER.take(u64::MAX);
        let changed = core.look(now, self.meters.policy.clone(), sent, received);
        METER.look_again_after(core.bytes_until_look());
        (self.counters.link_sent, self.counters.link_received) =
            (self.counters.link_sent + sent, self.counters.link_received + received);
        if let Some(record) = core.to_write(false)
            && let Err(e) = self.journal.append_lazily(&[record])
        {
            log::error!("{e}");
        }
        if changed {
            let gates = core.gates().clone();
            self.outbox.hold_events(gates.holds(Traffic::Events).is_some());
            self.messaging.hold(gates.holds(Traffic::Messages).is_some(), now);
            self.kept.logs.hold(gates.holds(Traffic::Logs).is_some());
            self.meters.gates.send_replace(gates);
            self.look_at_update();
        }
        if self.meters.core.to_report().is_some() {
            self.show_update();
        }
        let on_hold = self.meters.core.on_hold();
        if self.meters.hold.set(on_hold) {
            log::warn!("link: the month's bytes are used up: {}", if on_hold { "closed" } else { "open again" });
        }
        self.close_if_on_hold(now.mono_ms);
    }

    /// A connection on hold is a look: what is wanted of this board may have changed.
    fn close_if_on_hold(&mut self, now_ms: u64) {
        if !self.meters.core.on_hold() || self.lanes.is_none() {
            self.meters.close_at_ms = None;
            return;
        }
        if now_ms >= *self.meters.close_at_ms.get_or_insert(now_ms + LOOK_IN_FOR_MS) {
            self.meters.close_at_ms = None;
            self.hang_up.notify_one();
        }
    }

    /// The last figures, before the agent ends.
    pub(super) fn write_link_use(&mut self) {
        self.look_at_link();
        if let Some(record) = self.meters.core.to_write(true) {
            let _ = self.journal.append_lazily(&[record]);
        }
    }

    /// Why this may not travel now.
    pub(super) fn link_holds(&self, traffic: Traffic) -> Option<String> {
        self.meters.core.gates().holds(traffic).map(String::from)
    }
}
