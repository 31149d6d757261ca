//! What a pod may use, on whichever version of cgroups the machine has: limits as the kernel holds them, seen from inside.
//!
//! In: requests and limits of containers and pods. Out: numbers in the groups' files, kills, refusals to fork, pages of figures.
//! The same program runs on cgroup v2 alone in an emulated machine (`cargo xtask v2 --e2e groups`).

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const PIDS: u64 = 40;
const RESERVED_MIB: u64 = 64;

fn container(name: &str, script: &str, resources: &Value) -> Value {
    json!({"name": name, "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script], "resources": resources})
}

fn apply(world: &World, name: &str, mut spec: Value) -> Result<()> {
    spec["terminationGracePeriodSeconds"] = json!(0);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    world.kubectl.apply(&pod.to_string()).map(|_| ())
}

fn ready(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ())
}

/// What a shell in the container prints.
fn inside(world: &World, pod: &str, script: &str) -> Result<String> {
    world.kubectl.run(&["exec", pod, "-c", "main", "--", "sh", "-c", script]).map(|text| text.trim().to_string())
}

/// A number of the container's own group, by the names of both versions.
fn number(world: &World, pod: &str, v2: &str, v1: &str) -> Result<String> {
    inside(world, pod, &format!("cd /sys/fs/cgroup; if [ -f cgroup.controllers ]; then cat {v2}; else cat {v1}; fi"))
}

fn is(world: &World, pod: &str, (v2, v1): (&str, &str), wanted: &[&str]) -> Result<()> {
    let got = number(world, pod, v2, v1)?;
    wait::yes(wanted.contains(&got.as_str()), || format!("{pod}: {v2} or {v1} is {got:?}, not one of {wanted:?}"))
}

fn score(world: &World, pod: &str) -> Result<i32> {
    let text = inside(world, pod, "cat /proc/1/oom_score_adj")?;
    text.parse().map_err(|e| format!("{pod}: {text:?}: {e}"))
}

fn state_of(status: &Value, container: &str) -> Value {
    let mut all = status["containerStatuses"].as_array().into_iter().flatten();
    all.find(|c| c["name"] == container).map(|c| c["state"].clone()).unwrap_or_default()
}

/// The container beside the one that was killed is there.
fn stays(world: &World, pod: &str) -> Result<()> {
    let there = world.kubectl.run(&["exec", pod, "-c", "other", "--", "true"]);
    there.map(|_| ()).map_err(|why| format!("its neighbour went along: {why}"))
}

#[test]
fn limits_hold() {
    let settings = json!({"podPidsLimit": PIDS, "reservedMemoryMib": RESERVED_MIB, "reservedCpuMilli": 250});
    test(1, &settings, |world| {
        one_group_a_pod(world)?;
        classes(world)?;
        many_processes(world)?;
        out_of_memory(world)?;
        whole_pods(world)?;
        resized(world)?;
        dashboards_find_their_names(world)?;
        waiting_is_counted(world)
    });
}

/// The directory of a process's group, as this machine sees it, and whether it is of cgroup v2.
fn group_of(pid: i32, controller: &str) -> Result<(PathBuf, bool)> {
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
    let path = |wanted: &dyn Fn(&str) -> bool| {
        text.lines().find_map(|line| line.split_once(':')?.1.split_once(':').filter(|(list, _)| wanted(list)).map(|(_, p)| p))
    };
    let root = Path::new("/sys/fs/cgroup");
    let of = |root: PathBuf, path: &str| root.join(path.trim_start_matches('/'));
    match path(&|list| list.split(',').any(|name| name == controller)) {
        Some(path) => Ok((of(root.join(controller), path), false)),
        None => path(&str::is_empty).map(|path| (of(root.into(), path), true)).ok_or(text.clone()),
    }
}

/// All of a pod is in one group with the pod's limits, below its class, below all pods, which leave to the system what is its.
fn one_group_a_pod(world: &World) -> Result<()> {
    let of = |cpu: &str, memory: &str| json!({"limits": {"cpu": cpu, "memory": memory}});
    let containers = json!([container("main", "exec sleep 100011", &of("100m", "24Mi")),
        container("other", "exec sleep 100012", &of("200m", "40Mi"))]);
    apply(world, "pair", json!({"containers": containers}))?;
    apply(world, "beside", json!({"containers": [container("main", "exec sleep 100013", &json!({}))]}))?;
    ready(world, "pair")?;
    ready(world, "beside")?;
    let process = |seconds: &str| {
        until("a container's process", SOON, || {
            let line = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let found = world.named("sleep").into_iter().find(|p| line(p.pid).contains(seconds));
            found.map(|p| p.pid).ok_or_else(|| format!("no sleep {seconds}"))
        })
    };
    let (main, other, beside) = (process("100011")?, process("100012")?, process("100013")?);
    let above = |pid: i32, controller: &str| -> Result<(PathBuf, bool)> {
        let (dir, v2) = group_of(pid, controller)?;
        Ok((dir.parent().map(Path::to_path_buf).unwrap_or_default(), v2))
    };
    let says = |dir: &Path, v2: bool, names: (&str, &str), wanted: &[&str]| {
        let file = dir.join(if v2 { names.0 } else { names.1 });
        let text = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
        wait::yes(wanted.contains(&text.trim()), || format!("{}: {text:?}, not one of {wanted:?}", file.display()))
    };
    for (controller, names, wanted) in [
        ("memory", ("memory.max", "memory.limit_in_bytes"), "67108864"),
        ("cpu", ("cpu.max", "cpu.cfs_quota_us"), "30000 100000"),
        ("pids", ("pids.max", "pids.max"), "40"),
    ] {
        let (pod, v2) = above(main, controller)?;
        let own = group_of(main, controller)?.0 != group_of(other, controller)?.0;
        wait::yes(own && pod == above(other, controller)?.0, || format!("{} is not of both", pod.display()))?;
        wait::yes(pod != above(beside, controller)?.0, || format!("{} is of two pods", pod.display()))?;
        says(&pod, v2, names, &[wanted, wanted.split(' ').next().unwrap_or_default()])?;
    }
    // Who asks for nothing weighs as little as the kernel knows.
    let (pod, v2) = above(beside, "cpu")?;
    says(pod.parent().unwrap_or(&pod), v2, ("cpu.weight", "cpu.shares"), &["1", "2"])?;
    let status = world.kubectl.json("get node board-1")?["status"].take();
    let kib = |of: &str| status[of]["memory"].as_str().and_then(|text| text.strip_suffix("Ki")?.parse::<u64>().ok()).unwrap_or(0);
    let (all, pods) = (kib("capacity"), kib("allocatable"));
    wait::yes(pods > 0 && pods + (RESERVED_MIB << 10) <= all, || format!("{pods} of {all} KiB are for pods"))?;
    let (pod, v2) = above(main, "memory")?;
    let limit = ((all - (RESERVED_MIB << 10)) << 10).to_string();
    says(pod.parent().unwrap_or(&pod), v2, ("memory.max", "memory.limit_in_bytes"), &[&limit])?;
    let milli = |of: &str| {
        let text = status[of]["cpu"].as_str().unwrap_or_default();
        text.strip_suffix('m').map_or_else(|| text.parse::<u64>().map(|n| n * 1000), str::parse).unwrap_or(0)
    };
    let (all, pods) = (milli("capacity"), milli("allocatable"));
    wait::yes(pods > 0 && pods + 250 == all, || format!("{pods} of {all} thousandths are for pods"))?;
    let large = json!({"requests": {"cpu": format!("{}m", pods + 1)}});
    apply(world, "large", json!({"nodeName": "board-1", "containers": [container("main", "sleep 100000", &large)]}))?;
    let amounts = format!("requested: {}, used: 300, capacity: {pods}", pods + 1);
    let words = format!("Pod was rejected: Node didn't have enough resource: cpu, {amounts}");
    limpet_e2e::pods::rejected(world, "large", "OutOfcpu", &words)?;
    world.kubectl.say("delete pods --all").map(|_| ())
}

/// Guaranteed, Burstable, BestEffort: weights, quotas, bytes, and who is killed first.
fn classes(world: &World) -> Result<()> {
    let all = json!({"limits": {"cpu": "250m", "memory": "48Mi"}});
    apply(world, "guaranteed", json!({"containers": [container("main", "sleep 100000", &all)]}))?;
    let some = json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}});
    apply(world, "burstable", json!({"containers": [container("main", "sleep 100000", &some)]}))?;
    apply(world, "besteffort", json!({"containers": [container("main", "sleep 100000", &json!({}))]}))?;
    for (name, class) in [("guaranteed", "Guaranteed"), ("burstable", "Burstable"), ("besteffort", "BestEffort")] {
        ready(world, name)?;
        let said = world.kubectl.say(&format!("get pod {name} -o jsonpath={{.status.qosClass}}"))?;
        wait::yes(said == class, || format!("{name}: {said}"))?;
    }
    let memory = ("memory.max", "memory/memory.limit_in_bytes");
    is(world, "guaranteed", memory, &["50331648"])?;
    is(world, "burstable", memory, &["67108864"])?;
    is(world, "besteffort", memory, &["max", "9223372036854771712"])?;
    let quota = ("cpu.max", "cpu/cpu.cfs_quota_us");
    is(world, "guaranteed", quota, &["25000 100000", "25000"])?;
    is(world, "burstable", quota, &["max 100000", "-1"])?;
    // 256 and 102 shares; the second version's numbers are those of runc and crun, by their older and newer rule.
    let weight = ("cpu.weight", "cpu/cpu.shares");
    is(world, "guaranteed", weight, &["10", "35", "256"])?;
    is(world, "burstable", weight, &["4", "17", "102"])?;
    // Nobody gets a lower score than the keeper has where that could not lower its own (a container without CAP_SYS_RESOURCE).
    let keeper = format!("/proc/{}/oom_score_adj", world.agents[0].keeper_process()?.pid);
    let least = std::fs::read_to_string(&keeper).ok().and_then(|text| text.trim().parse::<i32>().ok()).unwrap_or(0);
    let got = score(world, "guaranteed")?;
    wait::yes(got == least.max(-997), || format!("a guaranteed container's score is {got}, the keeper's {least}"))?;
    let agent = format!("/proc/{}/oom_score_adj", world.agents[0].agent_process()?.pid);
    let its = std::fs::read_to_string(&agent).map_err(|e| format!("{agent}: {e}"))?;
    wait::yes(its.trim().parse::<i32>().is_ok_and(|n| n <= got), || format!("the agent's score is {its}, a container's {got}"))?;
    wait::yes(score(world, "besteffort")? == 1000, || "a best-effort container is not the first to go".into())?;
    let middle = score(world, "burstable")?;
    wait::yes((3..1000).contains(&middle), || format!("burstable: {middle}"))?;
    world.kubectl.say("delete pods --all").map(|_| ())
}

