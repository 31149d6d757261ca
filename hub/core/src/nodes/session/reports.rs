//! What the node reports, on its way into the store.
//!
//! In: reports with versions, verdicts of the store. Out: writes with tickets, and confirmations once they are durable.
//! One write a subject is under way at a time; of what comes meanwhile the latest waits (latest wins).
//! Never: confirms what is not durable; more waiting reports than `REPORTS_PENDING_MAX`.

use super::few::Few;
use crate::{
    Change, ObjectStore, Timestamp, limits,
    nodes::status::{self, Effect},
    view::Pod,
};
use limpet_protocol::{NodeReport, NumberedEvent, PodGone, PodReport};
use serde_json::{Value, json};

pub(super) enum Out {
    Write { ticket: u64, changes: Vec<Change> },
    Reported { uid: String, version: u64 },
    EventsTaken { number: u64 },
    Notice { reason: &'static str, message: String },
}

#[derive(Clone, Debug)]
enum Report {
    Pod(PodReport),
    Gone(PodGone),
    Node(NodeReport),
}

impl Report {
    /// The pod's uid; empty for the node itself.
    fn subject(&self) -> &str {
        match self {
            Report::Pod(r) => &r.uid,
            Report::Gone(r) => &r.uid,
            Report::Node(_) => "",
        }
    }

    fn version(&self) -> u64 {
        match self {
            Report::Pod(r) => r.version,
            Report::Gone(r) => r.version,
            Report::Node(r) => r.version,
        }
    }

    fn effect(&self, view: &ObjectStore, node: &str, now: Timestamp) -> Effect {
        match self {
            Report::Pod(r) => status::pod_report(view, node, r),
            Report::Gone(r) => status::pod_gone(view, node, r),
            Report::Node(r) => status::node_report(view, node, &r.body, now),
        }
    }
}

/// Where one subject's reporting stands.
#[derive(Debug, Default)]
struct Subject {
    /// Newest version that is durable.
    durable: u64,
    /// In boxes: nearly always there is nothing, of thousands of nodes.
    writing: Option<Box<(u64, Report)>>,
    waiting: Option<Box<Report>>,
    again_at: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(super) struct Reports {
    subjects: Few<String, Subject>,
    /// Subjects by ticket; tickets of Events are not here.
    tickets: Few<u64, String>,
    next_ticket: u64,
    /// Tickets of Events that are being written.
    events: Few<u64, ()>,
    row: EventRow,
    out: Vec<Out>,
}

/// Numbered Events of the present session.
#[derive(Debug, Default)]
struct EventRow {
    /// Number of the newest one of an unbroken row; 0 when there is none.
    last: u64,
    /// The newest one that is durable, as is everything before it.
    taken: u64,
    /// Those being written, by ticket. Writes of a node are applied in order.
    writing: Few<u64, u64>,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Out::Write { .. } => "Write",
            Out::Reported { .. } => "Reported",
            Out::EventsTaken { .. } => "EventsTaken",
            Out::Notice { .. } => "Notice",
        })
    }
}

impl Reports {
    pub(super) fn pod(&mut self, now: Timestamp, view: &ObjectStore, node: &str, report: PodReport) {
        self.take(now, view, node, Report::Pod(report));
    }

    pub(super) fn gone(&mut self, now: Timestamp, view: &ObjectStore, node: &str, gone: PodGone) {
        self.take(now, view, node, Report::Gone(gone));
    }

    pub(super) fn node(&mut self, now: Timestamp, view: &ObjectStore, node: &str, report: NodeReport) {
        self.take(now, view, node, Report::Node(report));
    }

