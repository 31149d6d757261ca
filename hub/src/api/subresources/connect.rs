//! log, exec, attach, port-forward: streams to the pod's node.
//!
//! In: a call on a pod. Out: what the room `streaming` makes of it. Never: reaches a pod that is not bound.

use crate::api::{
    Reply, Target,
    dispatch::{Call, Input},
};
use limpet_objects::status::Status;

pub async fn answer(call: &mut Call, target: &Target, input: Input) -> Result<Reply, Status> {
    let record = call.api.store.get(&target.key()).ok_or_else(|| target.not_found())?;
    let _pod = target.parse(&record)?;
    drop(input);
    Err(Status::new(501, "", "streams are not there yet"))
}
