//! Volumes that outlive pods, volumes made of images, and devices of the board.
//!
//! In: claims, images and devices as people write them. Out: what containers find, and Kubernetes' own reasons.

use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

fn pod(name: &str, script: &str, container: Value, spec: Value) -> String {
    let mut main = json!({"name": "main", "image": "hub.limpet/busybox:1", "command": ["sh", "-c", script]});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0},
    });
    for (target, more) in [(&mut main, container), (&mut pod["spec"], spec)] {
        if let (Some(target), Some(more)) = (target.as_object_mut(), more.as_object()) {
            target.extend(more.clone());
        }
    }
    pod["spec"]["containers"] = json!([main]);
    pod.to_string()
}

fn running(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).map(|_| ()).map_err(|why| {
        let more = world.kubectl.say(&format!("describe pod {name}")).unwrap_or_default();
        format!("{why}\n{more}")
    })
}

fn inside(world: &World, name: &str, line: &str) -> Result<String> {
    world.kubectl.run(&["exec", name, "--", "sh", "-c", line]).map(|text| text.trim().to_string())
}

#[test]
fn claims_keep_what_pods_write() {
    test(1, &json!({}), |world| {
        let dir = world.slot.dir().join("persistent");
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": dir, "type": "DirectoryOrCreate"}}});
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand", "resources": {"requests": {"storage": "1Gi"}}}});
        let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        let user = json!({
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
        // The pod is there first, as people do it.
        world.kubectl.apply(&pod("writer", "echo kept > /v/file; sleep 100000", mount.clone(), user.clone()))?;
        world.kubectl.apply(&claim.to_string())?;
        world.kubectl.apply(&volume.to_string())?;
        running(world, "writer")?;
        until("the file", SOON, || {
            let got = inside(world, "writer", "stat -c %u:%g /v/file")?;
            wait::yes(got == "1000:2000", || got)
        })?;
        what_is_left(world)?;
        world.kubectl.say("delete pod writer")?;
        let mut reads = user;
        reads["volumes"][0]["persistentVolumeClaim"]["readOnly"] = json!(true);
        world.kubectl.apply(&pod("reader", "sleep 100000", mount, reads))?;
        running(world, "reader")?;
        let got = inside(world, "reader", "cat /v/file; echo x 2>&1 > /v/other || echo refused")?;
        wait::yes(got.starts_with("kept") && got.ends_with("refused"), || got)?;
        world.kubectl.say("delete pod reader")?;
        wait::yes(dir.join("file").exists(), || "the volume went with the pod".to_string())
    });
}

/// The claim's figures in the node's pages, in kubelet's names.
fn what_is_left(world: &World) -> Result<()> {
    let page = |path: &str| world.kubectl.say(&format!("get --raw /api/v1/nodes/board-1/proxy{path}"));
    let text = page("/metrics")?;
    let value = |name: &str| -> Result<u64> {
        let start = format!("kubelet_volume_stats_{name}{{namespace=\"default\",persistentvolumeclaim=\"data\"}} ");
        let all: Vec<u64> = text.lines().filter_map(|l| l.strip_prefix(&start)?.parse().ok()).collect();
        wait::yes(all.len() == 1, || format!("{name}: {all:?} in {text}"))?;
        Ok(all[0])
    };
    let (capacity, available, used) = (value("capacity_bytes")?, value("available_bytes")?, value("used_bytes")?);
    let (inodes, free, taken) = (value("inodes")?, value("inodes_free")?, value("inodes_used")?);
    let plausible = capacity > 0 && capacity >= available && used > 0 && inodes == free + taken;
    wait::yes(plausible, || format!("{capacity} {available} {used} {inodes} {free} {taken}"))?;
    let summary: Value = serde_json::from_str(&page("/stats/summary")?).map_err(|e| e.to_string())?;
    let pod = summary["pods"].as_array().into_iter().flatten().find(|p| p["podRef"]["name"] == "writer").cloned();
    let volume = pod.unwrap_or_default()["volume"][0].clone();
    let same = volume["pvcRef"] == json!({"name": "data", "namespace": "default"}) && volume["capacityBytes"] == capacity;
    wait::yes(same && volume["name"] == "v", || volume.to_string())
}

#[test]
fn images_as_volumes_and_devices() {
    if !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("skipped: this machine has no /dev/fuse to lend");
        return;
    }
    let devices = json!([{"resource": "board.example/fuse", "nodes": ["/dev/fus?"], "access": "r"}]);
    test(1, &json!({"devices": devices}), |world| {
        let container = json!({
            "volumeMounts": [{"name": "i", "mountPath": "/image"}, {"name": "i", "mountPath": "/part", "subPath": "bin"}],
            "resources": {"limits": {"board.example/fuse": 1}},
        });
        let volumes = json!({"volumes": [{"name": "i", "image": {"reference": "hub.limpet/busybox:1"}}]});
        until("the node's devices", SOON, || {
            let node = world.kubectl.json("get node board-1")?;
            wait::yes(node["status"]["allocatable"]["board.example/fuse"] == "1", || node["status"].to_string())
        })?;
        world.kubectl.apply(&pod("first", "sleep 100000", container.clone(), volumes.clone()))?;
        running(world, "first")?;
        for (line, want) in [
            ("cmp /image/bin/busybox /bin/busybox && echo same", "same"),
            ("test -e /part/busybox && echo there", "there"),
            ("touch /image/x 2>/dev/null || echo refused", "refused"),
            ("/image/bin/busybox true 2>/dev/null || echo refused", "refused"),
            ("test -c /dev/fuse && (: < /dev/fuse) && echo opened", "opened"),
            ("(: >> /dev/fuse) 2>/dev/null || echo refused", "refused"),
        ] {
            let got = inside(world, "first", line)?;
            wait::yes(got == want, || format!("{line}: {got:?}"))?;
        }
        let bare = json!({});
        world.kubectl.apply(&pod("without", "sleep 100000", bare.clone(), bare))?;
        running(world, "without")?;
        let got = inside(world, "without", "test -e /dev/fuse || echo none")?;
        wait::yes(got == "none", || got)?;
        // There is one: the next pod waits until it is free.
        world.kubectl.apply(&pod("second", "sleep 100000", container, volumes))?;
        until("the scheduler's word", SOON, || {
            let pod = world.kubectl.json("get pod second")?;
            wait::yes(pod["status"].to_string().contains("Insufficient board.example/fuse"), || pod["status"].to_string())
        })?;
        world.kubectl.say("delete pod first")?;
        running(world, "second")?;
        an_image_that_is_not_there(world)
    });
}

/// The container that mounts it says so, as for its own image; it comes by itself once the image is there.
fn an_image_that_is_not_there(world: &World) -> Result<()> {
    let mount = json!({"volumeMounts": [{"name": "i", "mountPath": "/image"}]});
    let volumes = json!({"volumes": [{"name": "i", "image": {"reference": "hub.limpet/later:1"}}]});
    world.kubectl.apply(&pod("later", "sleep 100000", mount, volumes))?;
    let waits = |reason: &str| {
        until(reason, SOON, || {
            let status = world.kubectl.json("get pod later")?["status"].take();
            let waiting = &status["containerStatuses"][0]["state"]["waiting"];
            let named = waiting["message"].as_str().is_some_and(|m| m.contains("hub.limpet/later:1"));
            wait::yes(waiting["reason"] == reason && named, || status.to_string())
        })
    };
    waits("ErrImagePull")?;
    waits("ImagePullBackOff")?;
    let events = world.kubectl.say("get events --field-selector involvedObject.name=later")?;
    let image = "image \"hub.limpet/later:1\"";
    for words in [&format!("Pulling {image}"), &format!("Failed to pull {image}"), "Error: ImagePullBackOff"] {
        wait::yes(events.contains(words), || format!("no {words}: {events}"))?;
    }
    let bytes = std::fs::read("/bin/busybox").map_err(|e| e.to_string())?;
    let image = limpet_e2e::images::busybox_of(&limpet_oci::Platform::host(), &bytes, limpet_e2e::images::base())?;
    limpet_e2e::images::Target::hub(&world.hub, &world.slot.dir())?.push("later", "1", &image)?;
    running(world, "later")?;
    let events = world.kubectl.say("get events --field-selector involvedObject.name=later")?;
    wait::yes(events.contains("Successfully pulled image \"hub.limpet/later:1\""), || events.clone())
}

/// A device that pods claim (resource.k8s.io/v1): from the board's configuration to the container, and back.
#[test]
fn devices_by_claims() {
    if !std::path::Path::new("/dev/fuse").exists() {
        eprintln!("skipped: this machine has no /dev/fuse to lend");
        return;
    }
    let devices = json!([{"resource": "board.example/fuse", "nodes": ["/dev/fus?"], "access": "r", "claims": true}]);
    test(1, &json!({"devices": devices}), |world| {
        until("the board's slice", SOON, || {
            let slices = world.kubectl.items("get resourceslices")?;
            let device = &slices.first().map(|s| s["spec"]["devices"][0].clone()).unwrap_or_default();
            let good = device["name"] == "fuse" && device["attributes"]["resource"]["string"] == "board.example/fuse";
            wait::yes(good, || format!("{slices:?}"))
        })?;
        let node = world.kubectl.json("get node board-1")?;
        wait::yes(node["status"]["allocatable"]["board.example/fuse"].is_null(), || "it is counted, too".to_string())?;
        let chosen = "device.driver == 'devices.limpet.dev' && \
                      device.attributes['devices.limpet.dev'].resource == 'board.example/fuse'";
        let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "fuse"},
            "spec": {"selectors": [{"cel": {"expression": chosen}}], "extendedResourceName": "board.example/fuse"}});
        world.kubectl.apply(&class.to_string())?;
        let template = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": "fuse"},
            "spec": {"spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "fuse"}}]}}}});
        world.kubectl.apply(&template.to_string())?;
        let claims = json!({"resources": {"claims": [{"name": "dev", "request": "one"}]}});
        let spec = json!({"resourceClaims": [{"name": "dev", "resourceClaimTemplateName": "fuse"}]});
        world.kubectl.apply(&pod("first", "sleep 100000", claims.clone(), spec.clone()))?;
        running(world, "first")?;
        for (line, want) in [
            ("test -c /dev/fuse && (: < /dev/fuse) && echo opened", "opened"),
            ("(: >> /dev/fuse) 2>/dev/null || echo refused", "refused"),
        ] {
            let got = inside(world, "first", line)?;
            wait::yes(got == want, || format!("{line}: {got:?}"))?;
        }
        // Who names no claim in its container gets nothing of it; whoever comes second waits for the only one.
        world.kubectl.apply(&pod("second", "sleep 100000", claims, spec))?;
        until("the scheduler's word", SOON, || {
            let said = world.kubectl.json("get pod second")?["status"].to_string();
            wait::yes(said.contains("cannot allocate all claims"), || said)
        })?;
        world.kubectl.say("delete pod first")?;
        running(world, "second")?;
        world.kubectl.say("delete pod second")?;
        // In the old way: a number of an extended resource, which the class answers.
        let limits = json!({"resources": {"limits": {"board.example/fuse": 1}}});
        world.kubectl.apply(&pod("third", "sleep 100000", limits, json!({})))?;
        running(world, "third")?;
        let got = inside(world, "third", "test -c /dev/fuse && echo there")?;
        wait::yes(got == "there", || got)?;
        let said = world.kubectl.json("get pod third")?["status"]["extendedResourceClaimStatus"].clone();
        wait::yes(said["requestMappings"][0]["containerName"] == "main", || said.to_string())
    });
}

