//! `serviceaccounts/token`: a token for an account, bound to a pod, a secret or a node.
//!
//! In: a TokenRequest. Out: the same with the token in its status. Source: the Kubernetes TokenRequest API.
//! Never: a token for a pod that runs as another account.

use crate::{
    api::{
        Api, Reply, Target, decode,
        dispatch::{Call, Input},
        object, reply,
        verbs::dry_run,
        write::form::{Form, Validation, conform},
    },
    auth::tokens::TokenAsk,
};
use limpet_objects::{field::FieldError, status::Status, time};
use limpet_store::Key;
use serde_json::{Value, json};

const FORM: Form<'_> = Form {
    api_version: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    definition: "io.k8s.api.authentication.v1.TokenRequest",
};
const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 365 * 86_400;

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let validation = Validation::of(&call.query)?;
    dry_run(call)?;
    let decoded = decode::object(&input.read().await?, &call.content_type(), FORM.kind)?;
    let mut request = decoded.value;
    conform(&mut request, FORM, decoded.duplicates, validation, &mut call.warnings)?;
    let answer = issue(&call.api, target, request)?;
    Ok(reply::value(201, &answer, call.wanted))
}

/// Answers a TokenRequest for the account that `target` names.
pub fn issue(api: &Api, target: &Target, mut request: Value) -> Result<Value, Status> {
    let record = api.store.get(&target.key()).ok_or_else(|| target.not_found())?;
    let account = target.parse(&record)?;
    let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
    check(target, seconds)?;
    let reference = request["spec"]["boundObjectRef"].clone();
    let bound = bound(api, target, &reference)?;
    let node = bound.as_ref().and_then(|b| b.node.as_ref()).map(|(name, uid)| (name.as_str(), uid.as_str()));
    let mut audiences: Vec<String> =
        object::strings(&request["spec"]["audiences"]).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.push(api.tokens.issuer().to_owned());
    }
    let ask = TokenAsk {
        namespace: &target.namespace,
        account: &target.name,
        account_uid: object::uid(&account),
        audiences: audiences.clone(),
        seconds,
        bound: bound.as_ref().map(|b| (b.kind.as_str(), b.name.as_str(), b.uid.as_str())),
        node,
    };
    let now = api.now();
    let (token, ends) = api.tokens.issue(&ask, &crate::api::new_uid(), now).map_err(Status::internal)?;
    request["apiVersion"] = json!(FORM.api_version);
    request["kind"] = json!(FORM.kind);
    request["metadata"] = json!({
        "name": target.name, "namespace": target.namespace, "creationTimestamp": time::rfc3339(now),
    });
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["status"] = json!({"token": token, "expirationTimestamp": time::rfc3339(ends)});
    Ok(request)
}

fn check(target: &Target, seconds: i64) -> Result<(), Status> {
    let field = "spec.expirationSeconds";
    let error = if seconds < SECONDS_MIN {
        FieldError::invalid(field, seconds, "may not specify a duration less than 10 minutes")
    } else if seconds > SECONDS_MAX {
        FieldError::invalid(field, seconds, "may not specify a duration larger than 365 days")
    } else {
        return Ok(());
    };
    Err(Status::invalid("authentication.k8s.io", "TokenRequest", &target.name, &[error]))
}

struct Bound {
    kind: String,
    name: String,
    uid: String,
    node: Option<(String, String)>,
}

fn bound(api: &Api, target: &Target, reference: &Value) -> Result<Option<Bound>, Status> {
    if !reference.is_object() {
        return Ok(None);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (kind, name) = (text("kind"), text("name"));
    let (resource, plural, namespace) = match kind {
        "Pod" => ("/pods", "pods", target.namespace.as_str()),
        "Secret" => ("/secrets", "secrets", target.namespace.as_str()),
        "Node" => ("/nodes", "nodes", ""),
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount to object of type {kind}"
            )));
        }
    };
    let read = |resource: &str, namespace: &str, name: &str| -> Option<Value> {
        let record = api.store.get(&Key::new(resource, namespace, name))?;
        serde_json::from_slice(&record.bytes).ok()
    };
    let found = read(resource, namespace, name).ok_or_else(|| Status::not_found("", plural, name))?;
    let uid = object::uid(&found);
    if !text("uid").is_empty() && text("uid") != uid {
        return Err(target.conflict_because(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
             deleted and then recreated",
            text("uid")
        )));
    }
    let mut node = None;
    if kind == "Pod" {
        let account = found["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if account != target.name {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                target.name
            )));
        }
        node = found["spec"]["nodeName"]
            .as_str()
            .filter(|n| !n.is_empty())
            .and_then(|name| read("/nodes", "", name).map(|n| (name.to_owned(), object::uid(&n).to_owned())));
    }
    Ok(Some(Bound { kind: kind.to_owned(), name: name.to_owned(), uid: uid.to_owned(), node }))
}