fn many_processes(world: &World) -> Result<()> {
    let fork = "for i in $(seq 100); do sleep 100000 & done; echo all; wait";
    apply(world, "forks", json!({"restartPolicy": "Never", "containers": [container("main", fork, &json!({}))]}))?;
    until("a fork is refused", SOON, || {
        let said = world.kubectl.say("logs forks")?;
        wait::yes(said.contains("can't fork"), || said)
    })?;
    world.kubectl.say("delete pod forks").map(|_| ())
}

/// Of a container that goes over its limit everything goes, whoever of it took the memory.
fn out_of_memory(world: &World) -> Result<()> {
    let limit = json!({"limits": {"memory": "24Mi"}});
    let eater = "echo begun; tail /dev/zero";
    apply(world, "eater", json!({"restartPolicy": "Never", "containers": [
        container("main", eater, &limit), container("other", "sleep 100000", &limit)]}))?;
    until("the kill", SOON, || {
        let status = world.kubectl.json("get pod eater")?["status"].take();
        let ended = &state_of(&status, "main")["terminated"];
        wait::yes(ended["reason"] == "OOMKilled" && ended["exitCode"] == 137, || status.to_string())
    })?;
    stays(world, "eater")?;
    world.kubectl.say("delete pod eater").map(|_| ())
}

