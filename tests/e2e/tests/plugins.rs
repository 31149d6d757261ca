//! Device plugins of Kubernetes on a real board: a plugin on gRPC of another make, pods that ask for its devices.
//!
//! In: `plugins/dongles.py` with grpcio. Out: the node's counts, containers with their devices, and the plugin's own notes of
//! what it was asked; through its death, its return, the agent's death and a power cut. Who has which is told at the node's other
//! socket (`plugins/lister.py`).

use limpet_e2e::binaries::target_dir;
use limpet_e2e::process::{Daemon, which};
use limpet_e2e::world::test;
use limpet_e2e::{Result, World, until, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const DONGLE: &str = "vendor.example/dongle";
/// The number of the world is in the path, so that a setting cannot name it before there is one.
const PLACE: &str = "device-plugins";

struct Plugin {
    dir: PathBuf,
    process: Option<Daemon>,
}

impl Plugin {
    fn start(world: &World, dir: &Path, resource: &str, more: &[&str]) -> Result<Plugin> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/dongles.py");
        let python = which("python3").ok_or("needs python3: run `cargo xtask setup`")?;
        let socket = format!("{}.sock", resource.rsplit('/').next().unwrap_or_default());
        // -B: nothing is left beside the scripts.
        let mut words = vec![python.as_os_str(), "-B".as_ref(), program.as_os_str()];
        words.extend([dir.as_os_str(), resource.as_ref(), socket.as_ref()]);
        words.extend(more.iter().map(|word| std::ffi::OsStr::new(*word)));
        let path = target_dir().join("tools/grpc").to_string_lossy().into_owned();
        let (key, value) = world.slot.mark();
        let environment = [(key, value.as_str()), ("PYTHONPATH", path.as_str())];
        let process = Daemon::start(&words, &environment, &world.slot.dir().join("plugin.log"))?;
        Ok(Plugin { dir: dir.to_path_buf(), process: Some(process) })
    }

    fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    fn was_asked(&self, line: &str) -> Result<()> {
        until(line, SOON, || {
            let calls = self.calls();
            wait::yes(calls.iter().any(|call| call == line), || format!("{calls:?}"))
        })
    }
}

fn offers(dir: &Path, devices: &str) -> Result<()> {
    fs::create_dir_all(dir).and_then(|()| fs::write(dir.join("devices.new"), devices)).map_err(|e| e.to_string())?;
    fs::rename(dir.join("devices.new"), dir.join("devices")).map_err(|e| e.to_string())
}

fn counted(world: &World, resource: &str, capacity: &str, allocatable: &str) -> Result<()> {
    until(&format!("{capacity} of {resource}, {allocatable} to be had"), SOON, || {
        let status = world.kubectl.json("get node board-1")?["status"].take();
        let right = status["capacity"][resource] == capacity && status["allocatable"][resource] == allocatable;
        wait::yes(right, || format!("{} {}", status["capacity"], status["allocatable"]))
    })
}

fn pod(name: &str, count: u32, init: bool) -> String {
    let limits = json!({"limits": {DONGLE: count}});
    let container = |name: &str, line: &str| {
        json!({"name": name, "image": "hub.limpet/busybox:1", "command": ["sh", "-c", line], "resources": limits})
    };
    let main = container("main", "echo $DONGLES; until [ -f /tmp/end ]; do sleep 0.5; done");
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [main]}});
    if init {
        pod["spec"]["initContainers"] = json!([container("first", "echo $DONGLES")]);
    }
    pod.to_string()
}

fn running(world: &World, name: &str) -> Result<()> {
    world.kubectl.say(&format!("wait --for=condition=Ready pod/{name} --timeout=90s")).map(|_| ()).map_err(|why| {
        format!("{why}\n{}", world.kubectl.say(&format!("describe pod {name}")).unwrap_or_default())
    })
}

fn has(world: &World, name: &str, line: &str, want: &str) -> Result<()> {
    let got = world.kubectl.run(&["exec", name, "--", "sh", "-c", line])?;
    wait::yes(got.trim() == want, || format!("{name}: {line}: {got:?} instead of {want:?}"))
}

/// What a program on the board hears of devices.
fn told(world: &World, words: &[&str]) -> Result<Vec<String>> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/lister.py");
    let mut python = std::process::Command::new("python3");
    python.arg("-B").arg(program).arg(world.slot.dir().join("pod-resources/kubelet.sock")).args(words);
    let said = limpet_e2e::process::run(python.env("PYTHONPATH", target_dir().join("tools/grpc")))?.ok("lister.py")?;
    Ok(said.lines().map(String::from).collect())
}

