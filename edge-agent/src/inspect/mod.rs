//! Commands for people at the board: `ps`, `logs`, `doctor`. They work with the agent stopped.
//!
//! In: records under the run directory, logs under the data directory, the kernel. Out: text for people.
//! Never: changes anything.

mod doctor;

pub use doctor::doctor;

use crate::{agent::Paths, logs};
use serde_json::Value;
use std::io::Write;

fn records(paths: &Paths) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(paths.run.join("containers")) else { return Vec::new() };
    let mut all: Vec<Value> = entries
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "json"))
        .filter_map(|e| serde_json::from_slice(&std::fs::read(e.path()).ok()?).ok())
        .collect();
    all.sort_by_key(|r| (text(r, "pod_name"), text(r, "name"), r["spec"]["attempt"].as_u64()));
    all
}

fn text(record: &Value, key: &str) -> String {
    record["spec"][key].as_str().unwrap_or("").to_string()
}

pub fn ps(paths: &Paths) -> i32 {
    let mut out = String::new();
    out.push_str(&format!("{:<14} {:<12} {:<36} {:<20} {:<8} STATE\n", "CONTAINER", "NAMESPACE", "POD", "NAME", "ATTEMPT"));
    for r in records(paths) {
        let state = match r["exit"].as_object() {
            Some(exit) => format!("exited ({})", exit.get("code").and_then(Value::as_i64).unwrap_or(-1)),
            None => format!("running (pid {})", r["pid"]),
        };
        let id: String = text(&r, "id").chars().take(13).collect();
        let attempt = r["spec"]["attempt"].as_u64().unwrap_or(0);
        let (namespace, pod, name) = (text(&r, "namespace"), text(&r, "pod_name"), text(&r, "name"));
        out.push_str(&format!("{id:<14} {namespace:<12} {pod:<36} {name:<20} {attempt:<8} {state}\n"));
    }
    print(&out)
}

pub fn logs(paths: &Paths, wanted: &str) -> i32 {
    let all = records(paths);
    let found: Vec<&Value> =
        all.iter().filter(|r| text(r, "id").starts_with(wanted) || text(r, "name") == wanted).collect();
    let [one] = found.as_slice() else {
        let why = if found.is_empty() { "no container" } else { "more than one container" };
        eprintln!("limpet-agent: {why} matches `{wanted}`; `limpet-agent ps` lists them");
        return 1;
    };
    let attempt = one["spec"]["attempt"].as_u64().unwrap_or(0) as u32;
    let path = logs::file(&paths.data, &text(one, "pod_uid"), &text(one, "name"), attempt);
    for file in logs::files_of(&path) {
        let content = std::fs::read(&file).unwrap_or_default();
        if std::io::stdout().write_all(&content).is_err() {
            return 1;
        }
    }
    0
}

fn print(text: &str) -> i32 {
    i32::from(std::io::stdout().write_all(text.as_bytes()).is_err())
}