/// Limits of the pod as a whole count for containers without any; who goes over them goes alone.
fn whole_pods(world: &World) -> Result<()> {
    let containers = json!([container("main", "tail /dev/zero", &json!({})), container("other", "sleep 100000", &json!({}))]);
    let resources = json!({"limits": {"cpu": "500m", "memory": "32Mi"}});
    apply(world, "whole", json!({"restartPolicy": "Never", "resources": resources, "containers": containers}))?;
    until("the pod's limit", SOON, || {
        let status = world.kubectl.json("get pod whole")?["status"].take();
        let reason = &state_of(&status, "main")["terminated"]["reason"];
        wait::yes(reason == "OOMKilled" && status["qosClass"] == "Guaranteed", || status.to_string())
    })?;
    stays(world, "whole")?;
    world.kubectl.say("delete pod whole").map(|_| ())
}

/// In place: the same process, other numbers.
fn resized(world: &World) -> Result<()> {
    let small = json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}});
    apply(world, "grows", json!({"containers": [container("main", "sleep 100000", &small)]}))?;
    ready(world, "grows")?;
    let large = json!({"requests": {"cpu": "150m", "memory": "64Mi"}, "limits": {"cpu": "400m", "memory": "64Mi"}});
    let patch = json!({"spec": {"containers": [{"name": "main", "resources": large}]}}).to_string();
    world.kubectl.run(&["patch", "pod", "grows", "--subresource=resize", "-p", &patch])?;
    until("the new limits", SOON, || {
        is(world, "grows", ("memory.max", "memory/memory.limit_in_bytes"), &["67108864"])?;
        is(world, "grows", ("cpu.max", "cpu/cpu.cfs_quota_us"), &["40000 100000", "40000"])
    })?;
    let status = until("what the status says", SOON, || {
        let status = world.kubectl.json("get pod grows")?["status"]["containerStatuses"][0].clone();
        wait::yes(status["resources"]["limits"]["memory"] == "64Mi", || status.to_string())?;
        Ok(status)
    })?;
    wait::yes(status["restartCount"] == 0, || status.to_string())?;
    world.kubectl.say("delete pod grows").map(|_| ())
}

