//! A real Debian 12, made of Debian's own packages, becomes a node by `limpet flash`: systemd, netplan, cloud-init are theirs.
//!
//! In: mmdebstrap and Debian's mirror (once; what they made stays below target/tools), QEMU. Out: what kubectl shows, and what
//! the system says of itself to a pod that sees its root. Never: a file of ours in the system but those that `limpet flash` puts
//! there; its boot loader, which is not ours either way: QEMU loads the kernel.

use limpet_device::os::MIRROR;
use limpet_e2e::process::{run, sh, which};
use limpet_e2e::world::is_ready;
use limpet_e2e::{Binaries, Hub, Kubectl, Machine, Result, Slot, binaries, images, machine, net, until, wait};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const ASKED: &str = "LIMPET_DEBIAN";
const BOARD: &str = "qemu-x86_64";
const TARGET: &str = "x86_64-unknown-linux-musl";
const NODE: &str = "shelf";
const LONG: Duration = Duration::from_secs(600);
/// What Debian's cloud images have that matters here.
const PACKAGES: &str = "systemd-sysv,systemd-resolved,systemd-timesyncd,udev,dbus,netplan.io,cloud-init,linux-image-cloud-amd64,iproute2,\
                        ca-certificates,openssh-server,e2fsprogs,cloud-guest-utils";
/// Their network: DHCP for everything that looks like a cable.
const NETPLAN: &str = "network:\n  version: 2\n  ethernets:\n    all-en:\n      match: {name: en*}\n      dhcp4: true\n      \
                       dhcp6: true\n    all-eth:\n      match: {name: eth*}\n      dhcp4: true\n      dhcp6: true\n";
/// MiB: where the root file system begins, and its size. Before it lies the firmware's partition, number 15.
const ROOT: (u64, u64) = (64, 1400);

struct System {
    dir: PathBuf,
}

impl System {
    /// The system as it would be downloaded: a disk, and beside it the kernel that its boot loader would start.
    fn new() -> Result<System> {
        let dir = binaries::target_dir().join("tools/debian-system");
        if !dir.is_dir() {
            let part = dir.with_extension("part");
            let _ = fs::remove_dir_all(&part);
            fs::create_dir_all(&part).map_err(told)?;
            make(&part)?;
            fs::rename(&part, &dir).map_err(told)?;
        }
        Ok(System { dir })
    }
}

fn told(e: std::io::Error) -> String {
    e.to_string()
}

fn make(dir: &Path) -> Result<()> {
    let (root, disk) = (dir.join("root"), dir.join("disk"));
    let words = ["--variant=minbase", "--mode=root", "--include", PACKAGES, "bookworm"];
    run(Command::new("mmdebstrap").args(words).arg(&root).arg(MIRROR))?.ok("mmdebstrap")?;
    let put = |path: &str, text: &str| fs::write(root.join(path), text).map_err(|e| format!("{path}: {e}"));
    put("etc/netplan/90-default.yaml", NETPLAN)?;
    put("etc/cloud/cloud.cfg.d/01_debian_cloud.cfg", "apt_preserve_sources_list: true\nmanage_etc_hosts: true\n")?;
    put("etc/fstab", "LABEL=root / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1\n")?;
    // A published image has none: each machine gets its own.
    put("etc/machine-id", "")?;
    for (name, to) in [("vmlinuz", "linux"), ("initrd.img", "initrd")] {
        fs::copy(root.join(name), dir.join(to)).map_err(|e| format!("{name}: {e}"))?;
    }
    fs::File::create(&disk).and_then(|file| file.set_len((ROOT.0 + ROOT.1 + 1) << 20)).map_err(told)?;
    let table = format!("label: gpt\n15: start=1MiB, size={}MiB, type=uefi\n1: start={}MiB, size={}MiB\n", ROOT.0 - 1, ROOT.0, ROOT.1);
    let mut sfdisk = Command::new("sfdisk");
    limpet_e2e::process::run_with(sfdisk.arg("--quiet").arg(&disk), table.as_bytes())?.ok("sfdisk")?;
    let (name, from) = (disk.display().to_string(), format!("offset={}", ROOT.0 << 20));
    let size = format!("{}M", ROOT.1);
    let tree = root.display().to_string();
    sh("mke2fs", ["-q", "-t", "ext4", "-L", "root", "-d", &tree, "-E", &from, &name, &size])?;
    fs::remove_dir_all(&root).map_err(told)
}

