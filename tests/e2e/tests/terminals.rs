//! Logs with every option over rotated files, terminals that change their size, and connections into pods.
//!
//! In: containers that talk and listen, kubectl on a terminal. Out: every line once and in order, sizes as they are, bytes as
//! they were sent.

use limpet_e2e::world::test;
use limpet_e2e::{Kubectl, Result, World, process, until, wait};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// So long are the lines of the container that talks.
const LINE_BYTES: usize = 60;
const LINES: usize = 6000;

fn container(name: &str, line: &str, more: Value) -> Value {
    let mut container = json!({"name": name, "image": "hub.limpet/busybox:1", "command": ["sh", "-c", line]});
    if let (Some(all), Some(more)) = (container.as_object_mut(), more.as_object()) {
        all.extend(more.clone());
    }
    container
}

fn apply(world: &World, name: &str, init: Vec<Value>, containers: Vec<Value>) -> Result<()> {
    let spec = json!({"terminationGracePeriodSeconds": 0, "initContainers": init, "containers": containers});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    world.kubectl.apply(&pod.to_string())?;
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ())
}

/// The numbers at the beginning of lines, one after the other.
fn numbers(text: &str) -> Result<Vec<usize>> {
    let all: Option<Vec<usize>> = text.lines().map(|line| line.get(..6)?.parse().ok()).collect();
    let all = all.ok_or_else(|| format!("lines without numbers in {} bytes: {:?}", text.len(), text.lines().next()))?;
    let gap = all.windows(2).find(|two| two[1] != two[0] + 1);
    wait::yes(gap.is_none(), || format!("a gap: {gap:?}"))?;
    Ok(all)
}

#[test]
fn logs_over_rotated_files() {
    test(1, &json!({"containerLogBytesMax": 65_536, "containerLogFilesMax": 3}), |world| {
        let kubectl = &world.kubectl;
        // As many bytes as the files hold three times. The follower has the first line before the others are written, and these
        // come no faster than it can follow on a busy machine: what is rotated away before that would be lost, as on a kubelet.
        let filler = "x".repeat(LINE_BYTES - 8);
        let print = format!("printf '%06d {filler}\\n' $n");
        let talk = format!(
            "n=1; {print}; until [ -f /go ]; do sleep 0.1; done; while [ $n -lt {LINES} ]; do n=$((n+1)); {print}; \
             [ $((n % 50)) = 0 ] && sleep 0.1; done; sleep 100000"
        );
        apply(world, "talker", vec![], vec![container("c", &talk, json!({}))])?;
        let followed = world.slot.dir().join("followed");
        let follower = kubectl.start(&["logs", "-f", "talker"], &followed)?;
        until("the first line", SOON, || {
            let text = std::fs::read_to_string(&followed).map_err(|e| e.to_string())?;
            wait::yes(text.starts_with("000001"), || text)
        })?;
        kubectl.say("exec talker -- touch /go")?;
        until("the last line", SOON, || {
            let text = kubectl.say("logs talker --tail=1")?;
            wait::yes(numbers(&text)? == [LINES], || text)
        })?;
        let all = numbers(&kubectl.say("logs talker")?)?;
        println!("{} lines are left of {LINES}", all.len());
        // Three files of 64 KiB, in which every line has its time before it.
        wait::yes(all.last() == Some(&LINES) && (1200..3400).contains(&all.len()), || format!("{} lines", all.len()))?;
        let tail = numbers(&kubectl.say("logs talker --tail=1100")?)?;
        wait::yes(tail.len() == 1100 && tail[1099] == LINES, || format!("{} lines of 1100, over two files", tail.len()))?;
        let none = kubectl.say("logs talker --tail=0")?;
        wait::yes(none.is_empty(), || none)?;
        for bytes in [1, 59, 61, 1000, 50_000] {
            let text = kubectl.say(&format!("logs talker --limit-bytes={bytes}"))?;
            wait::yes(text.len() == bytes, || format!("{} bytes and not {bytes}", text.len()))?;
        }
        since(world)?;
        until("all that was followed", SOON, || {
            let text = std::fs::read_to_string(&followed).map_err(|e| e.to_string())?;
            let got = numbers(text.trim_end_matches(|c| c != '\n'))?;
            wait::yes(got.len() == LINES && got[0] == 1, || format!("{} lines were followed", got.len()))
        })?;
        drop(follower);
        several(world)
    });
}

