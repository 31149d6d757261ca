//! May this user do that?
//!
//! In: user and attributes of a request. Out: yes, or a 403 in Kubernetes' words. The rules are in hub-core's
//! `rbac`, the roles and bindings in the shared view. Never: a right that is not in a role, save for
//! `system:masters`.

use super::user::{MASTERS, User};
use crate::api::{View, route::RequestInfo};
use limpet_hub_core::rbac::{self, Attributes, Decision};
use limpet_objects::status::Status;

#[derive(Clone)]
pub struct Authorizer {
    view: View,
}

/// What is asked, owned by somebody else. As `rbac::Attributes`, without the user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub fn of(info: &'a RequestInfo) -> Asked<'a> {
        if !info.is_resource {
            return Asked { verb: info.verb, path: Some(&info.path), ..Asked::default() };
        }
        // Since 1.35 a WebSocket's GET needs the right that its POST always needed.
        let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward");
        Asked {
            verb: if connects && info.verb == "get" { "create" } else { info.verb },
            group: &info.group,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            path: None,
        }
    }

    fn sentence(&self, user: &str) -> String {
        if let Some(path) = self.path {
            return format!("User {user:?} cannot {} path {path:?}", self.verb);
        }
        let resource = match self.subresource {
            "" => self.resource.to_owned(),
            sub => format!("{}/{sub}", self.resource),
        };
        let place = match self.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        format!(
            "User {user:?} cannot {} resource {resource:?} in API group {:?} {place}",
            self.verb, self.group
        )
    }
}

impl Authorizer {
    pub fn new(view: View) -> Authorizer {
        Authorizer { view }
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// The decision and its reason.
    pub fn decide(&self, user: &User, asked: &Asked<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let attributes = Attributes {
            user: &user.name,
            groups: &user.groups,
            verb: asked.verb,
            api_group: asked.group,
            resource: asked.resource,
            subresource: asked.subresource,
            namespace: asked.namespace,
            name: asked.name,
            path: asked.path,
        };
        let Ok(view) = self.view.read() else {
            return Decision::NoOpinion { reason: "the hub's view is not available".into() };
        };
        rbac::authorize(&view, &attributes)
    }

    pub fn check(&self, user: &User, asked: &Asked<'_>) -> Result<(), Status> {
        self.outcome(user, asked, self.decide(user, asked))
    }

    /// A decision as the answer to a request.
    pub fn outcome(&self, user: &User, asked: &Asked<'_>, decision: Decision) -> Result<(), Status> {
        let Decision::NoOpinion { reason } = decision else { return Ok(()) };
        let mut why = asked.sentence(&user.name);
        if !reason.is_empty() {
            why.push_str(": ");
            why.push_str(&reason);
        }
        Err(Status::forbidden(asked.group, asked.resource, asked.name, &why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences() {
        for (asked, expect) in [
            (
                Asked { verb: "get", path: Some("/metrics"), ..Asked::default() },
                r#"User "a" cannot get path "/metrics""#,
            ),
            (
                Asked { verb: "list", resource: "pods", namespace: "x", ..Asked::default() },
                r#"User "a" cannot list resource "pods" in API group "" in the namespace "x""#,
            ),
            (
                Asked {
                    verb: "get",
                    group: "apps",
                    resource: "deployments",
                    subresource: "scale",
                    ..Asked::default()
                },
                r#"User "a" cannot get resource "deployments/scale" in API group "apps" at the cluster scope"#,
            ),
        ] {
            assert_eq!(asked.sentence("a"), expect);
        }
    }
}
