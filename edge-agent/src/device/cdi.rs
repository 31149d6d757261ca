//! Devices by the Container Device Interface: what vendors say a container needs for their device.
//!
//! In: JSON and YAML files in /etc/cdi and /run/cdi, a name such as `vendor.com/class=device`. Out: nodes, mounts, variables,
//! groups, hooks. Never: an edit that it does not know: a device that would be half there is refused, with its file's name.
//! Source: the CDI specification 0.8.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/run/cdi"];
const FILES_MAX: usize = 128;
const FILE_BYTES_MAX: u64 = 4 << 20;
const HOOKS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
/// Options of mounts that mean something here; `rw` and the like are how it is anyway.
const OPTIONS: [&str; 13] = [
    "ro", "rw", "bind", "rbind", "private", "rprivate", "slave", "rslave", "shared", "rshared", "noexec", "nosuid", "nodev",
];

/// What a container gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<Node>,
    pub mounts: Vec<BindMount>,
    pub hooks: Vec<Hook>,
    pub additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    pub path: PathBuf,
    pub host_path: Option<PathBuf>,
    /// `b`, or `c` (also `u`). Without it and `major` the node is what the host's is.
    pub r#type: Option<String>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub file_mode: Option<u32>,
    pub permissions: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct BindMount {
    pub host_path: PathBuf,
    pub container_path: PathBuf,
    pub options: Vec<String>,
    pub r#type: Option<String>,
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

impl Edits {
    fn check(&self) -> Result<(), String> {
        let absolute = |path: &Path, what: &str| match path.is_absolute() {
            true => Ok(()),
            false => Err(format!("{what} \"{}\" is no absolute path", path.display())),
        };
        if let Some(bad) = self.env.iter().find(|e| e.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
            return Err(format!("variable \"{bad}\" is not NAME=value"));
        }
        for node in &self.device_nodes {
            absolute(&node.path, "device node")?;
            node.host_path.iter().try_for_each(|path| absolute(path, "device node"))?;
            if let Some(other) = node.r#type.as_deref().filter(|t| !["b", "c", "u"].contains(t)) {
                return Err(format!("device node {}: type \"{other}\" is neither b nor c", node.path.display()));
            }
            if node.permissions.as_ref().is_some_and(|p| p.bytes().any(|b| !b"rwm".contains(&b))) {
                return Err(format!("device node {}: permissions are some of rwm", node.path.display()));
            }
        }
        for mount in &self.mounts {
            absolute(&mount.host_path, "mount")?;
            absolute(&mount.container_path, "mount")?;
            let kind = mount.r#type.as_ref().filter(|t| !["", "bind", "none"].contains(&t.as_str()));
            if let Some(odd) = kind.or_else(|| mount.options.iter().find(|o| !OPTIONS.contains(&o.as_str()))) {
                return Err(format!("mount on {}: \"{odd}\" is not understood", mount.container_path.display()));
            }
        }
        for hook in &self.hooks {
            absolute(&hook.path, "hook")?;
            if !HOOKS.contains(&hook.hook_name.as_str()) {
                return Err(format!("hook \"{}\" is none of {}", hook.hook_name, HOOKS.join(", ")));
            }
        }
        Ok(())
    }
}

/// Whether a name can be one: `vendor.com/class=device`.
pub fn is_name(name: &str) -> bool {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b));
    let parts = name.split_once('=').and_then(|(kind, device)| Some((kind.split_once('/')?, device)));
    parts.is_some_and(|((vendor, class), device)| word(vendor) && word(class) && word(device))
}

/// The edits of one device. Files of later directories win, as the specification says. The error is for the pod's status.
pub fn find(directories: &[&Path], name: &str) -> Result<Edits, String> {
    let (kind, device) = name.split_once('=').ok_or_else(|| format!("\"{name}\" is no CDI device"))?;
    let (mut found, mut unread) = (None, Vec::new());
    for path in files(directories) {
        match read(&path) {
            Ok(document) if document["kind"] == kind => {
                let all = document["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
                let one = all.iter().find(|d| d["name"] == device).cloned();
                found = one.map(|one| (path, document, one)).or(found);
            }
            Ok(_) => {}
            Err(why) => unread.push(format!("; {} is not read: {why}", path.display())),
        }
    }
    let (path, document, one) = found.ok_or_else(|| {
        let places: Vec<String> = directories.iter().map(|d| d.display().to_string()).collect();
        format!("CDI device \"{name}\" is in no JSON or YAML file of {}{}", places.join(" or "), unread.concat())
    })?;
    let wrong = |why: String| format!("CDI device \"{name}\" of {}: {why}", path.display());
    let general = edits(&document["containerEdits"]).map_err(wrong)?;
    edits(&one["containerEdits"]).map(|own| joined(general, own)).map_err(wrong)
}

fn edits(value: &Value) -> Result<Edits, String> {
    if value.is_null() {
        return Ok(Edits::default());
    }
    let edits = Edits::deserialize(value).map_err(|e| e.to_string())?;
    edits.check().map(|()| edits)
}

fn files(directories: &[&Path]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for directory in directories {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
        let mut own: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "json" || e == "yaml")).collect();
        own.sort();
        all.extend(own.into_iter().take(FILES_MAX));
    }
    all
}

