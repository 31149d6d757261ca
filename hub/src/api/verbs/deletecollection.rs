//! DELETE of all selected objects of a resource.
//!
//! In: selectors and DeleteOptions. Out: the list of what was deleted. Each object is deleted on its own; one
//! that is gone meanwhile does not matter. Never: deletes what is not selected.

use super::{
    ask, delete,
    list::page,
    options::{ListOptions, parse},
};
use crate::api::{
    Reply, Target,
    dispatch::{Call, Input},
    reply,
    selection::Selection,
    write,
};
use limpet_objects::status::Status;
use serde_json::{Value, json};

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let options = ListOptions { revision: None, ..parse(&call.query, false)? };
    let selection = Selection::parse(&call.query, target.resource)?;
    let (how, dry_run) = delete::options(call, input).await?;
    let page = page(call, target, &options, &selection)?;
    let mut items: Vec<Value> = Vec::with_capacity(page.records.len());
    for record in &page.records {
        let mut target = target.named(&record.key.name);
        target.namespace = record.key.namespace.clone();
        let mut ask = ask(call, &target)?;
        ask.dry_run = dry_run;
        match write::delete(&mut ask, &how).await {
            Ok(deleted) => items.extend(serde_json::from_slice::<Value>(&deleted.last.bytes)),
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let list = json!({
        "kind": target.resource.list_kind, "apiVersion": target.resource.api_version(),
        "metadata": {"resourceVersion": call.api.store.revision().to_string()}, "items": items,
    });
    Ok(reply::value(200, &list, call.wanted))
}
