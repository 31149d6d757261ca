//! Limpet's own doors: joining with a token, the operator's tokens, who joined and who waits.
//!
//! In: `POST /limpet/v1/join` (the token is the right), `POST /limpet/v1/renew` (the key is), `/limpet/v1/tokens`,
//! `/limpet/v1/nodes`, `/limpet/v1/store` and `/limpet/v1/why/KIND/NAMESPACE/NAME` (rights in RBAC). Out: JSON, or a Status.
//! Never: shows the secret of a token again.

use super::messages;
use crate::{
    operate::snapshot::copy_store,
    api::{
        Api, Client, Reply,
        decode::Inflow,
        dispatch::{Call, Input, not_allowed},
        limits,
        negotiate::Wanted,
        reply,
    },
    auth::Peer,
    enroll::{Decision, Enroll, EnrollError, TokenWish},
    pki::PkiError,
    relay,
    run::Delete,
};
use http::Method;
use limpet_objects::status::Status;
use limpet_protocol::join::{JoinAsk, JoinWaits};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    sync::{Arc, PoisonError},
    time::SystemTime,
};

pub async fn join(api: &Api, peer: &Peer, body: Inflow) -> Result<Reply, Status> {
    let ask: JoinAsk = read(&body.read_up_to(limits::JOIN_BYTES_MAX).await?)?;
    let address = peer.address.map(|a| a.ip().to_string()).unwrap_or_default();
    match enroll(api)?.join(&ask, &address, SystemTime::now()).await {
        Ok(answer) => json(200, &answer),
        Err(waits @ EnrollError::Waits { .. }) => {
            tracing::info!(node = %ask.node_name, %address, "a device waits to be let in");
            json(202, &JoinWaits { message: waits.to_string() })
        }
        Err(error) => {
            tracing::warn!(node = %ask.node_name, token = %ask.token_id, %error, "a device may not join");
            Err(failed(&error))
        }
    }
}

/// The signature of the request is the right; a certificate that has ended does not matter.
pub async fn renew(api: &Api, body: Inflow) -> Result<Reply, Status> {
    let ask: JoinAsk = read(&body.read_up_to(limits::JOIN_BYTES_MAX).await?)?;
    let answer = enroll(api)?.renew_by_key(&ask, SystemTime::now()).map_err(|error| {
        tracing::warn!(node = %ask.node_name, %error, "a device may not renew");
        failed(&error)
    })?;
    json(200, &answer)
}

