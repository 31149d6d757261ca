//! Mutating and validating webhooks.
//!
//! In: a case, and the object. Out: the object as webhooks changed it, warnings, or a refusal.
//! Source: the Kubernetes page "Dynamic Admission Control". Mutating webhooks are called one after the other, in the
//! order of their configurations' names; those that want it once more when a later one changed the object.
//! Validating ones are called together.
//! Never: lets through what a webhook with failurePolicy Fail could not judge; calls one with side effects for a dry run.

use super::Case;
use crate::{api::object, webhook};
use limpet_cel::Program;
use futures_util::future::join_all;
use limpet_objects::{
    patch,
    policy::{compile, matching, run},
    resource::Resource,
    status::Status,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// A configured webhook, its conditions compiled once.
pub struct Webhook {
    config: Value,
    conditions: Result<Vec<(String, Program)>, String>,
}

/// The webhooks of a configuration.
pub fn compiled(mut configuration: Value) -> Arc<[Webhook]> {
    let Value::Array(all) = configuration["webhooks"].take() else { return Arc::default() };
    let env = compile::env(false, true);
    let one = |config: Value| {
        let (conditions, wrong) = compile::conditions(&config["matchConditions"], &env, "matchConditions");
        let conditions = wrong.first().map_or(Ok(conditions), |wrong| Err(wrong.to_string()));
        Webhook { config, conditions }
    };
    all.into_iter().map(one).collect()
}

/// One webhook that is about this request.
struct Hook<'a> {
    webhook: &'a Value,
    wanted: Arc<Resource>,
}

impl Hook<'_> {
    fn name(&self) -> &str {
        self.webhook["name"].as_str().unwrap_or_default()
    }

    fn fails(&self) -> bool {
        self.webhook["failurePolicy"] != "Ignore"
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.webhook["timeoutSeconds"].as_u64().unwrap_or(10).clamp(1, 30))
    }
}

/// Whether a webhook is about the request; an error is a failure to judge its conditions.
fn about<'a>(case: &Case<'_>, webhook: &'a Webhook, object: &Value) -> Result<Option<Hook<'a>>, Status> {
    let Webhook { config: webhook, conditions } = webhook;
    let attributes = case.attributes(object);
    if !matching::namespace_selector(&webhook["namespaceSelector"], &attributes)
        || !matching::object_selector(&webhook["objectSelector"], &attributes)
    {
        return Ok(None);
    }
    let policy = webhook["matchPolicy"].as_str().unwrap_or("Equivalent");
    let Some(wanted) = matching::rules(&webhook["rules"], policy, &attributes, &case.registry) else {
        return Ok(None);
    };
    let hook = Hook { webhook, wanted };
    let outcome = match conditions {
        Ok(none) if none.is_empty() => return Ok(Some(hook)),
        Ok(conditions) => run::conditions(conditions, &case.given(object, &hook.wanted, &Value::Null)),
        Err(why) => Err(why.clone()),
    };
    match outcome {
        Ok(true) => Ok(Some(hook)),
        Ok(false) => Ok(None),
        Err(why) if hook.fails() => {
            let name = hook.name();
            Err(case.target.named(&case.name).forbidden(&format!(
                "failed evaluating matchConditions of webhook {name:?}: {why}"
            )))
        }
        Err(_) => Ok(None),
    }
}

