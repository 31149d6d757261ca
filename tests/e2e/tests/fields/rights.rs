//! What a pod may do and take: capabilities, profiles, /proc, processes, memory of the pod as a whole; what is refused.
//!
//! In: a world with one board where a pod has 40 processes at most. Out: what the kernel says inside; Kubernetes' reasons.

use limpet_e2e::pods::{
    apply, becomes, container, delete, has, has_event, hasnt, inside, is, manifest, one, ready, refused, rejected, sleeper,
    waits,
};
use limpet_e2e::{Result, World, wait};
use serde_json::{Value, json};

fn context(value: Value) -> Value {
    json!({"securityContext": value})
}

/// The capabilities that a container's first process has, as a mask.
fn capabilities(world: &World, name: &str) -> Result<u64> {
    let text = inside(world, name, "grep CapEff /proc/1/status | cut -f2")?;
    u64::from_str_radix(text.trim(), 16).map_err(|e| format!("{text}: {e}"))
}

/// privileged, capabilities.
pub fn powers(world: &World) -> Result<()> {
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    const SYS_ADMIN: u64 = 1 << 21;
    sleeper(world, "usual", json!({}), json!({}))?;
    sleeper(world, "more", context(json!({"capabilities": {"add": ["NET_ADMIN"], "drop": ["NET_RAW"]}})), json!({}))?;
    sleeper(world, "all", context(json!({"privileged": true})), json!({}))?;
    for name in ["usual", "more", "all"] {
        ready(world, name)?;
    }
    let (usual, more, all) = (capabilities(world, "usual")?, capabilities(world, "more")?, capabilities(world, "all")?);
    wait::yes(usual & (NET_ADMIN | SYS_ADMIN) == 0 && usual & NET_RAW != 0, || format!("{usual:x}"))?;
    wait::yes(more == (usual | NET_ADMIN) & !NET_RAW, || format!("{more:x} beside {usual:x}"))?;
    wait::yes(all & (NET_ADMIN | SYS_ADMIN) == NET_ADMIN | SYS_ADMIN, || format!("{all:x}"))?;
    // What the masks stand for.
    has(&inside(world, "more", "ip link set lo mtu 1400 && ip link show lo")?, &["mtu 1400"])?;
    has(&inside(world, "usual", "ip link set lo mtu 1400 2>&1; true")?, &["Operation not permitted"])?;
    inside(world, "all", "mount -t tmpfs x /mnt 2>/dev/null || { mkdir -p /mnt && mount -t tmpfs x /mnt; }")?;
    is(
        &inside(world, "all", "ls /dev/loop-control /dev/kmsg 2>/dev/null | wc -l")?,
        &inside_count(&["/dev/loop-control", "/dev/kmsg"]),
    )?;
    is(&inside(world, "usual", "ls /dev/loop-control /dev/kmsg 2>/dev/null | wc -l")?, "0")?;
    delete(world, &["usual", "more", "all"])
}

fn inside_count(paths: &[&str]) -> String {
    paths.iter().filter(|path| std::path::Path::new(path).exists()).count().to_string()
}

