//! What a board says of itself: its Node object to kubectl, its containers, logs and health to somebody who stands at it.
//!
//! In: one board with labels of its own and a pod; then no hub at all. Out: every part of the node object; `limpet-agent ps`,
//! `logs`, `exec`, `images` and `doctor` in the board's own namespaces; what `doctor` says of boards that lack something.

use limpet_e2e::process::{Output, run};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
/// In this order one thing needs another.
const AREAS: [&str; 8] = ["kernel", "control groups", "clock", "disk", "board", "network", "hub", "certificates"];

/// A command of the agent's program where somebody at the board would type it.
fn at_the_board(world: &World, words: &[&str]) -> Result<Output> {
    let board = &world.agents[0];
    let target = board.agent_process()?.pid.to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &target, "--mount", "--net", "--pid", "--uts", "--ipc", "--"]).arg(&world.binaries.agent);
    let (before, after) = words.split_at(1);
    command.args(before).arg("--data-dir").arg(&board.data).arg("--run-dir").arg(&board.run).args(after);
    run(&mut command)
}

fn says(world: &World, words: &[&str]) -> Result<String> {
    at_the_board(world, words)?.ok(&words.join(" "))
}

#[test]
fn a_board_speaks_for_itself() {
    let labels = json!({"labels": {"topology.kubernetes.io/zone": "greenhouse", "limpet.dev/room": "7", "secure": "yes"}});
    test(1, &labels, |world| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "here"}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "hub.limpet/busybox:1",
                "command": ["sh", "-c", "printf 'begun\\nand more\\n'; exec sleep 100000"]}]}});
        world.kubectl.apply(&pod.to_string())?;
        world.kubectl.say("wait --for=condition=Ready pod/here --timeout=60s")?;
        the_node(world)?;
        pages(world)?;
        facts(world)?;
        world.hub.kill();
        without_a_hub(world)?;
        sick_boards(world)
    });
}

