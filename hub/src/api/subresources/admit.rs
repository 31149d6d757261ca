//! Admission of connections: exec, attach, port-forward and proxy pass policies and webhooks as CONNECT.
//!
//! In: an allowed call before anything is opened. Out: a refusal in the words of whoever refuses.
//! Never: lets a webhook change what is asked for (upstream's API server has nothing to write it into either).

use super::super::{Target, dispatch::Call, verbs};
use crate::admission::{Operation, dynamic};
use limpet_objects::status::Status;
use serde_json::{Value, json};

pub async fn connection(call: &mut Call, target: &Target) -> Result<(), Status> {
    let ask = verbs::ask(call, target)?;
    let Some(sub) = target.resource.subresource(&ask.subresource) else { return Ok(()) };
    let mut options = options(call, &ask.subresource);
    options["apiVersion"] = json!("v1");
    options["kind"] = json!(sub.kind);
    let mut warnings = Vec::new();
    dynamic::mutate(&ask, Operation::Connect, &mut options, None, &mut warnings).await?;
    dynamic::validate(&ask, Operation::Connect, &options, None).await.1
}

/// The call's query as the object that Go makes of it.
fn options(call: &Call, sub: &str) -> Value {
    let mut options = json!({});
    match sub {
        "exec" | "attach" => {
            for flag in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|flag| call.query.flag(flag)) {
                options[flag] = json!(true);
            }
            if let Some(container) = call.query.text("container") {
                options["container"] = json!(container);
            }
            if sub == "exec" {
                options["command"] = call.query.all("command").collect();
            }
        }
        "portforward" => {
            let ports: Vec<i64> = call.query.all("ports").filter_map(|port| port.parse().ok()).collect();
            options["ports"] = json!(ports);
        }
        _ => {
            if let Some(path) = call.query.text("path") {
                options["path"] = json!(path);
            }
        }
    }
    options
}
