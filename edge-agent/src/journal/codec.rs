//! One record as bytes: a tag, then a body whose form the tag fixes for ever.
//!
//! In: a record. Out: bytes, sealed when they hold a Secret or a token. Tags are only ever added.
//! Never: fails on an unknown tag; the reader passes over it.

use super::DeviceKey;
use limpet_agent_core::{Record, pods::PodMemory};
use limpet_protocol::{Item, ItemKey, ItemKind};

const PUT: u8 = 1;
const PUT_SEALED: u8 = 2;
const REMOVE: u8 = 3;
const SESSION_CEILING: u8 = 4;
const VERSION_CEILING: u8 = 5;
const TIME_FLOOR: u8 = 6;
const POD: u8 = 7;
const FORGET_POD: u8 = 8;
const EVENT: u8 = 9;
const EVENTS_TAKEN: u8 = 10;
const LINK_USE: u8 = 11;

pub fn encode(record: &Record, key: &DeviceKey) -> Vec<u8> {
    let tagged = |tag: u8, body: &[u8]| -> Vec<u8> { [&[tag], body].concat() };
    let number = |tag: u8, n: &u64| tagged(tag, &n.to_le_bytes());
    match record {
        Record::Put(item) => {
            let body = postcard::to_allocvec(item).unwrap_or_default();
            match item.key.kind {
                ItemKind::Secret | ItemKind::Token => tagged(PUT_SEALED, &key.seal(body)),
                _ => tagged(PUT, &body),
            }
        }
        Record::Remove(item) => tagged(REMOVE, &postcard::to_allocvec(item).unwrap_or_default()),
        Record::SessionCeiling(n) => number(SESSION_CEILING, n),
        Record::VersionCeiling(n) => number(VERSION_CEILING, n),
        Record::TimeFloor(n) => number(TIME_FLOOR, n),
        Record::Pod(memory) => tagged(POD, &serde_json::to_vec(memory).unwrap_or_default()),
        Record::ForgetPod(uid) => tagged(FORGET_POD, uid.as_bytes()),
        Record::Event(n, json) => tagged(EVENT, &[&n.to_le_bytes(), json.as_slice()].concat()),
        Record::EventsTaken(n) => number(EVENTS_TAKEN, n),
        Record::LinkUse(month, sent, received) => {
            tagged(LINK_USE, &[month.to_le_bytes(), sent.to_le_bytes(), received.to_le_bytes()].concat())
        }
    }
}

pub fn decode(bytes: &[u8], key: &DeviceKey) -> Option<Record> {
    let (tag, body) = bytes.split_first()?;
    let number = || Some(u64::from_le_bytes(body.try_into().ok()?));
    Some(match *tag {
        PUT => Record::Put(postcard::from_bytes::<Item>(body).ok()?),
        PUT_SEALED => Record::Put(postcard::from_bytes::<Item>(&key.open(body.to_vec())?).ok()?),
        REMOVE => Record::Remove(postcard::from_bytes::<ItemKey>(body).ok()?),
        SESSION_CEILING => Record::SessionCeiling(number()?),
        VERSION_CEILING => Record::VersionCeiling(number()?),
        TIME_FLOOR => Record::TimeFloor(number()?),
        POD => Record::Pod(serde_json::from_slice::<PodMemory>(body).ok()?),
        FORGET_POD => Record::ForgetPod(std::str::from_utf8(body).ok()?.to_string()),
        EVENT => {
            let (number, json) = body.split_first_chunk::<8>()?;
            Record::Event(u64::from_le_bytes(*number), json.to_vec())
        }
        EVENTS_TAKEN => Record::EventsTaken(number()?),
        LINK_USE => {
            let (month, rest) = body.split_first_chunk::<8>()?;
            let (sent, rest) = rest.split_first_chunk::<8>()?;
            let received = u64::from_le_bytes(rest.try_into().ok()?);
            Record::LinkUse(i64::from_le_bytes(*month), u64::from_le_bytes(*sent), received)
        }
        _ => return None,
    })
}
