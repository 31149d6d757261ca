//! WATCH: every change of the selected objects, once, in the order of revisions.
//!
//! In: a target, selectors, a revision to start from. Out: a stream of ADDED, MODIFIED, DELETED, BOOKMARK and
//! ERROR. An object that enters or leaves the selection is ADDED or DELETED. A slow reader gets a 410 and
//! must list again.
//! Never: a queue that grows; what is sent waits for the reader.

use super::{
    get::not_of_the_future,
    options::{self, ListOptions},
    shape,
};
use crate::{
    api::{
        Api, Body, Reply, Target,
        dispatch::{Call, Input},
        encodings::Form,
        limits,
        negotiate::{self, Format, Shape, Wanted},
        object, protobuf, raw, reply,
        selection::Selection,
        target,
    },
    streaming::{self, Framing},
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header;
use jiff::Timestamp;
use limpet_objects::{
    resource::Resource,
    status::Status,
    table::{self, Include},
};
use limpet_store::{Event, Record, Revision, Watch};
use serde_json::{Value, json};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};
use tokio::time::{Instant, Sleep, sleep_until};

pub fn answer(call: &Call, target: &Target, mut input: Input) -> Result<Reply, Status> {
    let format = call.wanted.format;
    if format == Format::Yaml {
        return Err(Status::not_acceptable(negotiate::STREAMED));
    }
    let upgrade = input.parts.headers.contains_key(header::UPGRADE);
    let flow = events(call, target, upgrade)?;
    if upgrade {
        let framing = if format == Format::Protobuf { Framing::Bytes } else { Framing::Text };
        return Ok(streaming::flow(&mut input.parts, framing, flow)?.map(|()| Body::empty()));
    }
    Ok(reply::events(Body::flow(flow), format))
}

fn events(call: &Call, target: &Target, upgrade: bool) -> Result<impl Stream<Item = Bytes> + Send + use<>, Status> {
    if call.api.metrics.watches.load(Ordering::Relaxed) >= limits::WATCHES_MAX {
        return Err(Status::too_many_requests("too many watches, please try again later", 5));
    }
    let options = options::parse(&call.query, true)?;
    let selection = Selection::parse(&call.query, &target.resource, &target.name)?;
    let render = Render {
        resource: Arc::clone(&target.resource),
        wanted: call.wanted,
        include: shape::include_object(call)?,
        head_sent: false,
        with_length: !upgrade,
    };
    let mut feed = Feed::new(Arc::clone(&call.api), render, selection, &options);
    feed.start(target, &options)?;
    Ok(stream::unfold(feed, |mut feed| async move { feed.next().await.map(|bytes| (bytes, feed)) }))
}

/// One open watch.
struct Feed {
    api: Arc<Api>,
    render: Render,
    selection: Selection,
    bookmarks: bool,
    /// The state at the start, still to be sent.
    initial: VecDeque<Record>,
    /// Revision of that state, when its end is to be marked.
    mark_initial_end: Option<Revision>,
    watch: Option<Watch>,
    error: Option<Status>,
    /// Timers that live as long as the watch: an event does not set them anew.
    ends: Pin<Box<Sleep>>,
    next_bookmark: Pin<Box<Sleep>>,
    stopping: tokio::sync::watch::Receiver<bool>,
}

impl Feed {
    fn new(api: Arc<Api>, render: Render, selection: Selection, options: &ListOptions) -> Feed {
        let now = Instant::now();
        let mut chance = [0; 2];
        crate::api::fill_random(&mut chance);
        let extra = u64::from(u16::from_le_bytes(chance)) * limits::WATCH_SECONDS_MIN / 65_536;
        let life =
            options.timeout.unwrap_or(std::time::Duration::from_secs(limits::WATCH_SECONDS_MIN + extra));
        api.metrics.watches.fetch_add(1, Ordering::Relaxed);
        Feed {
            stopping: api.stopping(),
            api,
            render,
            selection,
            bookmarks: options.bookmarks,
            initial: VecDeque::new(),
            mark_initial_end: None,
            watch: None,
            error: None,
            ends: Box::pin(sleep_until(now + life)),
            next_bookmark: Box::pin(sleep_until(now + limits::BOOKMARK_EVERY)),
        }
    }

    fn start(&mut self, target: &Target, options: &ListOptions) -> Result<(), Status> {
        let store = self.api.store.clone();
        let (resource, namespace) = (target.resource.storage.as_str(), target.namespace());
        let asked = options.revision.unwrap_or(0);
        not_of_the_future(asked, store.revision())?;
        let initial = options.send_initial_events;
        let from = if initial.unwrap_or(asked == 0) {
            let listing = store.list(resource, namespace);
            let chosen = listing.records.into_iter().filter(|r| self.selection.matches(&target.resource, r));
            self.initial = chosen.collect();
            if initial.is_some() && options.bookmarks {
                self.mark_initial_end = Some(listing.revision);
            }
            listing.revision
        } else if asked == 0 {
            store.revision()
        } else {
            asked
        };
        match store.watch(resource, namespace, from) {
            Ok(watch) => self.watch = Some(watch),
            Err(old) => self.error = Some(Status::too_old(old.from, old.oldest)),
        }
        Ok(())
    }

