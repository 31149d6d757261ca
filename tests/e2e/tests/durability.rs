//! kill -9 of the hub while people write: what was acknowledged is there afterwards.
//!
//! In: a stream of writes, kills in between. Out: every acknowledged object, and boards that carry on.

use limpet_e2e::process::run;
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, wait};
use serde_json::json;
use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KILLS: usize = 4;

#[test]
fn acknowledged_writes_survive_kills() {
    test(1, &json!({}), |world| {
        world.kubectl.apply(limpet_e2e::tour::WORKLOAD)?;
        limpet_e2e::tour::running(world, 3)?;
        let before = world.named("demo-web");
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3).map(|n| writer(world, n, acknowledged.clone(), stop.clone())).collect();
        for round in 1..=KILLS {
            let enough = || {
                let count = acknowledged.lock().map_or(0, |a| a.len());
                wait::yes(count >= round * 10, || format!("{count} writes"))
            };
            limpet_e2e::until("writes", Duration::from_secs(60), enough)?;
            world.hub.kill();
            world.hub.start()?;
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let _ = writer.join();
        }
        let names = world.kubectl.say("get configmaps -l written=yes -o name")?;
        let there: BTreeSet<String> = names.lines().map(str::to_string).collect();
        let acknowledged = acknowledged.lock().map(|a| a.clone()).unwrap_or_default();
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        println!("{} acknowledged, {} there, {KILLS} kills", acknowledged.len(), there.len());
        wait::yes(lost.is_empty(), || format!("lost: {lost:?}"))?;
        world.nodes_ready(Duration::from_secs(60))?;
        limpet_e2e::tour::running(world, 3)?;
        wait::yes(world.named("demo-web") == before, || "containers were restarted by the hub's restarts".to_string())
    });
}

/// Creates ConfigMaps one after the other; the name is kept once kubectl says that it was created.
fn writer(
    world: &World,
    number: usize,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
) -> std::thread::JoinHandle<()> {
    let kubectl = world.kubectl.clone();
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            count += 1;
            if let Ok(Some(name)) = write(&kubectl, &format!("w{number}-{count}"))
                && let Ok(mut all) = acknowledged.lock()
            {
                all.insert(name);
            }
        }
    })
}

fn write(kubectl: &limpet_e2e::Kubectl, name: &str) -> Result<Option<String>> {
    let manifest = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"written": "yes"}}, "data": {"k": "v"}});
    let out = kubectl.with_input(&["create", "--validate=false", "-o", "name", "-f", "-"], &manifest.to_string())?;
    Ok((out.code == 0).then(|| out.stdout.trim().to_string()))
}

#[test]
fn the_hub_ends_cleanly_on_sigterm_and_refuses_a_second_one() {
    test(0, &json!({}), |world| {
        let mut second = Command::new(&world.binaries.hub);
        second.args(["hub", "--data-dir"]).arg(&world.hub.dir).args(["--api-listen", "127.0.0.1:0"]);
        let refused = run(second.args(["--mqtt-listen", "127.0.0.1:0", "--registry-listen", "127.0.0.1:0"]))?;
        wait::yes(refused.code != 0 && !refused.stderr.is_empty(), || format!("a second hub: {refused:?}"))?;
        let code = world.hub.stop()?;
        wait::yes(code == 0, || format!("SIGTERM: exit code {code}"))?;
        // Tokens are made without a running hub, too.
        let token = world.hub.token(&[])?;
        wait::yes(token.starts_with("limpet1."), || token)?;
        world.hub.start()
    });
}
