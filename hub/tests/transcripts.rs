//! What people type and what they read: transcripts of kubectl against the real API, in two versions of kubectl.
//!
//! In: `transcripts/*.txt`: `$ kubectl …` (with `<<E` a here-document up to `E`), then what it says; `! ` marks
//! stderr, `[1]` an exit code, `old| ` and `new| ` lines that only one of the two versions says. Out: the first
//! difference of each file. `LIMPET_UPDATE=1` writes what was said instead; read the diff before you keep it.
//! Never: what changes from run to run: ages, ids, addresses and times are replaced before comparing.
#![allow(clippy::unwrap_used)]

#[path = "support/mod.rs"]
mod support;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use support::Cluster;

/// One command with what is expected of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Step {
    /// Comments and blank lines in front.
    before: Vec<String>,
    command: String,
    input: Vec<String>,
    said: Vec<String>,
}

fn parse(text: &str) -> Vec<Step> {
    let (mut steps, mut before) = (Vec::<Step>::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(command) = line.strip_prefix("$ ") {
            let mut step = Step { before: std::mem::take(&mut before), command: command.into(), ..Step::default() };
            if let Some(end) = command.split(" <<").nth(1) {
                step.input = lines.by_ref().take_while(|l| *l != end).map(str::to_owned).collect();
            }
            steps.push(step);
        } else if line.starts_with('#') || steps.is_empty() {
            before.push(line.to_owned());
        } else if let Some(step) = steps.last_mut() {
            step.said.push(line.to_owned());
        }
    }
    steps
}

fn text(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        for line in step.before.iter().chain([&format!("$ {}", step.command)]).chain(&step.input) {
            out.push_str(line);
            out.push('\n');
        }
        if let Some(end) = step.command.split(" <<").nth(1) {
            out.push_str(end);
            out.push('\n');
        }
        for line in &step.said {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Words of a line: blanks separate, single and double quotes keep together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut open) = (Vec::new(), String::new(), None, false);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => (quote, open) = (Some(c), true),
            (None, ' ') if open || !word.is_empty() => {
                words.push(std::mem::take(&mut word));
                open = false;
            }
            (None, ' ') => {}
            (None, c) => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Runs one command; what it says, made the same for every run.
fn run(c: &Cluster, kubectl: &Path, home: &Path, step: &Step) -> Vec<String> {
    let line = step.command.split(" <<").next().unwrap_or_default();
    let words = words(line);
    assert_eq!(words.first().map(String::as_str), Some("kubectl"), "{line}");
    let mut child = Command::new(kubectl)
        .args(&words[1..])
        .env("KUBECONFIG", &c.kubeconfig)
        .env("KUBECACHEDIR", home.join("cache"))
        .env("HOME", home)
        .env("TZ", "UTC")
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl is needed for these tests");
    let mut input = step.input.join("\n");
    input.push('\n');
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let plain = |bytes: &[u8], mark: &str| -> Vec<String> {
        let text = String::from_utf8_lossy(bytes).replace(&c.url, "https://HUB");
        let text = text.replace(&*home.to_string_lossy(), "HOME");
        let text = text.replace(c.url.rsplit(':').next().unwrap_or_default(), "PORT");
        let marked = text.lines().map(|l| format!("{mark}{}", normal(l)).trim_end().to_owned());
        marked.filter(|l| !l.is_empty()).map(guarded).collect()
    };
    let mut said = plain(&output.stdout, "");
    said.extend(plain(&output.stderr, "! "));
    match output.status.code() {
        Some(0) => {}
        code => said.push(format!("[{}]", code.unwrap_or(-1))),
    }
    said
}

/// What is said must not look like a comment or a command of the transcript's own.
fn guarded(line: String) -> String {
    if line.starts_with(['#', '$']) { format!("\\{line}") } else { line }
}

/// Replaces what differs from run to run.
fn normal(line: &str) -> String {
    let mut out = String::new();
    let mut token = String::new();
    for c in line.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || "-.:/_+".contains(c) {
            token.push(c);
            continue;
        }
        out.push_str(&replaced(&token, &out));
        token.clear();
        if c != '\n' {
            out.push(c);
        }
    }
    // Columns move with the width of what was replaced.
    if out.contains("  ") && !out.starts_with(' ') {
        out = out.split("  ").map(str::trim).filter(|p| !p.is_empty()).collect::<Vec<_>>().join("   ");
    }
    out
}

