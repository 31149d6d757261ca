//! `pods/eviction`: a delete that respects PodDisruptionBudgets (`kubectl drain`).
//!
//! In: an Eviction. Out: success, or 429 while a budget allows no disruption.
//! Source: the Kubernetes page "API-initiated Eviction". Never: evicts against a budget, except pods that do
//! not run.

use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    object, reply,
    verbs::ask,
    write::{
        self, Ask, DeleteOptions, Made,
        form::{Form, Validation, conform},
    },
};
use limpet_objects::{
    select::LabelSelector,
    status::{Cause, Details, Status},
    time,
};
use serde_json::{Value, json};

const FORM: Form<'_> =
    Form { api_version: "policy/v1", kind: "Eviction", definition: "io.k8s.api.policy.v1.Eviction" };
const BUDGETS: &str = "policy/poddisruptionbudgets";

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let validation = Validation::of(&call.query)?;
    let mut ask = ask(call, target)?;
    ask.subresource = String::new();
    let decoded = decode::object(&input.read().await?, &call.content_type(), FORM.kind)?;
    let mut eviction = decoded.value;
    conform(&mut eviction, FORM, decoded.duplicates, validation, &mut call.warnings)?;
    let name = object::name(&eviction);
    if !name.is_empty() && name != target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options = DeleteOptions::of(&eviction["deleteOptions"])?;
    ask.dry_run = eviction["deleteOptions"]["dryRun"].as_array().is_some_and(|d| !d.is_empty());
    let record = call.api.store.get(&target.key()).ok_or_else(|| target.not_found())?;
    let pod = target.parse(&record)?;
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    if !ended && !object::is_deleting(&pod) {
        spend_budget(&ask, &pod).await?;
    }
    write::delete(&mut ask, &options).await?;
    let done =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(reply::value(201, &done, call.wanted))
}

async fn spend_budget(ask: &Ask, pod: &Value) -> Result<(), Status> {
    let namespace = ask.target.namespace.as_str();
    let records = ask.api.store.list(BUDGETS, Some(namespace)).records;
    let matching: Vec<Value> = records
        .iter()
        .filter_map(|r| serde_json::from_slice::<Value>(&r.bytes).ok())
        .filter(|b| LabelSelector::from_object(&b["spec"]["selector"]).is_ok_and(|s| s.matches(pod)))
        .collect();
    let budget = match matching.as_slice() {
        [] => return Ok(()),
        [one] => one,
        _ => {
            return Err(Status::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    let mut charge = Ask {
        target: Target::stored(BUDGETS, namespace, object::name(budget))?,
        subresource: "status".into(),
        ..ask.clone()
    };
    let (now, pod_name) = (time::rfc3339(ask.api.now()), ask.target.name.clone());
    write::update(&mut charge, |_, budget| {
        let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
        if allowed <= 0 {
            return Err(refused(budget));
        }
        let mut new = budget.clone();
        new["status"]["disruptionsAllowed"] = json!(allowed - 1);
        new["status"]["disruptedPods"][pod_name.as_str()] = json!(now);
        Ok(Made::from(new))
    })
    .await
    .map(|_| ())
}

fn refused(budget: &Value) -> Status {
    let mut status =
        Status::too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0);
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let message = format!(
        "The disruption budget {} needs {} healthy pods and has {} currently",
        object::name(budget),
        number("desiredHealthy"),
        number("currentHealthy")
    );
    let cause = Cause { reason: "DisruptionBudget".into(), message, field: String::new() };
    status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
    status
}