/// Held back by its quota, a container waits; figures say how often, and where the kernel counts stalls, for how long.
fn waiting_is_counted(world: &World) -> Result<()> {
    let slow = json!({"limits": {"cpu": "50m", "memory": "32Mi"}});
    apply(world, "slow", json!({"containers": [container("main", "while true; do :; done", &slow)]}))?;
    ready(world, "slow")?;
    let value = |name: &str| -> Result<f64> {
        let page = world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics/cadvisor")?;
        let ours = |line: &&str| line.starts_with(&format!("{name}{{container=\"main\"")) && line.contains("pod=\"slow\"");
        let line = page.lines().find(ours).ok_or_else(|| format!("no {name} of the pod in the page"))?;
        // `name{labels} value time`
        let number = line.rsplit_once('}').and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| line.to_string())
    };
    let counts = number(world, "slow", "cgroup.controllers", "cpu/cpu.shares")?;
    let v2 = counts.contains("cpu");
    let stalls = v2 && inside(world, "slow", "cat /sys/fs/cgroup/cpu.pressure").is_ok();
    println!("cgroup v2: {v2}, stalls of groups are counted: {stalls}");
    until("throttled periods", SOON, || {
        let periods = value("container_cpu_cfs_throttled_periods_total")?;
        wait::yes(periods > 0.0, || format!("{periods}"))?;
        let waited = if stalls { value("container_pressure_cpu_waiting_seconds_total")? } else { 1.0 };
        wait::yes(waited > 0.0, || format!("{waited} s of waiting"))
    })?;
    world.kubectl.say("delete pod slow").map(|_| ())
}

