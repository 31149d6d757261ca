//! One request from its arrival to its answer: bounds, who, where, may they, and then the verb.
//!
//! In: a request and the peer that sent it. Out: always a reply; failures are metav1.Status.
//! Never: does the work of a verb; never lets a request without a right get as far as its body.

use super::{
    Api, Reply, Target,
    decode::{Inflow, Upload},
    health, limits,
    metrics::Labels,
    negotiate::{self, Wanted},
    protobuf,
    query::Query,
    reply, reviews,
    route::{self, RequestInfo},
    subresources, usage, verbs,
};
use crate::auth::{self, Asked, Peer, User};
use http::{HeaderMap, Method, Request, request};
use hyper::body::Incoming;
use limpet_objects::status::Status;
use std::sync::{Arc, atomic::Ordering};
use tokio::{sync::SemaphorePermit, time::Instant};

/// A request that is routed and allowed.
pub struct Call {
    pub api: Arc<Api>,
    pub user: Arc<User>,
    pub method: Method,
    pub info: RequestInfo,
    pub query: Query,
    pub headers: HeaderMap,
    pub wanted: Wanted,
    /// Go into `Warning` headers.
    pub warnings: Vec<String>,
}

impl Call {
    pub fn content_type(&self) -> String {
        negotiate::content_type(&self.headers)
    }
}

/// The body of a request, unread; and the request itself for those who upgrade.
pub struct Input {
    pub parts: request::Parts,
    pub body: Inflow,
}

impl Input {
    pub async fn read(self) -> Result<Upload, Status> {
        self.body.read().await
    }
}

pub async fn answer(api: Arc<Api>, peer: Arc<Peer>, request: Request<Incoming>) -> Reply {
    let begin = Instant::now();
    let mut labels = Labels::OTHER;
    api.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let mut long = false;
    let (mut wanted, mut warnings) = (Wanted::JSON, Vec::new());
    let answered = accept(&api, &peer, request, &mut labels, &mut long, (&mut wanted, &mut warnings)).await;
    api.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
    let mut reply = answered.unwrap_or_else(|status| reply::failure(&status, wanted));
    reply::warn(&mut reply, &warnings);
    let took = (!long).then(|| begin.elapsed());
    api.metrics.request(labels, reply.status().as_u16(), took);
    reply
}

async fn accept(
    api: &Arc<Api>,
    peer: &Peer,
    request: Request<Incoming>,
    labels: &mut Labels,
    long: &mut bool,
    (form, warnings): (&mut Wanted, &mut Vec<String>),
) -> Result<Reply, Status> {
    let (parts, body) = request.into_parts();
    let body = Inflow::new(body);
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    if path.len() + query.len() > limits::URI_BYTES_MAX {
        return Err(Status::new(414, "", "the request's URI is too long"));
    }
    let malformed = || Status::bad_request("the request's path or query is malformed");
    let query = Query::parse(query).ok_or_else(malformed)?;
    let info = route::request_info(&parts.method, path, &query).ok_or_else(malformed)?;
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if reads && let Some(reply) = health::answer(api, &info.path, &query) {
        return Ok(reply);
    }
    // The token, or the key that signed the request, is the right for these.
    if info.path == limpet_protocol::join::JOIN_PATH && parts.method == Method::POST {
        return subresources::limpet::join(api, peer, body).await;
    }
    if info.path == limpet_protocol::join::RENEW_PATH && parts.method == Method::POST {
        return subresources::limpet::renew(api, body).await;
    }
    if info.path == limpet_protocol::join::MQTT_PATH && parts.method == Method::GET {
        // The broker's gate asks who it is; without a certificate it is nobody.
        let doors = api.doors.get().ok_or_else(|| Status::unavailable("the hub is still starting, try again"))?;
        *long = true;
        return crate::streaming::mqtt::serve(doors.broker.clone(), peer, parts);
    }
    admit_node(api, peer)?;
    let user = auth::authenticate(&api.tokens, &api.authorizer, peer, &parts.headers, api.now())?;
    api.authorizer.check(&user, &Asked::of(&info))?;
    let target = Target::of(&api.kinds(), &info);
    let in_protobuf = || target.as_ref().is_none_or(|t| protobuf::knows(&t.resource.api_version(), &t.resource.kind));
    let wanted = negotiate::wanted(&parts.headers, &query, in_protobuf);
    *form = wanted.unwrap_or(Wanted::JSON);
    let mut call = Call {
        api: Arc::clone(api),
        user: Arc::new(user),
        method: parts.method.clone(),
        info,
        query,
        headers: parts.headers.clone(),
        wanted: *form,
        warnings: Vec::new(),
    };
    let input = Input { parts, body };
    if !call.info.is_resource {
        return verbs::documents::answer(call, input).await;
    }
    let Some(target) = target else { return Err(Status::no_such_resource()) };
    *labels = labels_of(&call.info, &target);
    *long = is_long(&call);
    if wanted.is_none() && !is_stream(&call.info) {
        return Err(Status::not_acceptable(negotiate::ACCEPTED));
    }
    let _turn = turn(api, *long).await?;
    let outcome = resource(&mut call, target, input).await;
    // A refusal does not hide what else was to be said.
    warnings.append(&mut call.warnings);
    outcome
}

