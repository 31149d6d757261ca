//! What a pod mounts: how mounts travel, paths in volumes, kinds of host paths, groups, block devices.
//!
//! In: a world with one board, directories and devices of its own. Out: what is in the container, and on the board.

use limpet_e2e::pods::{
    apply, becomes, container, delete, has, has_event, inside, is, merge, one, ready, sleeper, waits,
};
use limpet_e2e::process::sh;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub fn made(world: &World, name: &str) -> Result<PathBuf> {
    let dir = world.slot.dir().join(name);
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}

/// Runs a program where the board's mounts are.
pub fn on_board(world: &World, words: &[&str]) -> Result<String> {
    let pid = world.agents[0].agent_process()?.pid.to_string();
    limpet_e2e::process::run(std::process::Command::new("nsenter").args(["-m", "-t", &pid, "--"]).args(words))?
        .ok(&words.join(" "))
}

fn volume(path: &Path) -> Value {
    json!({"volumes": [{"name": "v", "hostPath": {"path": path}}]})
}

pub fn mounted(more: Value) -> Value {
    let mut mount = json!({"name": "v", "mountPath": "/v"});
    merge(&mut mount, more);
    json!({"volumeMounts": [mount]})
}

/// recursiveReadOnly: what the board has mounted below a volume.
pub fn read_only_below(world: &World) -> Result<()> {
    let (dir, below) = (made(world, "tree")?, made(world, "tree/below")?);
    on_board(world, &["mount", "-t", "tmpfs", "below", &below.to_string_lossy()])?;
    for (name, more, writable) in [
        ("deep", json!({"readOnly": true, "recursiveReadOnly": "Enabled"}), false),
        ("may", json!({"readOnly": true, "recursiveReadOnly": "IfPossible"}), false),
        ("flat", json!({"readOnly": true, "recursiveReadOnly": "Disabled"}), true),
    ] {
        sleeper(world, name, mounted(more), volume(&dir))?;
        let pod = ready(world, name)?;
        let said = &pod["status"]["containerStatuses"][0]["volumeMounts"];
        let shown = said.as_array().into_iter().flatten().find(|m| m["name"] == "v").cloned().unwrap_or_default();
        let want = if writable { "Disabled" } else { "Enabled" };
        wait::yes(shown["recursiveReadOnly"] == want, || format!("{name}: {said}"))?;
        let text =
            inside(world, name, "touch /v/x 2>/dev/null && echo top; touch /v/below/x 2>/dev/null && echo below; true")?;
        wait::yes(!text.contains("top") && text.contains("below") == writable, || format!("{name}: {text}"))?;
    }
    delete(world, &["deep", "may", "flat"])
}

/// mountPropagation: what the board mounts later, what a privileged container mounts, and mounts that cannot travel.
pub fn travelling(world: &World) -> Result<()> {
    let (dir, late, up) = (made(world, "roads")?, made(world, "roads/late")?, made(world, "roads/up")?);
    sleeper(world, "none", mounted(json!({})), volume(&dir))?;
    sleeper(world, "down", mounted(json!({"mountPropagation": "HostToContainer"})), volume(&dir))?;
    let mut both = mounted(json!({"mountPropagation": "Bidirectional"}));
    merge(&mut both, json!({"securityContext": {"privileged": true}}));
    sleeper(world, "both", both, volume(&dir))?;
    for name in ["none", "down", "both"] {
        ready(world, name)?;
    }
    on_board(world, &["mount", "-t", "tmpfs", "late", &late.to_string_lossy()])?;
    on_board(world, &["touch", &late.join("proof").to_string_lossy()])?;
    for (name, want) in [("none", ""), ("down", "proof"), ("both", "proof")] {
        is(&inside(world, name, "ls /v/late")?, want)?;
    }
    inside(world, "both", "mount -t tmpfs up /v/up && touch /v/up/mine")?;
    is(&on_board(world, &["ls", &up.to_string_lossy()])?, "mine")?;
    is(&inside(world, "down", "ls /v/up")?, "mine")?;
    // Nothing else of the container is the board's: neither its root nor what is mounted in it.
    let table = on_board(world, &["cat", "/proc/1/mounts"])?;
    let root = world.agents[0].run.join("root").to_string_lossy().into_owned();
    let alien: Vec<&str> = table.lines().filter(|l| l.contains("/rootfs/") || l.contains(&root)).collect();
    wait::yes(alien.is_empty(), || format!("the container's own mounts on the board: {alien:?}"))?;
    delete(world, &["none", "down", "both"])?;
    let own = made(world, "roads/own")?;
    let path = own.to_string_lossy().into_owned();
    on_board(world, &["mount", "-t", "tmpfs", "own", &path])?;
    on_board(world, &["mount", "--make-private", &path])?;
    let words = format!("path \"{path}\" is mounted on \"{path}\" but it is not a shared or slave mount");
    sleeper(world, "stuck", mounted(json!({"mountPropagation": "HostToContainer"})), volume(&own))?;
    waits(world, "stuck", "CreateContainerError", &words)?;
    delete(world, &["stuck"])
}

