//! The real binary: start, stop, tokens, and kill -9 in the middle of writing.
//!
//! In: a data directory of its own, ports chosen by the kernel. Out: what a user of the command line sees.
//! Never: waits for time to pass; always for a condition.

#![allow(clippy::unwrap_used)]

use limpet_hub::operate::client::Client;
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const LONG: Duration = Duration::from_secs(60);

fn limpet(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limpet"));
    command.args(args).arg("--data-dir").arg(dir).env_remove("LIMPET_LOG");
    command
}

fn output(args: &[&str], dir: &Path) -> Output {
    limpet(args, dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

struct Hub {
    child: Child,
    client: Client,
}

const PORTS: [&str; 6] =
    ["--api-listen", "127.0.0.1:0", "--mqtt-listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"];

impl Hub {
    fn start(dir: &Path) -> Hub {
        let mut arguments = vec!["hub"];
        arguments.extend(PORTS);
        // The port is a new one at each start: the old kubeconfig would lead nowhere.
        let kubeconfig = dir.join("admin.kubeconfig");
        let _ = std::fs::remove_file(&kubeconfig);
        let mut child = limpet(&arguments, dir).stderr(Stdio::inherit()).spawn().unwrap();
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < LONG, "the hub does not become ready");
            assert!(child.try_wait().unwrap().is_none(), "the hub ended");
            if let Ok(client) = Client::from_kubeconfig(&kubeconfig)
                && matches!(ask(&client, "GET", "/readyz", None), Ok((200, _)))
            {
                return Hub { child, client };
            }
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: i32) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([format!("-{signal}"), pid]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ask(client: &Client, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = body.map(|b| b.to_string().into_bytes());
    let (code, bytes) = runtime.block_on(client.request(method, path, body))?;
    Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
}

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

#[test]
fn the_hub_starts_answers_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    // Made when missing, as the help says.
    let dir = dir.path().join("deep/down");
    let mut hub = Hub::start(&dir);
    let (code, version) = ask(&hub.client, "GET", "/version", None).unwrap();
    assert_eq!((code, version["major"].as_str()), (200, Some("1")));
    let mut second = vec!["hub"];
    second.extend(PORTS);
    let second = output(&second, &dir);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).to_string();
    assert!(said.contains("is a hub running with the same --data-dir?"), "{said}");
    hub.signal(libc::SIGTERM);
    assert!(hub.child.wait().unwrap().success());
    drop(hub);
    let hub = Hub::start(&dir);
    let (code, _) = ask(&hub.client, "GET", "/api/v1/namespaces/default", None).unwrap();
    assert_eq!(code, 200);
}

#[test]
fn tokens_are_made_listed_and_revoked_whether_or_not_the_hub_runs() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = output(&["token", "create"], dir.path());
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("start one first"));
    for running in [true, false] {
        let hub = Hub::start(dir.path());
        if !running {
            hub.signal(libc::SIGTERM);
            let mut hub = hub;
            hub.child.wait().unwrap();
            check_tokens(dir.path());
            continue;
        }
        check_tokens(dir.path());
    }
}

fn check_tokens(dir: &Path) {
    let token = stdout(&output(&["token", "create", "--node", "pi-1", "--uses", "2", "--ttl", "2h"], dir));
    assert!(token.starts_with("limpet1.") && token.trim().len() < 2048, "{token}");
    let listed = stdout(&output(&["token", "list"], dir));
    let row = listed.lines().find(|l| l.contains("pi-1")).unwrap_or_else(|| panic!("{listed}"));
    let id = row.split_whitespace().next().unwrap();
    assert!(row.contains(" 2 "), "{row}");
    stdout(&output(&["token", "revoke", id], dir));
    assert_eq!(output(&["token", "revoke", id], dir).status.code(), Some(1));
    assert_eq!(stdout(&output(&["token", "list"], dir)).lines().count(), 1);
}