struct World {
    machine: Machine,
    kubectl: Kubectl,
    _hub: Hub,
    _slot: Slot,
}

/// A card with a fixed address, which is ours, where the system's own words say DHCP.
fn world(programs: &Path) -> Result<World> {
    let system = System::new()?;
    let limpet = Binaries::build("dev")?.hub;
    let slot = Slot::take()?;
    let mut hub = Hub::new(&slot, limpet.clone(), &net::bridge(&slot)?);
    hub.start()?;
    let kubectl = Kubectl::new(&hub.kubeconfig())?;
    images::Target::hub(&hub, &slot.dir())?.push("busybox", "1", &images::busybox()?)?;
    let (disk, card) = (system.dir.join("disk"), slot.dir().join("card"));
    let mut flash = Command::new(&limpet);
    flash.args(["flash", BOARD, "--image"]).arg(&disk).arg("--out").arg(&card).arg("--data-dir").arg(&hub.dir);
    flash.args(["--name", NODE, "--address", "10.0.2.77/24", "--gateway", "10.0.2.2", "--dns", "10.0.2.3"]);
    flash.args(["--time-zone", "Europe/Berlin", "--ntp", "10.0.2.2"]).env("LIMPET_AGENT_DIR", programs);
    run(&mut flash)?.ok("limpet flash")?;
    OpenOptions::new().write(true).open(&card).and_then(|file| file.set_len(3 << 30)).map_err(told)?;
    let (linux, initrd) = (system.dir.join("linux"), system.dir.join("initrd"));
    // As Debian's cloud images say it to their kernel, but for the name of the disk.
    let line = "root=/dev/vda1 ro console=tty0 console=ttyS0,115200 consoleblank=0 no_timer_check panic=10";
    let files = ["-kernel".as_ref(), linux.as_os_str(), "-initrd".as_ref(), initrd.as_os_str()];
    let words = [&files[..], &["-append".as_ref(), line.as_ref()]].concat();
    let machine = Machine::with_loaded(&slot, "amd64", &words, &card, 512)?;
    Ok(World { machine, kubectl, _hub: hub, _slot: slot })
}

impl World {
    fn wait<T>(&mut self, what: &str, mut ask: impl FnMut(&World) -> Result<T>) -> Result<T> {
        until(what, LONG, || match self.machine.check() {
            Ok(()) => ask(self).map(Ok),
            Err(why) => Ok(Err(why)),
        })?
    }

    /// Ready by a report of another start than `since`; which one.
    fn ready(&mut self, since: &str) -> Result<String> {
        self.wait("the machine is Ready", |world| {
            let node = world.kubectl.json(&format!("get node {NODE}"))?;
            let boot = node["status"]["nodeInfo"]["bootID"].as_str().unwrap_or_default().to_string();
            wait::yes(is_ready(&node) && boot != since, || node["status"]["conditions"].to_string())?;
            Ok(boot)
        })
    }

    fn pod_ready(&mut self, name: &str) -> Result<()> {
        self.wait("the pod is Ready", |world| {
            let pod = world.kubectl.json(&format!("get pod {name}"))?;
            wait::yes(is_ready(&pod), || pod["status"].to_string())
        })
    }

    /// What a command of the system itself says.
    fn said(&self, script: &str) -> Result<String> {
        let words = ["exec", "look", "--", "chroot", "/host", "sh", "-c", script];
        self.kubectl.run(&words).map(|text| text.trim().to_string())
    }
}