/// Vendors' files in the CDI directory: everything that they ask for, one device to one pod also after the agent's death, and a
/// sentence on the pod where the file cannot be followed.
#[test]
fn devices_by_vendors_files() {
    test(0, &json!({}), |world| {
        let (cdi, said) = (world.slot.dir().join("cdi"), world.slot.dir().join("hook-said"));
        std::fs::create_dir_all(&cdi).map_err(|e| e.to_string())?;
        vendors_files(&cdi, &said)?;
        let names = ["vendor.example/npu=0", "vendor.example/npu=1"];
        let devices = json!([{"resource": "board.example/npu", "cdi": names},
            {"resource": "board.example/odd", "cdi": ["vendor.example/odd=0"]},
            {"resource": "board.example/claimed", "cdi": ["vendor.example/npu=c"], "claims": true}]);
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let settings = json!({"devices": devices, "cdiDirs": [cdi]});
        world.agents.push(limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?);
        world.join()?;
        let limits = |resource: &str| json!({"resources": {"limits": {resource: 1}}});
        let user = json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 1000}});
        world.kubectl.apply(&pod("first", "sleep 100000", limits("board.example/npu"), user.clone()))?;
        running(world, "first")?;
        for (line, want) in [
            ("echo $ALL $NPU", "yes 0"),
            ("stat -c '%t:%T %a %u:%g' /dev/npu", "1:3 600 1000:1000"),
            ("echo x > /dev/npu && echo written", "written"),
            ("stat -c '%u:%g' /dev/npu-root", "0:44"),
            ("id -G", "1000 44"),
            ("cat /npu/model", "example"),
            ("touch /npu/x 2>/dev/null || echo refused", "refused"),
            ("grep ' /npu ' /proc/mounts | grep ro, | grep nosuid | grep -c nodev", "1"),
        ] {
            let got = inside(world, "first", line)?;
            wait::yes(got == want, || format!("{line}: {got:?} instead of {want:?}"))?;
        }
        let words = std::fs::read_to_string(&said).map_err(|e| e.to_string())?;
        wait::yes(words.starts_with("from the vendor {") && words.contains("\"creating\""), || words)?;
        // The next agent knows who has which.
        let agent = world.agents[0].agent_process()?;
        limpet_e2e::process::sh("kill", ["-9", &agent.pid.to_string()])?;
        world.kubectl.apply(&pod("second", "sleep 100000", limits("board.example/npu"), user))?;
        running(world, "second")?;
        let got = inside(world, "second", "echo $NPU")?;
        wait::yes(got == "1", || format!("two pods have one device: {got}"))?;
        odd_files(world, &cdi)
    });
}

