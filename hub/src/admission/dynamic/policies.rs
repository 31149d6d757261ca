//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy with their bindings and parameters.
//!
//! In: a case, and the object. Out: warnings, a refusal, or the changed object.
//! Source: the Kubernetes pages "Validating Admission Policy" and "Mutating Admission Policy".
//! Never: without a binding.

use super::Case;
use limpet_objects::{
    policy::{Policy, Runner, matching},
    resource::Resource,
    select::LabelSelector,
    status::{Cause, Status},
};
use limpet_store::Key;
use serde_json::{Value, json};
use std::sync::Arc;

/// Parameters of one binding; more are refused.
const PARAMS_MAX: usize = 100;

/// A policy with one of its bindings and one object of parameters, all about this request.
struct Active<'p> {
    policy: &'p Policy,
    binding: Arc<Value>,
    wanted: Arc<Resource>,
    params: Value,
}

/// Everything that is about this request, in the order of names.
fn active<'p>(
    case: &Case<'_>,
    object: &Value,
    policies: &'p std::collections::BTreeMap<String, Arc<Policy>>,
    bindings: Vec<Arc<Value>>,
) -> Result<Vec<Active<'p>>, Status> {
    let mut all = Vec::new();
    for binding in bindings {
        let name = binding["spec"]["policyName"].as_str().unwrap_or_default();
        let Some(policy) = policies.get(name) else {
            continue;
        };
        let attributes = case.attributes(object);
        let Some(wanted) = matching::constraints(&policy.constraints, &attributes, &case.registry, true)
        else {
            continue;
        };
        let narrower = &binding["spec"]["matchResources"];
        if narrower.is_object()
            && matching::constraints(narrower, &attributes, &case.registry, false).is_none()
        {
            continue;
        }
        match params(case, policy, &binding) {
            Ok(found) => all.extend(found.into_iter().map(|params| Active {
                policy,
                binding: Arc::clone(&binding),
                wanted: Arc::clone(&wanted),
                params,
            })),
            Err(why) if policy.fails => {
                return Err(refusal(case, policy, &binding, &why, "Invalid"));
            }
            Err(why) => tracing::debug!(policy = policy.name, %why, "a policy's parameters"),
        }
    }
    Ok(all)
}

/// The objects of parameters; one null for a policy that has none.
fn params(case: &Case<'_>, policy: &Policy, binding: &Value) -> Result<Vec<Value>, String> {
    let reference = &binding["spec"]["paramRef"];
    let Some(kind) = policy.param_kind.as_ref().filter(|_| reference.is_object()) else {
        return Ok(vec![Value::Null]);
    };
    let found = case.registry.by_kind(&kind.0, &kind.1);
    let resource = found.ok_or_else(|| {
        format!(
            "failed to configure policy: failed to find resource referenced by paramKind: '{}, Kind={}'",
            kind.0, kind.1
        )
    })?;
    let namespace = match (resource.namespaced, reference["namespace"].as_str()) {
        (false, _) => "",
        (true, Some(namespace)) => namespace,
        (true, None) if case.target.namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, None) => &case.target.namespace,
    };
    let read = |bytes: &[u8]| crate::api::target::parse(resource, bytes).ok();
    let objects: Vec<Value> = match reference["name"].as_str() {
        Some(name) => {
            let record = case
                .api
                .store
                .get(&Key::new(resource.storage.as_str(), namespace, name));
            record.iter().filter_map(|record| read(&record.bytes)).collect()
        }
        None => {
            let selector =
                LabelSelector::from_object(&reference["selector"]).map_err(|why| why.to_string())?;
            let scope = resource.namespaced.then_some(namespace);
            let records = case.api.store.list(&resource.storage, scope).records;
            let objects = records.iter().filter_map(|record| read(&record.bytes));
            objects
                .filter(|object| selector.matches(object))
                .take(PARAMS_MAX)
                .collect()
        }
    };
    if objects.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(objects)
}