/// subPath and subPathExpr: made where they are missing, never outside, whoever exchanges what in the meantime.
pub fn paths_in_volumes(world: &World) -> Result<()> {
    let (dir, outside) = (made(world, "parts")?, made(world, "outside")?);
    std::os::unix::fs::symlink(&outside, dir.join("trap")).map_err(|e| e.to_string())?;
    let env = json!({"env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
    let with = |more: Value| {
        let mut fields = mounted(more);
        merge(&mut fields, env.clone());
        fields
    };
    sleeper(world, "part", with(json!({"subPathExpr": "logs/$(POD)"})), volume(&dir))?;
    ready(world, "part")?;
    inside(world, "part", "touch /v/here")?;
    wait::yes(dir.join("logs/part/here").exists(), || "the file is not in the pod's part".into())?;
    sleeper(world, "unknown", with(json!({"subPathExpr": "$(NONE)/x"})), volume(&dir))?;
    waits(world, "unknown", "CreateContainerConfigError", "missing value for NONE")?;
    sleeper(world, "trap", with(json!({"subPath": "trap"})), volume(&dir))?;
    let of = "volumeMount \"v\" of container \"c\"";
    let words = format!("failed to prepare subPath for {of}: \"trap\" leads out of the volume through a link");
    waits(world, "trap", "CreateContainerConfigError", &words)?;
    // Whoever may write in the volume may write in what is made of it; what is empty is not the whole volume.
    let own = json!({"volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {"runAsUser": 1000, "runAsGroup": 1000}});
    sleeper(world, "mine", with(json!({"subPath": "a/b"})), own.clone())?;
    ready(world, "mine")?;
    is(&inside(world, "mine", "touch /v/here && stat -c '%a %u' /v /v/here")?, "777 0\n644 1000")?;
    let mut empty = mounted(json!({"subPathExpr": "$(EMPTY)"}));
    merge(&mut empty, json!({"env": [{"name": "EMPTY", "value": ""}]}));
    sleeper(world, "whole", empty, own)?;
    waits(world, "whole", "CreateContainerConfigError", "missing value for EMPTY")?;
    delete(world, &["part", "unknown", "trap", "mine", "whole"])?;
    // One container exchanges a directory for a link to the board's own, again and again, and rests in between, so that a
    // board without time starts something, too; the other mounts it each time.
    let swap = format!(
        "while true; do for n in 1 2 3 4 5; do ln -s {} /all/s; sleep 0.05; rm -f /all/s; mkdir /all/s; sleep 0.05; rm -rf /all/s; done; \
         mkdir /all/s; sleep 1; rm -rf /all/s; done",
        outside.display()
    );
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [
        container("swaps", &swap, json!({"volumeMounts": [{"name": "v", "mountPath": "/all"}]})),
        container("mounts", "touch /v/mark", mounted(json!({"subPath": "s"})))]});
    apply(world, "race", spec)?;
    // What was refused (the link) is tried again with longer waits: a few rounds of either kind are enough.
    becomes(world, "race", "some rounds", |s| one(s, "mounts")["restartCount"].as_i64() >= Some(2))?;
    let left = std::fs::read_dir(&outside).map_err(|e| e.to_string())?.count();
    wait::yes(left == 0, || "a container wrote outside its volume".into())?;
    delete(world, &["race"])
}

/// hostPath of every type: what fits is mounted or made, what does not is said.
pub fn paths_of_the_board(world: &World) -> Result<()> {
    let dir = made(world, "kinds")?;
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    std::fs::write(dir.join("file"), "x").map_err(|e| e.to_string())?;
    std::fs::create_dir_all(dir.join("dir")).map_err(|e| e.to_string())?;
    let _listener = std::os::unix::net::UnixListener::bind(dir.join("socket")).map_err(|e| e.to_string())?;
    let good = [
        ("Directory", at("dir")),
        ("DirectoryOrCreate", at("made/deep")),
        ("File", at("file")),
        ("FileOrCreate", at("empty")),
        ("Socket", at("socket")),
        ("CharDevice", "/dev/null".into()),
        ("", at("whatever")),
    ];
    let volumes: Vec<Value> = good
        .iter()
        .enumerate()
        .map(|(n, (kind, path))| json!({"name": format!("v{n}"), "hostPath": {"path": path, "type": kind}}))
        .collect();
    let mounts: Vec<Value> =
        (0..good.len()).map(|n| json!({"name": format!("v{n}"), "mountPath": format!("/v{n}")})).collect();
    sleeper(world, "kinds", json!({"volumeMounts": mounts}), json!({"volumes": volumes}))?;
    ready(world, "kinds")?;
    let kinds = inside(world, "kinds", "for n in 0 1 2 3 4 5 6; do stat -c %F /v$n; done")?;
    is(&kinds, "directory\ndirectory\nregular file\nregular empty file\nsocket\ncharacter special file\ndirectory")?;
    for (name, kind, path, words) in [
        ("not-dir", "Directory", at("file"), "is not a directory"),
        ("not-file", "File", at("dir"), "is not a file"),
        ("not-there", "File", at("none"), "is not a file"),
        ("not-socket", "Socket", at("file"), "is not a socket"),
        ("not-char", "CharDevice", at("file"), "is not a character device"),
        ("not-block", "BlockDevice", "/dev/null".into(), "is not a block device"),
    ] {
        sleeper(
            world,
            name,
            mounted(json!({})),
            json!({"volumes": [{"name": "v", "hostPath": {"path": path, "type": kind}}]}),
        )?;
        has_event(world, name, "FailedMount", words)?;
    }
    delete(world, &["kinds", "not-dir", "not-file", "not-there", "not-socket", "not-char", "not-block"])
}

fn claimed(world: &World, name: &str, source: Value, mode: &str) -> Result<()> {
    let mut spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
        "volumeMode": mode, "persistentVolumeReclaimPolicy": "Retain", "claimRef": {"namespace": "default", "name": name}});
    merge(&mut spec, source);
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand", "volumeMode": mode, "volumeName": name,
        "resources": {"requests": {"storage": "1Gi"}}}});
    world.kubectl.apply(&volume.to_string())?;
    world.kubectl.apply(&claim.to_string()).map(|_| ())
}

