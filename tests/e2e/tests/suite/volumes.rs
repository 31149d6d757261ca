//! Volumes of every source: their files, modes and owners, what changes later; the downward API; empty directories.
//!
//! In: a world with one board. Out: what pods see.

use limpet_e2e::pods::{apply, container, delete, inside, is, merge, ready, sleeper};
use limpet_e2e::{Result, World, until, wait};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// The same names in two namespaces: a pod sees those of its own.
pub fn objects(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    kubectl.say("create namespace elsewhere")?;
    for namespace in ["default", "elsewhere"] {
        kubectl.say(&format!(
            "create secret generic things -n {namespace} --from-literal=a={namespace} --from-literal=b=two"
        ))?;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "things", "namespace": namespace},
            "data": {"a": namespace, "b": "two"}, "binaryData": {"bytes": "3q2+7w=="}});
        kubectl.apply(&map.to_string())?;
    }
    Ok(())
}

/// ConfigMaps and Secrets as volumes and as projections: whole, mapped, with modes, to root and to others, twice, by subPath.
pub fn files_of_objects(world: &World) -> Result<()> {
    let items = |mode: Option<u32>| {
        let mut item = json!({"key": "a", "path": "deep/a"});
        if let Some(mode) = mode {
            item["mode"] = mode.into();
        }
        json!([item])
    };
    // (name, fields of the source, path, mode that is seen without fsGroup)
    let kinds = [
        ("plain", json!({}), "a", "644"),
        ("default-mode", json!({"defaultMode": 0o400}), "a", "400"),
        ("mapped", json!({"items": items(None)}), "deep/a", "644"),
        ("item-mode", json!({"items": items(Some(0o400))}), "deep/a", "400"),
    ];
    let (mut volumes, mut mounts, mut lines, mut expect) = (Vec::new(), Vec::new(), String::new(), String::new());
    for (name, fields, path, mode) in &kinds {
        for (source, key) in [("configMap", "name"), ("secret", "secretName")] {
            let (direct, projected) = (format!("{name}-{}", &source[..1]), format!("{name}-p{}", &source[..1]));
            let mut whole = json!({key: "things"});
            merge(&mut whole, fields.clone());
            let mut part = json!({"name": "things"});
            let mut projection = json!({});
            match fields.get("items") {
                Some(items) => part["items"] = items.clone(),
                None => merge(&mut projection, fields.clone()),
            }
            projection["sources"] = json!([{source: part}]);
            volumes.push(json!({"name": direct, source: whole}));
            volumes.push(json!({"name": projected, "projected": projection}));
            for volume in [direct, projected] {
                mounts.push(json!({"name": volume, "mountPath": format!("/{volume}")}));
                lines.push_str(&format!("cat /{volume}/{path}; stat -Lc ' %a' /{volume}/{path}; "));
                expect.push_str(&format!("default {mode}\n"));
            }
        }
    }
    // The same volume a second time, single files of it, and bytes that are no text.
    mounts.push(json!({"name": "plain-c", "mountPath": "/again"}));
    mounts.push(json!({"name": "plain-s", "mountPath": "/one", "subPath": "a"}));
    mounts.push(json!({"name": "mapped-pc", "mountPath": "/etc/passwd", "subPath": "deep/a"}));
    lines.push_str("cat /again/b /one /etc/passwd; od -An -tx1 /plain-c/bytes");
    expect.push_str("twodefaultdefault de ad be ef");
    let fields = json!({"volumeMounts": mounts});
    sleeper(world, "files", fields.clone(), json!({"volumes": volumes.clone()}))?;
    ready(world, "files")?;
    is(&inside(world, "files", &lines)?, &expect)?;
    // Not even root writes there: the board does, by these names.
    let write = "for v in /plain-c /plain-s /plain-pc /plain-ps; do touch $v/new 2>&1 || rm $v/..data 2>&1; done | grep -c Read-only";
    is(&inside(world, "files", write)?, "8")?;
    // Somebody else, whose group the files are given to: read by it, also where only the owner might.
    let other = json!({"volumes": volumes, "securityContext": {"runAsUser": 1000, "fsGroup": 1001}});
    sleeper(world, "others", fields, other)?;
    ready(world, "others")?;
    let look = "id -u; cat /plain-c/a /plain-s/a /default-mode-c/a /default-mode-s/a /item-mode-pc/deep/a; \
                stat -Lc ' %g %a' /default-mode-s/a";
    is(&inside(world, "others", look)?, "1000\ndefaultdefaultdefaultdefaultdefault 1001 440")?;
    delete(world, &["files", "others"])
}

