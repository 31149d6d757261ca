//! The audit log: who asked for what, when, and what came of it.
//!
//! In: requests on their way through `api::dispatch`; a policy. Out: audit.k8s.io/v1 events, each one line of JSON, to
//! a file and to a webhook. Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/.
//! Never: holds a request up for a webhook; loses an event of the file (requests wait while it is behind).

mod body;
mod event;
mod file;
mod sink;
mod webhook;

pub use body::answered;
pub use event::{Head, Trail};

use event::Parts;
use limpet_hub_core::{
    audit::{Level, Policy, Stage},
    rbac::Attributes,
};
use serde_json::Value;
use sink::Sink;
use std::{
    fmt::Write,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// What the operator wants recorded, and where. The names are kube-apiserver's.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    pub policy_file: Option<PathBuf>,
    /// `-` is the standard output.
    pub log_path: Option<PathBuf>,
    pub log_mode: LogMode,
    /// MiB of the file before a new one is begun; 0: never.
    pub log_maxsize: u64,
    /// Old files that are kept; 0: all.
    pub log_maxbackup: usize,
    /// Days that old files are kept; 0: for ever.
    pub log_maxage: u64,
    pub webhook_config_file: Option<PathBuf>,
    pub webhook_batch_buffer_size: usize,
    pub webhook_batch_max_size: usize,
    pub webhook_batch_max_wait: Duration,
    pub webhook_initial_backoff: Duration,
}

impl Default for AuditOptions {
    fn default() -> AuditOptions {
        AuditOptions {
            policy_file: None,
            log_path: None,
            log_mode: LogMode::Blocking,
            log_maxsize: 100,
            log_maxbackup: 10,
            log_maxage: 0,
            webhook_config_file: None,
            webhook_batch_buffer_size: 10_000,
            webhook_batch_max_size: 400,
            webhook_batch_max_wait: Duration::from_secs(30),
            webhook_initial_backoff: Duration::from_secs(10),
        }
    }
}

/// What a request does while the file is behind, as kube-apiserver's `--audit-log-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// It does not wait: what does not fit into the buffer is dropped and counted.
    Batch,
    /// It waits for room.
    Blocking,
    /// It waits until the file has its first event, and fails without.
    BlockingStrict,
}

impl std::str::FromStr for LogMode {
    type Err = String;

    fn from_str(text: &str) -> Result<LogMode, String> {
        match text {
            "batch" => Ok(LogMode::Batch),
            "blocking" => Ok(LogMode::Blocking),
            "blocking-strict" => Ok(LogMode::BlockingStrict),
            _ => Err(format!("{text:?} is not batch, blocking or blocking-strict")),
        }
    }
}

/// The request's first event is not where it has to be.
#[derive(Debug)]
pub struct Unrecorded;

/// The open audit log.
pub struct Audit {
    policy: Policy,
    sinks: Vec<Sink>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    /// By level, from Metadata on.
    levels: [AtomicU64; 4],
}

impl Audit {
    /// `None` when nothing is to be recorded. Needs a running tokio.
    pub fn open(options: &AuditOptions) -> Result<Option<Arc<Audit>>, String> {
        let Some(path) = &options.policy_file else {
            return match (&options.log_path, &options.webhook_config_file) {
                (None, None) => Ok(None),
                _ => Err("an audit log needs --audit-policy-file: it says what is recorded".into()),
            };
        };
        let wrong = |why: String| format!("{}: {why}", path.display());
        let text = std::fs::read_to_string(path).map_err(|why| wrong(format!("cannot be read: {why}")))?;
        let value: Value = serde_saphyr::from_str(&text).map_err(|why| wrong(format!("is not YAML: {why}")))?;
        let policy = Policy::parse(&value).map_err(wrong)?;
        let mut sinks = Vec::new();
        if let Some(path) = &options.log_path {
            sinks.push(file::open(path, options)?);
        }
        if let Some(path) = &options.webhook_config_file {
            sinks.push(webhook::start(crate::webhook::kubeconfig::client(path)?, options));
        }
        if sinks.is_empty() {
            return Err("an audit policy needs a place for its events: --audit-log-path or --audit-webhook-config-file".into());
        }
        Ok(Some(Arc::new(Audit { policy, sinks, counts: Counts::default() })))
    }

    /// Begins the record of a request; `None` when the policy wants none of it. `Err`: it must not be carried out.
    pub async fn begin(self: &Arc<Self>, asked: &Attributes<'_>, head: Head<'_>) -> Result<Option<Arc<Trail>>, Unrecorded> {
        let verdict = self.policy.judge(asked);
        if verdict.level == Level::None {
            return Ok(None);
        }
        for sink in &self.sinks {
            sink.room().await;
        }
        if let Some(count) = self.counts.levels.get(verdict.level as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let trail = Arc::new(Trail::new(Arc::clone(self), verdict, Parts::of(asked, head)));
        let marks: Vec<_> = self.sinks.iter().map(Sink::mark).collect();
        trail.record(Stage::RequestReceived);
        for (sink, mark) in self.sinks.iter().zip(marks) {
            if !sink.is_kept(mark).await {
                return Err(Unrecorded);
            }
        }
        Ok(Some(trail))
    }

    fn send(&self, line: Vec<u8>) {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        let line = bytes::Bytes::from(line);
        self.sinks.iter().for_each(|sink| sink.send(line.clone()));
    }

    /// Waits until what was recorded is where it belongs; a webhook gets one more try.
    pub async fn end(&self) {
        for sink in &self.sinks {
            sink.end().await;
        }
    }

    /// Prometheus' text.
    pub fn figures(&self) -> String {
        let mut out = String::new();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "# HELP apiserver_audit_event_total Audit events.\n# TYPE apiserver_audit_event_total counter\n\
             apiserver_audit_event_total {}\n\
             # HELP apiserver_audit_level_total Requests by audit level.\n# TYPE apiserver_audit_level_total counter",
            read(&self.counts.events)
        );
        for level in [Level::Metadata, Level::Request, Level::RequestResponse] {
            let count = self.counts.levels.get(level as usize).map_or(0, read);
            let _ = writeln!(out, "apiserver_audit_level_total{{level=\"{}\"}} {count}", level.name());
        }
        let _ = writeln!(
            out,
            "# HELP apiserver_audit_error_total Audit events that were lost, by where they should have gone.\n\
             # TYPE apiserver_audit_error_total counter"
        );
        for sink in &self.sinks {
            let _ = writeln!(out, "apiserver_audit_error_total{{plugin=\"{}\"}} {}", sink.name(), sink.lost());
        }
        out
    }
}
