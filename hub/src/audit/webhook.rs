//! Events to a webhook, many at once.
//!
//! In: lines. Out: `EventList`s by POST; what cannot be delivered after `TRIES_MAX` tries is dropped and counted.
//! Never: holds more than the buffer's size, or makes a request wait.

use super::{
    AuditOptions, LogMode,
    sink::{self, Outlet, Sink},
};
use crate::webhook::client::Client;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

const TRIES_MAX: u32 = 5;
const CALL_TIME: Duration = Duration::from_secs(30);
/// Bytes of one list, but for its last event.
const LIST_BYTES_MAX: usize = 8 * 1024 * 1024;

pub fn start(client: Client, options: &AuditOptions) -> Sink {
    let (sink, outlet) = sink::channel("webhook", options.webhook_batch_buffer_size.max(1), LogMode::Batch);
    let options = options.clone();
    tokio::spawn(deliver(outlet, client, options));
    sink
}

async fn deliver(mut outlet: Outlet, client: Client, options: AuditOptions) {
    while let Some(first) = outlet.receiver.recv().await {
        let mut events = vec![first];
        let mut size = 0;
        let until = Instant::now() + options.webhook_batch_max_wait;
        while events.len() < options.webhook_batch_max_size && size < LIST_BYTES_MAX {
            let next = tokio::select! {
                biased;
                next = outlet.receiver.recv() => next,
                () = sleep_until(until) => break,
                () = outlet.queue.hurry.notified() => break,
            };
            let Some(next) = next else { break };
            size += next.len();
            events.push(next);
        }
        send(&outlet, &client, &events, options.webhook_initial_backoff).await;
        outlet.queue.done(events.len());
    }
}

fn list(events: &[Bytes]) -> Bytes {
    let mut text = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#.to_vec();
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            text.push(b',');
        }
        text.extend_from_slice(event);
    }
    text.extend_from_slice(b"]}");
    text.into()
}

async fn send(outlet: &Outlet, client: &Client, events: &[Bytes], backoff: Duration) {
    let body = list(events);
    let mut pause = backoff;
    for attempt in 1..=TRIES_MAX {
        let Err(error) = client.post(body.clone(), CALL_TIME).await else { return };
        let again = attempt < TRIES_MAX && error.is_passing();
        tracing::warn!(%error, attempt, again, events = events.len(), "the audit webhook did not take its events");
        if !again {
            break;
        }
        tokio::select! {
            () = sleep(pause) => {}
            // The hub stops: one more try, now.
            () = outlet.queue.hurry.notified() => {
                if client.post(body.clone(), CALL_TIME).await.is_ok() {
                    return;
                }
                break;
            }
        }
        pause = pause.mul_f64(1.5);
    }
    outlet.queue.lose(events.len());
}
