//! The keeper: parent of every container, holder of what must survive the agent.
//!
//! In: signals of dying children, and requests of the agent over one packet socket. Out: an agent process that is
//! started again whenever it dies, and the fds and exit codes that it asks for. Never: reads configuration, talks to
//! the network, starts threads, or knows what a pod is.
//!
//! SIGTERM and SIGINT stop the agent and then the keeper; containers carry on. SIGHUP restarts the agent only.
//! Exit codes that happen while no keeper runs are lost; the container's pipes are FIFOs that the container itself
//! keeps open, so it does not die of a missing reader.

pub mod client;
mod program;
pub mod server;
mod spawn;
mod transport;
pub mod wire;

pub use program::INSTALLED;
pub use server::run;

/// An agent that ends with this code met an error that a restart cannot cure: the keeper ends with it too.
pub const EXIT_CONFIG: i32 = 78;
/// An agent that ends with this code wants to be started again from the program that it has put into place.
pub const EXIT_UPDATE: i32 = 79;
/// The fd on which the agent finds the keeper.
pub const AGENT_FD: i32 = 3;
