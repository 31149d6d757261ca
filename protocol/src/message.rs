//! What hub and agent say to each other about state.
//!
//! In and out: `Up` from the agent, `Down` from the hub. Kubernetes objects travel as their JSON bytes, because
//! both sides already have that form and a newer hub may add fields that an older agent passes over.
//! Rules: variants are only ever appended, each with the version that brought it; a field's meaning never changes; `Hello`,
//! `Welcome` and `Goodbye` never change at all (what is new goes into their extensions); bounds are checked in `envelope`.
//! A sender uses nothing that is younger than the version that `Welcome` settled.

use crate::{ItemHash, SetDigest, streams::StreamFrame};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// What an item of the desired set is. The number is on the wire and in journals: append only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum ItemKind {
    /// The node's own object: podCIDRs, labels, annotations. Name = node name, namespace empty.
    Node = 0,
    /// A pod bound to this node: the whole v1 Pod, deletionTimestamp included, without status.
    Pod = 1,
    /// A v1 ConfigMap that a pod of this node names (plus `kube-root-ca.crt`).
    ConfigMap = 2,
    /// A v1 Secret that a pod of this node names (volumes, env, imagePullSecrets).
    Secret = 3,
    /// A v1 Service that pods of this node may use.
    Service = 4,
    /// A discovery/v1 EndpointSlice of such a Service.
    EndpointSlice = 5,
    /// A bound ServiceAccount token, `{"token","expirationTimestamp","audience"}`; name = `<pod uid>.<volume>.<index>`.
    Token = 6,
    /// What the cluster says of the node's own ways. `runtimeclasses/NAME`: `{"handler"}` of a RuntimeClass that a pod of this
    /// node names.
    Settings = 7,
    /// The v1 PersistentVolume that a claim of a pod of this node is bound to; namespace and name are the claim's.
    /// With an empty namespace: a PersistentVolume of that name whose directory the node is to remove.
    /// With `resourceclaims/` before the name: the devices of a ResourceClaim,
    /// `{"results":[{"request","driver","pool","device"}]}`.
    Claim = 8,
    /// A CronJob whose pods run on this node only: `{"uid","schedule","deadlineSeconds","policy","template"}`.
    Schedule = 9,
}

/// Before the name of a RuntimeClass in an item of `Settings`.
pub const RUNTIME_CLASS_ITEM: &str = "runtimeclasses/";

/// Identity of an item. Ordered by kind, namespace, name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ItemKey {
    pub kind: ItemKind,
    pub namespace: String,
    pub name: String,
}

impl ItemKey {
    pub fn new(kind: ItemKind, namespace: &str, name: &str) -> ItemKey {
        ItemKey { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// One item with its content. `generation` is the hub store's revision at which this content arose; a receiver
/// refuses a generation below the one it holds for the key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    pub key: ItemKey,
    pub generation: u64,
    #[serde(with = "crate::byte_string")]
    pub body: Vec<u8>,
}

/// An item that is no longer wanted, as of `generation`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removal {
    pub key: ItemKey,
    pub generation: u64,
}

/// A step of the desired set. The agent makes it durable, then acknowledges `seq`. Steps of one session have
/// consecutive `seq` from 1; a gap makes the agent send `Up::Inventory` and the hub answers with the difference.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SetChange {
    pub seq: u64,
    pub puts: Vec<Item>,
    pub removals: Vec<Removal>,
    /// Digest of the whole set after this step.
    pub digest: SetDigest,
}

/// An item of a `SetStep`: the whole body, or the way to it from the body that the agent holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ItemStep {
    pub key: ItemKey,
    pub generation: u64,
    /// First eight bytes of the hash of the body that `body` starts from (`squeeze::fold`); 0: `body` is whole.
    pub base: u64,
    #[serde(with = "crate::byte_string")]
    pub body: Vec<u8>,
}

/// A `SetChange` whose items may be differences. From version 3 on. An agent that does not hold a base treats the step
/// as missed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SetStep {
    pub seq: u64,
    pub puts: Vec<ItemStep>,
    pub removals: Vec<Removal>,
    pub digest: SetDigest,
}

/// A v1 Event that stays in the agent's spool until the hub has it durably. Numbers grow for ever; the hub takes an Event
/// that comes twice for one, by its name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NumberedEvent {
    pub number: u64,
    /// Number of the Event sent before this one in this session; 0 begins a new row. The hub confirms unbroken rows only.
    pub after: u64,
    #[serde(with = "crate::byte_string")]
    pub json: Vec<u8>,
}

/// The agent's first word on every connection.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hello {
    /// `CARGO_PKG_VERSION` of the agent.
    pub agent_version: String,
    /// `/proc/sys/kernel/random/boot_id`: changes with each boot.
    pub boot_id: String,
    /// Random 16 bytes made at the first start and kept: two devices with one certificate differ here or in `boot_id`.
    pub instance: [u8; 16],
    /// Digest of the desired set that the agent holds durably.
    pub digest: SetDigest,
    /// The clock of the device, milliseconds since 1970, for the hub to compare.
    pub clock_ms: u64,
    /// Oldest and newest protocol version that the agent speaks.
    pub speaks: (u8, u8),
    /// What later versions add; unknown ones are passed over.
    pub extensions: Vec<Extension>,
}

/// A later version's addition to a greeting.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Extension {
    pub tag: u16,
    #[serde(with = "crate::byte_string")]
    pub bytes: Vec<u8>,
}

/// The hub's answer to `Hello`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Welcome {
    /// The hub's time, milliseconds since 1970; raises the device's time floor.
    pub time_ms: u64,
    /// Digest of the set as the hub wants it. Equal to the agent's own: nothing follows. Otherwise the agent sends
    /// `Up::Inventory`.
    pub digest: SetDigest,
    /// The version that both speak from here on.
    pub speak: u8,
    /// As in `Hello`.
    pub extensions: Vec<Extension>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InventoryEntry {
    pub key: ItemKey,
    pub generation: u64,
    pub hash: ItemHash,
}

