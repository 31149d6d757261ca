//! The directory of static pods: read when something in it changes.
//!
//! In: `staticPodDir` of the configuration. Out: the pods of all files that can be read, in the order of their names.
//! Never: looks without a reason (the kernel tells of changes), or lets one bad file hide the others.

use limpet_agent_core::pods::{StaticPod, static_pod};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

const FILES_MAX: usize = 64;
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The pods that lie in the directory now. What is wrong with a file goes into the log.
pub fn read(dir: &Path, node: &str) -> Vec<StaticPod> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) => {
            log::warn!("static pods: {}: {e}", dir.display());
            return Vec::new();
        }
    };
    let manifest = |p: &PathBuf| {
        let hidden = p.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        !hidden && p.extension().is_some_and(|x| x == "yaml" || x == "yml" || x == "json")
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(manifest).collect();
    files.sort();
    if files.len() > FILES_MAX {
        log::warn!("static pods: only the first {FILES_MAX} files of {} count", dir.display());
    }
    let mut pods: Vec<StaticPod> = Vec::new();
    for path in files.into_iter().take(FILES_MAX) {
        match one(&path, node) {
            Ok(pod) if pods.iter().any(|p| p.key == pod.key) => {
                log::warn!("static pods: {}: another file has a pod {} already", path.display(), pod.key.name);
            }
            Ok(pod) => pods.push(pod),
            Err(why) => log::warn!("static pods: {}: {why}", path.display()),
        }
    }
    pods
}

fn one(path: &Path, node: &str) -> Result<StaticPod, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    if !file.metadata().is_ok_and(|m| m.is_file()) {
        return Err("it is no file".into());
    }
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
    }
    static_pod(&text, &path.file_name().unwrap_or_default().to_string_lossy(), node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::changes;

    #[tokio::test]
    async fn good_files_count_and_changes_are_heard() {
        let dir = std::env::temp_dir().join(format!("limpet-static-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let pod = |name: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers: [{{name: c, image: i}}]\n");
        std::fs::write(dir.join("b.yaml"), pod("b")).unwrap();
        std::fs::write(dir.join("bad.yaml"), "a: [").unwrap();
        std::fs::write(dir.join("twice.yaml"), pod("b")).unwrap();
        std::fs::write(dir.join("large.yaml"), "#".repeat(100_000)).unwrap();
        std::fs::write(dir.join(".hidden.yaml"), pod("h")).unwrap();
        std::fs::write(dir.join("notes.txt"), pod("t")).unwrap();
        let names = || read(&dir, "n1").into_iter().map(|p| p.key.name).collect::<Vec<_>>();
        assert_eq!(names(), ["b-n1"]);
        let mut changes = changes::watch(&dir).unwrap();
        let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
        std::fs::write(dir.join("a.json"), json.replace('\n', " ")).unwrap();
        changes.recv().await.unwrap();
        assert_eq!(names(), ["a-n1", "b-n1"]);
        std::fs::remove_file(dir.join("b.yaml")).unwrap();
        changes.recv().await.unwrap();
        assert_eq!(names(), ["a-n1", "b-n1"], "the other file with this pod takes its place");
        let _ = std::fs::remove_dir_all(&dir);
        assert!(read(&dir, "n1").is_empty());
    }
}
