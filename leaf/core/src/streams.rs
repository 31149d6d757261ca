//! What can be asked of a leaf: its pages. There are no containers, and so no logs, commands or ports.
//!
//! In: a stream that the hub opens. Out: the frames of the answer, all at once. Never: a stream that stays open.

use crate::readings::{self, Reading};
use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};
use limpet_protocol::{StreamFrame, StreamKind, StreamOpen};
use serde_json::{Map, Value};

const OUTPUT: u8 = 1;

pub fn answer(id: u32, open: &StreamOpen, readings: &[Reading], about: impl FnOnce() -> Map<String, Value>) -> Vec<StreamFrame> {
    let end = |error: &str| StreamFrame::End { id, exit_code: None, error: error.to_string() };
    let StreamKind::NodeGet { path } = &open.kind else {
        return vec![end("this board is a leaf: it runs no containers")];
    };
    let bytes = match path.as_str() {
        "/metrics" => readings::prometheus(readings),
        "/healthz" => b"ok".to_vec(),
        "/" | "/leaf" => readings::page(readings, about()),
        _ => return vec![end("a leaf has the pages /metrics, /leaf and /healthz")],
    };
    vec![StreamFrame::Opened { id }, StreamFrame::Data { id, lane: OUTPUT, bytes }, end("")]
}