/// What the usual filter of calls and the usual paths keep from a container, and with which words of a manifest it is to be had.
pub fn walls(world: &World) -> Result<()> {
    let filter = |kind: &str| json!({"seccompProfile": {"type": kind}});
    let admin = json!({"capabilities": {"add": ["SYS_ADMIN"]}, "appArmorProfile": {"type": "Unconfined"}});
    sleeper(world, "usual", json!({}), json!({}))?;
    // The container's own word counts, not its pod's.
    sleeper(world, "asked", context(filter("RuntimeDefault")), context(filter("Unconfined")))?;
    sleeper(world, "open", json!({}), context(filter("Unconfined")))?;
    sleeper(world, "admin", context(admin), json!({}))?;
    sleeper(world, "mighty", context(json!({"privileged": true})), context(filter("RuntimeDefault")))?;
    sleeper(world, "fixed", context(json!({"allowPrivilegeEscalation": false})), json!({}))?;
    for name in ["usual", "asked", "open", "admin", "mighty", "fixed"] {
        ready(world, name)?;
    }
    let may = |name: &str, line: &str| inside(world, name, &format!("if {line}; then echo yes; else echo no; fi 2>/dev/null"));
    // Users of its own are nobody's privilege to the kernel: here the filter alone is in the way.
    for (name, want) in [("usual", "no"), ("asked", "no"), ("open", "yes"), ("mighty", "yes")] {
        is(&may(name, "unshare -U true")?, want)?;
    }
    // It lets through what a capability is for.
    for (name, want) in [("usual", "no"), ("open", "no"), ("admin", "yes")] {
        is(&may(name, "unshare -u hostname other")?, want)?;
    }
    let state = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '";
    for (name, want) in [("usual", "0 2"), ("asked", "0 2"), ("open", "0 0"), ("mighty", "0 0"), ("fixed", "1 2")] {
        is(&inside(world, name, state)?, want)?;
    }
    let paths = ["/proc/sys/kernel/panic", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"];
    let writable = format!("for p in {}; do (: >> $p) 2>/dev/null && echo $p; done | wc -l", paths.join(" "));
    for (name, want) in [("usual", "0"), ("open", "0"), ("admin", "0"), ("mighty", &inside_count(&paths))] {
        is(&inside(world, name, &writable)?, want)?;
    }
    for (name, want) in [("usual", "ro"), ("mighty", "rw")] {
        has(&inside(world, name, "grep ' /sys ' /proc/mounts")?, &[&format!(" /sys sysfs {want}")])?;
    }
    let read = "for p in kcore keys timer_list; do head -c 1 /proc/$p 2>/dev/null; done | wc -c; ls /sys/firmware | wc -l";
    is(&inside(world, "usual", read)?, "0\n0")?;
    hasnt(&inside(world, "mighty", "grep -cE ' /proc/| /sys/firmware ' /proc/mounts; true")?, &["1", "2", "3", "4", "5"])?;
    delete(world, &["usual", "asked", "open", "admin", "mighty", "fixed"])
}

/// seccomp, /proc, AppArmor where the kernel has it and where it has not.
pub fn profiles(world: &World) -> Result<()> {
    sleeper(world, "filtered", json!({}), json!({}))?;
    sleeper(world, "open", context(json!({"seccompProfile": {"type": "Unconfined"}})), json!({}))?;
    ready(world, "filtered")?;
    ready(world, "open")?;
    for (name, want) in [("filtered", "2"), ("open", "0")] {
        is(&inside(world, name, "grep Seccomp: /proc/self/status | cut -f2")?, want)?;
    }
    let hidden = "grep -cE ' /proc/(kcore|keys|sys|timer_list|scsi) ' /proc/mounts; true";
    wait::yes(inside(world, "filtered", hidden)?.trim() != "0", || "nothing of /proc is hidden or read-only".into())?;
    let unmasked = context(json!({"procMount": "Unmasked"}));
    let spec = json!({"hostUsers": true, "containers": [container("c", "true", unmasked.clone())]});
    refused(world, &manifest("unmasked", spec), "`hostUsers` must be false to use `Unmasked`")?;
    let node = world.kubectl.json("get node board-1")?;
    if node["status"]["runtimeHandlers"][0]["features"]["userNamespaces"] == true {
        sleeper(world, "unmasked", unmasked, json!({"hostUsers": false}))?;
        ready(world, "unmasked")?;
        is(&inside(world, "unmasked", hidden)?, "0")?;
        delete(world, &["unmasked"])?;
    }
    let armed = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    let profile = |kind: &str| {
        let mut value = json!({"type": kind});
        if kind == "Localhost" {
            value["localhostProfile"] = json!("limpet-none");
        }
        context(json!({"appArmorProfile": value}))
    };
    sleeper(world, "bare", profile("Unconfined"), json!({}))?;
    ready(world, "bare")?;
    if armed {
        armour(world, &profile)?;
    }
    sleeper(world, "armour", profile("Localhost"), json!({}))?;
    match armed {
        true => waits(
            world,
            "armour",
            "CreateContainerError",
            "the AppArmor profile \"limpet-none\" is not loaded on this node",
        )?,
        false => rejected(world, "armour", "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")?,
    }
    delete(world, &["filtered", "open", "bare", "armour"])
}

/// Where the kernel has AppArmor: which profile a container and what is started in it later run under, and that it holds.
fn armour(world: &World, profile: &dyn Fn(&str) -> Value) -> Result<()> {
    const OWN: &str = "cat /proc/1/attr/current /proc/self/attr/current";
    const HELD: &str = "limpet-default (enforce)\nlimpet-default (enforce)";
    const FREE: &str = "unconfined\nunconfined";
    let loaded = context(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "limpet-default"}}));
    sleeper(world, "runtimes", profile("RuntimeDefault"), json!({}))?;
    sleeper(world, "loaded", loaded, json!({}))?;
    sleeper(world, "mighty", context(json!({"privileged": true})), json!({}))?;
    // With what the kernel asks of whoever mounts, and no filter of calls: the profile alone is in the way.
    let admin = |more: Value| {
        let mut value = json!({"capabilities": {"add": ["SYS_ADMIN"]}, "seccompProfile": {"type": "Unconfined"}});
        value.as_object_mut().into_iter().for_each(|own| own.extend(more.as_object().cloned().unwrap_or_default()));
        context(value)
    };
    sleeper(world, "admin", admin(json!({})), json!({}))?;
    sleeper(world, "bare-admin", admin(json!({"appArmorProfile": {"type": "Unconfined"}})), json!({}))?;
    for name in ["runtimes", "loaded", "mighty", "admin", "bare-admin"] {
        ready(world, name)?;
    }
    for (name, want) in [("filtered", HELD), ("runtimes", HELD), ("loaded", HELD), ("bare", FREE), ("mighty", FREE)] {
        is(&inside(world, name, OWN)?, want)?;
    }
    for (name, want) in [("admin", "denied"), ("bare-admin", "mounted")] {
        is(&inside(world, name, "mount -t tmpfs tmpfs /tmp 2>/dev/null && echo mounted || echo denied")?, want)?;
    }
    delete(world, &["runtimes", "loaded", "mighty", "admin", "bare-admin"])
}

