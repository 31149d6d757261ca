//! Groups of the API that other servers answer (apiregistration.k8s.io).
//!
//! In: APIServices that name a Service; allowed requests below `/apis/<group>/<version>`. Out: what the other server answers,
//! as it comes; discovery with its resources; the condition Available.
//! Source: the Kubernetes pages "Kubernetes API Aggregation Layer" and "Configure the Aggregation Layer".
//! Never: hands out a group that the hub serves itself, or the caller's credentials.

mod available;
mod discovery;
mod local;
mod reach;

pub use available::keep;
pub use reach::Identity;

use super::{
    Api, Reply,
    dispatch::{Call, Input},
    proxy, reply,
};
use crate::auth::User;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use limpet_objects::status::Status;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

pub(crate) const STORAGE: &str = "apiregistration.k8s.io/apiservices";
/// Answers that the hub itself asks for: discovery and figures for autoscalers.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One group and version that another server answers.
#[derive(Clone, Debug, Default)]
pub struct Remote {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub service: String,
    pub port: u16,
    /// PEM, as it stands in the object: base64.
    pub ca_bundle: String,
    pub insecure: bool,
    priority: (i64, i64),
    /// Whether the last look found it well.
    pub available: bool,
    /// Its APIResourceList.
    resources: Value,
}

impl Remote {
    fn read(object: &Value) -> Option<Remote> {
        let spec = &object["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let service = spec["service"].as_object()?;
        let number = |field: &str| spec[field].as_i64().unwrap_or_default();
        Some(Remote {
            group: text(&spec["group"]),
            version: text(&spec["version"]),
            namespace: text(&service["namespace"]),
            service: text(&service["name"]),
            port: service.get("port").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok()).unwrap_or(443),
            ca_bundle: text(&spec["caBundle"]),
            insecure: spec["insecureSkipTLSVerify"] == true,
            priority: (number("groupPriorityMinimum"), number("versionPriority")),
            available: false,
            resources: Value::Null,
        })
    }

    /// The path of its discovery.
    fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }
}

type Remotes = BTreeMap<(String, String), Arc<Remote>>;

/// What is known of other servers, for all requests.
#[derive(Default)]
pub struct Aggregate {
    remotes: RwLock<Arc<Remotes>>,
    identity: OnceLock<Identity>,
}

impl Aggregate {
    /// With what the hub shows other servers who it is; set once at start.
    pub fn set_identity(&self, identity: Identity) {
        // A second time would be a mistake in `hub.rs` and changes nothing.
        let _ = self.identity.set(identity);
    }

    fn identity(&self) -> Option<&Identity> {
        self.identity.get()
    }

