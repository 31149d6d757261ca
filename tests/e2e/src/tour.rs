//! The tour that `cargo xtask demo --check` takes: everything that a newcomer would try first, one step after the other.
//!
//! In: a world with joined boards. Out: each step with its time, told to whoever listens; the first failure ends it.
//! Never: a step that passes without looking at what it is about.

use crate::process::{Process, run};
use crate::world::is_ready;
use crate::{Result, World, until, wait};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

pub const WORKLOAD: &str = include_str!("tour/web.yaml");
const SELECTOR: &str = "app=web";
const PROGRAM: &str = "demo-web";
const LONG: Duration = Duration::from_secs(90);

type Step = (&'static str, fn(&mut World) -> Result<()>);

pub const STEPS: &[Step] = &[
    ("kubectl apply: a Deployment of three, a ConfigMap, a Service", apply),
    ("three pods run, on both boards", three_run),
    ("kubectl logs", logs),
    ("kubectl exec", exec),
    ("kubectl port-forward, and a page through it", forward),
    ("the Service answers on a board", service),
    ("a changed ConfigMap arrives in the running containers", config_map),
    ("a killed agent comes back and adopts its containers", adopt),
    ("hub killed; a board loses power and boots in 1970: its pods run", offline),
    ("the hub returns: nodes Ready, nothing runs twice", reunion),
    ("kubectl scale to five and to one", scale),
    ("kubectl delete: everything is gone", delete),
];

/// Takes every step; `tell` hears of each one and its time.
pub fn take(world: &mut World, mut tell: impl FnMut(&str, Result<Duration>)) -> Result<()> {
    for (name, step) in STEPS {
        let start = Instant::now();
        match step(world) {
            Ok(()) => tell(name, Ok(start.elapsed())),
            Err(why) => {
                tell(name, Err(why.clone()));
                return Err(format!("{name}: {why}"));
            }
        }
    }
    Ok(())
}

pub fn apply(world: &mut World) -> Result<()> {
    world.kubectl.apply(WORKLOAD).map(|_| ())
}

pub fn three_run(world: &mut World) -> Result<()> {
    running(world, 3)?;
    let pods = pods(world)?;
    let on = |name: &str| pods.iter().filter(|p| p["spec"]["nodeName"] == name).count();
    let spread = world.agents.iter().all(|a| on(&a.name) > 0);
    wait::yes(spread, || "they are all on one board".to_string())
}

pub fn pods(world: &World) -> Result<Vec<Value>> {
    world.kubectl.items(&format!("get pods -l {SELECTOR}"))
}

/// Exactly `count` pods, all Ready, none going away, and as many processes.
pub fn running(world: &World, count: usize) -> Result<()> {
    until("pods", LONG, || {
        let pods = pods(world)?;
        let good = |p: &&Value| is_ready(p) && p["metadata"]["deletionTimestamp"].is_null();
        let ready = pods.iter().filter(good).count();
        let processes = world.named(PROGRAM).len();
        wait::yes(ready == count && pods.len() == count && processes == count, || {
            let list = world.kubectl.say("get pods -o wide").unwrap_or_default();
            format!("{ready} of {count} are Ready, {processes} processes run\n{list}")
        })
    })
    .map_err(|why| {
        let events = world.kubectl.say("get events --sort-by=.lastTimestamp").unwrap_or_default();
        format!("{why}\n{events}\n{}", world.logs())
    })
}

fn name(pod: &Value) -> String {
    pod["metadata"]["name"].as_str().unwrap_or_default().to_string()
}

fn names(world: &World) -> Result<Vec<String>> {
    Ok(pods(world)?.iter().map(name).collect())
}

fn contains(text: &str, what: &str) -> Result<()> {
    wait::yes(text.contains(what), || format!("{what:?} is not in {text:?}"))
}

fn logs(world: &mut World) -> Result<()> {
    for pod in names(world)? {
        let text = until("the log", LONG, || {
            let text = world.kubectl.run(&["logs", &pod])?;
            contains(&text, "listening on port 8080").map(|()| text)
        })?;
        contains(&text, &format!("pod {pod}"))?;
    }
    let last = world.kubectl.run(&["logs", &format!("-l{SELECTOR}"), "--tail=1"])?;
    wait::yes(last.lines().count() == 3, || format!("--tail=1 of three pods: {last:?}"))
}

fn exec(world: &mut World) -> Result<()> {
    for pod in names(world)? {
        let text = world.kubectl.run(&["exec", &pod, "--", "/demo-web", "cat", "/etc/demo/message"])?;
        contains(&text, "The tide is in.")?;
        let failed = world.kubectl.output(&["exec", &pod, "--", "/demo-web", "exit", "42"])?;
        wait::yes(failed.code == 42, || format!("exit code 42 arrived as {}: {}", failed.code, failed.stderr))?;
    }
    Ok(())
}

/// GET without a proxy, as text.
pub fn get(url: &str) -> Result<String> {
    let words = ["--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "10", url];
    run(Command::new("curl").args(words))?.ok(&format!("curl {url}"))
}

fn forward(world: &mut World) -> Result<()> {
    let log = world.slot.dir().join("forward.log");
    for target in [format!("pod/{}", names(world)?[0]), "deployment/web".to_string(), "service/web".to_string()] {
        let port = if target.starts_with("service") { 80 } else { 8080 };
        let (_daemon, port) = world.kubectl.forward(&target, port, &log)?;
        for _ in 0..3 {
            contains(&get(&format!("http://127.0.0.1:{port}/"))?, "The tide is in.").map_err(|e| format!("{target}: {e}"))?;
        }
    }
    Ok(())
}

fn service(world: &mut World) -> Result<()> {
    let service = world.kubectl.json("get service web")?;
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_string();
    for agent in &world.agents {
        let url = format!("http://{address}/");
        until("the Service", Duration::from_secs(20), || {
            let words = ["curl", "--silent", "--show-error", "--fail", "--noproxy", "*", "--max-time", "3", &url];
            contains(&agent.inside(&words)?.ok(&format!("curl {url} on {}", agent.name))?, "The tide is in.")
        })?;
    }
    Ok(())
}

fn message(world: &World, pod: &str) -> Result<String> {
    world.kubectl.run(&["exec", pod, "--", "/demo-web", "cat", "/etc/demo/message"])
}

fn config_map(world: &mut World) -> Result<()> {
    let before = world.named(PROGRAM);
    world.kubectl.apply(&WORKLOAD.replace("The tide is in.", "The tide is out."))?;
    for pod in names(world)? {
        until("the new message", LONG, || contains(&message(world, &pod)?, "The tide is out."))?;
    }
    same(&before, &world.named(PROGRAM))
}

fn same(before: &[Process], after: &[Process]) -> Result<()> {
    wait::yes(before == after, || format!("processes were restarted: {before:?} are now {after:?}"))
}

fn adopt(world: &mut World) -> Result<()> {
    let before = world.agents[0].named(PROGRAM);
    let agent = world.agents[0].agent_process()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.pid), nix::sys::signal::Signal::SIGKILL)
        .map_err(|e| format!("cannot kill the agent: {e}"))?;
    until("a new agent", LONG, || {
        let new = world.agents[0].agent_process()?;
        wait::yes(new != agent, || "the old one is still there".to_string())
    })?;
    let pod = pods(world)?.into_iter().find(|p| p["spec"]["nodeName"] == world.agents[0].name.as_str());
    let pod = pod.map(|p| name(&p)).ok_or("there is no pod on the first board")?;
    until("exec by the new agent", LONG, || contains(&message(world, &pod)?, "The tide"))?;
    same(&before, &world.agents[0].named(PROGRAM))
}

