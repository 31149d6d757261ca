//! Pods that change while they run: their sizes, and how their generations are counted.
//!
//! In: a world with one board. Out: what spec, status and the containers' groups say after each change.

use limpet_e2e::pods::{becomes, condition, container, delete, manifest, one, ready};
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const FOREVER: &str = "exec sleep 1000000";
const SOON: Duration = Duration::from_secs(90);

/// Of a container: CPU asked for and allowed (m), memory asked for and allowed (Mi). 0 is nothing said.
type Size = [u64; 4];

fn resources([cpu, cpu_limit, memory, memory_limit]: Size) -> Value {
    let list = |cpu: u64, memory: u64| {
        let mut list = json!({});
        if cpu > 0 {
            list["cpu"] = json!(format!("{cpu}m"));
        }
        if memory > 0 {
            list["memory"] = json!(format!("{memory}Mi"));
        }
        list
    };
    let mut all = json!({});
    for (name, list) in [("requests", list(cpu, memory)), ("limits", list(cpu_limit, memory_limit))] {
        if list != json!({}) {
            all[name] = list;
        }
    }
    all
}

fn containers(sizes: &[Size]) -> Vec<Value> {
    sizes.iter().enumerate().map(|(n, s)| json!({"name": format!("c{n}"), "resources": resources(*s)})).collect()
}

/// The whole pod has these sizes: in its spec, in its status, in what the kernel was told; and nothing was restarted.
fn has_sizes(world: &World, name: &str, sizes: &[Size]) -> Result<()> {
    let pod = world.kubectl.json(&format!("get pod {name}"))?;
    for (n, size) in sizes.iter().enumerate() {
        wait::yes(pod["spec"]["containers"][n]["resources"] == resources(*size), || pod["spec"].to_string())?;
    }
    becomes(world, name, "resized", |s| {
        let each = sizes.iter().enumerate().all(|(n, size)| {
            let (told, asked) = (one(s, &format!("c{n}")), resources(*size));
            told["resources"] == asked && told["allocatedResources"] == asked["requests"] && told["restartCount"] == 0
        });
        let still = ["PodResizePending", "PodResizeInProgress"].iter().any(|kind| condition(s, kind).is_object());
        each && !still && condition(s, "Ready")["status"] == "True"
    })?;
    let look = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; \
                cat cpu.max cpu/cpu.cfs_quota_us 2>/dev/null; cat cpu/cpu.shares 2>/dev/null || echo";
    for (n, [cpu, cpu_limit, _, memory_limit]) in sizes.iter().enumerate() {
        let text = world.kubectl.run(&["exec", name, "-c", &format!("c{n}"), "--", "sh", "-c", look])?;
        let mut lines = text.lines();
        let mut next = || lines.next().unwrap_or_default();
        let (memory, quota, shares) = (next(), next().split(' ').next().unwrap_or_default(), next());
        let limit = memory.parse::<u64>().ok().filter(|bytes| *bytes < 1 << 60);
        let of_cpu = quota.parse::<u64>().ok();
        let wanted = Some(memory_limit << 20).filter(|bytes| *bytes > 0);
        // The kernel takes no less than a millisecond in each tenth of a second, and no fewer than two shares.
        let wanted_cpu = Some((cpu_limit * 100).max(1000)).filter(|_| *cpu_limit > 0);
        let right = shares.is_empty() || shares.parse() == Ok((cpu * 1024 / 1000).max(2));
        wait::yes(limit == wanted && of_cpu == wanted_cpu && right, || format!("{name} c{n} {:?}: {text}", sizes[n]))?;
    }
    Ok(())
}

/// A pod with these containers, each of the changes made and undone again (or not, where limits came).
fn changes(world: &World, name: &str, class: &str, start: &[Size], changes: &[&[Size]]) -> Result<()> {
    let mut all = containers(start);
    for one in &mut all {
        limpet_e2e::pods::merge(one, container("", FOREVER, json!({"name": one["name"]})));
    }
    world.kubectl.apply(&manifest(name, json!({"containers": all})).to_string())?;
    let pod = ready(world, name)?;
    wait::yes(pod["status"]["qosClass"] == class, || pod["status"].to_string())?;
    has_sizes(world, name, start)?;
    let last = changes.len() - 1;
    for (number, change) in changes.iter().enumerate() {
        let back = (number < last || class == "Guaranteed").then_some(start);
        for sizes in [Some(*change), back].into_iter().flatten() {
            let patch = json!({"spec": {"containers": containers(sizes)}}).to_string();
            world.kubectl.run(&["patch", "pod", name, "--subresource=resize", "-p", &patch])?;
            has_sizes(world, name, sizes)?;
        }
    }
    Ok(())
}