pub fn validate(case: &Case<'_>, object: &Value, warnings: &mut Vec<String>) -> Result<(), Status> {
    let store = &case.api.store;
    let policies = case.api.hooks.policies(store, "validatingadmissionpolicies");
    let bindings = case.api.hooks.plain(store, "validatingadmissionpolicybindings");
    if policies.is_empty() || bindings.is_empty() {
        return Ok(());
    }
    let (mut refused, mut failures) = (None, Vec::new());
    for one in active(case, object, &policies, bindings)? {
        let runner = Runner::new(one.policy, case.given(object, &one.wanted, &one.params));
        let denials: Vec<(String, String)> = match runner.matches() {
            Ok(false) => continue,
            Ok(true) => runner
                .validate()
                .into_iter()
                .filter_map(|denial| match denial {
                    Ok(denial) => Some((denial.message, denial.reason)),
                    Err(why) => one.policy.fails.then(|| (why, "Invalid".to_owned())),
                })
                .collect(),
            Err(why) if one.policy.fails => vec![(why, "Invalid".to_owned())],
            Err(_) => continue,
        };
        for (key, value) in runner.audit() {
            if let Some(trail) = case.trail {
                trail.annotate(&format!("{}/{key}", one.policy.name), &value);
            }
        }
        let actions = one.binding["spec"]["validationActions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let acts = |action: &str| actions.iter().any(|own| own == action);
        let binding = one.binding["metadata"]["name"].as_str().unwrap_or_default();
        for (message, reason) in denials {
            let policy = &one.policy.name;
            if acts("Warn") {
                warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
                ));
            }
            if acts("Audit") {
                failures.push(json!({"message": message, "policy": policy, "binding": binding,
                    "expressionIndex": 0, "validationActions": actions}));
            }
            if acts("Deny") && refused.is_none() {
                refused = Some(refusal(case, one.policy, &one.binding, &message, &reason));
            }
        }
    }
    if let Some(trail) = case.trail.filter(|_| !failures.is_empty()) {
        let key = "validation.policy.admission.k8s.io/validation_failure";
        trail.annotate(key, &Value::Array(failures).to_string());
    }
    refused.map_or(Ok(()), Err)
}

fn refusal(case: &Case<'_>, policy: &Policy, binding: &Value, message: &str, reason: &str) -> Status {
    let binding = binding["metadata"]["name"].as_str().unwrap_or_default();
    let what = if policy.mutations.is_empty() {
        "ValidatingAdmissionPolicy"
    } else {
        "MutatingAdmissionPolicy"
    };
    let words = format!(
        "{what} '{}' with binding '{binding}' denied request: {message}",
        policy.name
    );
    let mut status = case.target.named(&case.name).forbidden(&words);
    let (code, reason) = match reason {
        "Forbidden" => (403, "Forbidden"),
        "Unauthorized" => (401, "Unauthorized"),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge"),
        _ => (422, "Invalid"),
    };
    status.code = code;
    status.reason = reason;
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            message: words,
            ..Cause::default()
        });
    }
    status
}

/// All mutating policies, once.
pub fn mutate(case: &Case<'_>, object: &mut Value) -> Result<(), Status> {
    pass(case, object, false)
}

/// Those that want it, after webhooks changed the object.
pub fn mutate_again(case: &Case<'_>, object: &mut Value) -> Result<(), Status> {
    pass(case, object, true)
}

fn pass(case: &Case<'_>, object: &mut Value, again: bool) -> Result<(), Status> {
    let store = &case.api.store;
    let policies = case.api.hooks.policies(store, "mutatingadmissionpolicies");
    let bindings = case.api.hooks.plain(store, "mutatingadmissionpolicybindings");
    if policies.is_empty() || bindings.is_empty() {
        return Ok(());
    }
    for one in active(case, object, &policies, bindings)? {
        if again && !one.policy.again {
            continue;
        }
        if let Err(why) = changed(case, object, &one) {
            if one.policy.fails {
                return Err(refusal(case, one.policy, &one.binding, &why, "Invalid"));
            }
            tracing::debug!(policy = one.policy.name, %why, "a mutating policy failed and is ignored");
        }
    }
    Ok(())
}

fn changed(case: &Case<'_>, object: &mut Value, one: &Active<'_>) -> Result<(), String> {
    for at in 0..one.policy.mutations.len() {
        // Each mutation sees what those before it did.
        let runner = Runner::new(one.policy, case.given(object, &one.wanted, &one.params));
        if !runner.matches()? {
            return Ok(());
        }
        let own = case.converted(object, &one.wanted);
        let made = runner.mutate(at, &own, one.wanted.place())?;
        let made = case.converted_back(made, &one.wanted);
        *object = case.formed(made).map_err(|status| status.message)?;
    }
    Ok(())
}
