//! `/limpet/v1/messages/NAMESPACE`: what workloads on boards say, and what is said to them.
//!
//! In: `GET` with `topic`, `node`, `tail`, `watch`; `POST` with `topic` (`down/…`), `node`, `retain` and the payload as body.
//! Rights are those of the path in RBAC (`nonResourceURLs`). Out: lines of JSON; which boards got a message.
//! Never: waits for a board.

use crate::{
    api::{Api, Body, Reply, dispatch::Call, dispatch::Input, reply},
    messages::{Line, Messages, Wish},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use limpet_objects::status::Status;
use limpet_protocol::{Down, HubMessage, limits};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
};
use tokio::sync::broadcast::{Receiver, error::RecvError};

const TAIL_MAX: usize = 10_000;
/// Annotation of pods that have the broker.
const BROKER: &str = "limpet.dev/broker";

pub async fn show(call: &Call, namespace: &str) -> Result<Reply, Status> {
    let doors = call.api.doors.get().ok_or_else(|| Status::unavailable("the hub is still starting, try again"))?;
    let text = |key: &str| call.query.text(key).unwrap_or_default().to_owned();
    let wish = Wish { namespace: namespace.into(), topic: text("topic"), node: text("node") };
    let tail = call.query.number("tail").map_err(Status::bad_request)?;
    let watch = call.query.flag("watch");
    let tail = tail.map_or(if watch { 0 } else { TAIL_MAX }, |n| usize::try_from(n).unwrap_or(0).min(TAIL_MAX));
    // First the ear, then the past: nothing falls between.
    let news = doors.messages.watch();
    let (messages, asked): (Arc<Messages>, Wish) = (Arc::clone(&doors.messages), wish.clone());
    let past = tokio::task::spawn_blocking(move || messages.past(&asked, tail)).await;
    let past = past.map_err(|e| Status::internal(e.to_string()))?;
    let bytes = |line: Line| Bytes::copy_from_slice(line.text.as_bytes());
    if !watch {
        let all: Vec<u8> = past.iter().flat_map(|l| l.text.as_bytes()).copied().collect();
        return Ok(reply::text(200, all));
    }
    let later = follow(Arc::clone(&call.api), news, wish);
    Ok(reply::flow(Body::flow(stream::iter(past).map(bytes).chain(later))))
}

fn follow(api: Arc<Api>, news: Receiver<Line>, wish: Wish) -> impl futures_util::Stream<Item = Bytes> + Send + 'static {
    stream::unfold((api, news, wish), |(api, mut news, wish)| async move {
        loop {
            let line = tokio::select! {
                line = news.recv() => line,
                () = api.stopped() => return None,
            };
            let text = match line {
                Ok(line) if wish.matches(&line) => Bytes::copy_from_slice(line.text.as_bytes()),
                Ok(_) => continue,
                Err(RecvError::Lagged(n)) => Bytes::from(format!("{}\n", json!({"missed": n}))),
                Err(RecvError::Closed) => return None,
            };
            return Some((text, (api, news, wish)));
        }
    })
}

pub async fn say(call: &Call, namespace: &str, input: Input) -> Result<Reply, Status> {
    let doors = call.api.doors.get().ok_or_else(|| Status::unavailable("the hub is still starting, try again"))?;
    let topic = call.query.text("topic").unwrap_or_default().to_owned();
    let plain = !topic.contains(['#', '+']) && !topic.chars().any(char::is_control);
    if !topic.starts_with("down/") || !plain || topic.len() > limits::MESSAGE_TOPIC_BYTES_MAX {
        let most = limits::MESSAGE_TOPIC_BYTES_MAX;
        return Err(Status::bad_request(format!(
            "topic {topic:?} is not for messages to boards: it begins with `down/`, has no wildcards and at most {most} bytes"
        )));
    }
    let payload = input.read().await?.to_vec();
    if payload.len() > limits::MESSAGE_BYTES_MAX {
        let (bytes, most) = (payload.len(), limits::MESSAGE_BYTES_MAX);
        return Err(Status::bad_request(format!("the message has {bytes} bytes; {most} are allowed")));
    }
    let named = call.query.text("node");
    let boards: BTreeSet<String> = {
        let view = doors.view.read().unwrap_or_else(PoisonError::into_inner);
        let with = view.list::<limpet_hub_core::view::Pod>(namespace).filter(|p| p.meta.annotations.get(BROKER) == Some("true"));
        with.filter_map(|p| p.node.as_deref()).filter(|n| named.is_none_or(|m| m == *n)).map(String::from).collect()
    };
    let (mut sent, mut away) = (Vec::new(), Vec::new());
    for node in boards {
        if !doors.streams.is_here(&node) {
            away.push(node);
            continue;
        }
        let (namespace, topic, payload) = (namespace.to_owned(), topic.clone(), payload.clone());
        let message = HubMessage { namespace, topic, retain: call.query.flag("retain"), payload };
        if !doors.nodes.say(&node, Down::Message(message)) {
            return Err(Status::too_many_requests("too many messages wait to be sent to boards", 1));
        }
        sent.push(node);
    }
    let answer: Value = json!({"sent": sent, "away": away});
    Ok(reply::value(200, &answer, crate::api::negotiate::Wanted::JSON))
}
