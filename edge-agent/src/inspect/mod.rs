//! Commands for people at the board: `ps`, `logs`, `exec`, `images`, `doctor`. They work without a hub, and all but
//! `exec` of what runs also with the agent stopped.
//!
//! In: records under the run directory, logs and images under the data directory, the kernel. Out: text for people.
//! Never: changes anything.

mod doctor;

pub use doctor::doctor;

use crate::{
    agent::Paths,
    command_line,
    images,
    logs::{self, News, ReadOptions},
    runtime::{self, ExecSpec},
};
use serde_json::Value;
use std::{
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Between two looks at a log that is followed.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

fn records(paths: &Paths) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(paths.run.join("containers")) else { return Vec::new() };
    let mut all: Vec<Value> = entries
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "json"))
        .filter_map(|e| serde_json::from_slice(&std::fs::read(e.path()).ok()?).ok())
        .collect();
    all.sort_by_key(|r| (text(r, "namespace"), text(r, "pod_name"), text(r, "name"), attempt(r)));
    all
}

fn text(record: &Value, key: &str) -> String {
    record["spec"][key].as_str().unwrap_or("").to_string()
}

fn attempt(record: &Value) -> u32 {
    record["spec"]["attempt"].as_u64().unwrap_or(0) as u32
}

/// `all`: also those that have ended.
pub fn ps(paths: &Paths, all: bool) -> i32 {
    let mut rows = vec![["CONTAINER", "NAMESPACE", "POD", "NAME", "ATTEMPT", "STARTED", "STATE"].map(String::from)];
    for r in records(paths) {
        let state = match r["exit"].as_object() {
            Some(_) if !all => continue,
            Some(exit) => format!("exited ({})", exit.get("code").and_then(Value::as_i64).unwrap_or(-1)),
            None => format!("running (pid {})", r["pid"]),
        };
        let id: String = text(&r, "id").chars().take(13).collect();
        let started = limpet_agent_core::clock::rfc3339(r["started_ms"].as_u64().unwrap_or(0));
        rows.push([id, text(&r, "namespace"), text(&r, "pod_name"), text(&r, "name"), attempt(&r).to_string(), started, state]);
    }
    print(&table(&rows))
}

pub fn images(paths: &Paths) -> i32 {
    let mut rows = vec![["IMAGE", "ID", "SIZE"].map(String::from)];
    for image in images::listed(&paths.data.join("images")) {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(13).collect();
        let size = format!("{:.1} MiB", image.bytes as f64 / f64::from(1 << 20));
        let names = if image.names.is_empty() { vec!["<none>".to_string()] } else { image.names };
        rows.extend(names.into_iter().map(|name| [name, id.clone(), size.clone()]));
    }
    print(&table(&rows))
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut out = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = rows.iter().map(|r| r[at].chars().count()).max().unwrap_or(0);
            match at + 1 == N {
                true => out.push_str(cell),
                false => out.push_str(&format!("{cell:<width$}   ")),
            }
        }
        out.push('\n');
    }
    out
}

/// The record that is meant: the beginning of an id, a container's name, `pod` or `pod/container`; of several attempts
/// the newest.
fn find(paths: &Paths, wanted: &str, previous: bool) -> Result<Value, String> {
    let matches = |r: &Value| {
        let (pod, name) = (text(r, "pod_name"), text(r, "name"));
        text(r, "id").starts_with(wanted) || name == wanted || pod == wanted || format!("{pod}/{name}") == wanted
    };
    let mut found: Vec<Value> = records(paths).into_iter().filter(matches).collect();
    let key = |r: &Value| (text(r, "pod_uid"), text(r, "name"));
    let several = found.iter().any(|r| key(r) != key(&found[0]));
    found.sort_by_key(attempt);
    match (found.pop(), several) {
        (None, _) => Err(format!("no container matches `{wanted}`; `limpet-agent ps --all` lists them")),
        (Some(_), true) => {
            Err(format!("more than one container matches `{wanted}`; say pod/container or an id (`limpet-agent ps --all`)"))
        }
        (Some(one), false) if !previous => Ok(one),
        (Some(mut one), false) => {
            let before = attempt(&one).checked_sub(1).ok_or("the container has not been restarted: there is no previous log")?;
            one["spec"]["attempt"] = before.into();
            Ok(one)
        }
    }
}

pub fn logs(paths: &Paths, wish: &command_line::Logs) -> i32 {
    let one = match find(paths, &wish.container, wish.previous) {
        Ok(one) => one,
        Err(why) => return failed(&why),
    };
    let path = logs::file(&paths.data, &text(&one, "pod_uid"), &text(&one, "name"), attempt(&one));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let options = ReadOptions {
        follow: wish.follow && !wish.previous,
        timestamps: wish.timestamps,
        since_ms: wish.since.map(|s| now.saturating_sub(s.saturating_mul(1000))),
        tail_lines: wish.tail,
        ..ReadOptions::default()
    };
    let id = text(&one, "id");
    let news = FromOutside { run: paths.run.clone(), open: AtomicBool::new(true) };
    let (tell, mut hear) = tokio::sync::mpsc::channel::<Vec<u8>>(2);
    let work = async {
        let reading = async move { logs::read(&path, &id, &news, &options, &tell).await };
        let printing = async move {
            let mut out = std::io::stdout();
            while let Some(chunk) = hear.recv().await {
                // Nobody reads any more: dropping the channel ends the reading.
                if out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
        };
        let (read, ()) = tokio::join!(reading, printing);
        read
    };
    match block_on(work) {
        Ok(()) => 0,
        Err(why) => failed(&why),
    }
}

/// The agent tells its own readers of news; from outside one can only look again.
struct FromOutside {
    run: PathBuf,
    open: AtomicBool,
}

impl News for FromOutside {
    /// Once more after the container's end: the agent may still be writing its last words down.
    fn is_open(&self, id: &str) -> bool {
        self.open.swap(runtime::outside::runs(&self.run, id), Ordering::Relaxed)
    }

    fn version(&self, _id: &str) -> u64 {
        0
    }

    fn changed(&self, _id: &str, _version: u64) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(LOOK_AGAIN)
    }
}

/// Runs a command in a container with this terminal as its own; its exit code is ours.
pub fn exec(paths: &Paths, container: &str, command: Vec<String>) -> i32 {
    let one = match find(paths, container, false) {
        Ok(one) => one,
        Err(why) => return failed(&why),
    };
    let spec = ExecSpec { container_id: text(&one, "id"), args: command, stdin: true, ..ExecSpec::default() };
    match block_on(async { runtime::outside::exec(&paths.run, &spec).await.map_err(|e| e.to_string()) }) {
        Ok(code) => code,
        Err(why) => failed(&why),
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| format!("no event loop: {e}"))?.block_on(work)
}

fn failed(why: &str) -> i32 {
    eprintln!("limpet-agent: {why}");
    1
}

fn print(text: &str) -> i32 {
    i32::from(std::io::stdout().write_all(text.as_bytes()).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let row = |a: &str, b: &str| [a.to_string(), b.to_string()];
        assert_eq!(table(&[row("A", "B"), row("long", "x")]), "A      B\nlong   x\n");
    }
}