/// Processes of a pod, memory of a pod as a whole, and what the node says of its swap.
pub fn shares(world: &World) -> Result<()> {
    sleeper(world, "many", json!({}), json!({}))?;
    ready(world, "many")?;
    has(&inside(world, "many", "sh -c 'for n in $(seq 60); do sleep 5 & done' 2>&1; true")?, &["can't fork"])?;
    // The pod's limit holds its containers, which have none of their own; a container that is killed for it says so.
    let whole = json!({"resources": {"limits": {"memory": "48Mi", "cpu": "500m"}, "requests": {"memory": "16Mi", "cpu": "10m"}},
        "restartPolicy": "Never",
        "containers": [container("c", "tail /dev/zero", json!({})), container("d", "exec sleep 1000000", json!({}))]});
    apply(world, "whole", whole)?;
    // The first may be dead before the second has begun.
    let status = becomes(world, "whole", "killed for the pod's limit, the other one not", |s| {
        one(s, "c")["state"]["terminated"].is_object() && one(s, "d")["state"]["running"].is_object()
    })?;
    let ended = one(&status, "c")["state"]["terminated"].clone();
    wait::yes(ended["reason"] == "OOMKilled" && ended["exitCode"] == 137, || ended.to_string())?;
    wait::yes(status["qosClass"] == "Burstable", || status.to_string())?;
    let sysctls = json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}});
    sleeper(world, "forced", json!({}), sysctls)?;
    ready(world, "forced")?;
    is(&inside(world, "forced", "cat /proc/sys/kernel/shm_rmid_forced")?, "1")?;
    let node = world.kubectl.json("get node board-1")?;
    let memory = std::fs::read_to_string("/proc/meminfo").map_err(|e| e.to_string())?;
    let swap = memory.lines().find_map(|l| l.strip_prefix("SwapTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let said = &node["status"]["nodeInfo"]["swap"]["capacity"];
    match swap.unwrap_or(0) {
        0 => wait::yes(said.is_null(), || said.to_string())?,
        kib => wait::yes(*said == kib * 1024, || format!("{said} instead of {kib} KiB"))?,
    }
    has(&world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics")?, &["limpet_board_zram_bytes "])?;
    delete(world, &["many", "whole", "forced"])
}

/// What this node cannot do: it says so, and runs the pod where it can be run without.
pub fn refusals(world: &World) -> Result<()> {
    let linux = context(json!({"seLinuxOptions": {"level": "s0:c1,c2"}}));
    let whole = json!({"windowsOptions": {"runAsUserName": "x"}, "seLinuxChangePolicy": "Recursive"});
    sleeper(world, "labels", linux, json!({"securityContext": whole}))?;
    ready(world, "labels")?;
    has_event(world, "labels", "FieldWithoutEffect", "securityContext.seLinuxChangePolicy has no effect")?;
    has_event(world, "labels", "FieldWithoutEffect", "securityContext.seLinuxOptions has no effect")?;
    has_event(world, "labels", "FieldWithoutEffect", "securityContext.windowsOptions has no effect")?;
    // What has no place in a container that looks into others, and what nobody here would do.
    let mut pod = world.kubectl.json("get pod labels")?;
    pod["spec"]["ephemeralContainers"] = json!([container("e", "true", json!({"ports": [{"containerPort": 80}]}))]);
    let path = "/api/v1/namespaces/default/pods/labels/ephemeralcontainers";
    let told = world.kubectl.with_input(&["replace", "--raw", path, "-f", "-"], &pod.to_string())?;
    has(&told.stderr, &["spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"])?;
    let group = json!({"containers": [container("c", "true", json!({}))], "schedulingGroup": {"podGroupName": "g"}});
    refused(world, &manifest("grouped", group), "spec.schedulingGroup: Forbidden: pods are placed one by one here")?;
    sleeper(world, "windows", json!({}), json!({"os": {"name": "windows"}}))?;
    rejected(world, "windows", "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")?;
    sleeper(world, "gated", json!({}), json!({"schedulingGates": [{"name": "example.com/wait"}]}))?;
    becomes(world, "gated", "held by its gate", |s| {
        limpet_e2e::pods::condition(s, "PodScheduled")["reason"] == "SchedulingGated"
    })?;
    hasnt(&world.kubectl.json("get pod gated")?["spec"].to_string(), &["nodeName"])?;
    world.kubectl.run(&[
        "patch",
        "pod",
        "gated",
        "--type=json",
        "-p",
        r#"[{"op": "remove", "path": "/spec/schedulingGates/0"}]"#,
    ])?;
    ready(world, "gated")?;
    delete(world, &["labels", "windows", "gated"])
}
