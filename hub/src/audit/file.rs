//! Events in a file: one line of JSON each; a new file when one is large enough.
//!
//! In: lines. Out: the file, and older ones beside it (`audit-2026-01-31T12-00-00.000.log`). A thread of its own writes.
//! Never: lets others than the hub's user read; removes a file that it did not name itself.

use super::{
    AuditOptions,
    sink::{self, Outlet, Sink},
};
use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Events that wait for the disk; then requests wait, too.
const QUEUE_MAX: usize = 4096;
/// Events that are written at once.
const BATCH_MAX: usize = 512;

pub fn open(path: &Path, options: &AuditOptions) -> Result<Sink, String> {
    let mut place: Box<dyn Place> = if path == Path::new("-") {
        Box::new(io::stdout())
    } else {
        let opened = Rotating::open(path, options);
        Box::new(opened.map_err(|why| format!("the audit log {}: {why}", path.display()))?)
    };
    let (sink, outlet) = sink::channel("log", QUEUE_MAX, options.log_mode);
    let thread = std::thread::Builder::new().name("audit-log".into());
    thread.spawn(move || write(outlet, &mut *place)).map_err(|why| format!("the audit log's thread: {why}"))?;
    Ok(sink)
}

fn write(mut outlet: Outlet, place: &mut dyn Place) {
    while let Some(first) = outlet.receiver.blocking_recv() {
        let mut lines = vec![first];
        while lines.len() < BATCH_MAX {
            let Ok(next) = outlet.receiver.try_recv() else { break };
            lines.push(next);
        }
        if let Err(error) = place.put(&lines) {
            tracing::error!(%error, events = lines.len(), "the audit log cannot be written: is the disk full?");
            outlet.queue.lose(lines.len());
        }
        outlet.queue.done(lines.len());
    }
}

trait Place: Send {
    fn put(&mut self, lines: &[Bytes]) -> io::Result<()>;
}

fn joined(lines: &[Bytes]) -> Vec<u8> {
    let mut all = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        all.extend_from_slice(line);
        all.push(b'\n');
    }
    all
}

impl Place for io::Stdout {
    fn put(&mut self, lines: &[Bytes]) -> io::Result<()> {
        self.write_all(&joined(lines))?;
        self.flush()
    }
}

struct Rotating {
    path: PathBuf,
    file: File,
    size: u64,
    /// 0: no bound.
    size_max: u64,
    backups_max: usize,
    age_max: Option<Duration>,
}

impl Rotating {
    fn open(path: &Path, options: &AuditOptions) -> io::Result<Rotating> {
        let file = append_to(path)?;
        let size = file.metadata()?.len();
        Ok(Rotating {
            path: path.to_owned(),
            file,
            size,
            size_max: options.log_maxsize.saturating_mul(1024 * 1024),
            backups_max: options.log_maxbackup,
            age_max: (options.log_maxage > 0).then(|| Duration::from_secs(options.log_maxage.saturating_mul(86_400))),
        })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut at = Timestamp::now();
        let mut old = self.name_at(at);
        while old.exists() {
            at += Duration::from_millis(1);
            old = self.name_at(at);
        }
        fs::rename(&self.path, &old)?;
        self.file = append_to(&self.path)?;
        self.size = 0;
        self.tidy();
        Ok(())
    }

    fn parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let end = text(self.path.extension());
        (format!("{}-", text(self.path.file_stem())), if end.is_empty() { end } else { format!(".{end}") })
    }

    fn name_at(&self, at: Timestamp) -> PathBuf {
        let (begin, end) = self.parts();
        let at = at.to_zoned(TimeZone::UTC);
        let shown = at.strftime("%Y-%m-%dT%H-%M-%S");
        self.path.with_file_name(format!("{begin}{shown}.{:03}{end}", at.millisecond()))
    }

    /// Removes old files that are too many or too old; a failure is tried again at the next turn.
    fn tidy(&self) {
        let (begin, end) = self.parts();
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(entries) = fs::read_dir(dir) else { return };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut old: Vec<String> = names.filter(|name| is_old(name, &begin, &end)).collect();
        // The time in the name is the order.
        old.sort_unstable_by(|a, b| b.cmp(a));
        for (at, name) in old.iter().enumerate() {
            let path = dir.join(name);
            let age = || SystemTime::now().duration_since(fs::metadata(&path).ok()?.modified().ok()?).ok();
            let too_many = self.backups_max > 0 && at >= self.backups_max;
            if (too_many || self.age_max.is_some_and(|max| age().is_some_and(|age| age > max)))
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(%error, path = %path.display(), "an old audit log cannot be removed");
            }
        }
    }
}

