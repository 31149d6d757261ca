//! `authorizer` in expressions: may somebody do something?
//!
//! In: `authorizer.group('apps').resource('deployments').check('create').allowed()` and its like. Out: the answers of
//! the API's own authorizer. Source: the Kubernetes page on CEL, "Kubernetes authorizer library".
//! Never: answers for anybody but the one who asks, or a named ServiceAccount.

use crate::{
    api::{Api, Target},
    auth::{Asked, User},
};
use limpet_cel::{AUTHORIZER, Host, Value, authorization};
use std::sync::Arc;

/// The authorizer, and each step of a question.
#[derive(Clone)]
pub struct Door {
    api: Arc<Api>,
    user: Arc<User>,
    own: Question,
    step: Step,
    question: Question,
}

#[derive(Clone, Debug, Default)]
struct Question {
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    path: Option<String>,
}

#[derive(Clone, Debug)]
enum Step {
    Begin,
    Path,
    Group,
    Resource,
    Decision { allowed: bool, reason: String },
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("step", &self.step)
            .field("question", &self.question)
            .finish()
    }
}

impl Door {
    pub fn new(api: &Arc<Api>, user: &Arc<User>, target: &Target, subresource: &str) -> Door {
        let own = Question {
            group: target.resource.group.clone(),
            resource: target.resource.plural.clone(),
            subresource: subresource.to_owned(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            path: None,
        };
        Door {
            api: Arc::clone(api),
            user: Arc::clone(user),
            own,
            step: Step::Begin,
            question: Question::default(),
        }
    }

    fn with(&self, step: Step, change: impl FnOnce(&mut Question)) -> Value {
        let mut next = self.clone();
        next.step = step;
        change(&mut next.question);
        Value::Host(Arc::new(next))
    }

    fn check(&self, verb: &str) -> Value {
        let q = &self.question;
        let asked = Asked {
            verb,
            group: &q.group,
            resource: &q.resource,
            subresource: &q.subresource,
            namespace: &q.namespace,
            name: &q.name,
            path: q.path.as_deref(),
            ..Asked::default()
        };
        let decision = self.api.authorizer.decide(&self.user, &asked);
        let allowed = decision.is_allowed();
        self.with(
            Step::Decision {
                allowed,
                reason: String::new(),
            },
            |_| {},
        )
    }
}

impl Host for Door {
    fn type_name(&self) -> &'static str {
        match self.step {
            Step::Begin => AUTHORIZER,
            Step::Path => authorization::PATH_CHECK,
            Step::Group => authorization::GROUP_CHECK,
            Step::Resource => authorization::RESOURCE_CHECK,
            Step::Decision { .. } => authorization::DECISION,
        }
    }

    fn call(&self, method: &str, args: &[Value]) -> Result<Value, String> {
        let mut texts = args.iter().map(|arg| match arg {
            Value::String(text) => text.to_string(),
            _ => String::new(),
        });
        let first = texts.next().unwrap_or_default();
        Ok(match (&self.step, method) {
            (Step::Begin, "requestResource") => {
                let own = self.own.clone();
                self.with(Step::Resource, |question| *question = own)
            }
            (Step::Begin, "path") => self.with(Step::Path, |question| question.path = Some(first)),
            (Step::Begin, "group") => self.with(Step::Group, |question| question.group = first),
            (Step::Begin, "serviceAccount") => {
                let name = texts.next().unwrap_or_default();
                let mut next = self.clone();
                next.user = Arc::new(User::of_service_account(&first, &name, ""));
                Value::Host(Arc::new(next))
            }
            (Step::Group, "resource") => self.with(Step::Resource, |question| question.resource = first),
            (Step::Resource, "subresource") => {
                self.with(Step::Resource, |question| question.subresource = first)
            }
            (Step::Resource, "namespace") => self.with(Step::Resource, |question| question.namespace = first),
            (Step::Resource, "name") => self.with(Step::Resource, |question| question.name = first),
            // Selectors narrow what is asked; an authorizer that does not know them asks for everything.
            (Step::Resource, "fieldSelector" | "labelSelector") => self.with(Step::Resource, |_| {}),
            (Step::Path | Step::Resource, "check") => self.check(&first),
            (Step::Decision { allowed, .. }, "allowed") => Value::Bool(*allowed),
            (Step::Decision { reason, .. }, "reason") => Value::text(reason),
            (Step::Decision { .. }, "errored") => Value::Bool(false),
            (Step::Decision { .. }, "error") => Value::text(""),
            _ => return Err("no such overload".to_owned()),
        })
    }
}