/// fsGroup and fsGroupChangePolicy: whose files a volume's are.
pub fn groups(world: &World) -> Result<()> {
    let dir = made(world, "grouped")?;
    claimed(world, "grouped", json!({"hostPath": {"path": dir, "type": "DirectoryOrCreate"}}), "Filesystem")?;
    let (old, group) = (dir.join("old"), |path: &Path| std::fs::metadata(path).map(|m| m.gid()).map_err(|e| e.to_string()));
    std::fs::write(&old, "x").map_err(|e| e.to_string())?;
    for (policy, want) in [("Always", 2000), ("OnRootMismatch", 0), ("Always", 2000)] {
        let spec = json!({"securityContext": {"fsGroup": 2000, "fsGroupChangePolicy": policy},
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "grouped"}}]});
        sleeper(world, "grouped", mounted(json!({})), spec)?;
        ready(world, "grouped")?;
        let got = group(&old)?;
        wait::yes(got == want && group(&dir)? == 2000, || format!("{policy}: the file's group is {got}"))?;
        has(&inside(world, "grouped", "id -G")?, &["2000"])?;
        delete(world, &["grouped"])?;
        std::os::unix::fs::chown(&old, None, Some(0)).map_err(|e| e.to_string())?;
    }
    // The pod's own directories are the group's with all that comes into them; the board's are left alone.
    let board = made(world, "ungrouped")?;
    let before = group(&board)?;
    let volumes = json!([{"name": "v", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}},
        {"name": "b", "hostPath": {"path": board}}]);
    let mounts = json!([{"name": "v", "mountPath": "/v"}, {"name": "m", "mountPath": "/m"}, {"name": "b", "mountPath": "/b"}]);
    let user = json!({"volumes": volumes, "securityContext": {"fsGroup": 2000, "runAsUser": 1000, "runAsGroup": 1000}});
    sleeper(world, "grouped", json!({"volumeMounts": mounts}), user)?;
    ready(world, "grouped")?;
    let look = "for v in /v /m; do touch $v/x; mkdir $v/d; stat -c '%a %g' $v; stat -c '%u %g' $v/x $v/d; done";
    let each = "2777 2000\n1000 2000\n1000 2000";
    is(&inside(world, "grouped", look)?, &format!("{each}\n{each}"))?;
    wait::yes(group(&board)? == before, || "the board's directory has another group".into())?;
    delete(world, &["grouped"])
}