/// What is created, changed and deleted later is seen; what is mounted by subPath stays as it was.
pub fn changes(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    for name in ["changed", "deleted"] {
        kubectl.say(&format!("create configmap {name} --from-literal=a=1"))?;
        kubectl.say(&format!("create secret generic {name} --from-literal=a=1"))?;
    }
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    for name in ["created", "changed", "deleted"] {
        for (source, key) in [("configMap", "name"), ("secret", "secretName")] {
            let (direct, projected) = (format!("{name}-{}", &source[..1]), format!("{name}-p{}", &source[..1]));
            volumes.push(json!({"name": direct, source: {key: name, "optional": true}}));
            volumes.push(json!({"name": projected, "projected": {"sources": [{source: {"name": name, "optional": true}}]}}));
            mounts.extend([direct, projected].map(|v| json!({"name": v, "mountPath": format!("/{v}")})));
        }
    }
    mounts.push(json!({"name": "changed-c", "mountPath": "/fixed", "subPath": "a"}));
    sleeper(world, "later", json!({"volumeMounts": mounts}), json!({"volumes": volumes}))?;
    ready(world, "later")?;
    let look = "for v in created changed deleted; do for s in c s pc ps; do cat /$v-$s/a 2>/dev/null || printf -; done; \
                printf ' '; done; cat /fixed";
    is(&inside(world, "later", look)?, "---- 1111 1111 1")?;
    let watch = watched(world, "changed-c")?;
    kubectl.say("create configmap created --from-literal=a=2")?;
    kubectl.say("create secret generic created --from-literal=a=2")?;
    kubectl.say(r#"patch configmap changed -p {"data":{"a":"2"}}"#)?;
    kubectl.say(r#"patch secret changed -p {"stringData":{"a":"2"}}"#)?;
    kubectl.say("delete configmap,secret deleted")?;
    until("all changes", SOON, || is(&inside(world, "later", look)?, "2222 2222 ---- 1"))?;
    swapped(&watch)?;
    delete(world, &["later"])
}

/// What programs do that read their configuration anew: they watch the directory, as the container sees it.
fn watched(world: &World, volume: &str) -> Result<Inotify> {
    let roots = world.named("sleep").into_iter().map(|p| std::path::PathBuf::from(format!("/proc/{}/root/{volume}", p.pid)));
    let dir = roots.into_iter().find(|dir| dir.is_dir()).ok_or_else(|| format!("no container has /{volume}"))?;
    let watch = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|e| e.to_string())?;
    watch.add_watch(&dir, AddWatchFlags::IN_ALL_EVENTS).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(watch)
}

/// One step, and all of it: `..data` leads to the new directory. The names that lead through it are left alone.
fn swapped(watch: &Inotify) -> Result<()> {
    let changes = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MODIFY;
    let events = watch.read_events().map_err(|e| format!("nothing was seen: {e}"))?;
    let seen: Vec<(String, AddWatchFlags)> = events
        .into_iter()
        .filter(|e| e.mask.intersects(changes))
        .map(|e| (e.name.unwrap_or_default().to_string_lossy().into_owned(), e.mask))
        .collect();
    let is_move = |(name, mask): &&(String, AddWatchFlags)| name == "..data" && mask.contains(AddWatchFlags::IN_MOVED_TO);
    let moved = seen.iter().filter(is_move).count();
    wait::yes(moved == 1, || format!("..data was moved there {moved} times: {seen:?}"))?;
    wait::yes(seen.iter().all(|(name, _)| name.starts_with("..")), || format!("files themselves were touched: {seen:?}"))
}

/// Fields and amounts as files and as variables, with the node's where a container says nothing; changes of labels and notes.
pub fn downward(world: &World) -> Result<()> {
    let amount = |resource: &str| {
        let divisor = if resource.ends_with("cpu") { "1m" } else { "1Mi" };
        json!({"resourceFieldRef": {"containerName": "c", "resource": resource, "divisor": divisor}})
    };
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let sources = [
        ("cpu-limit", amount("limits.cpu")),
        ("cpu-request", amount("requests.cpu")),
        ("memory-limit", amount("limits.memory")),
        ("memory-request", amount("requests.memory")),
        ("name", field("metadata.name")),
        ("namespace", field("metadata.namespace")),
        ("uid", field("metadata.uid")),
        ("labels", field("metadata.labels")),
        ("notes", field("metadata.annotations")),
    ];
    let list: Vec<Value> = sources
        .iter()
        .map(|(name, source)| {
            let mut item = json!({"path": name, "mode": 0o400});
            merge(&mut item, source.clone());
            item
        })
        .collect();
    let volumes = json!([{"name": "d", "downwardAPI": {"items": list.clone(), "defaultMode": 0o444}},
        {"name": "p", "projected": {"sources": [{"downwardAPI": {"items": list}}]}},
        {"name": "m", "downwardAPI": {"defaultMode": 0o400,
            "items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}]);
    let mounts = json!([{"name": "d", "mountPath": "/d"}, {"name": "p", "mountPath": "/p"}, {"name": "m", "mountPath": "/m"},
        {"name": "d", "mountPath": "/sub", "subPath": "name"}]);
    let env = |name: &str, source: Value| json!({"name": name, "valueFrom": source});
    let env = json!([
        env("CPU", amount("limits.cpu")),
        env("MEM", amount("requests.memory")),
        env("HOST", field("status.hostIP")),
        env("HOSTS", field("status.hostIPs")),
        env("UID_", field("metadata.uid")),
        env("NS", field("metadata.namespace")),
        env("IP", field("status.podIP")),
        env("IPS", field("status.podIPs")),
        env("ACCOUNT", field("spec.serviceAccountName")),
        env("NOTE", field("metadata.annotations['example.com/note']"))
    ]);
    let sizes = json!({"limits": {"cpu": "250m", "memory": "32Mi"}, "requests": {"cpu": "50m", "memory": "16Mi"}});
    for (name, resources) in [("sized", sizes), ("open", json!({}))] {
        let fields = json!({"volumeMounts": mounts, "env": env, "resources": resources});
        let mut pod = limpet_e2e::pods::manifest(
            name,
            json!({"volumes": volumes, "containers": [container("c", "exec sleep 1000000", fields)]}),
        );
        pod["metadata"]["annotations"] = json!({"example.com/note": "first"});
        world.kubectl.apply(&pod.to_string())?;
        ready(world, name)?;
    }
    let look = "for v in d p; do for f in cpu-limit cpu-request memory-limit memory-request; do cat /$v/$f; printf ' '; \
                done; done; stat -Lc %a /d/name /p/name /m/name | tr '\\n' ' '; cat /sub";
    is(&inside(world, "sized", look)?, "250 50 32 16 250 50 32 16 400 400 400 sized")?;
    let node = world.kubectl.json("get node board-1")?["status"]["allocatable"].take();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let cpu = match text(&node["cpu"]).strip_suffix('m') {
        Some(milli) => milli.to_string(),
        None => format!("{}000", text(&node["cpu"])),
    };
    let kib: u64 = text(&node["memory"]).strip_suffix("Ki").and_then(|n| n.parse().ok()).unwrap_or(0);
    let memory = kib.div_ceil(1024);
    is(&inside(world, "open", look)?, &format!("{cpu} 0 {memory} 0 {cpu} 0 {memory} 0 400 400 400 open"))?;
    let pod = world.kubectl.json("get pod sized")?;
    let said = inside(world, "sized", "echo $CPU $MEM $HOST $HOSTS $UID_ $NS $IP $IPS $ACCOUNT $NOTE; cat /d/uid")?;
    let (uid, ip, host) = (text(&pod["metadata"]["uid"]), text(&pod["status"]["podIP"]), text(&pod["status"]["hostIP"]));
    is(&said, &format!("250 16 {host} {host} {uid} default {ip} {ip} default first\n{uid}"))?;
    wait::yes(host == world.agents[0].address && pod["status"]["podIPs"][0]["ip"] == ip, || pod["status"].to_string())?;
    wait::yes(pod["status"]["qosClass"] == "Burstable", || pod["status"].to_string())?;
    world.kubectl.say("label pod sized color=blue")?;
    world.kubectl.say("annotate pod sized example.com/more=yes")?;
    until("the new label and note", SOON, || {
        let text = inside(world, "sized", "cat /d/labels /p/labels /d/notes /p/notes")?;
        let twice = |word: &str| text.matches(word).count() == 2;
        wait::yes(
            twice("color=\"blue\"") && twice("example.com/more=\"yes\"") && twice("example.com/note=\"first\""),
            || text.clone(),
        )
    })?;
    delete(world, &["sized", "open"])
}

/// emptyDir on disk and in memory, for root and for others; shared by two containers.
pub fn empty_directories(world: &World) -> Result<()> {
    let volumes = json!([{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]);
    let mounts =
        json!({"volumeMounts": [{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/memory"}]});
    let look = "for v in disk memory; do stat -c %a /$v; for m in 644 666 777; do echo x > /$v/$m; chmod $m /$v/$m; \
                cat /$v/$m; stat -c '%a %u' /$v/$m; done; done; grep -c '/memory tmpfs' /proc/mounts";
    for (name, user) in [("root", 0), ("nobody", 1001)] {
        let spec = json!({"volumes": volumes, "securityContext": {"runAsUser": user}, "containers": [
            container("c", "exec sleep 1000000", mounts.clone()), container("d", "exec sleep 1000000", mounts.clone())]});
        apply(world, name, spec)?;
        ready(world, name)?;
        let one = format!("777\nx\n644 {user}\nx\n666 {user}\nx\n777 {user}\n");
        is(&world.kubectl.run(&["exec", name, "-c", "c", "--", "sh", "-c", look])?, &format!("{one}{one}1"))?;
        is(&world.kubectl.run(&["exec", name, "-c", "d", "--", "cat", "/disk/644", "/memory/777"])?, "x\nx")?;
    }
    delete(world, &["root", "nobody"])
}

/// Fifty ConfigMaps in each of three pods.
pub fn many_at_once(world: &World) -> Result<()> {
    let names: Vec<String> = (0..50).map(|n| format!("many-{n}")).collect();
    let maps: Vec<Value> = names
        .iter()
        .map(|n| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": n}, "data": {"a": n}}))
        .collect();
    world.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": maps}).to_string())?;
    let volumes: Vec<Value> = names.iter().map(|n| json!({"name": n, "configMap": {"name": n}})).collect();
    let mounts: Vec<Value> = names.iter().map(|n| json!({"name": n, "mountPath": format!("/m/{n}")})).collect();
    let pods = ["crowd-1", "crowd-2", "crowd-3"];
    for name in pods {
        sleeper(world, name, json!({"volumeMounts": mounts}), json!({"volumes": volumes}))?;
    }
    for name in pods {
        ready(world, name)?;
        is(&inside(world, name, "cat /m/*/a | grep -o many | wc -l")?, "50")?;
    }
    delete(world, &pods)
}

/// An image's files, asked of its registry each time, read only.
pub fn images(world: &World) -> Result<()> {
    use limpet_oci::{Platform, builder, builder::Layer, config::Execution};
    let layers = [Layer::new().directory("deep", 0o755).file("deep/one", 0o644, b"lower").file("two", 0o600, b"two")]
        .into_iter()
        .chain([Layer::new().file("deep/one", 0o644, b"upper")])
        .collect();
    let image = builder::image(&Platform::host(), Execution::default(), layers).map_err(|e| e.to_string())?;
    limpet_e2e::images::Target::hub(&world.hub, &world.slot.dir())?.push("files", "1", &image)?;
    let volumes = json!([{"name": "i", "image": {"reference": "hub.limpet/files:1", "pullPolicy": "Always"}}]);
    sleeper(world, "reader", json!({"volumeMounts": [{"name": "i", "mountPath": "/i"}]}), json!({"volumes": volumes}))?;
    ready(world, "reader")?;
    let look = "cat /i/deep/one /i/two; touch /i/three 2>/dev/null || echo ' refused'";
    is(&inside(world, "reader", look)?, "uppertwo refused")?;
    delete(world, &["reader"])
}
