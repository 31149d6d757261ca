//! Devices by the Container Device Interface: what vendors say a container needs for their device.
//!
//! In: JSON files in /etc/cdi and /run/cdi, a name such as `vendor.com/class=device`. Out: nodes, mounts, variables, hooks.
//! Never: YAML (no parser for it is worth its size on a board; vendors' tools write JSON too), or an edit that it does not
//! know: a device that would be half there is refused.
//! Source: the CDI specification 0.8.

use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/run/cdi"];
const FILES_MAX: usize = 128;
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<Node>,
    pub mounts: Vec<BindMount>,
    pub hooks: Vec<Hook>,
    #[serde(rename = "additionalGIDs")]
    pub additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Node {
    pub path: PathBuf,
    pub host_path: Option<PathBuf>,
    pub permissions: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BindMount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub options: Vec<String>,
}

/// A program of the host that the runtime starts for the container, as the vendor's file (root's) says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Hook {
    pub hook_name: String,
    pub path: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    kind: String,
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

/// Whether a name can be one: `vendor.com/class=device`.
pub fn is_name(name: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    let parts = name.split_once('=').and_then(|(kind, device)| Some((kind.split_once('/')?, device)));
    parts.is_some_and(|((vendor, class), device)| word(vendor) && word(class) && word(device))
}

/// The edits of one device. Files of later directories win, as the specification says.
pub fn find(directories: &[&Path], name: &str) -> Result<Edits, String> {
    let (kind, device) = name.split_once('=').ok_or_else(|| format!("\"{name}\" is no CDI device"))?;
    let mut found = None;
    for path in files(directories) {
        let Ok(document) = read(&path).map_err(|why| log::warn!("{}: {why}", path.display())) else { continue };
        if document.kind != kind {
            continue;
        }
        let general = document.container_edits;
        found = document.devices.into_iter().find(|d| d.name == device).map(|d| joined(general, d.container_edits)).or(found);
    }
    found.ok_or_else(|| {
        let places: Vec<String> = directories.iter().map(|d| d.display().to_string()).collect();
        format!("CDI device \"{name}\" is in no JSON file of {}", places.join(" or "))
    })
}

fn files(directories: &[&Path]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
        let mut own: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
        own.sort();
        all.extend(own.into_iter().take(FILES_MAX));
    }
    all
}

fn read(path: &Path) -> Result<Document, String> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(|err| err.to_string())?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(|err| err.to_string())?;
    serde_json::from_slice(&text).map_err(|err| err.to_string())
}

fn joined(mut all: Edits, own: Edits) -> Edits {
    all.env.extend(own.env);
    all.device_nodes.extend(own.device_nodes);
    all.mounts.extend(own.mounts);
    all.hooks.extend(own.hooks);
    all.additional_gids.extend(own.additional_gids);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, good) in [
            ("vendor.com/gpu=0", true),
            ("nvidia.com/gpu=all", true),
            ("v/c=d:1", true),
            ("gpu=0", false),
            ("vendor.com/gpu", false),
            ("vendor.com/=0", false),
            ("a/b=c d", false),
        ] {
            assert_eq!(is_name(name), good, "{name}");
        }
    }

    #[test]
    fn files_are_joined_and_later_ones_win() {
        let base = std::env::temp_dir().join(format!("limpet-cdi-{}", std::process::id()));
        let (etc, run) = (base.join("etc"), base.join("run"));
        for dir in [&etc, &run] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let file = |dir: &Path, name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        file(&etc, "a.json", r#"{"cdiVersion": "0.6.0", "kind": "vendor.com/gpu",
            "containerEdits": {"env": ["ALL=1"]},
            "devices": [{"name": "0", "containerEdits": {"env": ["GPU=0"],
              "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/null", "permissions": "rw"}],
              "mounts": [{"hostPath": "/lib", "containerPath": "/gpu/lib", "options": ["ro"]}],
              "hooks": [{"hookName": "createContainer", "path": "/bin/true", "args": ["true"]}]}}]}"#);
        file(&etc, "broken.json", "{");
        let unknown = r#"{"kind": "vendor.com/odd", "devices": [{"name": "0", "containerEdits": {"intelRdt": {}}}]}"#;
        file(&etc, "unknown.json", unknown);
        file(&etc, "x.yaml", "kind: vendor.com/yaml");
        let both = [etc.as_path(), run.as_path()];
        let found = find(&both, "vendor.com/gpu=0").unwrap();
        assert_eq!(found.env, ["ALL=1", "GPU=0"]);
        assert_eq!((found.device_nodes.len(), found.mounts.len(), found.hooks.len()), (1, 1, 1));
        for missing in ["vendor.com/gpu=1", "vendor.com/odd=0", "vendor.com/yaml=0"] {
            assert!(find(&both, missing).unwrap_err().contains("no JSON file"), "{missing}");
        }
        let newer = r#"{"kind": "vendor.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["GPU=new"]}}]}"#;
        file(&run, "b.json", newer);
        assert_eq!(find(&both, "vendor.com/gpu=0").unwrap().env, ["GPU=new"]);
        let _ = std::fs::remove_dir_all(base);
    }
}