/// A volume of kind `local`: a directory of the one board that it names, and so of its pods.
pub fn local(world: &World) -> Result<()> {
    let dir = made(world, "local")?;
    let here = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["board-1"]}]}]);
    let source = json!({"local": {"path": dir}, "nodeAffinity": {"required": {"nodeSelectorTerms": here}}});
    claimed(world, "local", source, "Filesystem")?;
    let claim = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "local"}}]});
    sleeper(world, "local", mounted(json!({})), claim.clone())?;
    ready(world, "local")?;
    inside(world, "local", "echo kept > /v/file")?;
    delete(world, &["local"])?;
    is(&std::fs::read_to_string(dir.join("file")).map_err(|e| e.to_string())?, "kept")?;
    // A directory that is not there is not made: the disk that should be below it may be missing.
    std::fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
    sleeper(world, "local", mounted(json!({})), claim)?;
    has_event(world, "local", "FailedMount", &dir.to_string_lossy())?;
    wait::yes(!dir.exists(), || "the directory was made".into())?;
    delete(world, &["local"])
}

/// emptyDir in memory: as large as its pod may have, where it does not say less.
pub fn in_memory(world: &World) -> Result<()> {
    let volumes = json!({"volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}},
        {"name": "w", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}}]});
    let limits = json!({"resources": {"limits": {"memory": "32Mi"}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}]});
    sleeper(world, "memory", limits, volumes)?;
    ready(world, "memory")?;
    is(&inside(world, "memory", "df -k /v /w | awk 'NR > 1 { print $2 }'")?, "32768\n8192")?;
    delete(world, &["memory"])
}

/// volumeDevices: a volume of mode Block is a device in the container.
pub fn blocks(world: &World) -> Result<()> {
    let file = world.slot.dir().join("block");
    let mut bytes = vec![0; 1 << 20];
    bytes[..6].copy_from_slice(b"inside");
    std::fs::write(&file, bytes).map_err(|e| e.to_string())?;
    let Ok(device) =
        limpet_e2e::process::run(std::process::Command::new("losetup").args(["-f", "--show"]).arg(&file))?.ok("losetup")
    else {
        eprintln!("skipped: this machine has no loop devices");
        return Ok(());
    };
    let device = device.trim().to_string();
    let done = block(world, &device, &file);
    sh("losetup", ["-d", &device])?;
    done
}

fn block(world: &World, device: &str, file: &Path) -> Result<()> {
    claimed(world, "block", json!({"hostPath": {"path": device}}), "Block")?;
    let volumes = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "block"}}]});
    sleeper(world, "block", json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/own"}]}), volumes)?;
    ready(world, "block")?;
    is(&inside(world, "block", "stat -c %F /dev/own; head -c 6 /dev/own")?, "block special file\ninside")?;
    inside(world, "block", "printf written | dd of=/dev/own conv=fsync 2>/dev/null")?;
    until("what was written", Duration::from_secs(30), || {
        let bytes = std::fs::read(file).map_err(|e| e.to_string())?;
        wait::yes(bytes.starts_with(b"written"), || "the device's file is as it was".into())
    })?;
    // The same as a path of the board, which is no volume of mode Block: seen, and not to be opened.
    let kind = json!({"volumes": [{"name": "v", "hostPath": {"path": device, "type": "BlockDevice"}}]});
    sleeper(world, "kind", mounted(json!({})), kind)?;
    ready(world, "kind")?;
    is(&inside(world, "kind", "stat -c %F /v; head -c 6 /v 2>/dev/null || echo refused")?, "block special file\nrefused")?;
    delete(world, &["block", "kind"])
}