fn the_node(world: &World) -> Result<()> {
    let node = world.kubectl.json("get node board-1")?;
    let labels = &node["metadata"]["labels"];
    for (key, value) in [
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/hostname", "board-1"),
        ("topology.kubernetes.io/zone", "greenhouse"),
        ("limpet.dev/room", "7"),
    ] {
        wait::yes(labels[key] == value, || format!("label {key}: {labels}"))?;
    }
    wait::yes(labels["secure"].is_null(), || format!("a board gave itself what operators give: {labels}"))?;
    let known = |v: &Value| v.as_str().is_some_and(|text| !text.is_empty());
    wait::yes(known(&labels["kubernetes.io/arch"]) && known(&labels["limpet.dev/rtc"]), || labels.to_string())?;
    let status = &node["status"];
    for key in ["architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeletVersion", "osImage"] {
        wait::yes(known(&status["nodeInfo"][key]), || format!("nodeInfo.{key}: {}", status["nodeInfo"]))?;
    }
    for key in ["cpu", "memory", "ephemeral-storage", "pods"] {
        wait::yes(known(&status["capacity"][key]) && known(&status["allocatable"][key]), || format!("{key}: {status}"))?;
    }
    wait::yes(status["capacity"]["pods"] == "110", || status["capacity"].to_string())?;
    figures(&node)?;
    let conditions: Vec<(&str, &str)> = status["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| Some((c["type"].as_str()?, c["status"].as_str()?)))
        .collect();
    for wanted in [("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")] {
        wait::yes(conditions.contains(&wanted), || format!("{wanted:?}: {conditions:?}"))?;
    }
    let address = json!({"type": "InternalIP", "address": world.agents[0].address});
    wait::yes(status["addresses"].as_array().is_some_and(|all| all.contains(&address)), || status["addresses"].to_string())?;
    let handlers = status["runtimeHandlers"].as_array().cloned().unwrap_or_default();
    wait::yes(handlers.iter().any(|h| h["name"] == ""), || format!("handlers: {handlers:?}"))?;
    let declared = json!([
        "GuaranteedQoSPodCPUResize", "InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits",
    ]);
    wait::yes(status["declaredFeatures"] == declared, || format!("declared: {}", status["declaredFeatures"]))?;
    // Said with the next look around, not with the pull.
    until("the image among the node's", Duration::from_secs(90), || {
        let images = world.kubectl.json("get node board-1")?["status"]["images"].to_string();
        let whole = images.contains("\"hub.limpet/busybox@sha256:") && images.contains("\"hub.limpet/busybox:1\"");
        wait::yes(whole && images.contains("\"sizeBytes\":1"), || images)
    })?;
    let described = world.kubectl.say("describe node board-1")?;
    for words in ["Allocated resources:", "greenhouse", "here", "KubeletReady"] {
        wait::yes(described.contains(words), || format!("no {words} in {described}"))?;
    }
    Ok(())
}

/// What is said in numbers and names is what this machine's kernel and system say.
fn figures(node: &Value) -> Result<()> {
    let (status, labels) = (&node["status"], &node["metadata"]["labels"]);
    let info = &status["nodeInfo"];
    let file = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
    let says = |words: &[&str]| run(Command::new(words[0]).args(&words[1..]))?.ok(words[0]).map(|text| text.trim().to_string());
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let release = says(&["sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"])?;
    for (key, value) in [
        ("architecture", arch.to_string()),
        ("operatingSystem", "linux".into()),
        ("osImage", release),
        ("kernelVersion", says(&["uname", "-r"])?),
        ("bootID", file("/proc/sys/kernel/random/boot_id")),
        ("machineID", file("/etc/machine-id")),
    ] {
        wait::yes(info[key] == value.as_str(), || format!("nodeInfo.{key} is not {value}: {info}"))?;
    }
    wait::yes(labels["kubernetes.io/arch"] == arch, || labels.to_string())?;
    let kubelet = info["kubeletVersion"].as_str().unwrap_or_default();
    let runtime = info["containerRuntimeVersion"].as_str().unwrap_or_default();
    wait::yes(kubelet.starts_with("v1.36.") && runtime.starts_with("limpet://"), || info.to_string())?;
    let (capacity, allocatable) = (&status["capacity"], &status["allocatable"]);
    let kib = |all: &Value, key: &str| all[key].as_str().and_then(|t| t.strip_suffix("Ki")?.parse::<u64>().ok()).unwrap_or(0);
    let memory = kib(capacity, "memory");
    let total = says(&["sh", "-c", "sed -n 's/^MemTotal: *\\([0-9]*\\) kB$/\\1/p' /proc/meminfo"])?;
    wait::yes(memory.to_string() == total, || format!("{total} KiB of memory: {capacity}"))?;
    wait::yes(capacity["cpu"] == says(&["nproc"])?.as_str(), || capacity.to_string())?;
    // A twentieth, at most 256 MiB, is the board's own; below the last 100 MiB pods are evicted.
    let kept = (memory / 20).min(256 << 10) + (100 << 10);
    wait::yes(kib(allocatable, "memory").abs_diff(memory - kept) <= 1, || format!("memory: {capacity} {allocatable}"))?;
    let of_disk = kib(capacity, "ephemeral-storage") * 1024 / 10 * 9;
    let said: u64 = allocatable["ephemeral-storage"].as_str().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    wait::yes(said.abs_diff(of_disk) < 10_240, || format!("{capacity} {allocatable}"))?;
    let hostname = json!({"type": "Hostname", "address": "board-1"});
    wait::yes(status["addresses"].as_array().is_some_and(|all| all.contains(&hostname)), || status["addresses"].to_string())?;
    let reasons = ["KubeletReady", "KubeletHasSufficientMemory", "KubeletHasNoDiskPressure", "KubeletHasSufficientPID"];
    let said = status["conditions"].to_string();
    wait::yes(reasons.iter().all(|reason| said.contains(&format!("\"reason\":\"{reason}\""))), || said)
}

/// The pods as the node knows them, and its figures: all, or the small ones; stalls where the kernel counts them.
fn pages(world: &World) -> Result<()> {
    let raw = |path: &str| -> Result<Value> {
        let text = world.kubectl.say(&format!("get --raw /api/v1/nodes/board-1/proxy{path}"))?;
        serde_json::from_str(&text).map_err(|e| format!("{path}: {e}: {text}"))
    };
    let (list, told) = (raw("/pods")?, world.kubectl.json("get pod here")?);
    let mut all = list["items"].as_array().into_iter().flatten();
    let here = all.find(|p| p["metadata"]["name"] == "here").cloned().unwrap_or_default();
    let same = ["/metadata/uid", "/spec/containers/0/image", "/status/phase", "/status/podIP", "/status/containerStatuses"];
    wait::yes(list["kind"] == "PodList", || list.to_string())?;
    for place in same {
        let (own, hubs) = (here.pointer(place), told.pointer(place));
        wait::yes(own.is_some() && own == hubs, || format!("{place}: {here} {told}"))?;
    }
    let (whole, small) = (raw("/stats/summary")?, raw("/stats/summary?only_cpu_and_memory=true")?);
    for (page, has) in [(&whole, true), (&small, false)] {
        let all = page["pods"].as_array().into_iter().flatten();
        let pod = all.into_iter().find(|p| p["podRef"]["uid"] == told["metadata"]["uid"]).cloned().unwrap_or_default();
        let main = &pod["containers"][0];
        let counted = main["memory"]["workingSetBytes"].as_u64() > Some(0) && main["cpu"]["usageCoreNanoSeconds"].is_u64();
        wait::yes(main["name"] == "main" && counted, || pod.to_string())?;
        let more = [&page["node"]["fs"], &page["node"]["rlimit"], &pod["ephemeral-storage"], &pod["network"], &main["rootfs"]];
        wait::yes(more.iter().all(|part| part.is_object() == has), || format!("{page}"))?;
        // The two lines that it has said, each with its time.
        wait::yes(!has || main["logs"]["usedBytes"].as_u64() > Some(0), || main.to_string())?;
        let stalls = std::path::Path::new("/proc/pressure/cpu").exists();
        let counted = page["node"]["cpu"]["psi"]["some"]["total"].as_u64() > Some(0);
        wait::yes(counted == stalls && page["node"]["memory"]["psi"]["full"].is_object() == stalls, || page["node"].to_string())?;
    }
    Ok(())
}

/// A Raspberry Pi on a weak supply in a hot box with a worn eMMC and a clock chip, as its kernel would show it.
fn facts(world: &World) -> Result<()> {
    let script = "set -e; mount -t tmpfs none /mnt; cd /mnt; mkdir net; mount --rbind /sys/class/net net; \
        mkdir -p thermal/thermal_zone0 block/mmcblk0/device hwmon/hwmon0 rtc/rtc0; echo 81500 >thermal/thermal_zone0/temp; \
        echo 0x0a 0x02 >block/mmcblk0/device/life_time; echo rpi_volt >hwmon/hwmon0/name; echo 1 >hwmon/hwmon0/in0_lcrit_alarm; \
        mount --rbind /mnt /sys/class";
    let target = world.agents[0].agent_process()?.pid.to_string();
    run(Command::new("nsenter").args(["--target", &target, "--mount", "--", "sh", "-c", script]))?.ok("the board's /sys")?;
    // The next agent looks at once.
    run(Command::new("kill").args(["-9", &target]))?.ok("kill")?;
    until("what the board says of itself", Duration::from_secs(120), || {
        let node = world.kubectl.json("get node board-1")?;
        let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        for (kind, reason) in
            [("UnderVoltage", "PowerSupplyTooWeak"), ("Overheated", "TooHot"), ("FlashWornOut", "LifeUsedUp")]
        {
            let one = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
            wait::yes(one["status"] == "True" && one["reason"] == reason, || format!("{kind}: {all:?}"))?;
            wait::yes(one["message"].as_str().is_some_and(|m| !m.is_empty()), || one.to_string())?;
        }
        wait::yes(node["metadata"]["labels"]["limpet.dev/rtc"] == "true", || node["metadata"]["labels"].to_string())
    })?;
    let page = world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics")?;
    for (name, value) in [("temperature_celsius", "81.5"), ("flash_life_used_ratio", "1"), ("throttled_bits", "1")] {
        let line = format!("limpet_board_{name} {value}\n");
        wait::yes(page.contains(&line), || format!("no {line} in {page}"))?;
    }
    later(world)
}

/// Some time later: the firmware tells itself (enough voltage now, not before; slowed down), the box is cool.
fn later(world: &World) -> Result<()> {
    let script = "set -e; mount -t tmpfs none /sys/devices/platform; cd /sys/devices/platform; mkdir -p soc/soc:firmware; \
        echo 10004 >soc/soc:firmware/get_throttled; echo 48312 >/sys/class/thermal/thermal_zone0/temp";
    let target = world.agents[0].agent_process()?.pid.to_string();
    run(Command::new("nsenter").args(["--target", &target, "--mount", "--", "sh", "-c", script]))?.ok("the board's /sys")?;
    run(Command::new("kill").args(["-9", &target]))?.ok("kill")?;
    until("what the board says now", Duration::from_secs(120), || {
        let node = world.kubectl.json("get node board-1")?;
        let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        for (kind, status, reason) in [
            ("UnderVoltage", "False", "WasUnderVoltage"),
            ("Throttled", "True", "FirmwareThrottles"),
            ("Overheated", "False", "TemperatureOk"),
            ("FlashWornOut", "True", "LifeUsedUp"),
        ] {
            let one = all.iter().find(|c| c["type"] == kind).cloned().unwrap_or_default();
            wait::yes(one["status"] == status && one["reason"] == reason, || format!("{kind}: {all:?}"))?;
        }
        Ok(())
    })?;
    let page = world.kubectl.say("get --raw /api/v1/nodes/board-1/proxy/metrics")?;
    let line = format!("limpet_board_throttled_bits {}\n", 0x10004);
    wait::yes(page.contains(&line), || format!("no {line} in {page}"))
}

fn without_a_hub(world: &World) -> Result<()> {
    let listed = says(world, &["ps"])?;
    let row = listed.lines().find(|line| line.contains(" here ")).ok_or_else(|| format!("no pod in\n{listed}"))?;
    wait::yes(row.contains("running (pid"), || row.to_string())?;
    let id = row.split_whitespace().next().unwrap_or_default();
    let log = says(world, &["logs", id])?;
    wait::yes(log == "begun\nand more\n", || log)?;
    let inside = says(world, &["exec", id, "--", "hostname"])?;
    wait::yes(inside == "here\n", || inside)?;
    let failed = at_the_board(world, &["exec", id, "--", "sh", "-c", "exit 7"])?;
    wait::yes(failed.code == 7, || format!("{failed:?}"))?;
    let images = says(world, &["images"])?;
    wait::yes(images.contains("hub.limpet/busybox:1") && images.contains(" MiB"), || images)?;
    let unknown = at_the_board(world, &["logs", "nothing"])?;
    wait::yes(unknown.code != 0 && unknown.stderr.contains("nothing"), || format!("{unknown:?}"))?;
    // The hub does not answer, which a board can live with; the doctor says so, and what to do.
    let report = until("the doctor's words", SOON, || {
        let text = at_the_board(world, &["doctor", "--json"])?.stdout;
        serde_json::from_str::<Value>(&text).map_err(|e| format!("{e}: {text}"))
    })?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let mut areas: Vec<&str> = findings.iter().filter_map(|f| f["area"].as_str()).collect();
    areas.dedup();
    wait::yes(areas == AREAS, || format!("areas: {areas:?}"))?;
    let silent = |f: &&Value| f["verdict"] != "ok" && f["remedy"].as_str().is_none_or(str::is_empty);
    wait::yes(!findings.iter().any(|f| silent(&f)), || format!("a finding without a remedy: {report}"))?;
    let hub = findings.iter().find(|f| f["area"] == "hub").cloned().unwrap_or_default();
    wait::yes(hub["verdict"] == "note" && hub["what"].as_str().is_some_and(|w| w.contains("does not answer")), || hub.to_string())
}

/// What a script in mounts and a network of its own makes the doctor find; whether a node cannot be.
fn found(world: &World, script: &str) -> Result<(Vec<Value>, bool)> {
    let board = &world.agents[0];
    let target = board.agent_process()?.pid.to_string();
    let line = format!("set -e; {script}; exec \"$0\" doctor --json --run-dir \"$2\" --data-dir ${{DATA:-\"$1\"}}");
    let mut command = Command::new("nsenter");
    command.args(["--target", &target, "--mount", "--net", "--pid", "--uts", "--ipc", "--", "unshare", "--mount"]);
    command.args(script.contains("no network").then_some("--net"));
    command.args(["sh", "-c", &line]).arg(&world.binaries.agent).arg(&board.data).arg(&board.run);
    let output = run(&mut command)?;
    let report: Value = serde_json::from_str(&output.stdout).map_err(|e| format!("{e}: {output:?}"))?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    let mut areas: Vec<&str> = findings.iter().filter_map(|f| f["area"].as_str()).collect();
    areas.dedup();
    // A directory of its own holds no certificate.
    let known = if script.contains("DATA=") { &AREAS[..7] } else { &AREAS[..] };
    wait::yes(areas == known, || format!("areas: {areas:?}"))?;
    wait::yes(report["good"] == (output.code == 0), || format!("{} and exit code {}", report["good"], output.code))?;
    Ok((findings, output.code != 0))
}

/// Boards that lack one thing each: the doctor names it, says whether it can live with it, and what to do.
fn sick_boards(world: &World) -> Result<()> {
    let no_memory = "umount -l /sys/fs/cgroup/memory 2>/dev/null || { echo cpu pids io >/tmp/controllers; \
        mount --bind /tmp/controllers /sys/fs/cgroup/cgroup.controllers; }; mount -t tmpfs none /boot; mkdir /boot/firmware; \
        echo 'console=tty1 root=PARTUUID=1-02 cgroup_disable=memory rootwait' >/boot/firmware/cmdline.txt";
    let no_overlay = "mount -t tmpfs none /boot; echo CONFIG_NAMESPACES=y >/boot/config-$(uname -r); if [ -e /proc/config.gz ]; then \
        gzip -c /boot/config-$(uname -r) >/boot/gz; mount --bind /boot/gz /proc/config.gz; fi";
    let disk = |size: &str| format!("mount -t tmpfs -o {size} none /mnt; DATA=/mnt/data");
    let clock = |seconds: u64| format!("export LIMPET_FAKE_WALL_OFFSET_S=$(({seconds} - $(date +%s)))");
    let (small, locked) = (disk("size=1m"), disk("ro"));
    let (past, future) = (clock(34_300_800), clock(4_134_067_200));
    let all: [(&str, &str, &str, &str, &str); 9] = [
        (no_memory, "control groups", "bad", "no controller memory", "change the one line of /boot/firmware/cmdline.txt to `console=tty1 \
            root=PARTUUID=1-02 rootwait cgroup_enable=memory cgroup_memory=1` and reboot"),
        (no_overlay, "kernel", "bad", "lacks CONFIG_OVERLAY_FS (images)", "CONFIG_OVERLAY_FS=y or =m"),
        (&small, "disk", "bad", "MiB free for /mnt/data", "free some space"),
        (&locked, "disk", "bad", "/mnt cannot be written to", "mount it read-write"),
        (&past, "clock", "note", "the clock says 1971-02-02T", "time server"),
        (&past, "certificates", "note", "node board-1: certificate from", "the clock is behind"),
        (&future, "clock", "note", "the clock says 2101-01-02T", "time server"),
        (&future, "certificates", "note", "node board-1: certificate from", "it has run out: the agent renews it by its key"),
        (": no network", "network", "note", "no network address", "plug in a cable"),
    ];
    for (script, area, verdict, what, remedy) in all {
        let (findings, hopeless) = found(world, script)?;
        let has = |f: &&Value, key: &str, words: &str| f[key].as_str().is_some_and(|text| text.contains(words));
        let one = findings.iter().find(|f| f["area"] == area && f["verdict"] == verdict && has(f, "what", what));
        let one = one.ok_or_else(|| format!("no {verdict} {what:?} of {area} in {findings:?}"))?;
        wait::yes(has(&one, "remedy", remedy), || one.to_string())?;
        wait::yes(hopeless == findings.iter().any(|f| f["verdict"] == "bad"), || format!("{findings:?}"))?;
        wait::yes(hopeless == (verdict == "bad"), || format!("{area}: this machine itself has something bad: {findings:?}"))?;
    }
    Ok(())
}

/// What the board's own programs have logged: files below /var/log, and journald's where it runs (here a script says what
/// journalctl is asked).
#[test]
fn logs_of_services() {
    test(1, &json!({}), |world| services_logs(world));
}

fn services_logs(world: &World) -> Result<()> {
    let raw = |query: &str| {
        world.kubectl.output(&["get", "--raw", &format!("/api/v1/nodes/board-1/proxy/logs/?query={query}")])
    };
    let board = |script: &str| {
        let target = world.agents[0].agent_process()?.pid.to_string();
        run(Command::new("nsenter").args(["--target", &target, "--mount", "--", "sh", "-ec", script]))?.ok(script)
    };
    board("mkdir -p /run/systemd; mount -t tmpfs none /run/systemd; mount -t tmpfs none /var/log; mkdir /var/log/chrony; \
        echo tick >/var/log/chrony/chrony.log; echo secret >/run/systemd/secret; ln -s /run/systemd/secret /var/log/link")?;
    for (query, words) in [("chrony", "tick\n"), ("/chrony/chrony.log", "tick\n")] {
        let got = raw(query)?.ok(query)?;
        wait::yes(got == words, || got)?;
    }
    // The same by its path, as a file server gives it.
    let page = |path: &str| world.kubectl.output(&["get", "--raw", &format!("/api/v1/nodes/board-1/proxy{path}")]);
    let got = page("/logs/chrony/chrony.log")?.ok("a log file")?;
    wait::yes(got == "tick\n", || got)?;
    let got = page("/logs/")?.ok("the list of log files")?;
    wait::yes(got.contains("<a href=\"chrony/\">chrony/</a>") && !got.contains("secret"), || got)?;
    for path in ["/logs/link", "/logs/none", "/logs/..%2f..%2fetc/passwd", "/run/systemd", "/exec/default/x/y"] {
        let got = page(path)?;
        wait::yes(got.code != 0 && got.stdout.is_empty(), || format!("{path}: {got:?}"))?;
        wait::yes(path.contains("..") || got.stderr.contains("(NotFound)"), || format!("{path}: {got:?}"))?;
    }
    for (query, words) in [
        ("none", "journald does not run on this node"),
        ("/link", "no log file"),
        ("/..%2f..%2fetc/passwd", "no log file"),
        ("--version", "must be the name of a service"),
        ("chrony&tailLines=x", "between 0 and 100000"),
    ] {
        let got = raw(query)?;
        wait::yes(got.code != 0 && got.stderr.contains(words), || format!("{query}: {got:?}"))?;
    }
    if !std::path::Path::new("/usr/bin/journalctl").exists() {
        println!("skipped: there is no journalctl to put a script over");
        return Ok(());
    }
    board("mkdir /run/systemd/journal; : >/run/systemd/journal/socket; printf '#!/bin/sh\\necho \"asked: $*\"; seq 100000' \
        >/var/log/script; chmod 755 /var/log/script; mount --bind /var/log/script /usr/bin/journalctl")?;
    let got = raw("kubelet&query=ssh.service&tailLines=7&sinceTime=2026-01-02T03:04:05Z&pattern=a%3B%20$(id)")?.ok("journalctl")?;
    // kubectl sorts what it sends.
    let asked = "asked: --utc --no-pager --output=short-precise --grep=a; $(id) --since=2026-01-02 03:04:05 UTC --lines=7 \
        --unit=limpet-agent --unit=ssh.service\n";
    wait::yes(got.starts_with(asked) && got.ends_with("\n100000\n"), || got.chars().take(400).collect())
}
