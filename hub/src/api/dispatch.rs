//! One request from its arrival to its answer: bounds, who, where, may they, and then the verb.
//!
//! In: a request and the peer that sent it. Out: always a reply; failures are metav1.Status.
//! Never: does the work of a verb; never lets a request without a right get as far as its body.

use super::{
    Api, Reply, Target, aggregate,
    decode::{Inflow, Upload},
    health, limits,
    metrics::Labels,
    negotiate::{self, Wanted},
    new_uid,
    protobuf,
    query::Query,
    records, reply, reviews,
    route::{self, RequestInfo},
    subresources, usage, verbs,
};
use crate::{
    audit::{self, Trail},
    auth::{Asked, Peer, User, authz::Selectors},
    flow::{Decided, Turn},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, request};
use hyper::body::Incoming;
use limpet_hub_core::flow;
use limpet_objects::status::Status;
use std::sync::Arc;
use tokio::time::Instant;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

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
    /// The audit log's record of the request.
    pub trail: Option<Arc<Trail>>,
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
    trail: Option<Arc<Trail>>,
}

impl Input {
    pub async fn read(self) -> Result<Upload, Status> {
        let upload = self.body.read().await?;
        if let Some(trail) = self.trail.filter(|trail| trail.wants_request()) {
            trail.request_body(&upload.bytes, &negotiate::content_type(&self.parts.headers));
        }
        Ok(upload)
    }
}

/// What becomes known of a request on its way, for whoever ends it.
struct Course {
    labels: Labels,
    /// Watches, logs and the like.
    long: bool,
    wanted: Wanted,
    warnings: Vec<String>,
    trail: Option<Arc<Trail>>,
    /// For `Audit-ID`.
    id: String,
    /// For the headers about priority and fairness.
    decided: Decided,
}

pub async fn answer(api: Arc<Api>, peer: Arc<Peer>, request: Request<Incoming>) -> Reply {
    let begin = Instant::now();
    let mut course = Course {
        labels: Labels::OTHER,
        long: false,
        wanted: Wanted::JSON,
        warnings: Vec::new(),
        trail: None,
        id: audit_id(request.headers()),
        decided: Decided::default(),
    };
    let answered = {
        let _counted = api.metrics.enter();
        accept(&api, &peer, request, &mut course).await
    };
    let mut reply = answered.unwrap_or_else(|status| reply::failure(&status, course.wanted));
    reply::warn(&mut reply, &course.warnings);
    for (name, text) in
        [(AUDIT_ID, &course.id), (FLOW_SCHEMA, &course.decided.schema_uid), (LEVEL, &course.decided.level_uid)]
    {
        if let Ok(value) = HeaderValue::from_str(text)
            && !text.is_empty()
        {
            reply.headers_mut().insert(name, value);
        }
    }
    let took = (!course.long).then(|| begin.elapsed());
    api.metrics.request(course.labels, reply.status().as_u16(), took);
    match course.trail {
        Some(trail) => audit::answered(trail, reply, course.long),
        None => reply,
    }
}

/// The one that the client chose, or a new one.
fn audit_id(headers: &HeaderMap) -> String {
    let own = headers.get(AUDIT_ID).and_then(|v| v.to_str().ok());
    match own.filter(|id| !id.is_empty() && id.len() <= limits::AUDIT_ID_BYTES_MAX) {
        Some(id) => id.to_owned(),
        None => new_uid(),
    }
}

