//! Device nodes: what a container may open, and the nodes of privileged containers.
//!
//! In: the spec's devices, the host's /dev. Out: config.json's `devices`, rules for the device cgroup.
//! Never: touches a device.

use super::super::spec::{ContainerSpec, DeviceNumber};
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
        // A volume shows its own there, and nothing is made in it.
        nodes.retain(|node| !spec.mounts.iter().any(|mount| is_below(node, &mount.destination)));
    }
    let mut rules = DeviceRule::defaults();
    for device in &spec.devices {
        let found = std::fs::metadata(&device.host_path);
        let number = match (device.number, &found) {
            (Some(number), _) => number,
            (None, Ok(found)) => number_of(found)
                .ok_or_else(|| std::io::Error::other(format!("{} is no device", device.host_path.display())))?,
            (None, Err(e)) => return Err(std::io::Error::new(e.kind(), format!("{}: {e}", device.host_path.display()))),
        };
        let looks = found.as_ref().map_or((0o666, 0, 0), |f| (f.mode(), f.uid(), f.gid()));
        let mode = device.mode.unwrap_or(looks.0);
        nodes.retain(|other: &Value| other["path"] != json!(device.container_path));
        let owner = (device.uid.unwrap_or(looks.1), device.gid.unwrap_or(looks.2));
        if !shown(spec, &device.container_path) {
            nodes.push(node(&device.container_path, number, mode, owner));
        }
        rules.push(DeviceRule {
            block: number.block,
            major: Some(number.major),
            minor: Some(number.minor),
            read: device.access.contains('r'),
            write: device.access.contains('w'),
            mknod: device.access.contains('m'),
        });
    }
    Ok(Devices { nodes, rules: (!spec.privileged).then_some(rules) })
}

fn is_below(node: &Value, destination: &Path) -> bool {
    node["path"].as_str().is_some_and(|path| Path::new(path).starts_with(destination))
}

/// Whether a volume has it in its place already.
fn shown(spec: &ContainerSpec, path: &Path) -> bool {
    spec.mounts.iter().any(|mount| match path.strip_prefix(&mount.destination) {
        Ok(rest) if rest.as_os_str().is_empty() => true,
        Ok(rest) => mount.source.join(mount.sub_path.as_deref().unwrap_or_default()).join(rest).exists(),
        Err(_) => false,
    })
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
        } else if let Some(number) = number_of(&found)
            && name != "console"
            && name != "ptmx"
        {
            nodes.push(node(&path, number, found.mode(), (found.uid(), found.gid())));
        }
    }
    Ok(())
}

fn number_of(found: &std::fs::Metadata) -> Option<DeviceNumber> {
    let (kind, id) = (found.file_type(), found.rdev());
    (kind.is_char_device() || kind.is_block_device()).then(|| DeviceNumber {
        block: kind.is_block_device(),
        major: nix::sys::stat::major(id) as u32,
        minor: nix::sys::stat::minor(id) as u32,
    })
}

fn node(path: &Path, number: DeviceNumber, mode: u32, owner: (u32, u32)) -> Value {
    json!({
        "path": path, "type": if number.block { "b" } else { "c" }, "major": number.major, "minor": number.minor,
        "fileMode": mode & 0o7777, "uid": owner.0, "gid": owner.1,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::Device;
    use super::*;

    /// What a pod names is there under its own path, with its own looks, also among all the host's nodes.
    #[test]
    fn named_devices_of_the_privileged_and_of_others() {
        let (host_path, container_path) = ("/dev/zero".into(), "/dev/own".into());
        let zero = Device { host_path, container_path, access: "r".into(), ..Device::default() };
        let over = Device {
            host_path: "/dev/none".into(),
            container_path: "/dev/null".into(),
            access: "rw".into(),
            number: Some(DeviceNumber { block: true, major: 7, minor: 9 }),
            mode: Some(0o600),
            uid: Some(5),
            gid: None,
        };
        for privileged in [false, true] {
            let spec = ContainerSpec { privileged, devices: vec![zero.clone(), over.clone()], ..ContainerSpec::default() };
            let found = of(&spec).unwrap();
            assert_eq!(found.rules.is_none(), privileged);
            let at = |path: &str| found.nodes.iter().filter(|n| n["path"] == path).collect::<Vec<_>>();
            let (own, null) = (at("/dev/own"), at("/dev/null"));
            assert_eq!((own.len(), &own[0]["major"], &own[0]["minor"]), (1, &json!(1), &json!(5)));
            let wanted = json!({"path": "/dev/null", "type": "b", "major": 7, "minor": 9, "fileMode": 0o600, "uid": 5, "gid": 0});
            assert_eq!(null, [&wanted]);
        }
        let gone = Device { host_path: "/dev/none".into(), ..zero };
        let why = of(&ContainerSpec { devices: vec![gone], ..ContainerSpec::default() }).err().unwrap();
        assert!(why.to_string().contains("/dev/none"), "{why}");
    }
}