fn replaced(token: &str, before: &str) -> String {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let is_uid = token.len() == 36 && token.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    let is_time = token.len() >= 20 && token.as_bytes()[4] == b'-' && token.contains('T') && token.ends_with('Z');
    let is_zoned = token.ends_with("+0000") || (token.starts_with("20") && token.matches(':').count() == 2);
    let is_address = token.starts_with("10.96.") && token.split('.').count() == 4;
    let is_age = (2..=6).contains(&token.len())
        && token.ends_with(['s', 'm', 'h', 'd'])
        && token.split(['m', 'h', 'd', 's']).all(|t| t.is_empty() || digits(t))
        // Ages are in tables, whose columns are two blanks apart.
        && before.ends_with("  ")
        && !before.trim().is_empty();
    let made_up = token.strip_prefix("kube-api-access-").or_else(|| token.strip_prefix("configmap/made-"));
    let label = before.trim_end_matches([' ', '"']);
    let is_version = digits(token) && (label.ends_with("resourceVersion:") || label.ends_with("resourceVersion\":"));
    let is_port = before.ends_with("NodePort:") || (token.len() == 5 && token.starts_with('3') && digits(token));
    if is_uid {
        return "UID".into();
    }
    if let Some(end) = made_up {
        return format!("{}XXXXX", &token[..token.len() - end.len()]);
    }
    if token.matches(':').count() == 2 && token.len() == 8 && token.replace(':', "").bytes().all(|b| b.is_ascii_digit()) {
        return "TIME".into();
    }
    if is_time || is_zoned {
        return "TIME".into();
    }
    if is_address {
        return "10.96.X.X".into();
    }
    if is_age {
        return "AGE".into();
    }
    if is_version {
        return "RV".into();
    }
    if is_port {
        return "PORT".into();
    }
    // 80:31234/TCP
    if let Some((port, rest)) = token.split_once(':')
        && let Some((node, protocol)) = rest.split_once('/')
        && digits(port)
        && digits(node)
    {
        return format!("{port}:PORT/{protocol}");
    }
    token.to_owned()
}

/// What both versions say, with the lines marked that only one of them does.
fn joined(old: &[String], new: &[String]) -> Vec<String> {
    if old == new {
        return old.to_vec();
    }
    let mark = |mark: &str, lines: &[String]| lines.iter().map(|l| format!("{mark}| {l}")).collect::<Vec<_>>();
    [mark("old", old), mark("new", new)].concat()
}

/// What is expected of one of the two.
fn expected(said: &[String], mark: &str) -> Vec<String> {
    let own = format!("{mark}| ");
    let marked = said.iter().any(|l| l.starts_with("old| ") || l.starts_with("new| "));
    let of = |l: &String| l.strip_prefix(&own).map(str::to_owned);
    if marked { said.iter().filter_map(of).collect() } else { said.to_vec() }
}

fn newer() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/tools/kubectl-1.37");
    path.is_file().then_some(path)
}

/// All answers of one kubectl to one transcript, in a cluster of its own.
fn play(kubectl: &Path, steps: &[Step]) -> Vec<Vec<String>> {
    let c = Cluster::start();
    let home = tempfile::tempdir().unwrap();
    steps.iter().map(|step| run(&c, kubectl, home.path(), step)).collect()
}

fn check(file: &Path, update: bool) -> (usize, Result<(), String>) {
    let steps = parse(&fs::read_to_string(file).unwrap());
    let path = std::env::var_os("LIMPET_KUBECTL").map_or_else(|| PathBuf::from("kubectl"), PathBuf::from);
    let (old, new) = std::thread::scope(|scope| {
        let newer = newer().map(|kubectl| scope.spawn({ let steps = &steps; move || play(&kubectl, steps) }));
        (play(&path, &steps), newer.map(|thread| thread.join().unwrap()))
    });
    if update {
        let mut written = steps.clone();
        for (at, step) in written.iter_mut().enumerate() {
            step.said = joined(&old[at], new.as_ref().map_or(&old[at], |n| &n[at]));
        }
        fs::write(file, text(&written)).unwrap();
        return (steps.len(), Ok(()));
    }
    for (at, step) in steps.iter().enumerate() {
        for (mark, said) in [("old", Some(&old)), ("new", new.as_ref())] {
            let Some(said) = said.map(|s| &s[at]) else { continue };
            let expect = expected(&step.said, mark);
            if *said != expect {
                let (said, expect) = (said.join("\n"), expect.join("\n"));
                let why = format!("$ {}\n--- expected ({mark})\n{expect}\n+++ said\n{said}", step.command);
                return (steps.len(), Err(format!("{}: {why}", file.display())));
            }
        }
    }
    (steps.len(), Ok(()))
}

#[test]
fn kubectl_says_what_it_should() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let only = std::env::var("LIMPET_TRANSCRIPT").unwrap_or_default();
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.to_string_lossy().contains(&only));
    files.sort();
    if newer().is_none() {
        eprintln!("only the kubectl on PATH: `cargo xtask setup` fetches the second one");
    }
    let update = std::env::var_os("LIMPET_UPDATE").is_some();
    let outcomes: Vec<_> = files.iter().map(|file| check(file, update)).collect();
    let commands: usize = outcomes.iter().map(|(count, _)| count).sum();
    println!("{commands} commands in {} transcripts", files.len());
    let wrong: Vec<&String> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong[0]);
    assert!(!only.is_empty() || commands >= 300, "only {commands} commands");
}

#[test]
fn a_transcript_is_written_as_it_was_read() {
    let source = "# about\n$ kubectl a 'b c' <<E\nx: 1\nE\nold| one\nnew| two\n[1]\n\n# more\n$ kubectl d\n";
    let steps = parse(source);
    assert_eq!(text(&steps), source);
    assert_eq!(words("kubectl a 'b c' \"\" d=\"e f\""), ["kubectl", "a", "b c", "", "d=e f"]);
    assert_eq!(expected(&steps[0].said, "old"), ["one"]);
    assert_eq!(normal("a   1/1   5m3s   10.96.3.4   80:31234/TCP"), "a   1/1   AGE   10.96.X.X   80:PORT/TCP");
}