fn is_told(world: &World, words: &[&str], want: &[&str]) -> Result<()> {
    let told = told(world, words)?;
    wait::yes(told == want, || format!("{words:?}: {told:?} instead of {want:?}"))
}

fn waits(world: &World, name: &str, words: &str) -> Result<()> {
    until(words, SOON, || {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        let events = world.kubectl.say(&format!("get events --field-selector involvedObject.name={name}"))?;
        wait::yes(status.to_string().contains(words) || events.contains(words), || format!("{status}\n{events}"))
    })
}

#[test]
fn plugins_of_kubernetes() {
    if !target_dir().join("tools/grpc").is_dir() || !Path::new("/dev/fuse").exists() {
        println!("skipped: needs grpcio (`cargo xtask setup`) and /dev/fuse");
        return;
    }
    test(0, &json!({}), |world| {
        let dir = world.slot.dir().join(PLACE);
        let cdi = world.slot.dir().join("cdi");
        let own = json!([{"resource": "board.example/zero", "nodes": ["/dev/zero"]},
            {"resource": "board.example/fuse", "nodes": ["/dev/fus?"], "claims": true}]);
        let settings = json!({"devicePluginDir": dir, "cdiDirs": [cdi], "devices": own});
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        world.agents.push(limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?);
        world.join()?;
        offers(&dir, "a b !c")?;
        let mut plugin = Plugin::start(world, &dir, DONGLE, &[])?;
        counted(world, DONGLE, "3", "2")?;
        refusals(&plugin)?;
        pods_get_devices(world, &plugin)?;
        lists_change(world, &plugin)?;
        deaths(world, &mut plugin)?;
        plugin.kill();
        world.kubectl.say("delete pods --all")?;
        choosers(world, &dir, &cdi)?;
        watched(world, &dir)?;
        devices_of_the_board(world)
    });
}

/// Devices that the board's own configuration offers, by number and by claim, are told of as plugins' are.
fn devices_of_the_board(world: &World) -> Result<()> {
    let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "fuse"},
        "spec": {"selectors": [{"cel": {"expression": "device.driver == 'devices.limpet.dev'"}}]}});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "mine"},
        "spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "fuse"}}]}}});
    world.kubectl.apply(&class.to_string())?;
    world.kubectl.apply(&claim.to_string())?;
    let mut object: Value = serde_json::from_str(&pod("six", 0, false)).map_err(|e| e.to_string())?;
    object["spec"]["resourceClaims"] = json!([{"name": "dev", "resourceClaimName": "mine"}]);
    object["spec"]["containers"][0]["resources"] = json!({"limits": {"board.example/zero": 1}, "claims": [{"name": "dev"}]});
    world.kubectl.apply(&object.to_string())?;
    running(world, "six")?;
    let line = "default/six/main board.example/zero=/dev/zero mine:devices.limpet.dev/board-1/fuse";
    is_told(world, &["Get", "six", "default"], &[line])
}

fn refusals(plugin: &Plugin) -> Result<()> {
    let calls = plugin.calls();
    let is = |words: &[&str]| calls.iter().any(|call| words.iter().all(|word| call.contains(word)));
    wait::yes(is(&["refused INVALID_ARGUMENT", "cpu", "is invalid"]) && is(&["refused UNIMPLEMENTED", "Nothing"]), || {
        format!("{calls:?}")
    })
}