/// YAML with everything, JSON with an edit that nobody here can make.
fn vendors_files(cdi: &std::path::Path, said: &std::path::Path) -> Result<()> {
    let write = |path: &std::path::Path, text: &str| std::fs::write(path, text).map_err(|e| e.to_string());
    let hook = cdi.join("hook");
    write(&hook, &format!("#!/bin/busybox sh\necho \"$1 $(cat)\" > {}\n", said.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, mode).map_err(|e| e.to_string())?;
    let share = cdi.join("share");
    std::fs::create_dir_all(&share).map_err(|e| e.to_string())?;
    write(&share.join("model"), "example\n")?;
    let (hook, share) = (hook.display(), share.display());
    let device = |name: &str| format!("- name: \"{name}\"\n  containerEdits:\n    env:\n    - NPU={name}\n");
    write(&cdi.join("npu.yaml"), &format!(
        "---\ncdiVersion: 0.7.0\nkind: vendor.example/npu\ncontainerEdits:\n  additionalGids:\n  - 44\n  env:\n  - ALL=yes\n  \
         deviceNodes:\n  - path: /dev/npu\n    type: c\n    major: 1\n    minor: 3\n    fileMode: 384\n    permissions: rw\n  \
         - path: /dev/npu-root\n    hostPath: /dev/zero\n    uid: 0\n    gid: 44\n  hooks:\n  - hookName: createContainer\n    \
         path: {hook}\n    args:\n    - hook\n    - from the vendor\n  mounts:\n  - hostPath: {share}\n    \
         containerPath: /npu\n    options:\n    - ro\n    - nosuid\n    - nodev\n    - rbind\n    - rprivate\ndevices:\n{}{}{}",
        device("0"), device("1"), device("c")))?;
    let odd = json!({"cdiVersion": "0.7.0", "kind": "vendor.example/odd", "devices": [
        {"name": "0", "containerEdits": {"intelRdt": {"closID": "x"}}}]});
    write(&cdi.join("odd.json"), &odd.to_string())
}

/// What cannot be done is said on the pod; when the file is mended the pod starts. A claim gives the same as a number.
fn odd_files(world: &World, cdi: &std::path::Path) -> Result<()> {
    world.kubectl.apply(&pod("odd", "sleep 100000", json!({"resources": {"limits": {"board.example/odd": 1}}}), json!({})))?;
    until("the vendor's file in the pod's status", SOON, || {
        let said = world.kubectl.json("get pod odd")?["status"]["containerStatuses"][0].to_string();
        wait::yes(said.contains("odd.json") && said.contains("intelRdt"), || said)
    })?;
    let mended = json!({"kind": "vendor.example/odd", "devices": [{"name": "0", "containerEdits": {"env": ["ODD=no"]}}]});
    std::fs::write(cdi.join("odd.json"), mended.to_string()).map_err(|e| e.to_string())?;
    running(world, "odd")?;
    let chosen = "device.attributes['devices.limpet.dev'].cdi == 'vendor.example/npu=c'";
    let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "npu"},
        "spec": {"selectors": [{"cel": {"expression": chosen}}]}});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "mine"},
        "spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "npu"}}]}}});
    world.kubectl.apply(&class.to_string())?;
    world.kubectl.apply(&claim.to_string())?;
    let claims = json!({"resources": {"claims": [{"name": "dev"}]}});
    let spec = json!({"resourceClaims": [{"name": "dev", "resourceClaimName": "mine"}]});
    world.kubectl.apply(&pod("claims", "sleep 100000", claims, spec))?;
    running(world, "claims")?;
    let got = inside(world, "claims", "echo $NPU; test -c /dev/npu && echo there")?;
    wait::yes(got == "c\nthere", || got)
}