#[test]
fn kill_nine_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
    for round in 0..3 {
        let hub = Hub::start(dir.path());
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (client, acknowledged, stop) = (hub.client.clone(), acknowledged.clone(), stop.clone());
                std::thread::spawn(move || {
                    for i in 0.. {
                        let name = format!("c-{round}-{writer}-{i}");
                        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
                        match ask(&client, "POST", CONFIGMAPS, Some(body)) {
                            Ok((201, _)) => acknowledged.lock().unwrap().push(name),
                            // Requests that the kill cut off.
                            _ if stop.load(Ordering::Relaxed) => return,
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        while acknowledged.lock().unwrap().len() < (round + 1) * 40 {
            std::thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        hub.signal(libc::SIGKILL);
        for writer in writers {
            writer.join().unwrap();
        }
    }
    let hub = Hub::start(dir.path());
    let (_, list) = ask(&hub.client, "GET", CONFIGMAPS, None).unwrap();
    let present: Vec<&str> =
        list["items"].as_array().unwrap().iter().filter_map(|i| i["metadata"]["name"].as_str()).collect();
    for name in acknowledged.lock().unwrap().iter() {
        assert!(present.contains(&name.as_str()), "{name} was acknowledged and is gone");
    }
}

#[test]
fn completions_are_printed_for_every_shell() {
    for (shell, marker) in [("bash", "complete -F"), ("zsh", "#compdef limpet"), ("fish", "complete -c limpet")] {
        let output = Command::new(env!("CARGO_BIN_EXE_limpet")).args(["completions", shell]).output().unwrap();
        assert!(stdout(&output).contains(marker), "{shell}");
    }
}

/// A small file system of its own; needs the right to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16m", "limpet-test"]).arg(dir.path()).stderr(Stdio::null());
        mount.status().is_ok_and(|s| s.success()).then_some(SmallDisk(dir))
    }

    /// Leaves no room, or gives it back.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.path().join("ballast")).unwrap();
        let piece = vec![7u8; 64 * 1024];
        while std::io::Write::write_all(&mut ballast, &piece).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.path().join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_loses_nothing_and_passes() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    let dir = disk.0.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    let hub = Hub::start(&dir);
    let create = |client: &Client, i: usize, bytes: usize| {
        let (metadata, data) = (json!({"name": format!("c-{i}")}), json!({"x": "y".repeat(bytes)}));
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
        ask(client, "POST", CONFIGMAPS, Some(body)).unwrap()
    };
    assert_eq!(create(&hub.client, 0, 10).0, 201);
    disk.fill();
    let mut kept = 1;
    let refused = loop {
        let (code, answer) = create(&hub.client, kept, 100_000);
        match code {
            201 => kept += 1,
            _ => break (code, answer),
        }
        assert!(kept < 1000, "the disk never fills up");
    };
    assert_eq!(refused.0, 503, "{}", refused.1);
    assert!(refused.1["message"].as_str().unwrap().contains("full"), "{}", refused.1);
    let count = |client: &Client| {
        let (code, list) = ask(client, "GET", CONFIGMAPS, None).unwrap();
        assert_eq!(code, 200);
        let names = list["items"].as_array().unwrap().iter().filter_map(|i| i["metadata"]["name"].as_str());
        names.filter(|n| n.starts_with("c-")).count()
    };
    assert_eq!(count(&hub.client), kept, "reading goes on");
    disk.free();
    assert_eq!(create(&hub.client, kept, 100_000).0, 201, "there is room again");
    kept += 1;
    hub.signal(libc::SIGKILL);
    drop(hub);
    let hub = Hub::start(&dir);
    assert_eq!(count(&hub.client), kept);
}

#[test]
fn a_hub_in_one_file_and_back() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = dir.path().join("cluster.snapshot");
    let path = file.to_str().unwrap();
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str| json!({"metadata": {"name": name}, "stringData": {"pin": "xyzzy-plugh"}});
    let mut hub = Hub::start(dir.path());
    assert_eq!(ask(&hub.client, "POST", secrets, Some(secret("early"))).unwrap().0, 201);
    stdout(&output(&["hub", "rotate-key"], dir.path()));
    let said = stdout(&output(&["hub", "snapshot", path], dir.path()));
    assert!(said.contains("at revision"), "{said}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let later = ask(&hub.client, "POST", secrets, Some(secret("late"))).unwrap().1;
    let taken = output(&["hub", "restore", path], dir.path());
    let said = String::from_utf8_lossy(&taken.stderr).to_string();
    assert!(!taken.status.success() && said.contains("holds a hub already"), "{said}");
    hub.signal(libc::SIGTERM);
    hub.child.wait().unwrap();
    // Half a snapshot, and a file that is none, leave nothing behind.
    let whole = std::fs::read(&file).unwrap();
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let key = whole.windows(17).position(|w| w == b"BEGIN PRIVATE KEY").unwrap();
    let cut = |bytes: usize| whole[..whole.len() - bytes].to_vec();
    // In the middle are the objects, also where no record is; at the end the sums of everything.
    let spoilt = [cut(whole.len() / 2), cut(4096), flipped(key + 40), flipped(whole.len() / 2), flipped(whole.len() - 2000)];
    for bad in spoilt.into_iter().chain([b"nothing of the kind".to_vec(), b"\x1b[2J".repeat(400)]) {
        let bad_file = dir.path().join("bad");
        std::fs::write(&bad_file, bad).unwrap();
        let refused = output(&["hub", "restore", bad_file.to_str().unwrap()], other.path());
        let said = String::from_utf8_lossy(&refused.stderr).to_string();
        assert!(!refused.status.success() && said.contains("no snapshot") && !said.contains('\x1b'), "{said}");
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0);
    }
    stdout(&output(&["hub", "restore", path], other.path()));
    let hub = Hub::start(other.path());
    let (code, early) = ask(&hub.client, "GET", &format!("{secrets}/early"), None).unwrap();
    assert_eq!((code, early["data"]["pin"].as_str()), (200, Some("eHl6enktcGx1Z2g=")));
    assert_eq!(ask(&hub.client, "GET", &format!("{secrets}/late"), None).unwrap().0, 404);
    let new = ask(&hub.client, "POST", secrets, Some(secret("late"))).unwrap().1;
    let revision = |o: &Value| o["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(revision(&new) > revision(&later), "no revision is given twice");
    let plain = std::fs::read(other.path().join("store.redb")).unwrap();
    assert!(!plain.windows(12).any(|w| w == b"eHl6enktcGx1"), "Secrets are sealed");
}