/// A device to one pod only; variables, mounts and nodes as the plugin says; a third pod waits.
fn pods_get_devices(world: &World, plugin: &Plugin) -> Result<()> {
    world.kubectl.apply(&pod("one", 1, true))?;
    running(world, "one")?;
    has(world, "one", "echo $DONGLES", "a")?;
    // The init container had it before.
    let said = world.kubectl.say("logs one -c first")?;
    wait::yes(said == "a\n", || said)?;
    for (line, want) in [
        ("test -c /dev/dongle && (: < /dev/dongle) && echo opened", "opened"),
        ("(: >> /dev/dongle) 2>/dev/null || echo refused", "refused"),
        ("test -f /dongles/devices && echo there", "there"),
        ("touch /dongles/x 2>/dev/null || echo refused", "refused"),
    ] {
        has(world, "one", line, want)?;
    }
    world.kubectl.apply(&pod("two", 1, false))?;
    running(world, "two")?;
    has(world, "two", "echo $DONGLES", "b")?;
    world.kubectl.apply(&pod("three", 1, false))?;
    waits(world, "three", "Insufficient vendor.example/dongle")?;
    plugin.was_asked("allocate a")?;
    plugin.was_asked("allocate b")?;
    // The init container is over: what it had is not its own any more.
    let pods = [format!("default/one/main {DONGLE}=a"), format!("default/two/main {DONGLE}=b")];
    let mut all = told(world, &["List"])?;
    all.sort();
    wait::yes(all == pods, || format!("{all:?}"))?;
    is_told(world, &["Get", "two", "default"], &[&pods[1]])?;
    is_told(world, &["Get", "two", "elsewhere"], &["UNKNOWN pod two in namespace elsewhere not found"])?;
    is_told(world, &["GetAllocatableResources"], &["board.example/zero=/dev/zero", &format!("{DONGLE}=a,b")])?;
    is_told(world, &["Nothing"], &["UNIMPLEMENTED unknown method /v1.PodResourcesLister/Nothing"])?;
    // A container that is started again has the same one.
    world.kubectl.say("exec two -- touch /tmp/end")?;
    until("the restart", SOON, || {
        let status = world.kubectl.json("get pod two")?["status"]["containerStatuses"][0].clone();
        wait::yes(status["restartCount"].as_u64() >= Some(1) && status["ready"] == true, || status.to_string())
    })?;
    has(world, "two", "echo $DONGLES", "b")
}

/// What heals is given away; what the plugin cannot give is told in its words.
fn lists_change(world: &World, plugin: &Plugin) -> Result<()> {
    offers(&plugin.dir, "a b c")?;
    running(world, "three")?;
    has(world, "three", "echo $DONGLES", "c")?;
    world.kubectl.say("delete pod three")?;
    offers(&plugin.dir, "a b bad")?;
    counted(world, DONGLE, "3", "3")?;
    world.kubectl.apply(&pod("three", 1, false))?;
    waits(world, "three", "does not answer: 100 %")?;
    offers(&plugin.dir, "a b d")?;
    running(world, "three")?;
    has(world, "three", "echo $DONGLES", "d")
}

/// The plugin dies and comes back, then the agent, then the power: nobody loses a device or gets another's.
fn deaths(world: &mut World, plugin: &mut Plugin) -> Result<()> {
    let shells = |world: &World| world.agents[0].named("sh");
    let before = shells(world);
    plugin.kill();
    counted(world, DONGLE, "3", "0")?;
    wait::yes(shells(world) == before, || "containers ended with the plugin".to_string())?;
    let _ = fs::remove_file(plugin.dir.join("dongle.sock"));
    *plugin = Plugin::start(world, &plugin.dir, DONGLE, &[])?;
    counted(world, DONGLE, "3", "3")?;
    let agent = world.agents[0].agent_process()?;
    limpet_e2e::process::sh("kill", ["-9", &agent.pid.to_string()])?;
    // The next agent removes the socket; the plugin registers again by itself.
    let seen = plugin.calls().iter().filter(|call| *call == "options").count();
    until("the registration at the next agent", SOON, || {
        let now = plugin.calls().iter().filter(|call| *call == "options").count();
        wait::yes(now > seen, || format!("{now} registrations"))
    })?;
    counted(world, DONGLE, "3", "3")?;
    wait::yes(shells(world) == before, || "containers ended with the agent".to_string())?;
    is_told(world, &["Get", "two", "default"], &[&format!("default/two/main {DONGLE}=b")])?;
    // Adopted containers still have theirs: the one that is free is the one that was given back.
    world.kubectl.say("delete pod two")?;
    world.kubectl.apply(&pod("four", 1, false))?;
    running(world, "four")?;
    has(world, "four", "echo $DONGLES", "b")?;
    // After a reboot the plugin is late: its pods wait, and then start with devices.
    plugin.kill();
    world.agents[0].power_cut()?;
    world.agents[0].start(None)?;
    waits(world, "four", "no device plugin of vendor.example/dongle has registered")?;
    *plugin = Plugin::start(world, &plugin.dir, DONGLE, &[])?;
    let mut all = Vec::new();
    for name in ["one", "three", "four"] {
        running(world, name)?;
        all.push(world.kubectl.run(&["exec", name, "--", "sh", "-c", "echo $DONGLES"])?.trim().to_string());
    }
    all.sort();
    wait::yes(all == ["a", "b", "d"], || format!("{all:?}"))
}

