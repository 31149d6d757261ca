//! What a board does for its pods and for people at it while there is no hub: names, Services, volumes, images, commands.
//!
//! In: one board that loses power while its hub is dead. Out: what pods get from each other, what `limpet-agent` says.

use limpet_e2e::process::{Output, run};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(120);

fn pod(name: &str, script: &str, mounts: &Value, volumes: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 0, "volumes": volumes, "containers": [{"name": "main",
            "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script], "volumeMounts": mounts}]}})
    .to_string()
}

/// `limpet-agent …`, as somebody at the board types it.
fn on_board(world: &World, words: &[&str]) -> Result<Output> {
    let board = &world.agents[0];
    let pid = board.agent_process()?.pid.to_string();
    let (data, run_dir) = (board.data.to_string_lossy(), board.run.to_string_lossy());
    let program = world.binaries.agent.to_string_lossy();
    let enter = ["-t", &pid, "-m", "-u", "-i", "-n", "-p", "--", &program, "--data-dir", &data, "--run-dir", &run_dir];
    run(Command::new("nsenter").args(enter).args(words))
}

fn says(world: &World, words: &[&str], wanted: &str) -> Result<()> {
    until(&words.join(" "), SOON, || {
        let out = on_board(world, words)?;
        wait::yes(out.stdout.contains(wanted), || format!("{wanted:?} is not in {out:?}"))
    })
}

fn shell<'a>(at: &'a str, line: &'a str) -> Vec<&'a str> {
    vec!["exec", at, "--", "sh", "-c", line]
}

#[test]
fn pods_find_each_other_and_people_see_them_without_a_hub() {
    test(1, &json!({}), |world| {
        let data = json!({"index.html": "the tide"});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page"}, "data": data});
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "book"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {
            "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
        for object in [map, claim, service] {
            world.kubectl.apply(&object.to_string())?;
        }
        let serve = "echo a start >> /book/starts; echo served; exec httpd -f -p 8080 -h /w";
        let mounts = json!([{"name": "w", "mountPath": "/w"}, {"name": "b", "mountPath": "/book"}]);
        let volumes = json!([{"name": "w", "configMap": {"name": "page"}},
            {"name": "b", "persistentVolumeClaim": {"claimName": "book"}}]);
        world.kubectl.apply(&pod("web", serve, &mounts, &volumes))?;
        world.kubectl.apply(&pod("client", "exec sleep 100000", &json!([]), &json!([])))?;
        world.kubectl.say("wait --for=condition=Ready pod/web pod/client --timeout=120s")?;
        // Not wget's own -T: Debian 12's busybox crashes on it.
        let get = |url: &str| format!("timeout 3 wget -qO- {url}");
        says(world, &shell("client/main", &get("http://web/index.html")), "the tide")?;

        world.hub.kill();
        world.agents[0].power_cut()?;
        world.agents[0].start(None)?;
        says(world, &["ps"], "web")?;
        for url in ["http://web/index.html", "http://web.default.svc.cluster.local/index.html"] {
            says(world, &shell("client/main", &get(url)), "the tide")?;
        }
        // The volume is the one of before, the program began once more.
        says(world, &shell("web/main", "grep -c start /book/starts"), "2")?;
        says(world, &["logs", "web", "--tail", "1"], "served")?;
        says(world, &["images"], "hub.limpet/busybox:1")?;
        let nobody = on_board(world, &shell("client/main", "nslookup nobody.default.svc.cluster.local"))?;
        wait::yes(nobody.code != 0, || format!("a Service that is not there has an address: {nobody:?}"))?;
        // A server that dies is a server again, and its Service with it.
        let httpd = world.named("httpd");
        on_board(world, &shell("web/main", "kill -9 1"))?;
        for process in httpd {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.pid), nix::sys::signal::Signal::SIGKILL);
        }
        says(world, &shell("web/main", "grep -c start /book/starts"), "3")?;
        says(world, &shell("client/main", &get("http://web/index.html")), "the tide")
    });
}
