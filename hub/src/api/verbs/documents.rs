//! Paths that are no resources: discovery, OpenAPI, metrics, and Limpet's own doors.
//!
//! In: an allowed call. Out: documents; 404 for every other path. Never: an object.

use crate::api::{
    Body, Reply, aggregate,
    dispatch::{Call, Input, not_allowed},
    health, limits,
    negotiate::Wanted,
    reply, subresources,
};
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use http::{HeaderValue, Method, header};
use limpet_objects::{discovery, openapi, resource::Registry, status::Status};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{Read, Write},
    sync::{Mutex, OnceLock},
};

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

pub async fn answer(call: Call, input: Input) -> Result<Reply, Status> {
    let path = call.info.path.clone();
    let kinds = call.api.kinds();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if parts.first() == Some(&"limpet") {
        return subresources::limpet::answer(call, &parts[1..], input).await;
    }
    if !matches!(call.method, Method::GET | Method::HEAD) {
        return Err(if known(&parts) { not_allowed() } else { Status::no_such_resource() });
    }
    let json = |value: Value| Ok(reply::value(200, &value, call.wanted));
    let found = |value: Option<Value>| value.ok_or_else(Status::no_such_resource).and_then(json);
    match parts.as_slice() {
        [] => json(json!({"paths": paths(&kinds)})),
        ["api"] => discovered(&call, discovery::Root::Core, || discovery::api_versions(&server(&call))),
        ["apis"] => discovered(&call, discovery::Root::Groups, || {
            let mut groups = discovery::api_group_list(&kinds);
            aggregate::add_to_groups(&call.api.aggregate, &mut groups);
            groups
        }),
        ["api", version] => found(discovery::api_resource_list(&kinds, "", version)),
        ["apis", name] => {
            found(discovery::api_group(&kinds, name).or_else(|| aggregate::group(&call.api.aggregate, name)))
        }
        ["apis", group, version] => found(discovery::api_resource_list(&kinds, group, version)),
        ["openapi", "v3"] => {
            let mut index = openapi::v3_index(&kinds);
            aggregate::add_to_openapi(&call.api.aggregate, &mut index);
            json(index)
        }
        ["openapi", "v3", rest @ ..] => v3(&call, &rest.join("/")),
        ["openapi", "v2"] => Ok(v2(&call)),
        ["metrics"] => Ok(metrics(&call)),
        [".well-known", "openid-configuration"] => json(health::openid()),
        ["openid", "v1", "jwks"] => Ok(reply::keys(&call.api.tokens.jwks())),
        _ => Err(Status::no_such_resource()),
    }
}

fn known(parts: &[&str]) -> bool {
    matches!(parts.first(), Some(&("api" | "apis" | "openapi" | "metrics" | "version")))
}

fn paths(kinds: &Registry) -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into(), "/apis/".into()];
    for group in kinds.groups().iter().filter(|g| !g.name.is_empty()) {
        paths.push(format!("/apis/{}", group.name));
        paths.extend(group.versions.iter().map(|v| format!("/apis/{}/{v}", group.name)));
    }
    paths.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(String::from),
    );
    paths
}

/// The address by which this client reached us.
fn server(call: &Call) -> String {
    let host = call.headers.get(header::HOST).and_then(|v| v.to_str().ok());
    host.unwrap_or("localhost:6443").to_owned()
}

/// `/api` and `/apis`, aggregated when the client knows that form.
fn discovered(call: &Call, root: discovery::Root, plain: impl FnOnce() -> Value) -> Result<Reply, Status> {
    let kinds = call.api.kinds();
    let accept = call.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let accept = accept.replace(' ', "");
    let offers = |version: &str| {
        accept.split(',').any(|clause| {
            let has = |part: &str| clause.split(';').any(|p| p == part);
            has("g=apidiscovery.k8s.io") && has(version) && has("as=APIGroupDiscoveryList")
        })
    };
    let (mut value, form) = if offers("v=v2") {
        (discovery::aggregated_v2(&kinds, root), V2)
    } else if offers("v=v2beta1") {
        (discovery::aggregated_v2beta1(&kinds, root), V2BETA1)
    } else {
        return Ok(reply::value(200, &plain(), call.wanted));
    };
    if root == discovery::Root::Groups {
        aggregate::add_to_aggregated(&call.api.aggregate, &mut value);
    }
    let mut reply = reply::value(200, &value, Wanted { gzip: call.wanted.gzip, ..Wanted::JSON });
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form));
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(reply)
}

/// One group version's OpenAPI v3 document.
fn v3(call: &Call, path: &str) -> Result<Reply, Status> {
    let kinds = call.api.kinds();
    let hash = openapi::hash(&kinds, path);
    let zipped = made(path, &hash, || openapi::v3(&kinds, path)).ok_or_else(Status::no_such_resource)?;
    let mut reply = unzipped_for(call, zipped, "application/json");
    // With a hash in the query the client may keep the document for ever.
    if call.query.has("hash") {
        reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    Ok(reply)
}

fn v2(call: &Call) -> Reply {
    let accept = call.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kinds = call.api.kinds();
    let (name, form): (_, fn(&Registry) -> Vec<u8>) = match accept.contains("proto-openapi") {
        true => (OPENAPI_V2_PROTOBUF, openapi::v2_protobuf),
        false => ("application/json", openapi::v2_json),
    };
    let zipped = made(name, &openapi::hash(&kinds, ""), || Some(form(&kinds))).unwrap_or_default();
    unzipped_for(call, zipped, name)
}

/// The documents are large and seldom asked for: made once, kept compressed.
/// A document whose hash changed takes the place of the older one.
fn made(name: &str, hash: &str, make: impl FnOnce() -> Option<Vec<u8>>) -> Option<Bytes> {
    static MADE: OnceLock<Mutex<HashMap<String, (String, Bytes)>>> = OnceLock::new();
    let known = MADE.get_or_init(Mutex::default);
    let same = |(own, bytes): &(String, Bytes)| (own == hash).then(|| bytes.clone());
    if let Some(bytes) = known.lock().ok().and_then(|m| m.get(name).and_then(same)) {
        return Some(bytes);
    }
    let mut zip = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into a Vec cannot fail.
    zip.write_all(&make()?).ok()?;
    let bytes = Bytes::from(zip.finish().ok()?);
    if let Ok(mut known) = known.lock() {
        // Documents of groups that are gone are dropped with the next change.
        if known.len() >= limits::DOCUMENTS_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), (hash.to_owned(), bytes.clone()));
    }
    Some(bytes)
}

fn unzipped_for(call: &Call, zipped: Bytes, form: &'static str) -> Reply {
    let mut reply = if call.wanted.gzip {
        let mut reply = http::Response::new(Body::full(zipped));
        reply.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        reply
    } else {
        let mut plain = Vec::new();
        // These bytes are our own.
        let _ = GzDecoder::new(&zipped[..]).read_to_end(&mut plain);
        http::Response::new(Body::full(plain))
    };
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form));
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding, Accept"));
    reply
}

fn metrics(call: &Call) -> Reply {
    let store = &call.api.store;
    let stored: Vec<(String, usize)> = store
        .resources()
        .into_iter()
        .map(|(id, count)| match id.split_once('/') {
            Some((group, plural)) if !group.is_empty() => (format!("{plural}.{group}"), count),
            _ => (id.trim_start_matches('/').to_owned(), count),
        })
        .collect();
    let mut text = call.api.metrics.text(store.revision(), &stored);
    text.push_str(&call.api.figures());
    let mut reply = http::Response::new(Body::full(text));
    let form = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    reply.headers_mut().insert(header::CONTENT_TYPE, form);
    reply
}