    /// The next bytes to send; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(record) = self.initial.pop_front() {
            return Some(self.render.event("ADDED", &record.bytes));
        }
        if let Some(revision) = self.mark_initial_end.take() {
            return Some(self.render.bookmark(revision, true));
        }
        if let Some(status) = self.error.take() {
            self.watch = None;
            return Some(self.render.error(&status));
        }
        loop {
            let watch = self.watch.as_mut()?;
            let event = tokio::select! {
                biased;
                event = watch.next() => event?,
                () = self.ends.as_mut() => return self.last_word(),
                () = self.next_bookmark.as_mut(), if self.bookmarks => {
                    self.next_bookmark.as_mut().reset(Instant::now() + limits::BOOKMARK_EVERY);
                    return Some(self.render.bookmark(watch.revision(), false));
                }
                // The next watch sees the objects as the new definition has them.
                () = self.api.kinds.replaced(&self.render.resource) => return self.last_word(),
                () = stops(&mut self.stopping) => return None,
            };
            match event {
                Ok(event) => {
                    if let Some(bytes) = self.change(&event) {
                        return Some(bytes);
                    }
                }
                Err(lagged) => {
                    self.watch = None;
                    return Some(self.render.error(&Status::too_old(lagged.at, lagged.oldest)));
                }
            }
        }
    }

    /// A bookmark before the end saves the client from replaying.
    fn last_word(&mut self) -> Option<Bytes> {
        let revision = self.watch.take()?.revision();
        self.bookmarks.then(|| self.render.bookmark(revision, false))
    }

    /// What one event means inside the selection.
    fn change(&mut self, event: &Event) -> Option<Bytes> {
        let matches = |record: &Record| self.selection.matches(&self.render.resource, record);
        let before = event.previous.as_ref().is_some_and(&matches);
        let after = !event.is_delete() && matches(&event.record);
        let kind = match (before, after) {
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) if event.is_delete() => "DELETED",
            // It left the selection: its last selected state, with the revision of the change.
            (true, false) => {
                let bytes = with_revision(&event.previous.as_ref()?.bytes, event.revision());
                return Some(self.render.event("DELETED", &bytes));
            }
            (false, false) => return None,
        };
        let form = self.render.form(kind, event.revision());
        let Feed { api, render, .. } = self;
        let bytes = api.encodings.get(form, || render.event(kind, &event.record.bytes));
        render.head_sent = true;
        Some(bytes)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.api.metrics.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends when the hub stops.
async fn stops(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the same.
    let _ = stopping.wait_for(|stops| *stops).await;
}

fn with_revision(bytes: &Bytes, revision: Revision) -> Bytes {
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else { return bytes.clone() };
    object::set_meta(&mut value, "resourceVersion", revision.to_string().into());
    serde_json::to_vec(&value).unwrap_or_default().into()
}

/// An event whose object is made of bytes.
fn line(kind: &str, object: &[&[u8]]) -> Bytes {
    let (head, middle, end) = (b"{\"type\":\"", b"\",\"object\":", b"}\n");
    let size = object.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(head.len() + kind.len() + middle.len() + size + end.len());
    out.extend_from_slice(head);
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(middle);
    object.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(end);
    out.into()
}

/// How events look on the wire.
struct Render {
    resource: Arc<Resource>,
    wanted: Wanted,
    include: Include,
    /// Only the first Table carries the columns.
    head_sent: bool,
    /// Whether frames of protobuf begin with their length.
    with_length: bool,
}

impl Render {
    /// On what the bytes of an event depend.
    fn form(&self, kind: &'static str, revision: Revision) -> Form {
        Form {
            revision,
            kind,
            resource: Arc::clone(&self.resource),
            format: self.wanted.format,
            shape: self.wanted.shape,
            include: self.include,
            with_columns: matches!(self.wanted.shape, Shape::Table(_)) && !self.head_sent,
            with_length: self.with_length,
        }
    }

    fn event(&mut self, kind: &str, bytes: &Bytes) -> Bytes {
        if self.resource.is_served_as_stored() && self.wanted.format == Format::Json {
            match self.wanted.shape {
                Shape::Object => return line(kind, &[bytes]),
                Shape::Partial(version) => {
                    let head = b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/";
                    let metadata = raw::field(bytes, "metadata").unwrap_or(b"{}");
                    return line(kind, &[head, version.as_bytes(), b"\",\"metadata\":", metadata, b"}"]);
                }
                Shape::Table(_) => {}
            }
        }
        let Ok(value) = target::parse(&self.resource, bytes) else { return Bytes::new() };
        let value = match self.wanted.shape {
            Shape::Object => value,
            Shape::Partial(version) => object::partial(&value, version),
            Shape::Table(version) => self.table(&value, version),
        };
        self.frame(kind, value)
    }

    fn table(&mut self, value: &Value, version: &str) -> Value {
        let mut table =
            table::render(&self.resource, std::slice::from_ref(value), Timestamp::now(), self.include);
        table["apiVersion"] = format!("meta.k8s.io/{version}").into();
        object::set_meta(&mut table, "resourceVersion", object::resource_version(value).into());
        if std::mem::replace(&mut self.head_sent, true) {
            table["columnDefinitions"] = Value::Null;
        }
        table
    }

    fn bookmark(&mut self, revision: Revision, initial_end: bool) -> Bytes {
        let mut value = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if initial_end {
            value["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let value = match self.wanted.shape {
            Shape::Object => value,
            Shape::Partial(version) => object::partial(&value, version),
            Shape::Table(version) => {
                let mut table = self.table(&value, version);
                table["metadata"]["resourceVersion"] = json!(revision.to_string());
                table
            }
        };
        self.frame("BOOKMARK", value)
    }

    fn error(&mut self, status: &Status) -> Bytes {
        self.frame("ERROR", status.to_value())
    }

    fn frame(&self, kind: &str, object: Value) -> Bytes {
        if self.wanted.format == Format::Protobuf {
            // The kind was negotiated, and a Status has this form.
            let object = protobuf::encode(&object).unwrap_or_default();
            return protobuf::frame(kind, &object, self.with_length).into();
        }
        let event = json!({"type": kind, "object": object});
        let mut out = serde_json::to_vec(&event).unwrap_or_default();
        out.push(b'\n');
        out.into()
    }
}
