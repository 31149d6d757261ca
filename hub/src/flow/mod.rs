//! Priority and fairness at the API's door: a request gets a turn, waits for one, or gets 429.
//!
//! In: who asks for what and how wide it is; FlowSchemas and PriorityLevelConfigurations as they are stored. Out: a `Turn`
//! that is given back when it is dropped. The decisions are hub-core's `flow`; with room for all they cost one look
//! through the schemas and one lock. Never: holds a turn while an answer is on its way to a slow reader.

mod figures;
mod keep;

pub use keep::{keep, mend};

use crate::api::limits;
use figures::Counts;
use limpet_hub_core::{
    flow::{Answer, Config, Dispatcher, Place, Rejected, Schema, Ticket},
    rbac::Attributes,
};
use limpet_objects::status::Status;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};
use tokio::{sync::oneshot, time::Instant};

/// How many requests at once; the names are kube-apiserver's. All levels share the sum.
#[derive(Clone, Debug)]
pub struct FlowOptions {
    pub max_requests_inflight: u32,
    pub max_mutating_requests_inflight: u32,
}

impl Default for FlowOptions {
    fn default() -> FlowOptions {
        FlowOptions { max_requests_inflight: 400, max_mutating_requests_inflight: 200 }
    }
}

pub struct FlowControl {
    /// 0: everybody runs.
    seats: u32,
    config: RwLock<Arc<Config>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dispatcher: Dispatcher,
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
    counts: BTreeMap<(Arc<str>, Arc<str>), Counts>,
}

/// Which objects decided, for the headers of the answer.
#[derive(Clone, Default)]
pub struct Decided {
    pub schema_uid: String,
    pub level_uid: String,
}

/// The right to be carried out now.
pub struct Turn {
    control: Arc<FlowControl>,
    place: Place,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.control.state();
        state.dispatcher.end(&self.place);
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        while let Some(ticket) = self.dispatcher.next_turn() {
            if let Some(sender) = self.waiting.remove(&ticket) {
                // Who has left meanwhile gives the turn back.
                let _ = sender.send(());
            }
        }
    }

    fn count(&mut self, schema: &Schema) -> &mut Counts {
        self.counts.entry((Arc::clone(&schema.name), Arc::clone(&schema.level))).or_default()
    }
}

impl FlowControl {
    pub fn new(options: &FlowOptions) -> Arc<FlowControl> {
        let control = FlowControl {
            seats: options.max_requests_inflight.saturating_add(options.max_mutating_requests_inflight),
            config: RwLock::default(),
            state: Mutex::default(),
        };
        control.configure(Config::of(&[], &[]));
        Arc::new(control)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn configure(&self, config: Config) {
        let mut state = self.state();
        state.dispatcher.configure(self.seats, &config.levels);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        state.wake();
    }

    /// Waits for a turn, within `limits::TURN_TIME`. `decided` is told in any case.
    pub async fn turn(
        self: &Arc<Self>,
        asked: &Attributes<'_>,
        width: u32,
        decided: &mut Decided,
    ) -> Result<Option<Turn>, Status> {
        if self.seats == 0 {
            return Ok(None);
        }
        let config = self.config();
        let Some(flow) = config.classify(asked) else { return Ok(None) };
        let schema = flow.schema;
        decided.schema_uid.clone_from(&schema.uid);
        if let Some(level) = config.levels.get(&schema.level) {
            decided.level_uid.clone_from(&level.uid);
        }
        let mut waiter = {
            let mut state = self.state();
            match state.dispatcher.arrive(&schema.level, flow.hash, width) {
                Answer::Run(place) => {
                    state.count(&schema).dispatched += 1;
                    return Ok(Some(Turn { control: Arc::clone(self), place }));
                }
                Answer::Reject(why) => {
                    state.count(&schema).reject(match why {
                        Rejected::ConcurrencyLimit => "concurrency-limit",
                        Rejected::QueueFull => "queue-full",
                    });
                    return Err(too_many());
                }
                Answer::Wait(ticket, place) => {
                    let (sender, receiver) = oneshot::channel();
                    state.waiting.insert(ticket, sender);
                    Waiter { control: Arc::clone(self), ticket, place, receiver, sits: false }
                }
            }
        };
        let begin = Instant::now();
        let came = tokio::time::timeout(limits::TURN_TIME, &mut waiter.receiver).await;
        let waited = begin.elapsed();
        let mut state = self.state();
        state.count(&schema).waited(waited);
        if !matches!(came, Ok(Ok(()))) {
            state.count(&schema).reject("time-out");
            return Err(too_many());
        }
        state.count(&schema).dispatched += 1;
        drop(state);
        waiter.sits = true;
        Ok(Some(Turn { control: Arc::clone(self), place: waiter.place.clone() }))
    }
}

fn too_many() -> Status {
    Status::too_many_requests("too many requests, please try again later", 1)
}

/// A request in a queue. It leaves the queue, or gives its turn back, when nobody waits for it any more.
struct Waiter {
    control: Arc<FlowControl>,
    ticket: Ticket,
    place: Place,
    receiver: oneshot::Receiver<()>,
    /// A `Turn` has taken over.
    sits: bool,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.sits {
            return;
        }
        let mut state = self.control.state();
        state.waiting.remove(&self.ticket);
        if !state.dispatcher.give_up(self.ticket, &self.place) {
            state.dispatcher.end(&self.place);
        }
        state.wake();
    }
}

#[cfg(test)]
mod tests;
