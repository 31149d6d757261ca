//! May this user do that?
//!
//! In: user and attributes of a request. Out: yes, or a 403 in Kubernetes' words. The chain of authorizers is `authz`'s; the
//! rules are in hub-core's `rbac` and `abac`, roles and bindings in the shared view.
//! Never: a right that none of the chain gives, save for `system:masters`.

use super::{
    authz::{Link, Selectors},
    user::{MASTERS, User},
};
use crate::api::{View, route::RequestInfo};
use limpet_hub_core::rbac::{self, Attributes, Decision};
use futures_util::FutureExt;
use limpet_objects::status::Status;
use serde_json::Value;
use std::sync::Arc;

#[derive(Clone)]
pub struct Authorizer {
    view: View,
    chain: Arc<[Link]>,
}

/// What is asked, owned by somebody else. As `rbac::Attributes`, without the user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: Option<&'a str>,
    /// What selectors narrow it to, in the form of reviews; for webhooks.
    pub fields: Option<&'a Value>,
    pub labels: Option<&'a Value>,
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
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            namespace: &info.namespace,
            name: &info.name,
            ..Asked::default()
        }
    }

    pub fn narrowed(self, selectors: &'a Selectors) -> Asked<'a> {
        Asked { fields: selectors.fields.as_ref(), labels: selectors.labels.as_ref(), ..self }
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
    pub fn new(view: View, chain: Arc<[Link]>) -> Authorizer {
        Authorizer { view, chain }
    }

    /// Whether somebody outside is asked: then nobody here knows all rules of a user.
    pub fn asks_webhooks(&self) -> bool {
        self.chain.iter().any(|link| matches!(link, Link::Webhook(_)))
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// The decision and its reason. The operators' group needs nobody's opinion; then the first authorizer that has one
    /// decides.
    pub async fn judge(&self, user: &User, asked: &Asked<'_>) -> Decision {
        if user.in_group(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons: Vec<String> = Vec::new();
        for link in self.chain.iter() {
            let decision = match link {
                Link::Webhook(hook) => hook.decide(user, asked).await,
                link => self.local(link, user, asked),
            };
            match decision {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decision => return decision,
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    /// The same for those who cannot wait: a webhook holds up their thread, and others take over its work.
    pub fn decide(&self, user: &User, asked: &Asked<'_>) -> Decision {
        if let Some(decision) = self.judge(user, asked).now_or_never() {
            return decision;
        }
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(self.judge(user, asked)))
    }

    fn local(&self, link: &Link, user: &User, asked: &Asked<'_>) -> Decision {
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
        match link {
            Link::Node => rbac::node(&view, &attributes),
            Link::Rbac => rbac::roles(&view, &attributes),
            Link::Abac(abac) => abac.authorize(&attributes),
            Link::AlwaysAllow => Decision::Allow { reason: String::new() },
            Link::AlwaysDeny => Decision::NoOpinion { reason: "Everything is forbidden.".into() },
            Link::Webhook(_) => Decision::NoOpinion { reason: String::new() },
        }
    }

    pub async fn check(&self, user: &User, asked: &Asked<'_>) -> Result<(), Status> {
        self.outcome(user, asked, self.judge(user, asked).await)
    }

    /// A decision as the answer to a request.
    pub fn outcome(&self, user: &User, asked: &Asked<'_>, decision: Decision) -> Result<(), Status> {
        let (Decision::NoOpinion { reason } | Decision::Deny { reason }) = decision else { return Ok(()) };
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
