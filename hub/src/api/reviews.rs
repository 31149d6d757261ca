//! Reviews: questions about rights and identities, answered and not kept.
//!
//! In: `POST` of an access review, a token review, a self review. Out: the same with its status.
//! Source: the authorization.k8s.io and authentication.k8s.io APIs. Never: stores anything.

use super::{
    Reply, Target, decode,
    dispatch::{Call, Input, not_allowed},
    limits, object, reply,
    verbs::{dry_run, form},
    write::form::{Validation, conform},
};
use crate::auth::{Asked, User, authz::Selectors};
use limpet_hub_core::{
    rbac::{self, Decision},
    view::PolicyRule,
};
use limpet_objects::{field::FieldError, status::Status};
use serde_json::{Value, json};

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whether the target is only answered.
pub fn is_one(target: &Target) -> bool {
    matches!(target.resource.group.as_str(), AUTHORIZATION | AUTHENTICATION)
        && !target.resource.is_persistent()
}

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    if call.info.verb != "create" {
        return Err(not_allowed());
    }
    let validation = Validation::of(&call.query)?;
    dry_run(call)?;
    let decoded = decode::object(&input.read().await?, &call.content_type(), &target.resource.kind)?;
    let mut review = decoded.value;
    let api_version = target.resource.api_version();
    conform(&mut review, form(target, &api_version), decoded.duplicates, validation, &mut call.warnings)?;
    object::map(&mut review, "metadata");
    review["status"] = match target.resource.plural.as_str() {
        "selfsubjectaccessreviews" => access(call, &call.user, target, &review["spec"]).await?,
        "subjectaccessreviews" => access(call, &subject(&review["spec"])?, target, &review["spec"]).await?,
        "localsubjectaccessreviews" => {
            let namespace = &review["spec"]["resourceAttributes"]["namespace"];
            if namespace != target.namespace.as_str() {
                let why = "must match metadata.namespace";
                let error = FieldError::invalid("spec.resourceAttributes.namespace", namespace.clone(), why);
                return Err(Status::invalid(AUTHORIZATION, "LocalSubjectAccessReview", "", &[error]));
            }
            access(call, &subject(&review["spec"])?, target, &review["spec"]).await?
        }
        "selfsubjectrulesreviews" => rules(call, &review["spec"])?,
        "tokenreviews" => token(call, &review["spec"]).await?,
        "selfsubjectreviews" => json!({"userInfo": call.user.to_value()}),
        _ => return Err(Status::no_such_resource()),
    };
    Ok(reply::value(201, &review, call.wanted))
}

fn subject(spec: &Value) -> Result<User, Status> {
    let mut groups: Vec<String> = object::strings(&spec["groups"]).map(str::to_owned).collect();
    let name = spec["user"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() && groups.is_empty() {
        let error = FieldError::invalid("spec.user", "", "at least one of user or group must be specified");
        return Err(Status::invalid(AUTHORIZATION, "SubjectAccessReview", "", &[error]));
    }
    groups.dedup();
    let mut user = User { name, groups, uid: spec["uid"].as_str().unwrap_or_default().to_owned(), ..User::default() };
    for (key, values) in spec["extra"].as_object().into_iter().flatten() {
        user.extra.insert(key.clone(), object::strings(values).map(str::to_owned).collect());
    }
    Ok(user)
}

async fn access(call: &Call, user: &User, target: &Target, spec: &Value) -> Result<Value, Status> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        let field = "spec.resourceAttributes";
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let error = FieldError::invalid(field, resource.clone(), why);
        return Err(Status::invalid(AUTHORIZATION, &target.resource.kind, "", &[error]));
    }
    let text = |field: &str| resource[field].as_str().unwrap_or_default();
    let selectors = Selectors::reviewed(resource).map_err(|(field, why)| {
        let error = FieldError::invalid(format!("spec.resourceAttributes.{field}"), resource[field].clone(), &why);
        Status::invalid(AUTHORIZATION, &target.resource.kind, "", &[error])
    })?;
    let asked = if resource.is_object() {
        Asked {
            verb: text("verb"),
            group: text("group"),
            version: text("version"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
            path: None,
            fields: selectors.fields.as_ref(),
            labels: selectors.labels.as_ref(),
        }
    } else {
        Asked {
            verb: path["verb"].as_str().unwrap_or_default(),
            path: Some(path["path"].as_str().unwrap_or_default()),
            ..Asked::default()
        }
    };
    Ok(match call.api.authorizer.judge(user, &asked).await {
        Decision::Allow { reason } => with_reason(json!({"allowed": true}), &reason),
        Decision::Deny { reason } => with_reason(json!({"allowed": false, "denied": true}), &reason),
        Decision::NoOpinion { reason } => with_reason(json!({"allowed": false}), &reason),
    })
}

fn with_reason(mut status: Value, reason: &str) -> Value {
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    status
}

fn rules(call: &Call, spec: &Value) -> Result<Value, Status> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let rules = {
        let view = call.api.authorizer.view().read();
        let view = view.map_err(|_| Status::internal("the hub's view is not available"))?;
        rbac::rules_for(&view, &call.user.name, &call.user.groups, namespace)
    };
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in &rules {
        match rule.non_resource_urls.is_empty() {
            true => resources.push(resource_rule(rule)),
            false => paths.push(
                json!({"verbs": texts(&rule.verbs), "nonResourceURLs": texts(&rule.non_resource_urls)}),
            ),
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    if call.api.authorizer.asks_webhooks() {
        status["incomplete"] = json!(true);
        status["evaluationError"] = json!("webhook authorizer does not support user rule resolution");
    }
    Ok(status)
}

fn texts(list: &[Box<str>]) -> Vec<&str> {
    list.iter().map(|t| &**t).collect()
}

fn resource_rule(rule: &PolicyRule) -> Value {
    let mut value = json!({
        "verbs": texts(&rule.verbs), "apiGroups": texts(&rule.api_groups), "resources": texts(&rule.resources),
    });
    if !rule.resource_names.is_empty() {
        value["resourceNames"] = json!(texts(&rule.resource_names));
    }
    value
}

async fn token(call: &Call, spec: &Value) -> Result<Value, Status> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = object::strings(&spec["audiences"]).map(str::to_owned).collect();
    if token.len() > limits::TOKEN_BYTES_MAX {
        return Ok(json!({"authenticated": false, "user": {}, "error": "the token is too long"}));
    }
    Ok(match call.api.guard.authn.token(&call.api.tokens, token, &audiences, call.api.now()).await {
        Ok((user, shared)) => json!({"authenticated": true, "user": user.to_value(), "audiences": shared}),
        Err(why) => json!({"authenticated": false, "user": {}, "error": why}),
    })
}