    pub(super) fn drain(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.out)
    }

    fn take(&mut self, now: Timestamp, view: &ObjectStore, node: &str, report: Report) {
        let key = report.subject().to_owned();
        if !self.subjects.contains_key(&key) && self.subjects.len() >= limits::REPORTS_PENDING_MAX {
            // The node sends again what is not confirmed.
            return;
        }
        let subject = self.subjects.or_insert_with(key, Subject::default);
        if report.version() <= subject.durable {
            let (uid, version) = (report.subject().to_owned(), report.version());
            self.out.push(Out::Reported { uid, version });
            return;
        }
        let newest = subject.waiting.as_deref().or(subject.writing.as_deref().map(|(_, r)| r));
        if newest.is_some_and(|n| n.version() >= report.version()) {
            return;
        }
        if subject.writing.is_some() || subject.again_at.is_some_and(|at| at > now) {
            subject.waiting = Some(Box::new(report));
            return;
        }
        // One whose time to be tried again has come, but not yet its tick: it must not be written after this newer one.
        subject.waiting = None;
        self.write(now, view, node, report);
    }

    fn write(&mut self, now: Timestamp, view: &ObjectStore, node: &str, report: Report) {
        match report.effect(view, node, now) {
            Effect::Write(changes) => {
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                self.tickets.insert(ticket, report.subject().to_owned());
                let subject = self.subjects.or_insert_with(report.subject().to_owned(), Subject::default);
                subject.again_at = None;
                subject.writing = Some(Box::new((ticket, report)));
                self.out.push(Out::Write { ticket, changes });
            }
            Effect::Nothing => self.confirmed(now, view, node, &report),
            Effect::Refused(message) => {
                self.out.push(Out::Notice { reason: "ReportRefused", message });
                self.confirmed(now, view, node, &report);
            }
        }
    }

    /// The report needs no more writing.
    fn confirmed(&mut self, now: Timestamp, view: &ObjectStore, node: &str, report: &Report) {
        let (uid, version) = (report.subject().to_owned(), report.version());
        self.out.push(Out::Reported { uid: uid.clone(), version });
        let ended = !uid.is_empty() && matches!(report, Report::Gone(_));
        let subject = self.subjects.or_insert_with(uid.clone(), Subject::default);
        subject.durable = subject.durable.max(version);
        (subject.writing, subject.again_at) = (None, None);
        match subject.waiting.take() {
            Some(next) => self.write(now, view, node, *next),
            None if ended => {
                self.subjects.remove(&uid);
            }
            None => {}
        }
    }

    /// Another installation speaks, whose versions begin anew. Tickets go on: the store's verdict on a write of before
    /// must not be taken for one on a write of now.
    pub(super) fn forget(&mut self) {
        *self = Reports { next_ticket: self.next_ticket, ..Reports::default() };
    }

    /// A new session: rows of Events begin again.
    pub(super) fn opened(&mut self) {
        self.row.last = 0;
        self.row.writing = Few::default();
    }

    pub(super) fn durable(&mut self, now: Timestamp, view: &ObjectStore, node: &str, ticket: u64) {
        self.events.remove(&ticket);
        if let Some(number) = self.row.writing.remove(&ticket) {
            self.row.taken = self.row.taken.max(number);
            self.out.push(Out::EventsTaken { number });
        }
        let Some(subject) = self.tickets.remove(&ticket).and_then(|s| self.subjects.get_mut(&s)) else {
            return;
        };
        if let Some(written) = subject.writing.take_if(|w| w.0 == ticket) {
            self.confirmed(now, view, node, &written.1);
        }
    }

    pub(super) fn refused(
        &mut self,
        now: Timestamp,
        view: &ObjectStore,
        node: &str,
        (ticket, again_ms, reason): (u64, Option<i64>, String),
    ) {
        self.events.remove(&ticket);
        if let Some(number) = self.row.writing.remove(&ticket) {
            if again_ms.is_none() {
                // It never will be taken (its namespace is gone, mostly): the node need not keep it.
                return self.out.push(Out::EventsTaken { number });
            }
            // Nothing behind it may be confirmed before it: the node says the row again.
            self.opened();
            return;
        }
        let Some(subject) = self.tickets.remove(&ticket).and_then(|s| self.subjects.get_mut(&s)) else {
            return;
        };
        let Some(report) = subject.writing.take_if(|w| w.0 == ticket).map(|w| w.1) else { return };
        if let Some(pause) = again_ms {
            subject.waiting = Some(subject.waiting.take().unwrap_or_else(|| Box::new(report)));
            subject.again_at = now.checked_add(jiff::SignedDuration::from_millis(pause)).ok();
            return;
        }
        self.out.push(Out::Notice { reason: "ReportRefused", message: reason });
        // It will never be taken; what came meanwhile may.
        self.confirmed(now, view, node, &report);
    }

    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.subjects.values().filter_map(|s| s.again_at).min()
    }

    pub(super) fn tick(&mut self, now: Timestamp, view: &ObjectStore, node: &str) {
        let due: Vec<Box<Report>> = self
            .subjects
            .values_mut()
            .filter(|s| s.again_at.is_some_and(|at| at <= now))
            .filter_map(|s| {
                s.again_at = None;
                s.waiting.take()
            })
            .collect();
        for report in due {
            self.write(now, view, node, *report);
        }
    }

    /// One of a row. What does not follow the one before was preceded by something lost: the node says it again.
    pub(super) fn numbered_event(&mut self, view: &ObjectStore, node: &str, event: &NumberedEvent) {
        // A node of ours has fewer under way. What is passed over here is said again, because nothing follows it.
        if event.after != 0 && event.after != self.row.last || self.events.len() >= limits::EVENTS_PENDING_MAX {
            return;
        }
        self.row.last = event.number;
        if event.number <= self.row.taken {
            return self.out.push(Out::EventsTaken { number: event.number });
        }
        let before = self.row.writing.len();
        self.event(view, node, Some(event.number), &event.json);
        // Not this node's to say, or not readable: nothing will ever come of it.
        if self.row.writing.len() == before && self.row.writing.is_empty() {
            self.out.push(Out::EventsTaken { number: event.number });
        }
    }

    /// An Event of the node about itself or one of its pods. Without a number it is not confirmed and not tried again.
    pub(super) fn event(&mut self, view: &ObjectStore, node: &str, number: Option<u64>, json: &[u8]) {
        if self.events.len() >= limits::EVENTS_PENDING_MAX {
            return;
        }
        let Ok(mut event) = serde_json::from_slice::<Value>(json) else { return };
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
        let about = &event["involvedObject"];
        let (kind, namespace, name) = (text(about, "kind"), text(about, "namespace"), text(about, "name"));
        let own = match kind.as_str() {
            // An Event about a pod that has gone meanwhile is history and welcome, also when another one has its name now.
            "Pod" => view.pod(&namespace, &name).is_none_or(|p: &std::sync::Arc<Pod>| {
                let uid = about["uid"].as_str().unwrap_or_default();
                p.node.as_deref() == Some(node) || !(uid.is_empty() || *uid == *p.meta.uid)
            }),
            "Node" => name == node,
            _ => false,
        };
        let Some(fields) = event.as_object_mut().filter(|_| own) else { return };
        let namespace = if namespace.is_empty() { "default".to_string() } else { namespace };
        fields.insert("apiVersion".into(), json!("v1"));
        fields.insert("kind".into(), json!("Event"));
        fields.insert("source".into(), json!({"component": "kubelet", "host": node}));
        fields.insert("reportingComponent".into(), json!("kubelet"));
        fields.insert("reportingInstance".into(), json!(node));
        if let Some(meta) = event["metadata"].as_object_mut() {
            meta.insert("namespace".into(), json!(namespace));
        }
        self.next_ticket += 1;
        self.events.insert(self.next_ticket, ());
        if let Some(number) = number {
            self.row.writing.insert(self.next_ticket, number);
        }
        let changes = vec![Change::Create { resource: "/events".into(), namespace, object: event }];
        self.out.push(Out::Write { ticket: self.next_ticket, changes });
    }
}
