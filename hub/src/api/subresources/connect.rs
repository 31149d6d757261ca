//! log, exec, attach, port-forward and a node's own endpoints: streams to the node.
//!
//! In: a call on a pod or node. Out: what the room `streaming` makes of it, or the pod's log as it comes.
//! Never: reaches a pod that is not bound, or a container that the pod does not have.

use crate::{
    api::{
        Api, Body, Reply, Target,
        dispatch::{Call, Input},
        object,
        query::Query,
        reply,
    },
    run::streams::{FromNode, StreamError, StreamHandle, Streams},
    streaming::{self, ExecRequest, Framing, PodPlace, PortForwardRequest},
};
use super::kept;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderValue, header};
use limpet_objects::{field::FieldError, status::Status, time};
use limpet_protocol::{StreamKind, StreamOpen};
use serde_json::Value;
use std::sync::Arc;

/// The lane on which logs and node documents come.
const OUTPUT: u8 = 1;
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

pub async fn answer(call: &mut Call, target: &Target, mut input: Input) -> Result<Reply, Status> {
    let Some(record) = call.api.store.get(&target.key()) else {
        let gone = match call.info.subresource == "log" {
            true => kept::of_gone(call, target).await?,
            false => None,
        };
        return gone.ok_or_else(|| target.not_found());
    };
    let pod = target.parse(&record)?;
    let streams = streams(&call.api)?;
    if call.info.subresource == "log" {
        return log(call, target, &pod, input, &streams).await;
    }
    let place = place(target, &pod)?;
    let all = |key: &str| call.query.all(key).map(str::to_owned).collect::<Vec<_>>();
    let parts = &mut input.parts;
    let response = match call.info.subresource.as_str() {
        "portforward" => {
            let request = PortForwardRequest::read(&all)?;
            streaming::port_forward(parts, &place, &request, &streams).await?
        }
        sub => {
            let mut request =
                if sub == "exec" { ExecRequest::exec(&all)? } else { ExecRequest::attach(&all)? };
            request.container = container(&pod, &request.container)?;
            streaming::exec(parts, &place, request, &streams).await?
        }
    };
    Ok(response.map(|()| Body::empty()))
}

pub fn streams(api: &Api) -> Result<Streams, Status> {
    let doors = api.doors.get().ok_or_else(|| Status::unavailable("the hub is still starting, try again"))?;
    Ok(doors.streams.clone())
}

pub fn place(target: &Target, pod: &Value) -> Result<PodPlace, Status> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", target.name)));
    }
    Ok(PodPlace {
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        uid: object::uid(pod).to_owned(),
        node: node.to_owned(),
    })
}

/// The container that is meant: the named one, the only one, or the pod's default.
fn container(pod: &Value, named: &str) -> Result<String, Status> {
    let names = |list: &str| -> Vec<String> {
        let items = pod["spec"][list].as_array().into_iter().flatten();
        items.filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init, extra) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if !named.is_empty() {
        let known = [&main, &init, &extra].into_iter().flatten().any(|n| n == named);
        let wrong =
            || Status::bad_request(format!("container {named} is not valid for pod {}", object::name(pod)));
        return known.then(|| named.to_owned()).ok_or_else(wrong);
    }
    let default = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str();
    if let Some(default) = default.filter(|d| main.iter().any(|n| n == d)) {
        return Ok(default.to_owned());
    }
    if let [only] = main.as_slice() {
        return Ok(only.clone());
    }
    let mut text = format!(
        "a container name must be specified for pod {}, choose one of: [{}]",
        object::name(pod),
        main.join(" ")
    );
    if !init.is_empty() {
        text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
    }
    Err(Status::bad_request(text))
}

async fn log(
    call: &mut Call,
    target: &Target,
    pod: &Value,
    mut input: Input,
    streams: &Streams,
) -> Result<Reply, Status> {
    let container = container(pod, call.query.get("container").unwrap_or_default())?;
    let kind = log_options(&call.query, &target.name, container)?;
    // A pod that has no node has not said anything yet.
    let Ok(place) = place(target, pod) else { return Ok(reply::text(200, "")) };
    let open = StreamOpen { namespace: place.namespace, pod: place.name, uid: place.uid, kind };
    let StreamKind::Logs { container, previous, .. } = open.kind.clone() else { return Err(Status::internal("")) };
    let handle = match streams.open(&place.node, open).await {
        Ok(handle) => handle,
        Err(away @ StreamError::Offline { .. }) => {
            let pod = (target.namespace.as_str(), target.name.as_str(), object::uid(pod));
            let kept = kept::of_away(call, pod, (&container, previous), &away).await;
            return kept.ok_or_else(|| failed(&away));
        }
        Err(e) => return Err(failed(&e)),
    };
    let flow = output(Arc::clone(&call.api), handle);
    if input.parts.headers.contains_key(header::UPGRADE) {
        return Ok(streaming::flow(&mut input.parts, Framing::Bytes, flow)?.map(|()| Body::empty()));
    }
    Ok(reply::flow(Body::flow(flow)))
}

