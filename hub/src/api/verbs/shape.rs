//! Objects in the shape that the client wants: as they are, as a Table, or only their metadata.
//!
//! In: objects and a `Wanted`. Out: replies. Never: parses an object that goes out as it is stored.

use crate::api::{
    Reply, Target,
    dispatch::Call,
    negotiate::{Format, Shape},
    object, reply,
};
use bytes::Bytes;
use limpet_objects::{status::Status, table};
use limpet_store::Record;
use serde_json::{Value, json};

/// How the rows of a table carry their objects.
pub fn include_object(call: &Call) -> Result<table::Include, Status> {
    table::Include::parse(call.query.get("includeObject").unwrap_or_default()).map_err(Status::bad_request)
}

/// Whether stored bytes can go out as they are.
pub fn is_plain(call: &Call, target: &Target) -> bool {
    call.wanted.is_plain_json() && target.resource.is_served_as_stored()
}

/// Whether parts of stored bytes can go out as they are, in another shape.
pub fn can_be_rendered(call: &Call, target: &Target) -> bool {
    call.wanted.format == Format::Json && !call.wanted.pretty && target.resource.is_served_as_stored()
}

/// A stored object.
pub fn stored(call: &Call, target: &Target, record: &Record) -> Result<Reply, Status> {
    if is_plain(call, target) {
        return Ok(reply::bytes(200, record.bytes.clone(), call.wanted));
    }
    one(call, target, 200, target.parse(record)?)
}

/// The outcome of a write: canonical bytes of the resource's version.
pub fn written(call: &Call, target: &Target, code: u16, bytes: Bytes) -> Result<Reply, Status> {
    if call.wanted.is_plain_json() {
        return Ok(reply::bytes(code, bytes, call.wanted));
    }
    let value = serde_json::from_slice(&bytes).map_err(|e| Status::internal(e.to_string()))?;
    one(call, target, code, value)
}

/// One object of the target's resource.
pub fn one(call: &Call, target: &Target, code: u16, value: Value) -> Result<Reply, Status> {
    let value = match call.wanted.shape {
        Shape::Object => value,
        Shape::Partial(version) => object::partial(&value, version),
        Shape::Table(version) => {
            let revision = object::resource_version(&value).to_owned();
            let mut table = tabulate(call, target, &[value], version)?;
            object::set_meta(&mut table, "resourceVersion", revision.into());
            table
        }
    };
    Ok(reply::value(code, &value, call.wanted))
}

/// A list of objects of the target's resource.
pub fn list(call: &Call, target: &Target, metadata: Value, items: Vec<Value>) -> Result<Reply, Status> {
    let list = match call.wanted.shape {
        Shape::Table(version) => {
            let mut table = tabulate(call, target, &items, version)?;
            table["metadata"] = metadata;
            table
        }
        Shape::Object => json!({
            "kind": target.resource.list_kind, "apiVersion": target.resource.api_version(),
            "metadata": metadata, "items": items,
        }),
        Shape::Partial(version) => {
            let items: Vec<Value> = items.iter().map(|item| object::partial(item, version)).collect();
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata, "items": items,
            })
        }
    };
    Ok(reply::value(200, &list, call.wanted))
}

/// A Table of objects.
pub fn tabulate(call: &Call, target: &Target, objects: &[Value], version: &str) -> Result<Value, Status> {
    let include = include_object(call)?;
    let mut table = table::render(&target.resource, objects, call.api.now(), include);
    table["apiVersion"] = format!("meta.k8s.io/{version}").into();
    Ok(table)
}