    fn remotes(&self) -> Arc<Remotes> {
        Arc::clone(&self.remotes.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_remotes(&self, remotes: Remotes) {
        *self.remotes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(remotes);
    }

    fn remote(&self, group: &str, version: &str) -> Option<Arc<Remote>> {
        self.remotes().get(&(group.to_owned(), version.to_owned())).cloned()
    }

    /// Whether somebody answers this group.
    pub fn has_group(&self, group: &str) -> bool {
        self.remotes().keys().any(|(own, _)| own == group)
    }
}

/// The other server that a path belongs to. What the hub serves itself is its own.
pub fn remote_of(api: &Api, path: &str) -> Option<Arc<Remote>> {
    let remotes = api.aggregate.remotes();
    if remotes.is_empty() {
        return None;
    }
    let mut parts = path.split('/').filter(|p| !p.is_empty());
    let first = parts.next()?;
    let below = match first {
        "apis" => true,
        "openapi" => parts.next() == Some("v3") && parts.next() == Some("apis"),
        _ => false,
    };
    if !below {
        return None;
    }
    let (group, version) = (parts.next()?, parts.next()?);
    let remote = remotes.get(&(group.to_owned(), version.to_owned()))?;
    Some(Arc::clone(remote))
}

/// Passes a request on.
pub async fn answer(call: &Call, remote: &Remote, mut input: Input) -> Result<Reply, Status> {
    if !remote.available {
        return Ok(reply::text(503, "service unavailable\n".to_owned()));
    }
    name_user(&mut input.parts.headers, &call.user);
    let stream = match reach::connect(&call.api, remote).await {
        Ok(stream) => stream,
        Err(why) => return Ok(proxy::unreachable(&why)),
    };
    proxy::carry(stream, "", &call.info.path, input).await
}

/// Who asks, for a server that knows the hub by its certificate. What the client said about itself is dropped.
fn name_user(headers: &mut HeaderMap, user: &User) {
    let own: Vec<HeaderName> = headers.keys().filter(|n| n.as_str().starts_with("x-remote-")).cloned().collect();
    own.into_iter().for_each(|name| drop(headers.remove(name)));
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    user.groups.iter().for_each(|group| add("x-remote-group", group));
    for (key, values) in &user.extra {
        values.iter().for_each(|value| add(&format!("x-remote-extra-{}", escaped(key)), value));
    }
}

/// A key in the name of a header: what cannot stand there is percent-encoded, as upstream does.
fn escaped(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$&'*+-.^_`|~".contains(&b);
    key.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02x}") }).collect()
}

/// A document of another server, for the hub itself. The error is a sentence.
pub async fn get(api: &Api, remote: &Remote, user: &User, path: &str, time: Duration) -> Result<Value, String> {
    let asking = async {
        let stream = reach::connect(api, remote).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        // It ends with the sender.
        let connection = tokio::spawn(connection);
        let host = format!("{}.{}.svc", remote.service, remote.namespace);
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "limpet-hub")
            .body(Full::new(Bytes::new()))
            .map_err(|e| e.to_string())?;
        name_user(request.headers_mut(), user);
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        connection.abort();
        let bytes = body.map_err(|e| e.to_string())?.to_bytes();
        if status != StatusCode::OK {
            return Err(format!("bad status from {}: {}", remote.path(), status.as_u16()));
        }
        serde_json::from_slice(&bytes).map_err(|e| format!("the answer is no JSON: {e}"))
    };
    match tokio::time::timeout(time, asking).await {
        Ok(outcome) => outcome,
        Err(_) => Err("context deadline exceeded".into()),
    }
}

/// The same by group and version, where there is such a server and it is well.
pub async fn document(api: &Api, (group, version): (&str, &str), user: &User, path: &str, time: Duration) -> Option<Value> {
    let remote = api.aggregate.remote(group, version).filter(|r| r.available)?;
    match get(api, &remote, user, path, time).await {
        Ok(value) => Some(value),
        Err(why) => {
            tracing::debug!(group, version, "no answer of the other server: {why}");
            None
        }
    }
}

/// Adds what other servers offer to a document of discovery.
pub use discovery::{add_to_aggregated, add_to_groups, add_to_openapi, group};

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_user_is_the_hubs_word_alone() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("admin"));
        headers.insert("x-remote-extra-a", HeaderValue::from_static("b"));
        headers.insert("accept", HeaderValue::from_static("*/*"));
        let mut user = User::new("ann", &["devs", "system:authenticated"]);
        user.extra.insert("Scopes.example.org/x".into(), vec!["one".into(), "two".into()]);
        name_user(&mut headers, &user);
        let all = |name: &str| -> Vec<&str> { headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
        assert_eq!(all("x-remote-user"), ["ann"]);
        assert_eq!(all("x-remote-group"), ["devs", "system:authenticated"]);
        assert_eq!(all("x-remote-extra-%53copes.example.org%2fx"), ["one", "two"]);
        assert!(all("x-remote-extra-a").is_empty() && all("accept") == ["*/*"]);
    }

    #[test]
    fn only_those_with_a_service_are_others() {
        let spec = json!({"group": "g.io", "version": "v1", "service": {"namespace": "a", "name": "s"}, "caBundle": "eA=="});
        let remote = Remote::read(&json!({"spec": spec})).unwrap();
        assert_eq!((remote.port, remote.path().as_str(), remote.insecure), (443, "/apis/g.io/v1", false));
        assert!(Remote::read(&json!({"spec": {"group": "g.io", "version": "v1"}})).is_none());
    }
}
