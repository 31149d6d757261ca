//! The MQTT broker inside the hub: one connection a node, rights from its certificate, nothing kept for the absent.
//!
//! In: a TCP listener, TLS settings that require a client certificate, a `Gate`. Out: a stream of `FromNode`, and
//! `Broker::send` to nodes that are connected. `external` gives the same by way of somebody else's broker. MQTT 3.1.1, clean
//! sessions, QoS 0 and 1 upwards, QoS 0 downwards: what must arrive is numbered and acknowledged by the application.
//! Never: retains a message, queues for an absent client, passes one client's message to another.

pub mod limits;
mod acl;
mod connection;
mod external;
mod identity;
mod queue;
mod registry;
mod serve;
mod talk;
mod tls;
mod wire;

pub use acl::{Right, allowed};
pub use connection::Stream;
pub use external::{ExternalOptions, Office, Papers, Refused};
pub use identity::{Gate, PeerIdentity};
pub use registry::{Broker, FromNode, SendError};
pub use serve::{BrokerOptions, serve};