fn steps(world: &mut World) -> Result<()> {
    world.machine.switch_on()?;
    let boot = world.ready("")?;
    let node = world.kubectl.json(&format!("get node {NODE}"))?;
    let os = node["status"]["nodeInfo"]["osImage"].as_str().unwrap_or_default();
    wait::yes(os.starts_with("Debian GNU/Linux 12"), || format!("it says it is {os:?}"))?;
    let addresses = node["status"]["addresses"].clone();
    let fixed = |all: &Value| all.to_string().contains("10.0.2.77") && !all.to_string().contains("10.0.2.15");
    wait::yes(fixed(&addresses), || format!("its addresses are {addresses}"))?;
    let look = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "look"}, "spec": {
        "hostNetwork": true, "hostPID": true, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": "hub.limpet/busybox:1", "securityContext": {"privileged": true},
            "command": ["tail", "-f", "/dev/null"], "volumeMounts": [{"name": "host", "mountPath": "/host"}]}],
        "volumes": [{"name": "host", "hostPath": {"path": "/"}}]}});
    world.kubectl.apply(&look.to_string())?;
    let web = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "main", "image": "hub.limpet/busybox:1",
            "command": ["sh", "-c", "echo hello; exec tail -f /dev/null"], "resources": {"limits": {"memory": "32Mi"}}}]}});
    world.kubectl.apply(&web.to_string())?;
    for pod in ["look", "web"] {
        world.pod_ready(pod)?;
    }
    let log = world.kubectl.say("logs web")?;
    wait::yes(log.trim() == "hello", || format!("its log says {log:?}"))?;
    of_the_system(world)?;
    // The plug is pulled; everything is on the card.
    world.said("sync")?;
    world.machine.power_cut();
    world.machine.switch_on()?;
    world.ready(&boot)?;
    for pod in ["look", "web"] {
        world.pod_ready(pod)?;
    }
    of_the_system(world)
}

/// Nothing of its own first boot undid what was put there, and no part of it is broken by that.
fn of_the_system(world: &mut World) -> Result<()> {
    let systemctl = "SYSTEMD_IGNORE_CHROOT=1 systemctl";
    world.wait("the system has started", |world| {
        let state = world.said(&format!("{systemctl} is-system-running || true"))?;
        wait::yes(state == "running" || state == "degraded", || format!("it is {state}"))
    })?;
    let failed = world.said(&format!("{systemctl} list-units --failed --plain --no-legend"))?;
    wait::yes(failed.is_empty(), || format!("units have failed: {failed}"))?;
    for (script, wanted) in [
        ("hostname", NODE),
        ("cat /etc/hostname", NODE),
        ("readlink /etc/localtime", "/usr/share/zoneinfo/Europe/Berlin"),
        ("ip -o -4 addr show scope global dev $(ls /sys/class/net | grep ^en) | wc -l", "1"),
        ("stat -c %a-%u /etc/limpet /etc/limpet/agent.json | tr '\\n' ' '", "700-0 600-0"),
    ] {
        let said = world.said(script)?;
        wait::yes(said == wanted, || format!("{script}: {said:?} instead of {wanted:?}"))?;
    }
    Ok(())
}

#[test]
fn a_real_debian_becomes_a_node_and_comes_back_after_a_power_cut() {
    let why = limpet_e2e::missing().or_else(|| machine::missing("amd64"));
    let why = why.or_else(|| which("mmdebstrap").is_none().then(|| "needs mmdebstrap (Debian's package)".to_string()));
    let unasked = || format!("a Debian of 0.5 GB is made and booted when {ASKED}=1 asks for it");
    if let Some(why) = std::env::var_os(ASKED).is_none().then(unasked).or(why) {
        println!("skipped: {why}");
        return;
    }
    let programs = binaries::for_board(TARGET).unwrap_or_else(|why| panic!("{why}"));
    let Some(programs) = programs else {
        println!("skipped: the machine's own agent is not built");
        return;
    };
    let mut world = world(&programs).unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = steps(&mut world) {
        let nodes = world.kubectl.say("get nodes,pods -A -o wide").unwrap_or_default();
        panic!("{why}\n{nodes}\n{}", world.machine.last_words());
    }
}