/// Paths below `/limpet`.
pub async fn answer(call: Call, parts: &[&str], input: Input) -> Result<Reply, Status> {
    if let (&Method::GET, ["v1", "why", kind, namespace, name]) = (&call.method, parts) {
        return why(&call.api, kind, if *namespace == "-" { "" } else { namespace }, name);
    }
    if let ["v1", "messages", namespace] = parts {
        return match call.method {
            Method::GET => messages::show(&call, namespace).await,
            Method::POST => messages::say(&call, namespace, input).await,
            _ => Err(not_allowed()),
        };
    }
    let enroll = enroll(&call.api)?;
    match (&call.method, parts) {
        (&Method::GET, ["v1", "tokens"]) => json(200, &enroll.tokens()),
        (&Method::POST, ["v1", "tokens"]) => {
            let wish: TokenWish = read(&input.read().await?)?;
            let made = enroll.create_token(&wish, SystemTime::now()).await.map_err(|e| failed(&e))?;
            json(201, &made)
        }
        (&Method::DELETE, ["v1", "tokens", id]) => {
            match enroll.revoke_token(id).await.map_err(|e| failed(&e))? {
                true => json(200, &Status::success("limpet", "jointokens", id, "")),
                false => Err(Status::not_found("limpet", "jointokens", id)),
            }
        }
        (&Method::POST, ["v1", "store", "rotate-key"]) => {
            let doors = call.api.doors.get().ok_or_else(|| Status::unavailable("the hub is still starting, try again"))?;
            let records = match doors.streams.road().filter(|_| call.api.store.is_shared()) {
                Some(road) => relay::rotate(road).await.map_err(Status::internal)?,
                None => call.api.store.rotate_key().await.map_err(|e| Status::internal(e.to_string()))?,
            };
            json(200, &serde_json::json!({"records": records}))
        }
        (&Method::POST, ["v1", "store", "snapshot"]) => {
            let store = call.api.store.clone();
            store.catch_up().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let copied = tokio::task::spawn_blocking(move || copy_store(&store)).await;
            let copied = copied.map_err(|e| Status::internal(e.to_string()))?;
            json(200, &copied.map_err(|e| Status::internal(e.to_string()))?)
        }
        (&Method::GET, ["v1", "nodes"]) => json(200, &enroll.devices()),
        (&Method::POST, ["v1", "nodes", node, verb @ ("approve" | "reject")]) => {
            let decision = if *verb == "approve" { Decision::Approved } else { Decision::Rejected };
            match enroll.decide(node, decision).await.map_err(|e| failed(&e))? {
                true => json(200, &Status::success("limpet", "waiting", node, "")),
                false => Err(Status::not_found("limpet", "waiting", node)),
            }
        }
        (&Method::DELETE, ["v1", "nodes", node]) => remove(&call.api, &enroll, node).await,
        (_, ["v1", "tokens" | "nodes" | "store", ..] | ["v1", "join" | "renew"]) => Err(not_allowed()),
        _ => Err(Status::no_such_resource()),
    }
}

/// What holds an object back. The namespace of what has none is `-`.
fn why(api: &Api, kind: &str, namespace: &str, name: &str) -> Result<Reply, Status> {
    let doors = api.doors.get().ok_or_else(|| Status::unavailable("the hub is still starting, try again"))?;
    let view = doors.view.read().unwrap_or_else(PoisonError::into_inner);
    let answer = limpet_hub_core::why::why(&view, &doors.scheduler, kind, namespace, name, api.now());
    match answer.map_err(Status::bad_request)? {
        Some(answer) => json(200, &answer),
        None => Err(Status::not_found("", kind, name)),
    }
}

/// The Node object, when there is one, and the key. The sessions cut the device off when they see the Node go.
async fn remove(api: &Arc<Api>, enroll: &Enroll, node: &str) -> Result<Reply, Status> {
    let delete = Delete {
        resource: "/nodes".into(),
        namespace: String::new(),
        name: node.into(),
        uid: String::new(),
        grace: None,
        propagation: None,
    };
    let object = match Client::new(Arc::clone(api)).delete("limpet-node", delete).await {
        Ok(_) => true,
        Err(status) if status.code == 404 => false,
        Err(status) => return Err(status),
    };
    let key = enroll.remove(node).await.map_err(|e| failed(&e))?;
    match object || key {
        true => json(200, &Status::success("limpet", "nodes", node, "")),
        false => Err(Status::not_found("limpet", "nodes", node)),
    }
}

fn enroll(api: &Api) -> Result<Arc<Enroll>, Status> {
    let doors = api.doors.get().ok_or_else(|| Status::unavailable("the hub is still starting, try again"))?;
    Ok(Arc::clone(&doors.enroll))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(bytes)
        .map_err(|e| Status::bad_request(format!("the body is not what is expected: {e}")))
}

fn json(code: u16, value: &impl Serialize) -> Result<Reply, Status> {
    let value = serde_json::to_value(value).map_err(|e| Status::internal(e.to_string()))?;
    Ok(reply::value(code, &value, Wanted::JSON))
}

fn failed(error: &EnrollError) -> Status {
    match error {
        EnrollError::Refused(_) => Status::new(403, "Forbidden", error.to_string()),
        EnrollError::Wish(_) | EnrollError::Pki(PkiError::Request(_)) => {
            Status::bad_request(error.to_string())
        }
        _ => Status::internal(error.to_string()),
    }
}
