//! Device nodes: what a container may open, and the nodes of privileged containers.
//!
//! In: the spec's devices, the host's /dev. Out: config.json's `devices`, rules for the device cgroup.
//! Never: touches a device.

use super::super::spec::ContainerSpec;
use crate::device::cgroups::DeviceRule;
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

const HOST_DEVICES_MAX: usize = 1024;

pub struct Devices {
    pub nodes: Vec<Value>,
    /// `None`: everything is allowed.
    pub rules: Option<Vec<DeviceRule>>,
}

pub fn of(spec: &ContainerSpec) -> std::io::Result<Devices> {
    let mut nodes = Vec::new();
    if spec.privileged {
        host_nodes(Path::new("/dev"), &mut nodes)?;
        return Ok(Devices { nodes, rules: None });
    }
    let mut rules = DeviceRule::defaults();
    for device in &spec.devices {
        let found = std::fs::metadata(&device.host_path)?;
        let Some((kind, major, minor)) = numbers(&found) else {
            return Err(std::io::Error::other(format!("{} is no device", device.host_path.display())));
        };
        nodes.push(node(&device.container_path, kind, major, minor, &found));
        rules.push(DeviceRule {
            block: kind == "b",
            major: Some(major),
            minor: Some(minor),
            read: device.access.contains('r'),
            write: device.access.contains('w'),
            mknod: device.access.contains('m'),
        });
    }
    Ok(Devices { nodes, rules: Some(rules) })
}

fn host_nodes(dir: &Path, nodes: &mut Vec<Value>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)?.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
        if nodes.len() >= HOST_DEVICES_MAX {
            break;
        }
        if found.is_dir() {
            // A container has these of its own.
            if !["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"].iter().any(|own| name == *own) {
                host_nodes(&path, nodes)?;
            }
        } else if let Some((kind, major, minor)) = numbers(&found)
            && name != "console"
            && name != "ptmx"
        {
            nodes.push(node(&path, kind, major, minor, &found));
        }
    }
    Ok(())
}

fn numbers(found: &std::fs::Metadata) -> Option<(&'static str, u32, u32)> {
    let kind = found.file_type();
    let kind = if kind.is_char_device() {
        "c"
    } else if kind.is_block_device() {
        "b"
    } else {
        return None;
    };
    let id = found.rdev();
    Some((kind, nix::sys::stat::major(id) as u32, nix::sys::stat::minor(id) as u32))
}

fn node(path: &Path, kind: &str, major: u32, minor: u32, found: &std::fs::Metadata) -> Value {
    json!({
        "path": path, "type": kind, "major": major, "minor": minor,
        "fileMode": found.mode() & 0o7777, "uid": found.uid(), "gid": found.gid(),
    })
}