/// In place: several containers at once, up and down, limits and requests that were not there; by patch and as a whole.
pub fn resizes(world: &World) -> Result<()> {
    let all = |cpu: u64, memory: u64| [cpu, cpu, memory, memory];
    changes(world, "equal", "Guaranteed", &[all(100, 24), all(120, 28), all(140, 32)], &[
        &[all(150, 32), all(170, 36), all(110, 28)],
        &[all(120, 28), all(80, 24), all(90, 24)],
        &[all(130, 24), all(80, 36), all(170, 40)],
    ])?;
    let start = [[60, 0, 0, 0], [0, 0, 24, 0], [60, 0, 24, 0], [60, 0, 0, 0], [0, 0, 24, 0], [0, 0, 0, 0]];
    let end = [[80, 120, 0, 0], [0, 0, 20, 40], [60, 0, 20, 0], [40, 0, 24, 0], [60, 0, 28, 0], [0, 0, 0, 0]];
    changes(world, "mixed", "Burstable", &start, &[&end])?;
    // Numbers that are the same to the kernel, not to who asked.
    changes(world, "tiny", "Burstable", &[[2, 10, 0, 0]], &[&[[1, 5, 0, 0]], &[[2, 10, 0, 0]]])?;
    let path = "/api/v1/namespaces/default/pods/equal";
    let mut pod = world.kubectl.json("get pod equal --subresource=resize")?;
    let sizes = [all(110, 28), all(110, 28), all(110, 28)];
    for (one, size) in pod["spec"]["containers"].as_array_mut().into_iter().flatten().zip(sizes) {
        one["resources"] = resources(size);
    }
    world.kubectl.with_input(&["replace", "--subresource=resize", "-f", "-"], &pod.to_string())?.ok("replace")?;
    has_sizes(world, "equal", &sizes)?;
    until("the same pod at both places", SOON, || {
        let (resize, whole) =
            (world.kubectl.say(&format!("get --raw {path}/resize"))?, world.kubectl.say(&format!("get --raw {path}"))?);
        wait::yes(resize == whole, || format!("{resize}\n{whole}"))
    })?;
    delete(world, &["equal", "mixed", "tiny"])
}

/// Counted from one, with each change of the spec and with the deletion; the board says which one it has seen.
pub fn generations(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    limpet_e2e::images::Target::hub(&world.hub, &world.slot.dir())?.push("again", "1", &limpet_e2e::images::busybox()?)?;
    let spec = json!({"initContainers": [container("i", "true", json!({}))], "containers": [container("c", FOREVER, json!({}))]});
    let mut pod = manifest("counts", spec);
    pod["metadata"]["generation"] = json!(100);
    kubectl.with_input(&["create", "-f", "-"], &pod.to_string())?.ok("create")?;
    ready(world, "counts")?;
    let counted = |want: u64| {
        let now = kubectl.json("get pod counts")?["metadata"]["generation"].take();
        wait::yes(now == want, || format!("generation {now} instead of {want}"))?;
        becomes(world, "counts", "seen", |s| s["observedGeneration"] == want).map(|_| ())
    };
    counted(1)?;
    let image = |list: &str, name: &str| json!({"spec": {list: [{"name": name, "image": "hub.limpet/again:1"}]}});
    for (kind, patch, want) in [
        ("strategic", json!({"spec": {"activeDeadlineSeconds": 5000}}), 2),
        ("json", json!([{"op": "add", "path": "/spec/tolerations/-", "value": {"key": "k", "operator": "Exists"}}]), 3),
        ("strategic", image("containers", "c"), 4),
        ("strategic", image("initContainers", "i"), 5),
        ("merge", json!({"metadata": {"annotations": {"key": "value"}}}), 5),
        ("merge", json!({"metadata": {"generation": 1}}), 5),
    ] {
        kubectl.run(&["patch", "pod", "counts", &format!("--type={kind}"), "-p", &patch.to_string()])?;
        counted(want)?;
    }
    // So many changes that the board does not see each of them; it ends with the last one.
    for half in 0..2 {
        let deadline = |n: u64| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "counts"},
            "spec": {"activeDeadlineSeconds": 4999 - half * 250 - n}}).to_string();
        let words = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        kubectl.with_input(&words, &(0..250).map(deadline).collect::<Vec<_>>().join("\n"))?.ok("many changes")?;
    }
    counted(505)?;
    becomes(world, "counts", "restarted with its new image", |s| one(s, "c")["restartCount"] == 1)?;
    kubectl.say("delete pod counts --grace-period=60 --wait=false")?;
    let pod = kubectl.json("get pod counts")?;
    wait::yes(pod["metadata"]["generation"] == 506 && pod["metadata"]["deletionTimestamp"].is_string(), || {
        pod["metadata"].to_string()
    })?;
    kubectl.say("delete pod counts --grace-period=1 --timeout=60s").map(|_| ())
}
