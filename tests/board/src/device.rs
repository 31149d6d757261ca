//! The device's clock, which the agent's link needs: the agent's own.

#[allow(dead_code)]
#[path = "../../../edge-agent/src/device/clock.rs"]
mod clock;

pub use clock::Clock;
