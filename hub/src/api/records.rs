//! What a request's way through the doors says to the audit log.
//!
//! In: who asks, as whom, for what, and the decision. Out: the record, or nothing when nothing is recorded.
//! Never: decides.

use super::{Api, route::RequestInfo};
use crate::{
    audit::{Audit, Head, Trail},
    auth::{self, Asked, Peer, User},
};
use http::{HeaderMap, header, request::Parts};
use jiff::Timestamp;
use limpet_hub_core::rbac::{Attributes, Decision};
use limpet_objects::status::Status;
use std::{net::IpAddr, sync::Arc};

/// Proxies of one `X-Forwarded-For` that are recorded.
const SOURCES_MAX: usize = 16;

pub async fn begin(
    audit: &Arc<Audit>,
    user: Option<&User>,
    info: &RequestInfo,
    (parts, peer, id): (&Parts, &Peer, &str),
    now: Timestamp,
) -> Result<Option<Arc<Trail>>, Status> {
    let nobody = User::default();
    let asked = attributes(user.unwrap_or(&nobody), info);
    let agent = parts.headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let uri = parts.uri.path_and_query().map_or_else(String::new, |uri| uri.as_str().to_owned());
    let sources = sources(peer, &parts.headers);
    let head = Head { id, uri, user, sources, agent, version: &info.version, now };
    audit.begin(&asked, head).await.map_err(|_| Status::internal("failed to update audit event"))
}

/// The request as the audit log and priority and fairness see it.
pub fn attributes<'a>(user: &'a User, info: &'a RequestInfo) -> Attributes<'a> {
    Attributes {
        user: &user.name,
        groups: &user.groups,
        verb: info.verb,
        api_group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: (!info.is_resource).then_some(info.path.as_str()),
    }
}

/// Where the request says that it comes from, then where it does come from.
fn sources(peer: &Peer, headers: &HeaderMap) -> Vec<IpAddr> {
    let words = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut all: Vec<IpAddr> = Vec::new();
    let (forwarded, real) = (words("x-forwarded-for"), words("x-real-ip"));
    let told = forwarded.split(',').chain(std::iter::once(real.as_str()));
    let told = told.filter_map(|text| text.trim().parse().ok());
    for address in told.take(SOURCES_MAX).chain(peer.address.map(|address| address.ip())) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// How somebody tried to say who they are.
pub fn attempted(peer: &Peer, headers: &HeaderMap) -> &'static str {
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match value.split(' ').next().unwrap_or_default().to_ascii_lowercase().as_str() {
        "bearer" => "bearer",
        "basic" => "basic",
        _ if peer.user.is_some() => "x509",
        _ => "none",
    }
}

/// The user that the request is made as.
pub async fn acting(
    api: &Api,
    real: User,
    headers: &HeaderMap,
    asked: &Asked<'_>,
    trail: Option<&Arc<Trail>>,
) -> Result<User, Status> {
    let Some(acting) = auth::impersonate(&api.authorizer, &real, headers, asked).await? else { return Ok(real) };
    if let Some(trail) = trail {
        trail.impersonates(&acting);
    }
    Ok(acting.user)
}

pub async fn allowed(api: &Api, user: &User, asked: &Asked<'_>, trail: Option<&Arc<Trail>>) -> Result<(), Status> {
    let decision = api.authorizer.judge(user, asked).await;
    if let Some(trail) = trail {
        let (word, reason) = match &decision {
            Decision::Allow { reason } => ("allow", reason),
            Decision::NoOpinion { reason } | Decision::Deny { reason } => ("forbid", reason),
        };
        trail.annotate("authorization.k8s.io/decision", word);
        trail.annotate("authorization.k8s.io/reason", reason);
    }
    api.authorizer.outcome(user, asked, decision)
}