fn since(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    let stamped = kubectl.say("logs talker --timestamps --tail=3")?;
    let first = stamped.split(' ').next().unwrap_or_default().to_string();
    // RFC 3339 with nine digits and in order, as log shippers sort them.
    let times: Vec<&str> = stamped.lines().filter_map(|line| line.split(' ').next()).collect();
    let exact = |t: &&str| t.len() == 30 && t.ends_with('Z') && t.as_bytes()[19] == b'.' && t.starts_with("20");
    wait::yes(times.len() == 3 && times.iter().all(exact) && times.is_sorted(), || stamped.clone())?;
    // It says nothing more: what is younger than a second becomes nothing, what is younger than an hour is all.
    until("a second without a line", SOON, || {
        let young = kubectl.say("logs talker --since=1s")?;
        wait::yes(young.is_empty(), || format!("{} bytes", young.len()))
    })?;
    let hour = numbers(&kubectl.say("logs talker --since=1h")?)?;
    wait::yes(hour.last() == Some(&LINES) && hour.len() > 1000, || format!("{} lines of the last hour", hour.len()))?;
    let few = numbers(&kubectl.say("logs talker --since=1h --tail=7 --limit-bytes=120")?)?;
    wait::yes(few == [LINES - 6, LINES - 5], || format!("{few:?}: the first bytes of the last seven lines"))?;
    let from = kubectl.say(&format!("logs talker --since-time={first}"))?;
    // kubectl sends whole seconds.
    let count = numbers(&from)?.len();
    wait::yes(count >= 3, || format!("{count} lines since {first}"))?;
    let none = kubectl.say("logs talker --since-time=2100-01-01T00:00:00Z")?;
    wait::yes(none.is_empty(), || none)?;
    let all = kubectl.say("logs talker --since-time=2001-01-01T00:00:00Z")?;
    wait::yes(numbers(&all)?.len() > 1000, || "too few".into())?;
    let path = format!("/api/v1/namespaces/default/pods/talker/log?sinceTime={first}&timestamps=true");
    let exact = kubectl.say(&format!("get --raw {path}"))?;
    wait::yes(exact.lines().all(|line| line.split(' ').next().unwrap_or_default() >= &first[..19]), || exact.clone())?;
    let both = kubectl.output(&["logs", "talker", "--since=1s", "--since-time=2001-01-01T00:00:00Z"])?;
    wait::yes(both.code != 0, || both.stdout)?;
    let bad = kubectl.output(&["get", "--raw", "/api/v1/namespaces/default/pods/talker/log?tailLines=-1"])?;
    wait::yes(bad.code != 0 && bad.stderr.contains("tailLines"), || format!("{bad:?}"))
}

/// All containers of a pod, with their names; one that there is not; the one before a restart.
fn several(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    let containers = vec![
        container("a", "echo from a; sleep 100000", json!({})),
        container("b", "echo from b >&2; sleep 100000", json!({})),
    ];
    apply(world, "several", vec![container("first", "echo from first", json!({}))], containers)?;
    until("all words", SOON, || {
        let text = kubectl.say("logs several --all-containers --prefix")?;
        let lines = ["[pod/several/first] from first", "[pod/several/a] from a", "[pod/several/b] from b"];
        wait::yes(lines.iter().all(|line| text.contains(line)), || text)
    })?;
    let default = kubectl.output(&["logs", "several"])?;
    wait::yes(default.stdout == "from a\n" && default.stderr.contains("Defaulted container"), || format!("{default:?}"))?;
    let missing = kubectl.output(&["logs", "several", "-c", "none"])?;
    wait::yes(missing.stderr.contains("container none is not valid for pod several"), || missing.stderr)?;
    let previous = kubectl.output(&["logs", "several", "-c", "a", "--previous"])?;
    wait::yes(previous.stderr.contains("previous terminated container \"a\" in pod \"several\" not found"), || previous.stderr)
}