/// All that the agent holds; the hub answers with `SetChange`s that carry the differences only.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Inventory {
    pub entries: Vec<InventoryEntry>,
}

/// `SetChange`s up to and including `seq` are durable on the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    pub seq: u64,
}

/// Status of one pod: latest wins. `version` grows with each change of the pod's status on the device (never
/// falls, also across agent restarts); the hub drops what is older than what it has, and answers `Down::Reported`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodReport {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub version: u64,
    /// v1 PodStatus as JSON.
    #[serde(with = "crate::byte_string")]
    pub status: Vec<u8>,
}

/// All containers of a pod that was being deleted have ended and its resources are released: the hub may remove the object.
/// With an empty namespace: the directory of the PersistentVolume of that name and uid is gone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodGone {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub version: u64,
}

/// Node status: latest wins, as in `PodReport`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    pub version: u64,
    /// JSON object `{"status": v1 NodeStatus, "labels": {..}}`; labels are those the device knows (arch, os, board).
    #[serde(with = "crate::byte_string")]
    pub body: Vec<u8>,
}

/// The agent wants a ServiceAccount token renewed before it expires.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenAsk {
    /// Key of the `ItemKind::Token` item.
    pub key: ItemKey,
}

/// Reserved answer of a token that cannot be had; the token itself comes as an item.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenAnswer {
    pub key: ItemKey,
    pub error: String,
}

/// A place in the log of a container on the board: the log of all its attempts, one after the other. Ordered as it was written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct LogPlace {
    pub attempt: u32,
    /// Which file of the attempt, from 1 on.
    pub file: u32,
    /// Bytes of that file that lie before this place.
    pub offset: u64,
    /// Lines before this place since the container's first attempt.
    pub lines: u64,
}

/// Lines of a log that the hub is to keep. The hub answers each with `Down::LogTaken`; one is under way at a time. From version
/// 4 on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LogPiece {
    pub namespace: String,
    pub pod: String,
    pub uid: String,
    pub container: String,
    /// How many bytes of this container's log are wanted at the hub.
    pub bytes_max: u32,
    /// Where `text` begins and ends.
    pub from: LogPlace,
    pub to: LogPlace,
    /// Lines between the end of the piece before and `from` that nobody has any more.
    pub lost: u64,
    /// Whole lines as they are on the board, `<rfc3339nano> stdout F text`. Empty: asks how far the hub is.
    #[serde(with = "crate::byte_string")]
    pub text: Vec<u8>,
}

/// The hub has this container's log durably up to `place`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LogTaken {
    pub uid: String,
    pub container: String,
    pub place: LogPlace,
    /// The hub does not keep this log: nothing more of it need be sent.
    pub refused: bool,
}

/// A message of a workload's own, published on the board's broker and stored until the hub has it. Numbers and rows as in
/// `NumberedEvent`. From version 4 on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BoardMessage {
    pub number: u64,
    pub after: u64,
    /// Messages before this one that were dropped because the store was full.
    pub lost: u64,
    pub namespace: String,
    /// The pod that published it.
    pub pod: String,
    pub topic: String,
    /// The clock of the board, milliseconds since 1970.
    pub at_ms: u64,
    #[serde(with = "crate::byte_string")]
    pub payload: Vec<u8>,
}

/// A message for workloads of one namespace on the board. From version 4 on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct HubMessage {
    pub namespace: String,
    pub topic: String,
    pub retain: bool,
    #[serde(with = "crate::byte_string")]
    pub payload: Vec<u8>,
}

/// From agent to hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Up {
    Hello(Hello),
    Inventory(Inventory),
    Ack(Ack),
    PodReport(PodReport),
    PodGone(PodGone),
    NodeReport(NodeReport),
    /// A v1 Event as JSON (metadata.name and namespace set by the device).
    Event(#[serde(with = "crate::byte_string")] Vec<u8>),
    TokenAsk(TokenAsk),
    Stream(StreamFrame),
    /// From version 3 on, instead of `Event`.
    NumberedEvent(NumberedEvent),
    /// From version 4 on.
    LogPiece(LogPiece),
    /// From version 4 on.
    Message(BoardMessage),
}

impl Up {
    /// The version that brought this message.
    pub fn since(&self) -> u8 {
        match self {
            Up::LogPiece(_) | Up::Message(_) => 4,
            Up::NumberedEvent(_) => 3,
            _ => 1,
        }
    }
}

/// From hub to agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Down {
    Welcome(Welcome),
    Change(SetChange),
    /// The report of `uid` (empty = the node's own) with this version is durable at the hub.
    Reported { uid: String, version: u64 },
    TokenAnswer(TokenAnswer),
    Stream(StreamFrame),
    /// The session is over (removed, replaced by a newer one, wrong version); the sentence says why.
    Goodbye { reason: String },
    /// From version 3 on, instead of `Change`.
    Step(SetStep),
    /// Every Event up to this number is durable at the hub. From version 3 on.
    EventsTaken { number: u64 },
    /// From version 4 on.
    LogTaken(LogTaken),
    /// Every message up to this number is durable at the hub. From version 4 on.
    MessagesTaken { number: u64 },
    /// From version 4 on.
    Message(HubMessage),
}

impl Down {
    /// The version that brought this message.
    pub fn since(&self) -> u8 {
        match self {
            Down::LogTaken(_) | Down::MessagesTaken { .. } | Down::Message(_) => 4,
            Down::Step(_) | Down::EventsTaken { .. } => 3,
            _ => 1,
        }
    }
}