/// Whether a name is one that `name_at` makes.
fn is_old(name: &str, begin: &str, end: &str) -> bool {
    let Some(middle) = name.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)) else { return false };
    let form = "dddd-dd-ddTdd-dd-dd.ddd";
    middle.len() == form.len()
        && middle.chars().zip(form.chars()).all(|(c, f)| if f == 'd' { c.is_ascii_digit() } else { c == f })
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Place for Rotating {
    fn put(&mut self, lines: &[Bytes]) -> io::Result<()> {
        let all = joined(lines);
        let size = all.len() as u64;
        if self.size_max > 0 && self.size > 0 && self.size + size > self.size_max {
            self.rotate()?;
        }
        self.file.write_all(&all)?;
        self.size += size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::LogMode, *};

    #[test]
    fn old_files_are_counted_and_foreign_ones_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let options = AuditOptions { log_maxsize: 1, log_maxbackup: 2, ..AuditOptions::default() };
        fs::write(dir.path().join("audit-notes.log"), "mine").unwrap();
        let mut log = Rotating::open(&path, &options).unwrap();
        let line = Bytes::from("x".repeat(600 * 1024));
        for _ in 0..6 {
            log.put(std::slice::from_ref(&line)).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 4, "{names:?}");
        assert_eq!((&*names[2], &*names[3]), ("audit-notes.log", "audit.log"));
        assert!(is_old(&names[0], "audit-", ".log"), "{names:?}");
        // It goes on where it was.
        drop(log);
        assert_eq!(Rotating::open(&path, &options).unwrap().size, line.len() as u64 + 1);
    }

    /// A disk that takes nothing while it is told so.
    struct Moody(std::sync::Arc<std::sync::atomic::AtomicBool>);

    impl Place for Moody {
        fn put(&mut self, _lines: &[Bytes]) -> io::Result<()> {
            let full = self.0.load(std::sync::atomic::Ordering::Acquire);
            if full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    }

    #[tokio::test]
    async fn the_strict_mode_knows_whether_an_event_is_kept_and_the_others_do_not_ask() {
        for mode in [LogMode::Batch, LogMode::Blocking, LogMode::BlockingStrict] {
            let full = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
            let (sink, outlet) = sink::channel("log", 8, mode);
            let mut place = Moody(std::sync::Arc::clone(&full));
            std::thread::spawn(move || write(outlet, &mut place));
            for (is_full, kept) in [(false, true), (true, mode != LogMode::BlockingStrict), (false, true)] {
                full.store(is_full, std::sync::atomic::Ordering::Release);
                let mark = sink.mark();
                sink.send(Bytes::from_static(b"{}"));
                assert_eq!(sink.is_kept(mark).await, kept, "{mode:?}, full: {is_full}");
                sink.end().await;
            }
        }
    }

    #[tokio::test]
    async fn nobody_waits_in_batch_mode() {
        let (sink, outlet) = sink::channel("log", 2, LogMode::Batch);
        for _ in 0..5 {
            sink.room().await;
            sink.send(Bytes::from_static(b"{}"));
        }
        assert_eq!(sink.lost(), 3);
        drop(outlet);
    }

    #[test]
    fn names() {
        for (name, expect) in [
            ("audit-2026-01-31T12-00-00.000.log", true),
            ("audit-2026-01-31T12-00-00.000.gz", false),
            ("audit-2026-01-31T12-00-0x.000.log", false),
            ("audit.log", false),
        ] {
            assert_eq!(is_old(name, "audit-", ".log"), expect, "{name}");
        }
    }
}
