//! Subresources: status, scale, binding, eviction, tokens, streams, and Limpet's own doors.
//!
//! In: an allowed call on `…/{name}/{subresource}`. Out: its answer. One file each.
//! Never: authorizes.

pub mod limpet;

mod admit;
pub mod binding;
mod connect;
mod eviction;
mod kept;
mod messages;
mod scale;
pub mod token;

pub use connect::{place, streams};

use super::{
    Reply, Target,
    dispatch::{Call, Input, not_allowed},
    proxy, verbs,
};
use limpet_objects::status::Status;

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let Some(subresource) = target.resource.subresource(&call.info.subresource) else {
        return Err(Status::no_such_resource());
    };
    let preflight = subresource.name == "proxy" && call.info.verb == "options";
    if !preflight && !subresource.verbs.iter().any(|v| v == call.info.verb) {
        return Err(not_allowed());
    }
    if matches!(subresource.name.as_str(), "exec" | "attach" | "portforward" | "proxy") && !preflight {
        admit::connection(call, target).await?;
    }
    match (subresource.name.as_str(), call.info.verb) {
        ("scale", _) => scale::answer(call, target, input).await,
        ("binding", _) => binding::answer(call, target, input).await,
        ("eviction", _) => eviction::answer(call, target, input).await,
        ("token", _) => token::answer(call, target, input).await,
        ("log" | "exec" | "attach" | "portforward", _) => connect::answer(call, target, input).await,
        ("proxy", "get") if target.resource.plural == "nodes" => connect::node(call, target).await,
        ("proxy", _) => proxy::answer(call, target, input).await,
        // status, finalize, approval, ephemeralcontainers, resize: the object itself, with rules of its own.
        (_, "get") => verbs::get::answer(call, target),
        (_, "update") => verbs::update::answer(call, target, input).await,
        (_, "patch") => verbs::patch::answer(call, target, input).await,
        _ => Err(not_allowed()),
    }
}