fn offline(world: &mut World) -> Result<()> {
    let before: Vec<usize> = world.agents.iter().map(|a| a.named(PROGRAM).len()).collect();
    let untouched = world.agents[1].named(PROGRAM);
    world.hub.kill();
    world.agents[0].power_cut()?;
    // No hub, no registry, and a clock that starts where clocks start.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let offset = format!("-{now}");
    world.agents[0].start_with(None, &[("LIMPET_FAKE_WALL_OFFSET_S", &offset)])?;
    until("pods without the hub", LONG, || {
        world.agents[0].check()?;
        let count = world.agents[0].named(PROGRAM).len();
        wait::yes(count == before[0], || format!("{count} of {} run", before[0]))
    })
    .map_err(|why| format!("{why}\n{}", world.agents[0].log_tail()))?;
    let agent = world.agents[0].agent_process()?;
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", agent.pid)).unwrap_or_default();
    contains(&environment, &offset)?;
    same(&untouched, &world.agents[1].named(PROGRAM))
}

fn reunion(world: &mut World) -> Result<()> {
    let before = world.named(PROGRAM);
    world.hub.start()?;
    world.nodes_ready(LONG)?;
    running(world, 3)?;
    for pod in names(world)? {
        until("exec after the return", LONG, || contains(&message(world, &pod)?, "The tide is out."))?;
    }
    same(&before, &world.named(PROGRAM))
}

fn scale(world: &mut World) -> Result<()> {
    for count in [5, 1] {
        world.kubectl.say(&format!("scale deployment web --replicas={count}"))?;
        running(world, count)?;
    }
    Ok(())
}

fn delete(world: &mut World) -> Result<()> {
    world.kubectl.with_input(&["delete", "-f", "-"], WORKLOAD)?.ok("kubectl delete")?;
    until("the end of everything", LONG, || {
        let left = world.named(PROGRAM);
        let pods = names(world)?;
        let sets = world.kubectl.items(&format!("get replicasets -l {SELECTOR}"))?.len();
        wait::yes(left.is_empty() && pods.is_empty() && sets == 0, || {
            format!("left: processes {left:?}, pods {pods:?}, {sets} ReplicaSets")
        })
    })
    .map_err(|why| format!("{why}\n{}", world.logs()))
}
