//! New certificates, before the old one ends.
//!
//! In: time; that the hub is not found where it was. Out: an identity on disk. The hub's HTTPS is asked first; where a
//! broker lies between and HTTPS does not get through, the sealed link carries the ask and the answer.
//! Never: another key; the hub knows this device by it.

use super::state::{Agent, LOOK_AGAIN_MS};
use crate::link::{Identity, join};
use std::sync::Arc;
use tokio::sync::mpsc;

const RENEWED_PAUSE_MS: u64 = 12 * 3_600_000;

#[derive(Default)]
pub struct State {
    running: bool,
    after_ms: u64,
    /// Wanted although the certificate is good.
    wanted: bool,
}

impl Agent {
    /// The hub may have moved: its answer to a renewal says where it is.
    pub(super) fn astray(&mut self) {
        self.renewal.wanted = true;
        self.renewal.after_ms = 0;
    }

    pub(super) fn renew_if_due(&mut self, tell: &mpsc::Sender<Result<Identity, join::JoinError>>) {
        let identity = self.identity.borrow().clone();
        let due = join::renew_at_ms(&identity).is_some_and(|at| at <= self.clock.wall_ms()) || self.lacks_update_key();
        if self.renewal.running || !(due || self.renewal.wanted) || self.clock.mono_ms() < self.renewal.after_ms {
            return;
        }
        self.renewal.running = true;
        let (data, clock, tell) = (self.options.paths.data.clone(), self.clock.clone(), tell.clone());
        let proxy = self.options.config.proxy.as_deref().and_then(|p| crate::link::road::Proxy::parse(p).ok());
        tokio::spawn(async move {
            let _ = tell.send(join::renew(&data, &identity, (&clock, proxy.as_ref())).await).await;
        });
    }

    pub(super) fn renewed(&mut self, result: Result<Identity, join::JoinError>) {
        if let Err(join::JoinError::Later(why)) = &result
            && self.ask_by_link()
        {
            log::info!("renewal: {why}; asking by way of the broker");
            return;
        }
        self.renewal.running = false;
        self.renewal.wanted = false;
        // Also after a success: a clock that disagrees with the hub's would have it renewed for ever.
        let pause = if result.is_ok() { RENEWED_PAUSE_MS } else { LOOK_AGAIN_MS };
        self.renewal.after_ms = self.clock.mono_ms() + pause;
        match result {
            Ok(identity) => {
                log::info!("the node's certificate was renewed");
                let _ = self.hands.images.set_hub(Some(super::start::hub_access(&identity)));
                self.identity.send_replace(Arc::new(identity));
                self.look_at_update();
            }
            Err(e) => log::warn!("the node's certificate is not renewed yet: {e}"),
        }
    }

    fn ask_by_link(&self) -> bool {
        let Some(lane) = self.lanes.as_ref().and_then(|l| l.renewal.as_ref()) else { return false };
        let ask = join::renewal(&self.identity.borrow()).ok().and_then(|ask| serde_json::to_vec(&ask).ok());
        ask.is_some_and(|ask| lane.try_send(ask).is_ok())
    }

    /// What HTTPS did not bring may come by a link that has just begun.
    pub(super) fn renewal_has_link(&mut self) {
        if self.lanes.as_ref().is_some_and(|l| l.renewal.is_some()) {
            self.renewal.after_ms = 0;
        }
    }

    /// The hub's answer came by the link. Only a hub that this board trusts has the session's key.
    pub(super) fn renewed_by_link(&mut self, answer: &[u8]) {
        if self.renewal.running {
            let old = self.identity.borrow().clone();
            let result = join::take_renewal(&self.options.paths.data, &old, answer, &self.clock);
            let never = |e: join::JoinError| join::JoinError::Never(e.to_string());
            self.renewed(result.map_err(never));
        }
    }

    /// An answer that was asked for by a link that is gone does not come.
    pub(super) fn renewal_cut(&mut self) {
        if std::mem::take(&mut self.renewal.running) {
            self.renewal.after_ms = self.clock.mono_ms() + LOOK_AGAIN_MS;
        }
    }
}
