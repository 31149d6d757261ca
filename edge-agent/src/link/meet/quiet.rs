//! What a meeting does when nothing comes: it greets again, shows that it lives, gives up.
//!
//! In: time, how the road is. Out: greetings, signs of life, the kernel's probes; an error where somebody should have answered.
//! Never: speaks while the kernel's probes are enough.

use super::*;

impl Meeting<'_> {
    /// What the kernel is to do while nothing is said.
    pub(super) fn rest(&mut self, resting: bool) {
        let Some((pulse, every)) = self.probe.as_ref().filter(|_| self.resting != resting) else { return };
        if let Err(e) = if resting { pulse.rest(*every) } else { pulse.work() } {
            log::debug!("link: no probes: {e}");
        }
        self.resting = resting;
    }

    pub(super) fn keepalive_s(&self) -> u16 {
        u16::try_from(self.rhythm.every.as_secs()).unwrap_or(u16::MAX)
    }

    /// Greets. `beats`: as a node that makes signs of life of their own sort; hubs from before them do not answer that.
    pub(super) fn ask(&mut self, beats: bool) -> State {
        match Asking::new(self.node, &self.key, (self.keepalive_s(), beats), self.hardware, &self.random) {
            Ok(asking) => {
                self.publish(asking.hello());
                State::Asking(asking, Instant::now() + self.backoff.next())
            }
            Err(e) => {
                log::error!("link: {e}");
                State::Waiting(Instant::now() + self.backoff.next())
            }
        }
    }

    pub(super) fn wake(&self, state: &State) -> Instant {
        let own = match state {
            State::Waiting(at) | State::Asking(_, at) | State::Confirmed(_, at) => Some(*at),
            State::Open(_) => None,
        };
        let quiet = self.sent + self.rhythm.every;
        let answer = self.pinged.map(|at| at + PING_TIMEOUT);
        let rest = self.probe.as_ref().filter(|_| !self.resting).map(|_| self.sent + SAID);
        own.into_iter().chain(answer).chain(rest).fold(quiet, Instant::min)
    }

    pub(super) async fn timer(&mut self, mut state: State) -> Result<State, Error> {
        let now = Instant::now();
        if self.pinged.is_some_and(|at| at + PING_TIMEOUT <= now) {
            return Err(Error::other("the broker does not answer pings"));
        }
        if self.sent + self.rhythm.every <= now {
            self.sign_of_life(&mut state);
        } else if self.sent + SAID <= now {
            self.rest(true);
        }
        // The broker takes everything, also for a hub that has left it.
        if let State::Open(open) = &state
            && open.unheard > limpet_sealed::unanswered_max(self.keepalive_s())
        {
            let why = format!("the hub has not said a word since {} signs of life", open.unheard);
            return self.end(state, &why).await;
        }
        Ok(match state {
            State::Waiting(at) if at <= now => self.ask(self.knows_beats.unwrap_or(true)),
            State::Asking(asking, at) if at <= now => {
                self.unanswered().await?;
                if self.asked.is_multiple_of(ASKED_ALIKE) {
                    return Ok(self.ask(!asking.beats()));
                }
                // The same greeting: an answer to the first one is as good.
                self.publish(asking.hello());
                State::Asking(asking, now + self.backoff.next())
            }
            State::Confirmed(_, at) if at <= now => {
                log::info!("link: the hub does not let this node in, and does not say why");
                State::Waiting(now + self.backoff.next())
            }
            other => other,
        })
    }

    /// Perhaps the hub meets boards somewhere else now.
    pub(super) async fn unanswered(&mut self) -> Result<(), Error> {
        if self.identity.borrow().answer.broker.as_ref() != Some(self.broker) {
            return Err(Error::other("the hub is somewhere else now"));
        }
        self.asked += 1;
        match self.asked % ASTRAY_EVERY {
            ASTRAY_FIRST => self.tell(LinkEvent::Astray).await,
            _ => Ok(()),
        }
    }

    /// One word for broker and hub. Where somebody between ends the connection, the broker has to answer, too.
    pub(super) fn sign_of_life(&mut self, state: &mut State) {
        let open = match state {
            State::Open(open) => {
                open.unheard += 1;
                Some(open.session.up.seal(&Inside::Beat))
            }
            _ => None,
        };
        if let Some(Ok(packet)) = &open {
            self.publish(packet);
        }
        if open.is_none() || self.rhythm.kind == Kind::Proxied {
            self.out.extend(mqtt::PING);
            self.pinged.get_or_insert(Instant::now());
        }
        self.sent = Instant::now();
    }
}
