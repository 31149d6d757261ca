//! `pods/proxy`, `services/proxy`: an HTTP request to a pod's port, through the API and the link to its node.
//!
//! In: any method below `…/{[scheme:]name[:port]}/proxy/…`. Out: what the pod answers, as it comes; upgrades
//! (WebSocket) too. Links to the pod's own paths are led through the proxy again.
//! Source: the Kubernetes page "Access Services Running on Clusters".
//! Never: connects from the hub into a network; sends the caller's credentials on.

mod carry;
mod place;
mod rewrite;
mod trust;

pub(crate) use carry::request as carry;
pub(crate) use trust::connect_as as trust_anyone;

use crate::{
    api::{
        Api, Body, Reply, Target,
        dispatch::{Call, Input},
    },
    streaming,
};
use http::{HeaderValue, Method, Response, StatusCode, header};
use limpet_objects::status::Status;

/// Where the request goes and how it gets there.
pub(crate) struct Route {
    pub place: streaming::PodPlace,
    pub port: u16,
    https: bool,
}

pub async fn answer(call: &Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let streams = super::subresources::streams(&call.api)?;
    let route = match target.resource.plural.as_str() {
        "pods" => place::pod(call, target)?,
        "services" => place::service(&call.api, target)?,
        _ => return Err(super::dispatch::not_allowed()),
    };
    let (front, path) = split(&call.info.path);
    if path.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        return Ok(to_directory(&call.info.path, input.parts.uri.query()));
    }
    let dialled = streaming::dial(&route.place, route.port, &streams).await;
    let stream = match dialled {
        Ok(stream) => stream,
        Err(why) => return Ok(unreachable(&why.to_string())),
    };
    if route.https {
        return match trust::connect(stream).await {
            Ok(stream) => carry::request(stream, front, path, input).await,
            Err(why) => Ok(unreachable(&why.to_string())),
        };
    }
    carry::request(stream, front, path, input).await
}

/// The way to a ready pod of a Service, for the hub's own requests.
pub(crate) fn service_route(api: &Api, namespace: &str, service: &str, port: u16) -> Result<Route, Status> {
    let target = Target::stored(&api.kinds(), "/services", namespace, &format!("https:{service}:{port}"))?;
    place::service(api, &target)
}

/// The request's path up to `/proxy`, and what follows, both as they were sent.
fn split(path: &str) -> (&str, &str) {
    let mut at = 0;
    for _ in 0..7 {
        let rest = &path[at..];
        let begin = rest.len() - rest.trim_start_matches('/').len();
        let length = rest[begin..].find('/').unwrap_or(rest.len() - begin);
        at += begin + length;
    }
    path.split_at(at)
}

/// A browser resolves relative links only below a directory.
fn to_directory(path: &str, query: Option<&str>) -> Reply {
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{path}/{query}")) {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    reply
}

/// Upstream's words when nothing answers behind the proxy.
pub(crate) fn unreachable(why: &str) -> Reply {
    let mut reply = super::reply::text(503, format!("Error trying to reach service: '{why}'"));
    reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_split_as_it_was_sent() {
        for (path, front, rest) in [
            ("/api/v1/namespaces/a/pods/b/proxy", "/api/v1/namespaces/a/pods/b/proxy", ""),
            ("/api/v1/namespaces/a/pods/b/proxy/", "/api/v1/namespaces/a/pods/b/proxy", "/"),
            ("/api/v1/namespaces/a/pods/b:8/proxy/x%2Fy//z", "/api/v1/namespaces/a/pods/b:8/proxy", "/x%2Fy//z"),
        ] {
            assert_eq!(split(path), (front, rest));
        }
    }

    #[test]
    fn a_directory_ends_in_a_slash() {
        let reply = to_directory("/p/proxy", Some("a=b"));
        assert_eq!(reply.status(), 301);
        assert_eq!(reply.headers()[header::LOCATION], "/p/proxy/?a=b");
    }
}