fn read(path: &Path) -> Result<Value, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|err| err.to_string())?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(|err| err.to_string())?;
    match path.extension().is_some_and(|e| e == "json") {
        true => serde_json::from_str(&text).map_err(|err| err.to_string()),
        false => limpet_agent_core::yaml::parse(&text),
    }
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
        // As Go writes it, with all that the specification has.
        file(&etc, "x.yaml", "---\ncdiVersion: 0.7.0\nkind: vendor.com/yaml\ncontainerEdits:\n  env:\n  - ALL=yes\n\
            devices:\n- name: \"0\"\n  containerEdits:\n    additionalGids:\n    - 44\n    deviceNodes:\n    - path: /dev/card0\n\
            \x20     type: c\n      major: 1\n      minor: 3\n      fileMode: 438\n      uid: 7\n      gid: 8\n      \
            permissions: rw\n    hooks:\n    - hookName: createContainer\n      path: /usr/bin/hook\n      args:\n      - hook\n\
            \x20     - --link=a::b\n    mounts:\n    - hostPath: /usr/lib/x.so\n      containerPath: /usr/lib/x.so\n      \
            options:\n      - ro\n      - nosuid\n      - nodev\n      - rbind\n      - rprivate\n");
        let both = [etc.as_path(), run.as_path()];
        let found = find(&both, "vendor.com/gpu=0").unwrap();
        assert_eq!(found.env, ["ALL=1", "GPU=0"]);
        assert_eq!((found.device_nodes.len(), found.mounts.len(), found.hooks.len()), (1, 1, 1));
        let missing = find(&both, "vendor.com/gpu=1").unwrap_err();
        assert!(missing.contains("no JSON or YAML file") && missing.contains("broken.json is not read"), "{missing}");
        let odd = find(&both, "vendor.com/odd=0").unwrap_err();
        assert!(odd.contains("unknown.json") && odd.contains("intelRdt"), "{odd}");
        let yaml = find(&both, "vendor.com/yaml=0").unwrap();
        assert_eq!((yaml.env, yaml.additional_gids), (vec!["ALL=yes".to_string()], vec![44]));
        let node = Node { path: "/dev/card0".into(), r#type: Some("c".into()), major: Some(1), minor: Some(3),
            file_mode: Some(0o666), permissions: Some("rw".into()), uid: Some(7), gid: Some(8), host_path: None };
        assert_eq!(yaml.device_nodes, [node]);
        assert_eq!(yaml.mounts[0].options.len(), 5);
        assert_eq!(yaml.hooks[0].args, ["hook", "--link=a::b"]);
        let newer = r#"{"kind": "vendor.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["GPU=new"]}}]}"#;
        file(&run, "b.json", newer);
        assert_eq!(find(&both, "vendor.com/gpu=0").unwrap().env, ["GPU=new"]);
        let _ = std::fs::remove_dir_all(base);
    }

    #[test]
    fn edits_that_cannot_be_made_are_named() {
        for (text, words) in [
            (r#"{"env": ["A"]}"#, "NAME=value"),
            (r#"{"env": ["=A"]}"#, "NAME=value"),
            (r#"{"deviceNodes": [{"path": "dev/x"}]}"#, "no absolute path"),
            (r#"{"deviceNodes": [{"path": "/dev/x", "type": "p"}]}"#, "neither b nor c"),
            (r#"{"deviceNodes": [{"path": "/dev/x", "permissions": "rwx"}]}"#, "some of rwm"),
            (r#"{"deviceNodes": [{"path": "/dev/x", "colour": "red"}]}"#, "colour"),
            (r#"{"deviceNodes": [{"path": "/dev/x", "major": -1}]}"#, "-1"),
            (r#"{"mounts": [{"hostPath": "/x", "containerPath": "x"}]}"#, "no absolute path"),
            (r#"{"mounts": [{"hostPath": "/x", "containerPath": "/x", "type": "tmpfs"}]}"#, "tmpfs"),
            (r#"{"mounts": [{"hostPath": "/x", "containerPath": "/x", "options": ["size=1"]}]}"#, "size=1"),
            (r#"{"hooks": [{"hookName": "createContainer", "path": "hook"}]}"#, "no absolute path"),
            (r#"{"hooks": [{"hookName": "whenever", "path": "/hook"}]}"#, "none of prestart"),
            (r#"{"netDevices": []}"#, "netDevices"),
        ] {
            let err = edits(&serde_json::from_str(text).unwrap()).unwrap_err();
            assert!(err.contains(words), "{text}: {err}");
        }
    }
}