/// Asks one webhook. `None`: it could not be asked, and that does not matter.
async fn ask(
    case: &Case<'_>,
    hook: &Hook<'_>,
    object: &Value,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, Status> {
    let effects = hook.webhook["sideEffects"].as_str().unwrap_or("Unknown");
    if case.dry_run && !matches!(effects, "None" | "NoneOnDryRun") {
        let name = hook.name();
        return Err(Status::bad_request(format!(
            "admission webhook {name:?} does not support dry run"
        )));
    }
    let uid = crate::api::new_uid();
    let mut request = case.request(&hook.wanted, &uid);
    request["object"] = case.converted(object, &hook.wanted);
    request["oldObject"] = case.converted(&case.old, &hook.wanted);
    let versions = hook.webhook["admissionReviewVersions"].as_array();
    let version = versions
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .find(|v| matches!(*v, "v1" | "v1beta1"));
    let api_version = format!("admission.k8s.io/{}", version.unwrap_or("v1"));
    let review = json!({"kind": "AdmissionReview", "apiVersion": api_version, "request": request});
    let answer = webhook::call(case.api, &hook.webhook["clientConfig"], &review, hook.time()).await;
    let answer = answer.and_then(|mut answer| {
        let response = answer["response"].take();
        if !response.is_object() {
            return Err("webhook response was absent".to_owned());
        }
        if response["uid"] != uid.as_str() {
            return Err(format!("expected response.uid={uid:?}, got {}", response["uid"]));
        }
        Ok(response)
    });
    match answer {
        Ok(response) => {
            let said = response["auditAnnotations"].as_object().into_iter().flatten();
            for (key, value) in said.take(32).filter(|_| case.trail.is_some()) {
                if let (Some(trail), Some(value)) = (case.trail, value.as_str()) {
                    trail.annotate(&format!("{}/{key}", hook.name()), value);
                }
            }
            for warning in object::strings(&response["warnings"]).take(32) {
                warnings.push(warning.chars().take(4096).collect());
            }
            allowed(hook, &response).map(|()| Some(response))
        }
        Err(why) => failed(hook, &why).map(|()| None),
    }
}

fn failed(hook: &Hook<'_>, why: &str) -> Result<(), Status> {
    let name = hook.name();
    if hook.fails() {
        return Err(Status::internal(format!(
            "failed calling webhook {name:?}: {why}"
        )));
    }
    tracing::warn!(webhook = name, %why, "a webhook could not be called; its failurePolicy is Ignore");
    Ok(())
}

/// The refusal of a webhook, in upstream's words.
fn allowed(hook: &Hook<'_>, response: &Value) -> Result<(), Status> {
    if response["allowed"] == true {
        return Ok(());
    }
    let denied = format!("admission webhook {:?} denied the request", hook.name());
    let result = &response["status"];
    let words = |field: &str| result[field].as_str().filter(|text| !text.is_empty());
    let message = match (words("message"), words("reason")) {
        (Some(message), _) => format!("{denied}: {message}"),
        (None, Some(reason)) => format!("{denied}: {reason}"),
        (None, None) => format!("{denied} without explanation"),
    };
    let code = result["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok())
        .filter(|code| (400..600).contains(code));
    let reason = match words("reason") {
        Some("Forbidden") => "Forbidden",
        Some("Invalid") => "Invalid",
        Some("Conflict") => "Conflict",
        Some("NotFound") => "NotFound",
        Some("Unauthorized") => "Unauthorized",
        Some("BadRequest") => "BadRequest",
        _ => "",
    };
    Err(Status::new(code.unwrap_or(400), reason, message))
}

/// Calls the mutating webhooks; whether one changed the object.
pub async fn mutate(case: &Case<'_>, object: &mut Value, warnings: &mut Vec<String>) -> Result<bool, Status> {
    let configurations = case
        .api
        .hooks
        .webhooks(&case.api.store, "mutatingwebhookconfigurations");
    let all: Vec<&Webhook> = configurations.iter().flat_map(|webhooks| webhooks.iter()).collect();
    // Which ones were called, and the number of changes that they had seen by then.
    let mut called: Vec<(usize, usize)> = Vec::new();
    let mut changes = 0;
    for (at, webhook) in all.iter().enumerate() {
        let Some(hook) = about(case, webhook, object)? else {
            continue;
        };
        changes += usize::from(apply(case, &hook, object, warnings).await?);
        called.push((at, changes));
    }
    for (at, seen) in called {
        let webhook = all[at];
        if webhook.config["reinvocationPolicy"] != "IfNeeded" || seen == changes {
            continue;
        }
        let Some(hook) = about(case, webhook, object)? else {
            continue;
        };
        apply(case, &hook, object, &mut Vec::new()).await?;
    }
    Ok(changes > 0)
}

/// Asks one mutating webhook and applies its patch; whether the object is another now.
async fn apply(
    case: &Case<'_>,
    hook: &Hook<'_>,
    object: &mut Value,
    warnings: &mut Vec<String>,
) -> Result<bool, Status> {
    let Some(response) = ask(case, hook, object, warnings).await? else {
        return Ok(false);
    };
    let Some(encoded) = response["patch"].as_str().filter(|patch| !patch.is_empty()) else {
        return Ok(false);
    };
    if object.is_null() {
        return Err(Status::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name()
        )));
    }
    if response["patchType"] != "JSONPatch" {
        return failed(hook, "webhook response.patchType must be JSONPatch").map(|()| false);
    }
    let decoded = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded);
    let Ok(bytes) = decoded else {
        return failed(hook, "response.patch is not base64").map(|()| false);
    };
    let own = case.converted(object, &hook.wanted);
    match patch::json(&own, &bytes) {
        Ok(patched) => {
            let new = case.formed(case.converted_back(patched, &hook.wanted))?;
            let changed = new != *object;
            *object = new;
            Ok(changed)
        }
        Err(why) => failed(hook, &format!("the patch does not fit: {why}")).map(|()| false),
    }
}

/// Calls the validating webhooks, all together.
pub async fn validate(case: &Case<'_>, object: &Value, warnings: &mut Vec<String>) -> Result<(), Status> {
    let configurations = case
        .api
        .hooks
        .webhooks(&case.api.store, "validatingwebhookconfigurations");
    let mut hooks = Vec::new();
    for webhook in configurations.iter().flat_map(|webhooks| webhooks.iter()) {
        hooks.extend(about(case, webhook, object)?);
    }
    let asked = hooks.iter().map(|hook| async move {
        let mut said = Vec::new();
        let outcome = ask(case, hook, object, &mut said).await;
        (said, outcome)
    });
    let mut outcome = Ok(());
    for (said, answer) in join_all(asked).await {
        warnings.extend(said);
        if let (Ok(()), Err(status)) = (&outcome, answer) {
            outcome = Err(status);
        }
    }
    outcome
}
