//! A webhook that is asked for rights: SubjectAccessReview.
//!
//! In: who asks for what. Out: its answer, which is kept for a while; when it cannot be asked, what its failure policy says.
//! Source: the Kubernetes pages "Webhook Mode" and "Authorization" (matchConditions). Never: an answer for another question.

use crate::{
    auth::{Asked, User, answers::Answers},
    webhook::{client::Client, kubeconfig},
};
use bytes::Bytes;
use limpet_cel::{Decl, Env, Meter, Program, Type, Value as Cel};
use limpet_hub_core::rbac::Decision;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{path::Path, time::Duration};

/// What all conditions of one request may cost together.
const COST_MAX: u64 = 2_500_000;
const CONDITIONS_MAX: usize = 64;

/// What happens when the webhook, or a condition, fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NoOpinion,
    Deny,
}

pub struct HookOptions {
    pub name: String,
    pub timeout: Duration,
    pub authorized_ttl: Duration,
    pub unauthorized_ttl: Duration,
    pub failure: Failure,
    pub conditions: Vec<String>,
}

pub struct Hook {
    client: Client,
    options: HookOptions,
    conditions: Vec<Program>,
    known: Answers<[u8; 32], Decision>,
}

impl Hook {
    pub fn open(path: &Path, options: HookOptions) -> Result<Hook, String> {
        if options.conditions.len() > CONDITIONS_MAX {
            return Err(format!("webhook.matchConditions: must have at most {CONDITIONS_MAX} items"));
        }
        let env = Env::default().with("request", Decl::of(Type::Dyn, 1));
        let mut conditions = Vec::new();
        for (at, text) in options.conditions.iter().enumerate() {
            let field = format!("webhook.matchConditions[{at}].expression");
            let program = Program::compile(text, &env).map_err(|why| format!("{field}: compilation failed: {why}"))?;
            if !program.gives(&Type::Bool) {
                return Err(format!("{field}: must evaluate to bool"));
            }
            conditions.push(program);
        }
        Ok(Hook { client: kubeconfig::client(path)?, options, conditions, known: Answers::default() })
    }

    pub async fn decide(&self, user: &User, asked: &Asked<'_>) -> Decision {
        let spec = spec(user, asked);
        match self.matches(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion { reason: String::new() },
            Err(why) => return self.failed(&why),
        }
        let text = spec.to_string();
        let key: [u8; 32] = Sha256::digest(&text).into();
        if let Some(known) = self.known.get(&key) {
            return known;
        }
        let review = format!(
            r#"{{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{{}},"spec":{text}}}"#
        );
        let answer = match self.client.post(Bytes::from(review), self.options.timeout).await {
            Ok(answer) => answer,
            Err(why) => return self.failed(&why.to_string()),
        };
        let Ok(answer) = serde_json::from_slice::<Value>(&answer) else {
            return self.failed("the answer is no JSON");
        };
        let status = &answer["status"];
        let reason = status["reason"].as_str().unwrap_or_default().to_owned();
        let (decision, ttl) = match (&status["allowed"], &status["denied"]) {
            (Value::Bool(true), Value::Bool(true)) => {
                return self.failed("it answered with allowed and denied at once");
            }
            (Value::Bool(true), _) => (Decision::Allow { reason }, self.options.authorized_ttl),
            (_, Value::Bool(true)) => (Decision::Deny { reason }, self.options.unauthorized_ttl),
            (Value::Bool(false), _) => (Decision::NoOpinion { reason }, self.options.unauthorized_ttl),
            _ => return self.failed("the answer has no status.allowed"),
        };
        self.known.keep(key, decision.clone(), ttl);
        decision
    }

    fn failed(&self, why: &str) -> Decision {
        tracing::warn!(webhook = self.options.name, why, "an authorization webhook could not be asked");
        let reason = format!("webhook {:?} could not be asked", self.options.name);
        match self.options.failure {
            Failure::NoOpinion => Decision::NoOpinion { reason },
            Failure::Deny => Decision::Deny { reason },
        }
    }

    /// Whether all conditions hold. One that is false outweighs those that fail.
    fn matches(&self, spec: &Value) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let variables = [("request", Cel::from_json(spec))];
        let mut meter = Meter::new(COST_MAX);
        let mut wrong = None;
        for program in &self.conditions {
            match program.run(&variables, &mut meter) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(other) => wrong = Some(format!("a condition gave {}", other.type_name())),
                Err(why) => wrong = Some(why.to_string()),
            }
        }
        wrong.map_or(Ok(true), Err)
    }
}

/// authorization.k8s.io/v1 SubjectAccessReviewSpec.
fn spec(user: &User, asked: &Asked<'_>) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        spec["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        spec["extra"] = json!(user.extra);
    }
    let texts = |fields: &[(&str, &str)]| -> Value {
        let set = fields.iter().filter(|(_, text)| !text.is_empty());
        set.map(|(field, text)| ((*field).to_owned(), json!(text))).collect::<serde_json::Map<_, _>>().into()
    };
    if let Some(path) = asked.path {
        spec["nonResourceAttributes"] = texts(&[("path", path), ("verb", asked.verb)]);
        return spec;
    }
    let mut about = texts(&[
        ("namespace", asked.namespace),
        ("verb", asked.verb),
        ("group", asked.group),
        ("version", asked.version),
        ("resource", asked.resource),
        ("subresource", asked.subresource),
        ("name", asked.name),
    ]);
    for (field, selector) in [("fieldSelector", asked.fields), ("labelSelector", asked.labels)] {
        if let Some(selector) = selector {
            about[field] = selector.clone();
        }
    }
    spec["resourceAttributes"] = about;
    spec
}
