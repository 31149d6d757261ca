//! Seats: who takes them, who waits in which queue, who is next.
//!
//! In: arrivals with a level, a flow and a width; ends. Out: run, wait or go away; and whose turn it is.
//! Within a level the queues take turns by start-time fair queuing: the queue that has had least is next. A level has its
//! nominal seats; of those that it lends it gets back what others still use when they are done.
//! Never: lets a narrow request overtake a wide one of the same level that is next.

use super::{config, shuffle};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// A request that waits.
pub type Ticket = u64;

/// Where a running request sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub level: Arc<str>,
    pub width: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// The level has no queues.
    ConcurrencyLimit,
    QueueFull,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Run(Place),
    Wait(Ticket, Place),
    Reject(Rejected),
}

/// A level's figures, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub nominal: u32,
    pub running: u32,
    pub seats: u32,
    pub waiting: u32,
}

/// All levels.
#[derive(Debug, Default)]
pub struct Dispatcher {
    seats: u32,
    levels: BTreeMap<Arc<str>, Level>,
    tickets: Ticket,
}

#[derive(Debug, Default)]
struct Level {
    exempt: bool,
    queuing: Option<config::Queuing>,
    nominal: u32,
    /// Of the nominal seats, those that others may use.
    lendable: u32,
    /// Seats beyond the nominal ones that it may use of others.
    borrowable: u32,
    used: u32,
    running: u32,
    waiting: u32,
    queues: Vec<Queue>,
    /// The virtual start of the request that began last.
    virtual_time: u64,
    /// Its object is gone; it ends when it is empty.
    retired: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Ticket, u32)>,
    /// The virtual end of what was begun from here.
    finish: u64,
    /// The virtual start of the first that waits.
    start: u64,
    seats: u32,
}

impl Dispatcher {
    /// Takes over a configuration for so many seats; what runs and waits stays.
    pub fn configure(&mut self, seats: u32, levels: &BTreeMap<Arc<str>, config::Level>) {
        self.seats = seats.max(1);
        let shares: u64 = levels.values().map(|level| u64::from(level.shares)).sum::<u64>().max(1);
        self.levels.values_mut().for_each(|level| level.retired = true);
        for (name, wanted) in levels {
            let level = self.levels.entry(Arc::clone(name)).or_default();
            level.retired = false;
            level.exempt = wanted.exempt;
            level.queuing = wanted.queuing;
            let nominal = (u64::from(self.seats) * u64::from(wanted.shares)).div_ceil(shares);
            level.nominal = u32::try_from(nominal).unwrap_or(self.seats);
            level.lendable = part(level.nominal, wanted.lendable_percent);
            let borrowing = wanted.borrowing_percent.map(|percent| part(level.nominal, percent));
            level.borrowable = borrowing.unwrap_or(self.seats);
            let queues = wanted.queuing.map_or(0, |queuing| queuing.queues as usize);
            if level.queues.len() < queues {
                level.queues.resize_with(queues, Queue::default);
            }
        }
        self.sweep();
    }

    fn sweep(&mut self) {
        self.levels.retain(|_, level| !level.retired || level.running + level.waiting > 0);
    }

    /// A request of a level; an unknown level is as good as exempt from waiting, and cannot be.
    pub fn arrive(&mut self, name: &Arc<str>, hash: u64, width: u32) -> Answer {
        let free = |level: &Level, width: u32| self.fits(level, width, true);
        let Some(level) = self.levels.get(name) else { return Answer::Reject(Rejected::ConcurrencyLimit) };
        let width = if level.exempt { width } else { width.clamp(1, level.nominal.max(1)) };
        let place = Place { level: Arc::clone(name), width };
        let now = level.exempt || (level.waiting == 0 && free(level, width));
        let queue = level.queuing.map(|queuing| level.queue_for(&queuing, hash));
        let Some(level) = self.levels.get_mut(name) else { return Answer::Reject(Rejected::ConcurrencyLimit) };
        if now {
            if let Some(queue) = queue.and_then(|at| level.queues.get_mut(at)) {
                level.virtual_time = level.virtual_time.max(queue.finish);
                queue.finish = level.virtual_time + u64::from(width);
            }
            level.used += width;
            level.running += 1;
            return Answer::Run(place);
        }
        let (Some(queuing), Some(queue)) = (level.queuing, queue.and_then(|at| level.queues.get_mut(at))) else {
            return Answer::Reject(Rejected::ConcurrencyLimit);
        };
        if queue.waiting.len() >= queuing.length_max as usize {
            return Answer::Reject(Rejected::QueueFull);
        }
        self.tickets += 1;
        if queue.waiting.is_empty() {
            queue.start = level.virtual_time.max(queue.finish);
        }
        queue.waiting.push_back((self.tickets, width));
        queue.seats += width;
        level.waiting += 1;
        Answer::Wait(self.tickets, place)
    }

