//! What the hub says in one session of a node, sealed and in order.
//!
//! In: the node's queues, credit, the end. Out: packets for the broker; `Disconnected` when it is over.
//! Never: more parts under way than the window; waits for another node.

use super::desk::End;
use crate::{
    FromNode,
    connection::Setting,
    limits,
    queue::Next,
    registry::Seat,
};
use limpet_protocol::topic;
use limpet_sealed::{Inside, SealError, Sealer, Window, parts};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

/// What the desk tells a session's task.
pub(super) enum Control {
    /// The node has taken so many parts.
    Credit(u32),
    /// The hub has.
    Owe(u32),
    Say(u8, Vec<u8>),
    /// A sign of life, in answer to the node's.
    Beat,
    End(String),
}

/// When the node was heard last.
#[derive(Clone)]
pub(super) struct Heard(Arc<Mutex<Instant>>);

impl Default for Heard {
    fn default() -> Heard {
        Heard(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Heard {
    pub fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a node may be silent that promised a word every `keepalive_s`: half of it more, as in MQTT.
pub(super) fn patience(keepalive_s: u16) -> Duration {
    let every = Duration::from_secs(keepalive_s.max(1).into()).min(limits::KEEP_ALIVE_MAX);
    every + every / 2
}

pub(super) struct Carrier {
    pub node: String,
    pub sealer: Sealer,
    pub setting: Arc<Setting>,
    pub out: mpsc::Sender<(String, Vec<u8>)>,
    pub end: mpsc::Sender<End>,
    pub heard: Heard,
    pub patience: Duration,
}

#[derive(Default)]
struct Load {
    /// Goes before everything.
    first: VecDeque<Inside>,
    owed: Option<u32>,
    parts: VecDeque<Inside>,
    window: Window,
}

impl Load {
    fn has_something(&self) -> bool {
        !self.first.is_empty() || self.owed.is_some() || (self.window.is_open() && !self.parts.is_empty())
    }

    fn next(&mut self) -> Option<Inside> {
        if let Some(first) = self.first.pop_front() {
            return Some(first);
        }
        if let Some(taken) = self.owed.take() {
            return Some(Inside::Credit(taken));
        }
        let part = self.parts.pop_front()?;
        self.window.sent();
        Some(part)
    }

    /// Answers are MQTT's own and belong to connections of the hub's own broker.
    fn take(&mut self, next: Next) {
        if let Next::Message { channel, payload } = next {
            self.parts.extend(parts(channel as u8, &payload));
        }
    }
}

impl Carrier {
    pub async fn run(mut self, seat: Seat, mut controls: mpsc::Receiver<Control>) {
        let mut load = Load { first: VecDeque::from([Inside::Ready]), ..Load::default() };
        let (reason, by_hub) = self.carry(&seat, &mut controls, &mut load).await;
        if by_hub {
            let _ = timeout(limits::LAST_WORDS, self.last_words(&seat, load, &reason)).await;
        }
        let connection = seat.connection;
        self.setting.broker.unregister(&self.node, connection);
        let node = self.node.clone();
        let silent = self.heard.at().elapsed();
        let gone = FromNode::Disconnected { node: node.clone(), connection, reason, silent };
        let _ = self.setting.inbox.send(gone).await;
        let _ = self.end.send(End { node, connection }).await;
    }

    /// Why it ended, and whether the hub wanted it so.
    async fn carry(
        &mut self,
        seat: &Seat,
        controls: &mut mpsc::Receiver<Control>,
        load: &mut Load,
    ) -> (String, bool) {
        let queue = &seat.queue;
        let topic = topic::sealed_down(&self.node);
        loop {
            let deadline = self.heard.at() + self.patience;
            tokio::select! {
                biased;
                reason = queue.ended() => return (reason, true),
                control = controls.recv() => match control {
                    None => return ("the connection to the broker was lost".into(), false),
                    Some(Control::Credit(taken)) => if let Err(error) = load.window.credit(taken) {
                        return (error.to_string(), true);
                    },
                    Some(Control::Owe(taken)) => load.owed = Some(taken),
                    Some(Control::Say(channel, bytes)) => load.parts.extend(parts(channel, &bytes)),
                    Some(Control::Beat) => if load.first.is_empty() {
                        load.first.push_back(Inside::Beat);
                    },
                    Some(Control::End(reason)) => return (reason, false),
                },
                permit = self.out.reserve(), if load.has_something() => {
                    let Ok(permit) = permit else { return ("the connection to the broker was lost".into(), false) };
                    let Some(inside) = load.next() else { continue };
                    match self.sealer.seal(&inside) {
                        Ok(packet) => permit.send((topic.clone(), packet)),
                        Err(error) => return (error.to_string(), true),
                    }
                }
                next = queue.next(), if load.parts.is_empty() => load.take(next),
                () = sleep_until(deadline) => if self.heard.at() + self.patience <= Instant::now() {
                    return (format!("nothing heard for {} s", self.patience.as_secs()), true);
                },
            }
        }
    }

    /// What was said before the end, as far as the window lets it, and the end.
    async fn last_words(&mut self, seat: &Seat, mut load: Load, reason: &str) -> Result<(), SealError> {
        let topic = topic::sealed_down(&self.node);
        loop {
            if load.parts.is_empty()
                && let Some(next) = seat.queue.try_next(true)
            {
                load.take(next);
            }
            if !load.has_something() {
                break;
            }
            let Some(inside) = load.next() else { break };
            let _ = self.out.send((topic.clone(), self.sealer.seal(&inside)?)).await;
        }
        let _ = self.out.send((topic, self.sealer.seal(&Inside::Over(reason.into()))?)).await;
        Ok(())
    }
}