fn log_options(query: &Query, pod: &str, container: String) -> Result<StreamKind, Status> {
    let number = |key: &str| query.number(key).map_err(Status::bad_request);
    let (since_seconds, tail_lines) = (number("sinceSeconds")?, number("tailLines")?);
    let limit_bytes = number("limitBytes")?;
    let since_time = query.text("sinceTime");
    let since = since_time.map(|t| time::parse(t).ok_or(t)).transpose();
    let mut errors = Vec::new();
    if let Some(n) = tail_lines.filter(|n| *n < 0) {
        errors.push(FieldError::invalid("tailLines", n, "must be greater than or equal to 0"));
    }
    if let Some(n) = limit_bytes.filter(|n| *n < 1) {
        errors.push(FieldError::invalid("limitBytes", n, "must be greater than 0"));
    }
    match (since_seconds, since_time) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::forbidden(
                "",
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            ));
        }
        (Some(n), None) if n < 1 => {
            errors.push(FieldError::invalid("sinceSeconds", n, "must be greater than 0"))
        }
        _ => {}
    }
    if query.text("stream").is_some() {
        // A gate that is off by default.
        errors.push(FieldError::forbidden("stream", "may not be specified"));
    }
    if let Err(text) = since {
        errors.push(FieldError::invalid("sinceTime", text, "must be a time as in RFC 3339"));
    }
    if !errors.is_empty() {
        return Err(Status::invalid("", "PodLogOptions", pod, &errors));
    }
    Ok(StreamKind::Logs {
        container,
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since_seconds,
        since_ms: since.ok().flatten().map(|t| t.as_millisecond()),
        tail_lines,
        limit_bytes,
    })
}

fn failed(error: &StreamError) -> Status {
    match error {
        // The node's own sentence, for instance that the container is waiting to start.
        StreamError::Refused(why) => Status::bad_request(why.clone()),
        other => streaming::unreachable(other),
    }
}

/// What the node sends on the output lane, until its end or ours.
fn output(api: Arc<Api>, handle: StreamHandle) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold((api, handle), |(api, handle)| async move {
        loop {
            let said = tokio::select! {
                said = handle.recv() => said?,
                () = api.stopped() => return None,
            };
            match said {
                FromNode::Data { lane: OUTPUT, bytes } => return Some((bytes, (api, handle))),
                FromNode::Data { .. } => {}
                FromNode::Eof { .. } => {}
                FromNode::End { error, .. } => {
                    if !error.is_empty() {
                        tracing::debug!(node = handle.node(), error, "a stream ended early");
                    }
                    return None;
                }
            }
        }
    })
}

/// How nodes begin to say that they have no such page: the protocol's refusals are sentences.
const NO_PAGE: [&str; 2] = ["404 page not found", "there is no log file"];

/// `nodes/{name}/proxy/{path}`: the node's own documents (`stats/summary`, `metrics`, `pods`).
pub async fn node(call: &Call, target: &Target) -> Result<Reply, Status> {
    let record = call.api.store.get(&target.key()).ok_or_else(|| target.not_found())?;
    let node = target.parse(&record)?;
    let path = format!("/{}", call.info.rest.join("/"));
    let open = StreamOpen {
        namespace: String::new(),
        pod: String::new(),
        uid: object::uid(&node).to_owned(),
        kind: StreamKind::NodeGet { path: format!("{path}{}", call.query.written()) },
    };
    let handle = streams(&call.api)?.open(&target.name, open).await.map_err(|e| match e {
        StreamError::Refused(why) if NO_PAGE.iter().any(|words| why.starts_with(words)) => {
            Status { code: 404, reason: "NotFound", ..Status::bad_request(why) }
        }
        other => failed(&other),
    })?;
    let mut reply = reply::flow(Body::flow(output(Arc::clone(&call.api), handle)));
    if path == "/stats/summary" || path.starts_with("/pods") {
        reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn which_container_is_meant() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let two = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}]}});
        let mut marked = two.clone();
        marked["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        for (pod, named, expect) in [
            (&one, "", Ok("a")),
            (&one, "x", Err("container x is not valid for pod p")),
            (&two, "i", Ok("i")),
            (
                &two,
                "",
                Err(
                    "a container name must be specified for pod p, choose one of: [a b] or one of the init \
                     containers: [i]",
                ),
            ),
            (&marked, "", Ok("b")),
        ] {
            let outcome = container(pod, named).map_err(|s| s.message);
            assert_eq!(outcome.as_deref().map_err(String::as_str), expect);
        }
    }

    #[test]
    fn log_options_are_checked() {
        let check =
            |query: &str| log_options(&Query::parse(query).unwrap(), "p", "c".into()).map_err(|s| s.code);
        for query in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceTime=x",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "stream=Stderr",
        ] {
            assert_eq!(check(query), Err(422), "{query}");
        }
        assert_eq!(check("tailLines=x"), Err(400));
        let kind = check("follow=true&tailLines=5&sinceTime=1970-01-01T00:00:01Z").unwrap();
        assert!(matches!(
            kind,
            StreamKind::Logs { follow: true, previous: false, tail_lines: Some(5), since_ms: Some(1000), .. }
        ));
    }
}
