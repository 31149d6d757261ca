//! Catches libcontainer's error events: its errors carry only the outermost words, the causes go to `tracing`.
//!
//! In: events of level ERROR, also from the processes that it forks. Out: the first of them, through a pipe.
//! Never: a lock or anything shared but the pipe (a fork must not be able to hang on it).

use nix::fcntl::OFlag;
use std::fmt::{Debug, Write};
use std::os::fd::OwnedFd;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// One write of this size to a pipe is whole.
const EVENT_BYTES_MAX: usize = 2048;

pub struct Blame {
    reader: OwnedFd,
}

struct Collector {
    writer: OwnedFd,
}

impl Blame {
    /// Once in a process.
    pub fn collect() -> Option<Blame> {
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).ok()?;
        tracing::subscriber::set_global_default(Collector { writer }).ok()?;
        Some(Blame { reader })
    }

    /// The first thing that went wrong since the last call.
    pub fn first(&self) -> Option<String> {
        let mut bytes = vec![0; 64 * 1024];
        let len = nix::unistd::read(&self.reader, &mut bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        text.lines().next().filter(|line| !line.is_empty()).map(str::to_owned)
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        let mut text = line.0.replace('\n', " ");
        let mut end = text.len().min(EVENT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('\n');
        let _ = nix::unistd::write(&self.writer, text.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let rest = std::mem::take(&mut self.0);
            let _ = write!(self.0, "{value:?}{rest}");
        } else {
            let _ = write!(self.0, ", {}: {value:?}", field.name());
        }
    }
}
