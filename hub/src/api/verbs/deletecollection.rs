//! DELETE of all selected objects of a resource.
//!
//! In: selectors and DeleteOptions. Out: the list of what was deleted. Each object is deleted on its own; one
//! that is gone meanwhile does not matter. Never: deletes what is not selected.

use super::{
    ask, delete,
    list::page,
    options::{ListOptions, parse},
    shape,
};
use crate::api::{
    Reply, Target,
    dispatch::{Call, Input},
    selection::Selection,
    write,
};
use limpet_objects::status::Status;
use serde_json::{Value, json};

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let options = ListOptions { revision: None, ..parse(&call.query, false)? };
    let selection = Selection::parse(&call.query, &target.resource, &target.name)?;
    let (how, dry_run) = delete::options(call, input).await?;
    let Ok(page) = page(call, target, &options, &selection)? else {
        return Err(Status::gone_expired("The provided continue parameter is too old, start anew"));
    };
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
    let metadata = json!({"resourceVersion": call.api.store.revision().to_string()});
    shape::list(call, target, metadata, items)
}
