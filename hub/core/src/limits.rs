//! Every bound of the hub's decisions, in one place.
//!
//! In: nothing. Out: constants, in units as their names say. Never: a bound that depends on the platform.

/// Pods that one reconcile creates or deletes at most; the rest follows in the next step.
pub const PODS_PER_STEP_MAX: usize = 500;
/// Dependents that one reconcile of the garbage collector deletes at most.
pub const DELETES_PER_STEP_MAX: usize = 500;
/// Endpoints in one EndpointSlice, as upstream.
pub const ENDPOINTS_PER_SLICE_MAX: usize = 100;
/// Node names and reasons listed in a scheduling message.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Seconds between a node's `Alive` messages.
pub const ALIVE_EVERY_S: u32 = 60;
/// Seconds of silence after which a node counts as offline (the connection being gone counts at once after
/// `OFFLINE_AFTER_CLOSE_S`).
pub const OFFLINE_AFTER_S: i64 = 150;
/// Seconds that a node may be without a connection before it counts as offline: a reconnect takes a moment.
pub const OFFLINE_AFTER_CLOSE_S: i64 = 40;
/// Seconds between writes of a node's Lease while it is alive.
pub const LEASE_EVERY_S: i64 = 300;
/// Unacknowledged `SetChange` messages after which a session pauses sending.
pub const CHANGES_IN_FLIGHT_MAX: usize = 16;
/// Seconds after which an unacknowledged `SetChange` is sent again.
pub const RESEND_AFTER_S: i64 = 30;
/// Reports that wait for durability in one session.
pub const REPORTS_PENDING_MAX: usize = 4096;

const _: () = assert!(OFFLINE_AFTER_S > 2 * ALIVE_EVERY_S as i64);
const _: () = assert!(OFFLINE_AFTER_CLOSE_S < OFFLINE_AFTER_S);
