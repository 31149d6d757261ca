//! Logs that boards delivered for keeping, where the board itself cannot be asked.
//!
//! In: a request for a log whose board is away or whose pod is gone. Out: the last known lines, with a warning that says so.
//! Never: passes for the whole log.

use crate::{
    api::{Reply, Target, dispatch::Call, query::Query, reply},
    kept::{Options, select},
    relay::KeptAsk,
    run::streams::StreamError,
};
use jiff::{SignedDuration, Timestamp};
use limpet_objects::{status::Status, time};

/// The log of a pod whose board is away; `None` when nothing of it was kept by any hub. `pod`: namespace, name and uid.
pub async fn of_away(
    call: &mut Call,
    (namespace, pod, uid): (&str, &str, &str),
    (container, previous): (&str, bool),
    why: &StreamError,
) -> Option<Reply> {
    let StreamError::Offline { node, since } = why else { return None };
    let doors = call.api.doors.get()?;
    let lines = match doors.kept.lines(uid, container, previous) {
        Some(lines) => lines,
        None => {
            let ask = KeptAsk {
                namespace: namespace.into(),
                pod: pod.into(),
                uid: Some(uid.into()),
                container: Some(container.into()),
                previous,
            };
            doors.streams.road()?.kept(&ask).await.filter(|(found, _)| found.has_lines)?.1
        }
    };
    let text = select(&lines, &options(&call.query, call.api.now()));
    call.warnings.push(format!(
        "node {node} is away since {since}: these are the last lines that it delivered, and nothing can be followed"
    ));
    Some(reply::text(200, String::from_utf8_lossy(&text).into_owned()))
}

/// The log of a pod that does not exist any more, of the hub that was told last; `None` when nothing of it was kept.
pub async fn of_gone(call: &mut Call, target: &Target) -> Result<Option<Reply>, Status> {
    let Some(doors) = call.api.doors.get() else { return Ok(None) };
    let named = call.query.text("container").map(str::to_owned);
    let ask = KeptAsk {
        namespace: target.namespace.clone(),
        pod: target.name.clone(),
        uid: None,
        container: named.clone(),
        previous: call.query.flag("previous"),
    };
    let own = doors.kept.answer(&ask);
    let other = match doors.streams.road() {
        Some(road) => road.kept(&ask).await,
        None => None,
    };
    let Some((about, lines)) = own.into_iter().chain(other).max_by_key(|(found, _)| found.at_ms) else { return Ok(None) };
    if named.is_none() && about.containers.len() != 1 {
        let (pod, all) = (&target.name, about.containers.join(" "));
        return Err(Status::bad_request(format!("a container name must be specified for pod {pod}, choose one of: [{all}]")));
    }
    if !about.has_lines {
        return Ok(None);
    }
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
