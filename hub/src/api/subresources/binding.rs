//! `pods/binding`: a pod gets its node.
//!
//! In: a Binding from a scheduler. Out: success, or 409 when the pod has a node already or is being deleted.
//! Never: checks whether the pod fits; that is the scheduler's word.

use crate::api::{
    Reply, Target, decode,
    dispatch::{Call, Input},
    object, reply,
    verbs::{ask, dry_run},
    write::{
        self, Ask, Made, Written,
        form::{Form, Validation, conform},
    },
};
use limpet_objects::{field::FieldError, status::Status, time};
use serde_json::{Value, json};

const FORM: Form<'_> = Form { api_version: "v1", kind: "Binding", definition: "io.k8s.api.core.v1.Binding" };

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let validation = Validation::of(&call.query)?;
    let mut ask = ask(call, target)?;
    ask.dry_run = dry_run(call)?;
    let decoded = decode::object(&input.read().await?, &call.content_type(), FORM.kind)?;
    let mut binding = decoded.value;
    conform(&mut binding, FORM, decoded.duplicates, validation, &mut call.warnings)?;
    let name = object::name(&binding);
    if !name.is_empty() && name != target.name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    let node = binding["target"]["name"].as_str().unwrap_or_default().to_owned();
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "Binding", &target.name, &errors));
    }
    let uid = object::uid(&binding).to_owned();
    bind(&mut ask, &node, &uid).await?;
    Ok(reply::value(
        201,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        call.wanted,
    ))
}

/// Sets the node; `uid` empty means whichever pod has the name.
pub async fn bind(ask: &mut Ask, node: &str, uid: &str) -> Result<Written, Status> {
    ask.subresource = "binding".into();
    let now = time::rfc3339(ask.api.now());
    write::update(ask, |ask, old| {
        let why = |why: &str| Status::conflict_because("", "pods/binding", &ask.target.name, why);
        if !uid.is_empty() && uid != object::uid(old) {
            return Err(why(&format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                object::uid(old)
            )));
        }
        if object::is_deleting(old) {
            return Err(why(&format!(
                "pod {} is being deleted, cannot be assigned to a host",
                ask.target.name
            )));
        }
        if let Some(current) = old["spec"]["nodeName"].as_str().filter(|n| !n.is_empty()) {
            let sentence = format!("pod {} is already assigned to node {current:?}", ask.target.name);
            return Err(why(&sentence));
        }
        let mut new = old.clone();
        new["spec"]["nodeName"] = json!(node);
        scheduled(&mut new, &now);
        Ok(Made::from(new))
    })
    .await
}

fn scheduled(pod: &mut Value, now: &str) {
    let Some(conditions) = object::map(pod, "status").and_then(|s| object::list(s, "conditions")) else {
        return;
    };
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}),
    );
}
