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
        running(world, "second")
    });
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