/// What dashboards of clusters ask cAdvisor for: of a container, and of the whole machine.
const ASKED_FOR: [(&str, bool, bool); 26] = [
    ("container_cpu_usage_seconds_total", true, true),
    ("container_cpu_user_seconds_total", true, false),
    ("container_cpu_system_seconds_total", true, false),
    ("container_cpu_cfs_periods_total", true, false),
    ("container_cpu_cfs_throttled_periods_total", true, false),
    ("container_spec_cpu_quota", true, false),
    ("container_spec_cpu_period", true, false),
    ("container_spec_cpu_shares", true, false),
    ("container_memory_working_set_bytes", true, true),
    ("container_memory_usage_bytes", true, true),
    ("container_memory_rss", true, true),
    ("container_memory_cache", true, false),
    ("container_memory_swap", false, true),
    ("container_memory_mapped_file", true, false),
    ("container_memory_failures_total", true, true),
    ("container_spec_memory_limit_bytes", true, true),
    ("container_oom_events_total", true, true),
    ("container_processes", true, false),
    ("container_threads", true, true),
    ("container_threads_max", true, true),
    ("container_file_descriptors", true, false),
    ("container_sockets", true, false),
    ("container_fs_usage_bytes", true, true),
    ("container_fs_limit_bytes", true, true),
    ("container_start_time_seconds", true, false),
    ("container_last_seen", true, false),
];

fn dashboards_find_their_names(world: &World) -> Result<()> {
    let limits = json!({"limits": {"cpu": "200m", "memory": "32Mi"}});
    let script = "dd if=/dev/zero of=/disk/file bs=64k count=64 conv=fsync 2>/dev/null; nc -l -p 99 & sleep 100000";
    let mut main = container("main", script, &limits);
    main["volumeMounts"] = json!([{"name": "disk", "mountPath": "/disk"}]);
    apply(world, "writes", json!({"containers": [main], "volumes": [{"name": "disk", "emptyDir": {}}]}))?;
    ready(world, "writes")?;
    let page = || world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics/cadvisor");
    let value = |page: &str, name: &str, label: &str, also: &str| {
        let ours = |l: &&str| l.starts_with(&format!("{name}{{")) && l.contains(label) && l.contains(also);
        page.lines().find(ours).and_then(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
    };
    let (main, pod) = ("container=\"main\"", "pod=\"writes\"");
    // What has no block device under it (a tmpfs in a virtual machine) has no figures of disks.
    let device = std::fs::metadata(&world.agents[0].data).map_err(|e| e.to_string())?;
    let has_disk = std::os::unix::fs::MetadataExt::dev(&device) >> 8 != 0;
    // On v1 nobody counts them.
    let v2 = number(world, "writes", "cgroup.controllers", "cpu/cpu.shares")?.contains("cpu");
    println!("the board's data is on a disk: {has_disk}; cgroup v2: {v2}");
    until("4 MiB of writes", SOON, || {
        let text = page()?;
        let (bytes, times) = ("container_fs_writes_bytes_total", "container_fs_writes_total");
        let got = (value(&text, bytes, main, pod), value(&text, times, main, pod));
        let good = got.0.is_some_and(|n| n >= 4_194_304.0) && got.1.is_some_and(|n| n >= 1.0);
        wait::yes(good || !has_disk || !v2, || format!("{got:?}"))
    })?;
    let text = page()?;
    for (name, of_container, of_machine) in ASKED_FOR {
        let found = (value(&text, name, main, pod), value(&text, name, "id=\"/\"", "container=\"\""));
        wait::yes(found.0.is_some() || !of_container, || format!("{name} of a container: {text}"))?;
        wait::yes(found.1.is_some() || !of_machine, || format!("{name} of the machine: {text}"))?;
    }
    for (name, least, most) in [
        ("container_spec_cpu_quota", 20_000.0, 20_000.0),
        ("container_spec_memory_limit_bytes", 33_554_432.0, 33_554_432.0),
        ("container_processes", 2.0, 3.0),
        ("container_sockets", 1.0, 2.0),
        ("container_file_descriptors", 4.0, 40.0),
    ] {
        let got = value(&text, name, main, pod).unwrap_or(-1.0);
        wait::yes((least..=most).contains(&got), || format!("{name}: {got}, not {least} to {most}"))?;
    }
    wait::yes(!has_disk || text.contains("container_fs_limit_bytes{device=\"/dev/"), || text.clone())?;
    let own = world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics")?;
    for operation in ["pull_image", "run_podsandbox", "start_container"] {
        let name = format!("kubelet_runtime_operations_total{{operation_type=\"{operation}\"}} ");
        wait::yes(own.lines().any(|l| l.starts_with(&name) && !l.ends_with(" 0")), || format!("{name}: {own}"))?;
    }
    world.kubectl.say("delete pod writes").map(|_| ())
}
