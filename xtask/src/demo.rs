//! `cargo xtask demo`: the whole of Limpet on one machine, to touch; with `--check` the tour, unattended.
//!
//! In: this workspace. Out: a running hub with two boards and a workload until Ctrl-C; or a table of steps with their times.
//! Never: leaves anything behind (tests/e2e's `Slot` also removes what an earlier run that crashed has left).

use crate::{setup, sh};
use limpet_e2e::{Binaries, Result, World, tour};
use nix::sys::signal::{SigSet, Signal};
use std::io::Write;
use std::time::{Duration, Instant};

pub fn possible() -> Result<()> {
    match sh::is_root() {
        true => Ok(()),
        false => Err("the demo makes network namespaces and containers, which needs root: \
                      sudo -E env \"PATH=$PATH\" cargo xtask demo"
            .to_string()),
    }
}

pub fn run(check: bool) -> Result<()> {
    possible()?;
    setup::run()?;
    if check { tour_unattended() } else { stay() }
}

/// One line a step, its time at the end.
struct Steps {
    failed: usize,
    passed: usize,
    started: Instant,
}

impl Steps {
    fn new() -> Steps {
        Steps { failed: 0, passed: 0, started: Instant::now() }
    }

    fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let done = work();
        self.told(name, done.as_ref().map(|_| start.elapsed()).map_err(Clone::clone));
        done
    }

    fn told(&mut self, name: &str, outcome: Result<Duration>) {
        match outcome {
            Ok(time) => {
                self.passed += 1;
                println!("  ok    {:>7.2} s  {name}", time.as_secs_f64());
            }
            Err(why) => {
                self.failed += 1;
                println!("  FAIL             {name}\n{}", indent(&why));
            }
        }
        let _ = std::io::stdout().flush();
    }

    fn world(&mut self) -> Result<World> {
        let binaries = self.step("build hub, agent and the demo's server", || Binaries::build("dev"))?;
        let mut world = self.step("network namespaces, hub", || World::new(&binaries, 2))?;
        self.step("push the demo's image to the hub's registry", || world.push_demo_image())?;
        self.step("two boards join and are Ready", || world.join())?;
        Ok(world)
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("        {line}\n")).collect()
}

fn tour_unattended() -> Result<()> {
    let mut steps = Steps::new();
    let toured = steps.world().and_then(|mut world| {
        let toured = tour::take(&mut world, |name, outcome| steps.told(name, outcome));
        let cleaned = steps.step("hub and boards are gone without a trace", || clean(world));
        toured.and(cleaned)
    });
    let seconds = steps.started.elapsed().as_secs_f64();
    println!("\nthe tour: {seconds:.1} s\n{} passed, {} failed", steps.passed, steps.failed);
    toured.map_err(|_| "a step of the tour failed: see above".to_string())
}

fn clean(mut world: World) -> Result<()> {
    let code = world.hub.stop()?;
    let (dir, bridge) = (world.slot.dir(), world.slot.bridge());
    drop(world);
    if code != 0 {
        return Err(format!("the hub ended with {code} on SIGTERM"));
    }
    let bridge = std::path::Path::new("/sys/class/net").join(bridge);
    match (dir.exists(), bridge.exists()) {
        (false, false) => Ok(()),
        _ => Err(format!("left: {} or {}", dir.display(), bridge.display())),
    }
}

fn stay() -> Result<()> {
    let mut steps = Steps::new();
    println!("Limpet: one hub, two boards, three replicas. Ctrl-C ends it.\n");
    let mut world = steps.world()?;
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|s| signals.add(s));
    signals.thread_block().map_err(|e| format!("cannot wait for signals: {e}"))?;
    for (name, step) in tour::STEPS.iter().take(2) {
        steps.step(name, || step(&mut world))?;
    }
    let log = world.slot.dir().join("forward.log");
    let (_forward, port) = steps.step("kubectl port-forward", || world.kubectl.forward("service/web", 80, &log))?;
    println!("{}", usage(&world, port));
    let signal = signals.wait().map_err(|e| format!("cannot wait for signals: {e}"))?;
    println!("\n{signal}: cleaning up");
    Ok(())
}

fn usage(world: &World, port: u16) -> String {
    let kubeconfig = world.hub.kubeconfig();
    let kubeconfig = kubeconfig.display();
    let nodes = world.kubectl.say("get nodes").unwrap_or_default();
    let pods = world.kubectl.say("get pods -o wide").unwrap_or_default();
    format!(
        "
{nodes}
{pods}
  The page       http://127.0.0.1:{port}/   (by way of the hub, MQTT and the board)

  In another shell:
    export KUBECONFIG={kubeconfig}
    kubectl get pods -o wide -w
    kubectl logs -f deployment/web
    kubectl exec deployment/web -- /demo-web env
    kubectl scale deployment web --replicas=5
    kubectl edit configmap web        # change the message and watch the page: no restart

  Pull the plug    ip link set lm{slot}n1 down     (and up again)
  The boards' logs {dir}/board-1.log, board-2.log; the hub's: hub.log

  Ctrl-C stops and removes everything.",
        slot = world.slot.number,
        dir = world.slot.dir().display(),
    )
}
