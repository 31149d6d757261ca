//! Lists as Tables or as metadata alone, made object by object on their way out.
//!
//! In: records that are served as they are stored. Out: a reply whose body is made while it is sent.
//! Never: holds more than one parsed object, parses what no cell shows, or copies metadata through a parser.

use super::shape;
use crate::api::{Reply, Target, dispatch::Call, raw, reply};
use bytes::Bytes;
use limpet_objects::{
    sieve,
    status::Status,
    table::{self, Include},
};
use limpet_store::Record;
use serde_json::Value;
use std::sync::Arc;

pub fn table(
    call: &Call,
    target: &Target,
    metadata: &Value,
    records: Vec<Record>,
    version: &str,
) -> Result<Reply, Status> {
    let include = shape::include_object(call)?;
    let columns = table::columns(&target.resource);
    let head = format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{metadata},\
         \"columnDefinitions\":{columns},\"rows\":["
    );
    let (resource, now) = (Arc::clone(&target.resource), call.api.now());
    let row = move |record: &Record| {
        // What is stored can be parsed; the same as elsewhere for the impossible: an empty object.
        let object = sieve::read(&record.bytes, resource.behaviour.row_looks_at()).unwrap_or_default();
        let mut row = b"{\"cells\":".to_vec();
        // Writing into a Vec cannot fail.
        let _ = serde_json::to_writer(&mut row, &resource.behaviour.row(&object, now));
        match include {
            Include::None => {}
            Include::Metadata => {
                row.extend_from_slice(b",\"object\":");
                partial(record, "v1", &mut row);
            }
            Include::Object => {
                row.extend_from_slice(b",\"object\":");
                row.extend_from_slice(&record.bytes);
            }
        }
        row.push(b'}');
        row.into()
    };
    Ok(list(call, head, records, row))
}

/// A PartialObjectMetadataList.
pub fn metadata_only(
    call: &Call,
    metadata: &Value,
    records: Vec<Record>,
    version: &'static str,
) -> Reply {
    let head = format!(
        "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/{version}\",\
         \"metadata\":{metadata},\"items\":["
    );
    let item = move |record: &Record| {
        let mut item = Vec::new();
        partial(record, version, &mut item);
        item.into()
    };
    list(call, head, records, item)
}

fn partial(record: &Record, version: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/");
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(b"\",\"metadata\":");
    out.extend_from_slice(raw::field(&record.bytes, "metadata").unwrap_or(b"{}"));
    out.push(b'}');
}

fn list(
    call: &Call,
    head: String,
    records: Vec<Record>,
    item: impl Fn(&Record) -> Bytes + Send + 'static,
) -> Reply {
    let size = head.len() + records.iter().map(|r| r.bytes.len()).sum::<usize>();
    let items = records.into_iter().map(move |record| item(&record));
    reply::pieces(reply::listed(head, items), size, call.wanted)
}