    /// A request that ran has ended.
    pub fn end(&mut self, place: &Place) {
        if let Some(level) = self.levels.get_mut(&place.level) {
            level.used = level.used.saturating_sub(place.width);
            level.running = level.running.saturating_sub(1);
            if level.retired {
                self.sweep();
            }
        }
    }

    /// A request no longer waits. False when its turn had come before.
    pub fn give_up(&mut self, ticket: Ticket, place: &Place) -> bool {
        let Some(level) = self.levels.get_mut(&place.level) else { return false };
        for queue in &mut level.queues {
            if let Some(at) = queue.waiting.iter().position(|(own, _)| *own == ticket) {
                queue.waiting.remove(at);
                queue.seats -= place.width;
                level.waiting -= 1;
                return true;
            }
        }
        false
    }

    /// The next whose turn it is; ask until there is none. Levels within their nominal seats come before those
    /// that borrow.
    pub fn next_turn(&mut self) -> Option<Ticket> {
        let waiting = || self.levels.iter().filter(|(_, level)| level.waiting > 0);
        let ready = |borrow: bool| {
            let able = waiting().filter(|(_, level)| {
                level.head().is_some_and(|(_, width)| self.fits(level, width, borrow))
            });
            // The one with the smallest part of its own seats in use.
            able.min_by_key(|(_, level)| u64::from(level.used) * 1000 / u64::from(level.nominal.max(1)))
        };
        let name = Arc::clone(ready(false).or_else(|| ready(true))?.0);
        self.levels.get_mut(&name)?.begin()
    }

    /// Whether a request of this width may begin now; beyond the nominal seats only if `borrow`.
    fn fits(&self, level: &Level, width: u32, borrow: bool) -> bool {
        let wanted = level.used + width;
        if wanted <= level.nominal - level.lendable.min(level.nominal) {
            return true;
        }
        if wanted > level.nominal && (!borrow || wanted > level.nominal + level.borrowable) {
            return false;
        }
        let limited = || self.levels.values().filter(|level| !level.exempt);
        let pool: u32 = limited().map(|level| level.lendable).sum();
        let drawn: u32 = limited().map(|level| level.drawn(level.used)).sum();
        drawn - level.drawn(level.used) + level.drawn(wanted) <= pool
    }

    /// Each level's figures.
    pub fn loads(&self) -> impl Iterator<Item = (&Arc<str>, Load)> {
        self.levels.iter().map(|(name, level)| {
            let Level { nominal, running, used, waiting, .. } = *level;
            (name, Load { nominal, running, seats: used, waiting })
        })
    }
}

fn part(seats: u32, percent: u32) -> u32 {
    let part = (u64::from(seats) * u64::from(percent) + 50) / 100;
    u32::try_from(part).unwrap_or(u32::MAX)
}

impl Level {
    /// Seats that are in use beyond those that are not lent.
    fn drawn(&self, used: u32) -> u32 {
        used.saturating_sub(self.nominal - self.lendable.min(self.nominal))
    }

    /// Of the flow's hand, the queue with least in it.
    fn queue_for(&self, queuing: &config::Queuing, hash: u64) -> usize {
        let hand = shuffle::deal(hash, queuing.queues, queuing.hand).into_iter().map(|at| at as usize);
        let load = |at: &usize| self.queues.get(*at).map_or((0, 0), |queue| (queue.seats, queue.finish));
        hand.min_by_key(load).unwrap_or(0)
    }

    /// The queue that is next, and the width of its first request.
    fn head(&self) -> Option<(usize, u32)> {
        let waiting = self.queues.iter().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
        let (at, queue) = waiting.min_by_key(|(_, queue)| queue.start)?;
        Some((at, queue.waiting.front()?.1))
    }

    fn begin(&mut self) -> Option<Ticket> {
        let (at, _) = self.head()?;
        let queue = self.queues.get_mut(at)?;
        let (ticket, width) = queue.waiting.pop_front()?;
        queue.seats -= width;
        self.virtual_time = self.virtual_time.max(queue.start);
        queue.finish = queue.start + u64::from(width);
        queue.start = queue.finish;
        self.waiting -= 1;
        self.used += width;
        self.running += 1;
        Some(ticket)
    }
}
