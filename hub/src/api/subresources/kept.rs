//! Logs that boards delivered for keeping, where the board itself cannot be asked.
//!
//! In: a request for a log whose board is away or whose pod is gone. Out: the last known lines, with a warning that says so.
//! Never: passes for the whole log.

use crate::{
    api::{Reply, Target, dispatch::Call, query::Query, reply},
    kept::{Options, select},
    run::streams::StreamError,
};
use jiff::{SignedDuration, Timestamp};
use limpet_objects::{status::Status, time};

/// The log of a pod whose board is away; `None` when nothing of it was kept.
pub fn of_away(call: &mut Call, uid: &str, (container, previous): (&str, bool), why: &StreamError) -> Option<Reply> {
    let StreamError::Offline { node, since } = why else { return None };
    let kept = &call.api.doors.get()?.kept;
    let lines = kept.lines(uid, container, previous)?;
    let text = select(&lines, &options(&call.query, call.api.now()));
    call.warnings.push(format!(
        "node {node} is away since {since}: these are the last lines that it delivered, and nothing can be followed"
    ));
    Some(reply::text(200, String::from_utf8_lossy(&text).into_owned()))
}

/// The log of a pod that does not exist any more; `None` when nothing of it was kept.
pub fn of_gone(call: &mut Call, target: &Target) -> Result<Option<Reply>, Status> {
    let Some(doors) = call.api.doors.get() else { return Ok(None) };
    let Some((uid, about)) = doors.kept.find(&target.namespace, &target.name, None) else { return Ok(None) };
    let all = doors.kept.containers(&uid);
    let container = match (call.query.text("container"), all.as_slice()) {
        (Some(named), _) => named.to_owned(),
        (None, [only]) => only.clone(),
        (None, _) => {
            let (pod, all) = (&target.name, all.join(" "));
            return Err(Status::bad_request(format!("a container name must be specified for pod {pod}, choose one of: [{all}]")));
        }
    };
    let Some(lines) = doors.kept.lines(&uid, &container, call.query.flag("previous")) else { return Ok(None) };
    let text = select(&lines, &options(&call.query, call.api.now()));
    let at = i64::try_from(about.at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    let at = at.round(jiff::Unit::Second).unwrap_or(at);
    call.warnings.push(format!(
        "pod {} is gone: these are the last lines that node {} delivered of it, the newest at {at}",
        target.name, about.node
    ));
    Ok(Some(reply::text(200, String::from_utf8_lossy(&text).into_owned())))
}

/// As for a living log; what cannot be read was refused before.
fn options(query: &Query, now: Timestamp) -> Options {
    let number = |key: &str| query.number(key).ok().flatten();
    let ago = number("sinceSeconds").and_then(|s| now.checked_sub(SignedDuration::from_secs(s)).ok());
    let count = |key: &str| number(key).and_then(|n| usize::try_from(n).ok());
    Options {
        timestamps: query.flag("timestamps"),
        since: ago.or_else(|| query.text("sinceTime").and_then(time::parse)),
        tail_lines: count("tailLines"),
        limit_bytes: count("limitBytes"),
    }
}
