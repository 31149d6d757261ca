//! Every bound of the hub's decisions, in one place.
//!
//! In: nothing. Out: constants, in units as their names say. Never: a bound that depends on the platform.

/// Pods that one reconcile creates or deletes at most; the rest follows in the next step.
pub const PODS_PER_STEP_MAX: usize = 500;
/// Dependents that one reconcile of the garbage collector deletes at most.
pub const DELETES_PER_STEP_MAX: usize = 500;
/// Pods that ended and are kept, as upstream (`--terminated-pod-gc-threshold`).
pub const ENDED_PODS_MAX: usize = 12_500;
/// Endpoints in one EndpointSlice, as upstream.
pub const ENDPOINTS_PER_SLICE_MAX: usize = 100;
/// Node names and reasons listed in a scheduling message.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Seconds that a node may be without a connection before it counts as offline: a reconnect takes a moment.
pub const OFFLINE_AFTER_CLOSE_S: i64 = 40;
/// Seconds by which the wall clock strays from the even one, from one look to the next, when somebody has set it.
pub const CLOCK_SET_S: i64 = 10;
/// Seconds by which the time written on a board that is away may be wrong before it is written anew.
pub const AWAY_SINCE_WRONG_S: i64 = 60;
/// Seconds without the device on record after which another one with its card is taken for a repair, not for a copy.
pub const REPLACED_AFTER_S: i64 = 600;
/// Seconds between writes of a node's Lease while it is alive.
pub const LEASE_EVERY_S: i64 = 300;
/// Unacknowledged `SetChange` messages after which a session pauses sending.
pub const CHANGES_IN_FLIGHT_MAX: usize = 16;
/// Seconds after which an unacknowledged `SetChange` is sent again.
pub const RESEND_AFTER_S: i64 = 30;
/// Reports that wait for durability in one session.
pub const REPORTS_PENDING_MAX: usize = 4096;
/// Events of one node that are being written: twice what a node keeps of them.
pub const EVENTS_PENDING_MAX: usize = 1024;

/// Replaced objects that are remembered, so that nodes get differences.
pub const PREVIOUS_OBJECTS_MAX: usize = 2048;
pub const PREVIOUS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A difference is sent when it is shorter than this part (1 / n) of the whole.
pub const DIFFERENCE_WORTH: usize = 2;
