//! metav1.Status: how the API says no, in Kubernetes' exact words, because clients parse and print them.
//!
//! In: what went wrong. Out: `Status` with its HTTP code and JSON form.
//! Never: decides that something is wrong.

use serde_json::{Map, Value, json};

use crate::field::FieldError;

/// A failure or success answer. `details` may be absent.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    pub code: u16,
    /// Empty when Kubernetes gives none.
    pub reason: &'static str,
    pub message: String,
    pub details: Option<Box<Details>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// The resource (`pods`), or the kind for invalid objects.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// `pods`, `deployments.apps`.
pub fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Status {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details =
            Details { name: name.into(), group: group.into(), kind: kind.into(), ..Details::default() };
        self.details = Some(Box::new(details));
        self
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", group_resource(group, resource));
        Self::new(404, "NotFound", message).about(group, resource, name)
    }

    /// For paths that lead nowhere.
    pub fn no_such_resource() -> Self {
        let mut status = Self::new(404, "NotFound", "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", group_resource(group, resource));
        Self::new(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// A name made of `generateName` was taken: the client tries again.
    pub fn generated_name_taken(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            group_resource(group, resource)
        );
        let mut status = Self::new(409, "AlreadyExists", message).about(group, resource, name);
        if let Some(details) = &mut status.details {
            details.retry_after_seconds = 1;
        }
        status
    }

    pub fn conflict_because(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", group_resource(group, resource));
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// The write was based on an old resourceVersion.
    pub fn conflict(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict_because(group, resource, name, why)
    }

    /// Server-side apply found fields that other managers own.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        let mut status = Self::new(409, "Conflict", message);
        status.details = Some(Box::new(Details { causes, ..Details::default() }));
        status
    }

    /// `errors` must not be empty; the same error twice is said once.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) };
        let message = format!("{} {name:?} is invalid: {list}", group_resource(group, kind));
        let mut status = Self::new(422, "Invalid", message).about(group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = errors.iter().map(Cause::of_field).collect();
        }
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// `why` for instance: `User "jane" cannot list resource "pods" in API group "" in the namespace
    /// "default"`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = group_resource(group, resource);
        let message = match (what.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{what} is forbidden: {why}"),
            (false, false) => format!("{what} {name:?} is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    /// The revision asked for is no longer in the window.
    pub fn gone_expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_old(asked: u64, oldest: u64) -> Self {
        Self::gone_expired(format!("too old resource version: {asked} ({oldest})"))
    }

    pub fn too_large(bytes_limit: usize) -> Self {
        let message = format!("Request entity is too large: limit is {bytes_limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    pub fn method_not_allowed(group: &str, resource: &str, action: &str) -> Self {
        let what = group_resource(group, resource);
        let message = format!("{action} is not supported on resources of kind {what:?}");
        Self::new(405, "MethodNotAllowed", message).about(group, resource, "")
    }

    pub fn timeout(message: &str, retry_after_seconds: u32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {message}")).retry_after(retry_after_seconds)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(retry_after_seconds)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn internal(why: impl Into<String>) -> Self {
        let why = why.into();
        let mut status = Self::new(500, "InternalError", format!("Internal error occurred: {why}"));
        let cause = Cause { message: why, ..Cause::default() };
        status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
        status
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The answer to a delete that left nothing behind.
    pub fn success(group: &str, resource: &str, name: &str, uid: &str) -> Value {
        let details = Details { uid: uid.into(), ..Details::default() };
        let details = Details { name: name.into(), group: group.into(), kind: resource.into(), ..details };
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": details.to_value()})
    }

    pub fn to_value(&self) -> Value {
        let mut value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"});
        value["message"] = json!(self.message);
        if !self.reason.is_empty() {
            value["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            value["details"] = details.to_value();
        }
        value["code"] = json!(self.code);
        value
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            map.insert("causes".to_owned(), self.causes.iter().map(Cause::to_value).collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(map)
    }
}

impl Cause {
    fn of_field(error: &FieldError) -> Self {
        Self { reason: error.problem.reason().into(), message: error.body(), field: error.field.clone() }
    }

    fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        Value::Object(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_kubernetes_words() {
        let replicas = FieldError::invalid("spec.replicas", -1, "must be greater than or equal to 0");
        let selector = FieldError::required("spec.selector", "");
        let cases = [
            (Status::not_found("", "pods", "web"), 404, "pods \"web\" not found"),
            (
                Status::already_exists("apps", "deployments", "x"),
                409,
                "deployments.apps \"x\" already exists",
            ),
            (
                Status::conflict("", "pods", "x"),
                409,
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please \
                 apply your changes \
                 to the latest version and try again",
            ),
            (
                Status::invalid("apps", "Deployment", "x", std::slice::from_ref(&replicas)),
                422,
                "Deployment.apps \"x\" is invalid: spec.replicas: Invalid value: -1: must be greater \
                 than or equal to 0",
            ),
            (
                Status::invalid("apps", "Deployment", "x", &[selector.clone(), selector, replicas]),
                422,
                "Deployment.apps \"x\" is invalid: [spec.selector: Required value, spec.replicas: \
                 Invalid value: -1: \
                 must be greater than or equal to 0]",
            ),
            (Status::forbidden("", "pods", "", "no"), 403, "pods is forbidden: no"),
            (Status::too_old(3, 9), 410, "too old resource version: 3 (9)"),
            (Status::too_large(3_145_728), 413, "Request entity is too large: limit is 3145728"),
            (Status::internal("x"), 500, "Internal error occurred: x"),
        ];
        for (status, code, message) in cases {
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }

    #[test]
    fn is_a_kubernetes_object() {
        let status = Status::invalid("", "Pod", "a", &[FieldError::required("spec.containers", "")]);
        assert_eq!(
            status.to_value(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid",
                "message": "Pod \"a\" is invalid: spec.containers: Required value", "code": 422, "details": {
                "name": "a", "kind": "Pod", "causes": [
                {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers"}]}})
        );
    }
}
