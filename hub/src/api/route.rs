//! Path and method to what is asked for: group, version, resource, namespace, name, subresource, verb.
//!
//! In: method, path and query of a request, hostile. Out: `RequestInfo`, as upstream's RequestInfoFactory
//! makes it.
//! Never: knows which resources exist.

use super::query::{self, Query};
use http::Method;

/// What one request is about. Texts are decoded and never hold a slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the
    /// method in lower case.
    pub verb: &'static str,
    /// Whether the path is below `/api/v1` or `/apis/<group>/<version>` and names a resource.
    pub is_resource: bool,
    pub path: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// What follows the subresource (`nodes/x/proxy/<rest>`).
    pub rest: Vec<String>,
}

/// `None` when the path cannot be decoded.
pub fn request_info(method: &Method, path: &str, query: &Query) -> Option<RequestInfo> {
    let mut info = RequestInfo { path: path.to_owned(), verb: method_word(method), ..Default::default() };
    let mut parts = Vec::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        if is_behind_proxy(&parts) {
            // It is for the pod or node to read, and goes on as it was sent.
            parts.push(part.to_owned());
            continue;
        }
        let text = query::decode(part, false)?;
        if text.contains(['/', '\0']) || text == "." || text == ".." {
            return None;
        }
        parts.push(text);
    }
    let mut rest = match parts.first().map(String::as_str) {
        Some("api") if parts.len() >= 3 => {
            info.version = parts[1].clone();
            &parts[2..]
        }
        Some("apis") if parts.len() >= 4 => {
            info.group = parts[1].clone();
            info.version = parts[2].clone();
            &parts[3..]
        }
        _ => return Some(info),
    };
    info.is_resource = true;
    // The ancient form /api/v1/watch/… is still a watch, of one object too.
    let ancient = rest[0] == "watch" && rest.len() > 1;
    if ancient {
        rest = &rest[1..];
    }
    resource_parts(&mut info, rest);
    info.verb = verb(method, &info, ancient || (query.flag("watch") && info.name.is_empty()));
    if matches!(info.verb, "list" | "watch" | "deletecollection")
        && info.name.is_empty()
        && let Some(name) = name_of_selector(query)
    {
        info.name = name;
    }
    Some(info)
}

/// Whether the parts so far end in a `proxy` subresource, or go beyond it.
fn is_behind_proxy(parts: &[String]) -> bool {
    let at = |i: usize, word: &str| parts.get(i).is_some_and(|p| p == word);
    at(0, "api") && ((at(2, "nodes") && at(4, "proxy")) || (at(2, "namespaces") && at(6, "proxy")))
}

fn resource_parts(info: &mut RequestInfo, rest: &[String]) {
    let mut rest = rest;
    if rest[0] == "namespaces" && rest.len() > 1 {
        info.namespace = rest[1].clone();
        // /namespaces/x, /namespaces/x/status and /namespaces/x/finalize are about the namespace itself.
        if rest.len() > 2 && !matches!(rest[2].as_str(), "status" | "finalize") {
            rest = &rest[2..];
        }
    }
    info.resource = rest[0].clone();
    info.name = rest.get(1).cloned().unwrap_or_default();
    info.subresource = rest.get(2).cloned().unwrap_or_default();
    info.rest = rest.get(3..).map(<[String]>::to_vec).unwrap_or_default();
}

fn verb(method: &Method, info: &RequestInfo, watch: bool) -> &'static str {
    let named = !info.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if watch && info.subresource.is_empty() => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => method_word(method),
    }
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// `fieldSelector=metadata.name=x` makes a list one object's affair for authorization.
fn name_of_selector(query: &Query) -> Option<String> {
    let selector = query.text("fieldSelector")?;
    selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?.trim_start_matches('=');
        (!value.is_empty() && !value.contains(['=', '!', '\\', '/'])).then(|| value.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str) -> String {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let Some(i) = request_info(&method, path, &Query::parse(query).unwrap()) else {
            return "malformed".into();
        };
        if !i.is_resource {
            return format!("{} {}", i.verb, i.path);
        }
        format!(
            "{} {}/{} {} {} {} {}",
            i.verb, i.group, i.version, i.namespace, i.resource, i.name, i.subresource
        )
    }

    #[test]
    fn paths() {
        for (method, uri, expect) in [
            ("GET", "/api", "get /api"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/api/v1/pods", "list /v1  pods  "),
            ("GET", "/api/v1/pods?watch=true", "watch /v1  pods  "),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1 a pods  "),
            ("GET", "/api/v1/watch/namespaces/a/pods/b", "watch /v1 a pods b "),
            // A named object is got, whatever else the query says.
            ("GET", "/api/v1/namespaces/a/pods/b?watch=true", "get /v1 a pods b "),
            ("GET", "/api/v1/namespaces", "list /v1  namespaces  "),
            ("GET", "/api/v1/namespaces/a", "get /v1 a namespaces a "),
            ("PUT", "/api/v1/namespaces/a/finalize", "update /v1 a namespaces a finalize"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get /v1 a pods b log"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create apps/v1 a deployments  "),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 a deployments  "),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments/x", "delete apps/v1 a deployments x "),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get rbac.authorization.k8s.io/v1  clusterroles system:node ",
            ),
            ("GET", "/api/v1/pods?watch=1&fieldSelector=metadata.name%3Dx", "watch /v1  pods x "),
            ("GET", "/api/v1/namespaces/a%2Fb/pods", "malformed"),
            ("GET", "/api/v1/namespaces/../pods", "malformed"),
            ("GET", "/api/v1/namespaces/a/pods/b/proxy/x%2Fy/../%", "get /v1 a pods b proxy"),
            ("GET", "/api/v1/nodes/b/proxy/x%2Fy", "get /v1  nodes b proxy"),
            ("GET", "/api/v1/namespaces/%", "malformed"),
        ] {
            assert_eq!(check(method, uri), expect, "{method} {uri}");
        }
    }
}