/// A node's certificate counts only as long as the node is enrolled with that key.
fn admit_node(api: &Api, peer: &Peer) -> Result<(), Status> {
    let Some(node) = peer.user.as_ref().and_then(User::node) else { return Ok(()) };
    let Some(doors) = api.doors.get() else { return Ok(()) };
    doors.enroll.admit(node, &peer.certificate).map_err(|why| {
        tracing::warn!(node, %why, "a node's certificate is refused");
        Status::unauthorized()
    })
}

/// A place among the requests that are carried out at the same time. Long ones do not take one.
async fn turn(api: &Api, long: bool) -> Result<Option<SemaphorePermit<'_>>, Status> {
    if long {
        return Ok(None);
    }
    match tokio::time::timeout(limits::TURN_TIME, api.room.acquire()).await {
        Ok(Ok(permit)) => Ok(Some(permit)),
        _ => Err(Status::too_many_requests("too many requests, please try again later", 1)),
    }
}

async fn resource(call: &mut Call, target: Target, input: Input) -> Result<Reply, Status> {
    check_place(&call.info, &target)?;
    call.warnings.extend(deprecation(&call.info));
    call.warnings.extend(target.resource.custom.as_ref().and_then(|custom| custom.deprecation.clone()));
    if !call.info.subresource.is_empty() {
        return subresources::answer(call, &target, input).await;
    }
    if usage::is_one(&target) {
        return usage::answer(call, &target).await;
    }
    if reviews::is_one(&target) {
        return reviews::answer(call, &target, input).await;
    }
    if !target.resource.allows(call.info.verb) {
        return Err(not_allowed());
    }
    match call.info.verb {
        "get" => verbs::get::answer(call, &target),
        "list" => verbs::list::answer(call, &target),
        "watch" => verbs::watch::answer(call, &target, input),
        "create" => verbs::create::answer(call, &target, input).await,
        "update" => verbs::update::answer(call, &target, input).await,
        "patch" => verbs::patch::answer(call, &target, input).await,
        "delete" => verbs::delete::answer(call, &target, input).await,
        "deletecollection" => verbs::deletecollection::answer(call, &target, input).await,
        _ => Err(not_allowed()),
    }
}

/// What upstream says about old kinds.
fn deprecation(info: &RequestInfo) -> Option<String> {
    let text = match (info.group.as_str(), info.resource.as_str()) {
        ("", "endpoints") => "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        ("", "componentstatuses") => "v1 ComponentStatus is deprecated in v1.19+",
        _ => return None,
    };
    Some(text.to_owned())
}

/// Whether the path is one on which the verb exists at all.
fn check_place(info: &RequestInfo, target: &Target) -> Result<(), Status> {
    let everywhere = target.resource.namespaced && target.namespace.is_empty();
    match info.verb {
        "list" | "watch" => Ok(()),
        "create" | "deletecollection" if everywhere => Err(not_allowed()),
        _ if everywhere => Err(Status::no_such_resource()),
        "create" if !info.name.is_empty() && info.subresource.is_empty() => Err(not_allowed()),
        "update" | "patch" if info.name.is_empty() => Err(not_allowed()),
        _ => Ok(()),
    }
}

pub fn not_allowed() -> Status {
    Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

/// Answers that are no objects: the Accept header does not matter.
fn is_stream(info: &RequestInfo) -> bool {
    matches!(info.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
}

fn is_long(call: &Call) -> bool {
    call.info.verb == "watch" || is_stream(&call.info)
}

fn labels_of(info: &RequestInfo, target: &Target) -> Labels {
    let resource = &target.resource;
    let subresource = resource.subresource(&info.subresource).map_or("", |s| s.name.as_str());
    let verb = match info.verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "OTHER",
    };
    let scope = match (info.name.is_empty(), target.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    Labels {
        verb,
        group: resource.group.clone().into(),
        version: resource.version.clone().into(),
        resource: resource.plural.clone().into(),
        subresource: subresource.to_owned().into(),
        scope,
    }
}