/// A plugin that does not call but waits to be asked (`plugins_registry`), also by the agent that comes after this one.
fn watched(world: &World, dir: &Path) -> Result<()> {
    let resource = "vendor.example/watched";
    let registry = dir.with_file_name("plugins_registry");
    let _ = fs::remove_file(dir.join("calls"));
    offers(dir, "m !n")?;
    let plugin = Plugin::start(world, dir, resource, &["--watched", &registry.to_string_lossy()])?;
    counted(world, resource, "2", "1")?;
    plugin.was_asked("told 1")?;
    let agent = world.agents[0].agent_process()?;
    limpet_e2e::process::sh("kill", ["-9", &agent.pid.to_string()])?;
    until("the next agent's question", SOON, || {
        let count = plugin.calls().iter().filter(|call| *call == "told 1").count();
        wait::yes(count == 2, || format!("{count} registrations"))
    })?;
    counted(world, resource, "2", "1")
}

/// A plugin that chooses itself, wants to be told before a start, and gives devices by CDI.
fn choosers(world: &World, dir: &Path, cdi: &Path) -> Result<()> {
    let resource = "vendor.example/chooser";
    fs::create_dir_all(cdi).map_err(|e| e.to_string())?;
    let spec = json!({"cdiVersion": "0.6.0", "kind": "vendor.example/kit", "devices": [{"name": "1", "containerEdits": {
        "env": ["KIT=1"], "deviceNodes": [{"path": "/dev/kit", "hostPath": "/dev/null", "permissions": "rw"}]}}]});
    fs::write(cdi.join("kit.json"), spec.to_string()).map_err(|e| e.to_string())?;
    let _ = fs::remove_file(dir.join("calls"));
    offers(dir, "x y z")?;
    let plugin = Plugin::start(world, dir, resource, &["--options", "--cdi", "vendor.example/kit=1"])?;
    counted(world, resource, "3", "3")?;
    let mut object: Value = serde_json::from_str(&pod("five", 2, false)).map_err(|e| e.to_string())?;
    object["spec"]["containers"][0]["resources"] = json!({"limits": {resource: 2}});
    world.kubectl.apply(&object.to_string())?;
    running(world, "five")?;
    has(world, "five", "echo $DONGLES $KIT", "z,y 1")?;
    has(world, "five", "echo x > /dev/kit && echo written", "written")?;
    is_told(world, &["Get", "five", "default"], &[&format!("default/five/main {resource}=y,z")])?;
    plugin.was_asked("preferred 2 of x y z with ")?;
    plugin.was_asked("allocate z y")?;
    plugin.was_asked("prestart z y")
}

/// Nodes of the kinds that boards have, under names of their own below /dev: the kernel's small devices by their numbers.
struct Nodes(PathBuf);

impl Nodes {
    fn make(world: &World) -> Result<Nodes> {
        let name = world.slot.dir().file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let nodes = Nodes(PathBuf::from(format!("/dev/limpet-e2e-{name}")));
        for (name, minor) in NODES {
            let path = nodes.0.join(name);
            fs::create_dir_all(path.parent().unwrap_or(&nodes.0)).map_err(|e| e.to_string())?;
            limpet_e2e::process::sh("mknod", ["-m", "666", &path.to_string_lossy(), "c", "1", minor])?;
        }
        Ok(nodes)
    }

