//! A world for tests: objects, all controllers, the scheduler and a pretend kubelet, without any clock or network.
//!
//! In: objects and changes. Out: the state in which nothing changes any more, or a panic when there is none.
//! The fleet simulator takes `Api` and `Managers` from here (feature `world`) and brings real agents.
//! Never: forgives a controller that was not woken for something that it would have changed.

mod api;
mod managers;

#[cfg(test)]
mod budgets;
#[cfg(test)]
pub mod dice;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod kubelet;
#[cfg(test)]
mod meanwhile;
#[cfg(test)]
mod random;
#[cfg(test)]
mod rollouts;
#[cfg(test)]
mod whole;

pub use api::Api;
pub use managers::{Managers, Work};
#[cfg(test)]
pub use whole::World;
