//! `pods/eviction`: a delete that respects PodDisruptionBudgets (`kubectl drain`).
//!
//! In: an Eviction. Out: success, or 429 while a budget allows no disruption.
//! Source: the Kubernetes page "API-initiated Eviction". Never: evicts against a budget, except pods that do
//! not run.

use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    object, reply,
    verbs::{ask, dry_run},
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
/// Evictions that wait for the pod to be gone, in one budget.
const DISRUPTED_MAX: usize = 2000;
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
    ask.dry_run = is_dry(call, &eviction["deleteOptions"]["dryRun"])?;
    let record = call.api.store.get(&target.key()).ok_or_else(|| target.not_found())?;
    let pod = target.parse(&record)?;
    let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending"));
    if !ended && !object::is_deleting(&pod) {
        spend_budget(&ask, &pod).await?;
    }
    mark(&ask, object::uid(&pod)).await?;
    write::delete(&mut ask, &options).await?;
    let done =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(reply::value(201, &done, call.wanted))
}

/// The query and the body may both ask for a dry run.
fn is_dry(call: &Call, body: &Value) -> Result<bool, Status> {
    let query = dry_run(call)?;
    let body: Vec<&str> = object::strings(body).collect();
    match body.as_slice() {
        [] => Ok(query),
        ["All"] => Ok(true),
        other => Err(Status::bad_request(format!("dryRun may only be [All], not [{}]", other.join(" ")))),
    }
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
        target: Target::stored(&ask.api.kinds(), BUDGETS, namespace, object::name(budget))?,
        subresource: "status".into(),
        ..ask.clone()
    };
    let (now, pod_name) = (time::rfc3339(ask.api.now()), ask.target.name.clone());
    let ready = is_ready(pod);
    write::update(&mut charge, |_, budget| Ok(Made::from(spend(budget, &pod_name, ready, &now)?))).await.map(|_| ())
}

fn is_ready(pod: &Value) -> bool {
    let all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// The budget after one more eviction. A pod that is not ready costs nothing where its policy lets it go.
fn spend(budget: &Value, pod: &str, ready: bool, now: &str) -> Result<Value, Status> {
    let status = &budget["status"];
    let number = |field: &str| status[field].as_i64().unwrap_or(0);
    if !ready {
        let healthy = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
        if budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || healthy {
            return Ok(budget.clone());
        }
    }
    if number("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let message = format!("The disruption budget {} is still being processed by the server.", object::name(budget));
        return Err(too_many(message, 0));
    }
    let disrupted = status["disruptedPods"].as_object().map_or(0, serde_json::Map::len);
    if disrupted > DISRUPTED_MAX {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Status::forbidden("policy", "poddisruptionbudgets", object::name(budget), why));
    }
    let allowed = number("disruptionsAllowed");
    if allowed <= 0 {
        return Err(refused(budget));
    }
    let mut new = budget.clone();
    new["status"]["disruptionsAllowed"] = json!(allowed - 1);
    new["status"]["disruptedPods"][pod] = json!(now);
    Ok(new)
}

/// Says in the pod's status why it goes, for those who count failures (Jobs).
async fn mark(ask: &Ask, uid: &str) -> Result<(), Status> {
    let mut status = Ask { subresource: "status".into(), ..ask.clone() };
    let now = time::rfc3339(ask.api.now());
    write::update(&mut status, |ask, pod| {
        if object::uid(pod) != uid {
            return Err(ask.target.not_found());
        }
        let mut new = pod.clone();
        let mut all = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
        all.retain(|c| c["type"] != "DisruptionTarget");
        all.push(json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": now}));
        new["status"]["conditions"] = json!(all);
        Ok(Made::from(new))
    })
    .await
    .map(drop)
}

fn refused(budget: &Value) -> Status {
    let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    let message = format!(
        "The disruption budget {} needs {} healthy pods and has {} currently",
        object::name(budget),
        number("desiredHealthy"),
        number("currentHealthy")
    );
    too_many(message, 0)
}

fn too_many(message: String, retry_after_s: u32) -> Status {
    let words = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::too_many_requests(words, retry_after_s);
    let cause = Cause { reason: "DisruptionBudget".into(), message, field: String::new() };
    status.details = Some(Box::new(Details {
        causes: vec![cause],
        retry_after_seconds: retry_after_s,
        ..Details::default()
    }));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_budget_lets_go() {
        let budget = |healthy: i64, desired: i64, allowed: i64, policy: &str, seen: i64| {
            json!({"metadata": {"name": "b", "generation": 2}, "spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed,
                    "observedGeneration": seen}})
        };
        // (budget, ready, allowed, spent)
        let cases = [
            (budget(3, 2, 1, "", 2), true, true, true),
            (budget(2, 2, 0, "", 2), true, false, false),
            (budget(2, 2, 0, "", 2), false, true, false),
            (budget(1, 2, 0, "", 2), false, false, false),
            (budget(1, 2, 0, "IfHealthyBudget", 2), false, false, false),
            (budget(1, 2, 0, "AlwaysAllow", 2), false, true, false),
            (budget(3, 2, 1, "", 1), true, false, false),
        ];
        for (budget, ready, allowed, spent) in cases {
            let after = spend(&budget, "p", ready, "now");
            assert_eq!(after.is_ok(), allowed, "{budget} {ready}");
            let before = &budget["status"]["disruptionsAllowed"];
            let left = after.map_or(before.clone(), |a| a["status"]["disruptionsAllowed"].clone());
            assert_eq!(left != *before, spent, "{budget} {ready}");
        }
        let crowd: serde_json::Map<String, Value> = (0..2001).map(|n| (format!("p{n}"), json!("t"))).collect();
        let mut full = budget(3, 2, 1, "", 2);
        full["status"]["disruptedPods"] = json!(crowd);
        assert_eq!(spend(&full, "p", true, "now").unwrap_err().code, 403);
    }
}