/// kubectl on a terminal whose size can change while it runs.
struct Session {
    child: Child,
    screen: File,
    end: File,
    shown: Arc<Mutex<String>>,
}

impl Session {
    fn start(kubectl: &Kubectl, words: &[&str]) -> Result<Session> {
        let pty = nix::pty::openpty(None, None).map_err(|e| e.to_string())?;
        let (screen, end) = (File::from(pty.master), File::from(pty.slave));
        let stdio = || end.try_clone().map(Stdio::from).map_err(|e| e.to_string());
        let mut command = Command::new(&kubectl.program);
        command.args(words).env("KUBECONFIG", &kubectl.kubeconfig).stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
        let child = command.spawn().map_err(|e| e.to_string())?;
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut from, to) = (screen.try_clone().map_err(|e| e.to_string())?, shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(got @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..got]));
            }
        });
        Ok(Session { child, screen, end, shown })
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let mut stty = Command::new("stty");
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        let end = self.end.try_clone().map_err(|e| e.to_string())?;
        let done = stty.stdin(Stdio::from(end)).status().map_err(|e| e.to_string())?;
        wait::yes(done.success(), || "stty failed".into())?;
        // The terminal is nobody's controlling one, so the kernel tells nobody.
        process::sh("kill", ["-WINCH", &self.child.id().to_string()]).map(|_| ())
    }

    fn type_in(&mut self, text: &str) -> Result<()> {
        self.screen.write_all(text.as_bytes()).map_err(|e| e.to_string())
    }

    fn shows(&self, words: &str) -> Result<()> {
        until(words, SOON, || {
            let text = self.shown.lock().unwrap().clone();
            wait::yes(text.contains(words), || text)
        })
    }

    fn code(&mut self) -> Result<i32> {
        until("the end of kubectl", SOON, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            _ => Err(self.shown.lock().unwrap().clone()),
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn terminals_and_connections() {
    test(1, &json!({}), |world| {
        // Tells its size whenever that changes.
        let sizes = "trap 'stty size' WINCH; echo ready; while true; do sleep 0.1; done";
        let tty = json!({"tty": true, "stdin": true});
        let listen = container("echo", "nc -ll -p 7777 -e cat", json!({}));
        let six = container("six", "echo at ::1 >/index.html; exec httpd -f -p [::1]:7779 -h /", json!({}));
        apply(world, "screen", vec![], vec![container("c", sizes, tty), listen, six])?;
        let exec = ["exec", "-it", "screen", "-c", "c", "--", "sh", "-c", sizes];
        for words in [&exec[..], &["attach", "-it", "screen", "-c", "c"]] {
            let mut session = Session::start(&world.kubectl, words)?;
            for (rows, columns) in [(31, 71), (40, 120), (2000, 1999)] {
                until("the size", SOON, || {
                    // Only a change is told, and who came first may not have listened yet.
                    for columns in [columns + 1, columns] {
                        session.resize(rows, columns)?;
                        std::thread::sleep(Duration::from_millis(300));
                    }
                    let text = session.shown.lock().unwrap().clone();
                    wait::yes(text.contains(&format!("{rows} {columns}")), || text)
                })?;
            }
            // Detaching by hanging up ends kubectl; the container of `attach` goes on.
            session.child.kill().map_err(|e| e.to_string())?;
            session.code()?;
        }
        let mut shell = Session::start(&world.kubectl, &["exec", "-it", "screen", "-c", "c", "--", "sh"])?;
        shell.type_in("echo $((6*7)); sleep 100\n")?;
        shell.shows("42")?;
        shell.type_in("\u{3}")?;
        shell.type_in("exit 9\n")?;
        let code = shell.code()?;
        wait::yes(code == 9, || format!("exit code {code}: Ctrl-C went astray?"))?;
        let pod = world.kubectl.json("get pod screen")?["status"]["containerStatuses"].take();
        wait::yes(pod.as_array().is_some_and(|all| all.iter().all(|c| c["restartCount"] == 0)), || pod.to_string())?;
        forwards(world)
    });
}

/// Several connections at a time, a megabyte each way in each; a port where nobody listens; the forward outlives that.
fn forwards(world: &World) -> Result<()> {
    let log = world.slot.dir().join("forward.log");
    let (mut forward, port) = world.kubectl.forward("pod/screen", 7777, &log)?;
    let workers: Vec<_> = (0u8..4)
        .map(|n| {
            std::thread::spawn(move || -> std::io::Result<bool> {
                let stream = TcpStream::connect(("127.0.0.1", port))?;
                stream.set_read_timeout(Some(SOON))?;
                let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i as u8).wrapping_mul(n + 1)).collect();
                let (mut to, copy) = (stream.try_clone()?, sent.clone());
                let writer = std::thread::spawn(move || to.write_all(&copy));
                let (mut from, mut got) = (stream, vec![0; sent.len()]);
                from.read_exact(&mut got)?;
                Ok(writer.join().is_ok_and(|done| done.is_ok()) && got == sent)
            })
        })
        .collect();
    for worker in workers {
        let same = worker.join().map_err(|_| "a connection panicked")?.map_err(|e| e.to_string())?;
        wait::yes(same, || "other bytes came back".into())?;
    }
    forward.check()?;
    // What listens at IPv6's loopback alone.
    let (_six, port) = world.kubectl.forward("pod/screen", 7779, &world.slot.dir().join("six.log"))?;
    let mut page = String::new();
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read_to_string(&mut page)
    });
    wait::yes(page.ends_with("at ::1\n"), || format!("{asked:?} {page:?}"))?;
    let log = world.slot.dir().join("closed.log");
    let (mut closed, port) = world.kubectl.forward("pod/screen", 7778, &log)?;
    let mut text = String::new();
    let _ = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"x")?;
        stream.read_to_string(&mut text)
    });
    until("the reason", SOON, || {
        let said = process::tail(&log, 4000);
        wait::yes(said.contains("onnection refused") || said.contains("rror"), || said)
    })?;
    let _ = closed.check();
    several_ports(world)
}