    fn at(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const NODES: [(&str, &str); 9] = [
    ("gpiochip0", "3"),
    ("gpiochip1", "5"),
    ("i2c-1", "7"),
    ("spidev0.0", "8"),
    ("ttyUSB0", "9"),
    ("bus/usb/001/002", "3"),
    ("dri/renderD128", "5"),
    ("video0", "7"),
    ("media0", "8"),
];

/// By number and by claim, one of several, all together, one for several: each container has what it asked for and no other; what
/// is pulled out counts no more.
#[test]
fn devices_as_boards_have_them() {
    test(0, &json!({}), |world| {
        let nodes = Nodes::make(world)?;
        let one = |name: &str, pattern: &str| json!({"resource": format!("board.example/{name}"), "nodes": [nodes.at(pattern)]});
        let mut devices = vec![
            one("gpio", "gpiochip?"),
            one("spi", "spidev*"),
            one("serial", "ttyUSB*"),
            one("usb", "bus/usb/001/*"),
            json!({"resource": "board.example/gpu", "nodes": [nodes.at("dri/renderD*")], "shared": 2}),
            json!({"resource": "board.example/camera", "nodes": [nodes.at("video0"), nodes.at("media0")], "together": true}),
        ];
        devices.push(json!({"resource": "board.example/i2c", "nodes": [nodes.at("i2c-*")], "claims": true}));
        let address = limpet_e2e::net::board(&world.slot, 1)?;
        let settings = json!({"devices": devices});
        world.agents.push(limpet_e2e::Agent::new(&world.slot, world.binaries.agent.clone(), 1, address, settings)?);
        world.join()?;
        for (name, count) in [("gpio", "2"), ("spi", "1"), ("serial", "1"), ("usb", "1"), ("gpu", "2"), ("camera", "1")] {
            counted(world, &format!("board.example/{name}"), count, count)?;
        }
        bus(world, &nodes)?;
        let start = |name: &str, resources: &[&str]| {
            let limits: serde_json::Map<String, Value> =
                resources.iter().map(|r| (format!("board.example/{r}"), json!("1"))).collect();
            let mut object: Value = serde_json::from_str(&pod(name, 0, false)).map_err(|e| e.to_string())?;
            object["spec"]["containers"][0]["resources"] = json!({"limits": limits});
            world.kubectl.apply(&object.to_string())
        };
        let list = format!("cd {} && find . -type c | sort | xargs stat -c '%n %t:%T'", nodes.at(""));
        start("first", &["gpio", "spi", "serial", "usb", "gpu", "camera"])?;
        running(world, "first")?;
        let all = "./bus/usb/001/002 1:3\n./dri/renderD128 1:5\n./gpiochip0 1:3\n./media0 1:8\n./spidev0.0 1:8\n./ttyUSB0 1:9\n\
                   ./video0 1:7";
        has(world, "first", &list, all)?;
        // As the board's own node: what is written to the one goes, and its neighbour's number is closed.
        let own = format!("echo x > {} && echo written", nodes.at("gpiochip0"));
        has(world, "first", &own, "written")?;
        start("second", &["gpio", "gpu"])?;
        running(world, "second")?;
        has(world, "second", &list, "./dri/renderD128 1:5\n./gpiochip1 1:5")?;
        start("third", &["gpu"])?;
        waits(world, "third", "Insufficient board.example/gpu")?;
        world.kubectl.say("delete pod second")?;
        running(world, "third")?;
        has(world, "third", &list, "./dri/renderD128 1:5")?;
        world.kubectl.say("delete pods --all")?;
        fs::remove_file(nodes.at("ttyUSB0")).map_err(|e| e.to_string())?;
        counted(world, "board.example/serial", "0", "0")
    });
}

/// The bus that is claimed by its name in the board's slice.
fn bus(world: &World, nodes: &Nodes) -> Result<()> {
    let chosen = "device.attributes['devices.limpet.dev'].resource == 'board.example/i2c'";
    let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "bus"},
        "spec": {"selectors": [{"cel": {"expression": chosen}}]}});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "bus"},
        "spec": {"devices": {"requests": [{"name": "one", "exactly": {"deviceClassName": "bus"}}]}}});
    world.kubectl.apply(&class.to_string())?;
    world.kubectl.apply(&claim.to_string())?;
    let mut object: Value = serde_json::from_str(&pod("bus", 0, false)).map_err(|e| e.to_string())?;
    object["spec"]["resourceClaims"] = json!([{"name": "dev", "resourceClaimName": "bus"}]);
    object["spec"]["containers"][0]["resources"] = json!({"claims": [{"name": "dev"}]});
    world.kubectl.apply(&object.to_string())?;
    running(world, "bus")?;
    has(world, "bus", &format!("stat -c '%t:%T' {}; ls {}", nodes.at("i2c-1"), nodes.at("")), "1:7\ni2c-1")?;
    let claim = world.kubectl.json("get resourceclaim bus")?;
    let given = &claim["status"]["allocation"]["devices"]["results"][0];
    wait::yes(given["driver"] == "devices.limpet.dev" && given["pool"] == "board-1", || claim.to_string())?;
    world.kubectl.say("delete pod bus").map(|_| ())
}
