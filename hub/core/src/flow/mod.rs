//! Priority and fairness: which request is carried out now, which waits, which is sent away.
//!
//! In: FlowSchemas and PriorityLevelConfigurations; requests that arrive, end or give up. Out: decisions.
//! Source: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/.
//! Never: reads the clock or chance; the same arrivals in the same order get the same answers.

mod classify;
mod config;
mod defaults;
mod dispatcher;
mod shuffle;
#[cfg(test)]
mod tests;

pub use classify::Flow;
pub use config::{Config, Level, Queuing, Schema};
pub use defaults::defaults;
pub use dispatcher::{Answer, Dispatcher, Load, Place, Rejected, Ticket};

/// Width of the widest request, in seats, as upstream.
pub const SEATS_MAX: u32 = 10;
/// Objects that a list goes through for one seat.
pub const OBJECTS_PER_SEAT: usize = 100;

/// The width of a request that goes through so many objects.
pub fn width_of(objects: usize) -> u32 {
    u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(SEATS_MAX).clamp(1, SEATS_MAX)
}