/// Two ports by one kubectl, one of them closed: what is refused is said by its number.
fn several_ports(world: &World) -> Result<()> {
    let log = world.slot.dir().join("ports.log");
    let mut both = world.kubectl.start(&["port-forward", "pod/screen", ":7777", ":7778"], &log)?;
    let local = |port: u16| {
        let text = std::fs::read_to_string(&log).map_err(|e| e.to_string())?;
        let line = text.lines().find(|l| l.contains("127.0.0.1:") && l.ends_with(&format!("-> {port}")));
        let number = line.and_then(|l| l.split("127.0.0.1:").nth(1)?.split(' ').next()?.parse::<u16>().ok());
        number.ok_or(text)
    };
    let (open, closed) = until("both ports", SOON, || Ok::<_, String>((local(7777)?, local(7778)?)))?;
    let echo = |text: &[u8]| -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", open))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(text)?;
        let mut got = vec![0; text.len()];
        stream.read_exact(&mut got).map(|()| got)
    };
    wait::yes(echo(b"before").is_ok_and(|got| got == b"before"), || process::tail(&log, 4000))?;
    let _ = TcpStream::connect(("127.0.0.1", closed)).and_then(|mut stream| {
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"x")?;
        stream.read_to_string(&mut String::new())
    });
    until("the reason", SOON, || {
        let said = process::tail(&log, 4000);
        wait::yes(said.contains("7778") && said.contains("onnection refused"), || said)
    })?;
    println!("{}", process::tail(&log, 4000));
    // kubectl ends with that; another one finds the pod as it was.
    drop(both.check());
    drop(both);
    let (_again, port) = world.kubectl.forward("pod/screen", 7777, &log)?;
    let stream = TcpStream::connect(("127.0.0.1", port)).map(|_| ());
    wait::yes(stream.is_ok(), || format!("{stream:?}"))
}