async fn accept(
    api: &Arc<Api>,
    peer: &Peer,
    request: Request<Incoming>,
    course: &mut Course,
) -> Result<Reply, Status> {
    let (mut parts, body) = request.into_parts();
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
        course.long = true;
        return crate::streaming::mqtt::serve(doors.broker.clone(), peer, parts);
    }
    let real = match admit_node(api, peer) {
        Ok(()) => api.guard.authn.user(&api.tokens, peer, &parts.headers, &info.path, api.now()).await,
        Err(status) => Err(status),
    };
    if let Some(audit) = &api.guard.audit {
        let head = (&parts, peer, course.id.as_str());
        course.trail = records::begin(audit, real.as_ref().ok(), &info, head, api.now()).await?;
        if let (Some(trail), Err(_)) = (&course.trail, &real) {
            trail.unauthenticated(records::attempted(peer, &parts.headers));
        }
    }
    let selectors = Selectors::of(&info, &query);
    let asked = Asked::of(&info).narrowed(&selectors);
    let user = records::acting(api, real?, &parts.headers, &asked, course.trail.as_ref()).await?;
    let target = Target::of(&api.kinds(), &info);
    course.long = is_long(&info);
    let _turn = turn(api, &user, &info, &query, target.as_ref(), &mut course.decided).await?;
    records::allowed(api, &user, &asked, course.trail.as_ref()).await?;
    let in_protobuf = || target.as_ref().is_none_or(|t| protobuf::knows(&t.resource.api_version(), &t.resource.kind));
    let shaped = target.as_ref().is_none_or(|target| !reviews::is_one(target));
    let wanted = negotiate::wanted(&parts.headers, &query, shaped, in_protobuf);
    course.wanted = wanted.unwrap_or(Wanted::JSON);
    if let Some(trail) = &course.trail {
        // What is recorded is not compressed, and an upgraded connection ends the record.
        course.wanted.gzip &= !trail.wants_response();
        parts.extensions.insert(Arc::clone(trail));
    }
    let mut call = Call {
        api: Arc::clone(api),
        user: Arc::new(user),
        method: parts.method.clone(),
        info,
        query,
        headers: parts.headers.clone(),
        wanted: course.wanted,
        warnings: Vec::new(),
        trail: course.trail.clone(),
    };
    let input = Input { parts, body, trail: course.trail.clone() };
    if let Some(remote) = aggregate::remote_of(api, &call.info.path).filter(|_| target.is_none()) {
        return aggregate::answer(&call, &remote, input).await;
    }
    if !call.info.is_resource {
        return verbs::documents::answer(call, input).await;
    }
    let Some(target) = target else { return Err(Status::no_such_resource()) };
    course.labels = labels_of(&call.info, &target);
    if wanted.is_none() && !is_stream(&call.info) {
        return Err(Status::not_acceptable(negotiate::ACCEPTED));
    }
    let outcome = resource(&mut call, target, input).await;
    // A refusal does not hide what else was to be said.
    course.warnings.append(&mut call.warnings);
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

/// A place among the requests that are carried out at the same time. Watches give it back when they have begun; streams
/// to nodes do not take one.
async fn turn(
    api: &Api,
    user: &User,
    info: &RequestInfo,
    query: &Query,
    target: Option<&Target>,
    decided: &mut Decided,
) -> Result<Option<Turn>, Status> {
    if is_stream(info) {
        return Ok(None);
    }
    let initial = info.verb == "watch" && matches!(query.text("resourceVersion"), None | Some("0"));
    let width = match target {
        Some(target) if info.name.is_empty() && (info.verb == "list" || initial) => {
            let stored = api.store.count(&target.resource.storage);
            let narrows = query.text("labelSelector").is_some() || query.text("fieldSelector").is_some();
            let limit = query.number("limit").ok().flatten().and_then(|limit| usize::try_from(limit).ok());
            flow::width_of(limit.filter(|limit| *limit > 0 && !narrows).map_or(stored, |limit| limit.min(stored)))
        }
        _ => 1,
    };
    api.guard.flow.turn(&records::attributes(user, info), width, decided).await
}

/// Where other hubs write, too: waits until this one knows what the client may have seen, unless any state will do.
async fn catch_up(call: &Call) -> Result<(), Status> {
    let store = &call.api.store;
    if !store.is_shared() {
        return Ok(());
    }
    let reads = matches!(call.info.verb, "get" | "list" | "watch");
    let asked = call.query.text("resourceVersion").filter(|_| reads);
    match asked.map(str::parse) {
        // Not a number: the verb says so.
        Some(Err(_)) => Ok(()),
        Some(Ok(0)) => Ok(()),
        Some(Ok(revision)) => {
            // Too late: the verb says that it is of the future.
            let _ = tokio::time::timeout(limits::MOVED_ON_TIME, store.reached(revision)).await;
            Ok(())
        }
        None => store.catch_up().await.map_err(|e| Status::unavailable(e.to_string())),
    }
}

async fn resource(call: &mut Call, target: Target, input: Input) -> Result<Reply, Status> {
    check_place(&call.info, &target)?;
    catch_up(call).await?;
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

fn is_long(info: &RequestInfo) -> bool {
    let messages = !info.is_resource && info.path.starts_with("/limpet/v1/messages/");
    messages || (info.is_resource && (info.verb == "watch" || is_stream(info)))
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
