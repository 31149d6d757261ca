//! Device plugins that do not call but wait to be asked: who puts a socket into `plugins_registry` is asked what it is, as by
//! kubelet's plugin watcher, and told what became of it.
//!
//! In: sockets beside the plugins' directory, answers of `pluginregistration.Registration` there. Out: registrations as at
//! `kubelet.sock`.
//! Never: a plugin of another type than DevicePlugin; a socket in a directory below; the same socket twice.
//! Source: the fields' numbers of k8s.io/kubelet/pkg/apis/pluginregistration/v1.

use super::{Plugins, socket::VERSION};
use crate::{agent::changes, grpc::wire};
use nix::sys::inotify::AddWatchFlags;
use std::{
    collections::BTreeMap,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

const DIR: &str = "plugins_registry";
const SERVICE: &str = "/pluginregistration.Registration";
const TYPE: &str = "DevicePlugin";
/// A socket is there a moment before its program listens, and one that a power cut left has none.
const WAITS_MS: [u64; 7] = [0, 500, 1000, 2000, 4000, 8000, 16_000];
const SOCKETS_MAX: usize = 64;
const VERSIONS_MAX: usize = 64;
/// Of a socket's address, with a zero behind it.
const PATH_BYTES_MAX: usize = 107;

/// A PluginInfo.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    kind: String,
    name: String,
    endpoint: String,
    versions: Vec<String>,
}

/// Looks beside the directory of device plugins for as long as the agent lives. An error is a sentence.
pub fn open(plugins: Plugins, plugins_dir: &Path) -> Result<(), String> {
    let dir = plugins_dir.with_file_name(DIR);
    let wrong = |e: std::io::Error| format!("device plugins: {}: {e}", dir.display());
    std::fs::create_dir_all(&dir).map_err(wrong)?;
    let what = changes::COME_AND_GO | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_CLOSE_WRITE;
    let mut changes = changes::watch_for(&[&dir], what).map_err(wrong)?;
    tokio::spawn(async move {
        let mut known = BTreeMap::new();
        loop {
            let here = sockets(&dir);
            for (path, inode) in here.iter().filter(|(path, inode)| known.get(*path) != Some(*inode)) {
                let (plugins, path, inode) = (plugins.clone(), path.clone(), *inode);
                tokio::spawn(async move { plugins.meet(&path, inode).await });
            }
            known = here;
            if changes.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// With their inodes: another one by the same name is another plugin.
fn sockets(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let fitting = entries.filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
    fitting.filter_map(|e| inode(&e.path()).map(|inode| (e.path(), inode))).take(SOCKETS_MAX).collect()
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().filter(|m| m.file_type().is_socket()).map(|m| m.ino())
}

impl Plugins {
    /// Asks and tells it, again while it does not answer.
    async fn meet(&self, path: &Path, own: u64) {
        let mut last = String::new();
        for wait in WAITS_MS {
            sleep(Duration::from_millis(wait)).await;
            if inode(path) != Some(own) {
                return;
            }
            match self.greet(path).await {
                Ok(()) => return,
                Err(why) => last = why,
            }
        }
        log::warn!("device plugin at {}: {last}", path.display());
    }

    async fn greet(&self, path: &Path) -> Result<(), String> {
        let place = path.to_string_lossy();
        let answer = self.ask_at(&place, &format!("{SERVICE}/GetInfo"), &[]).await?;
        let refused = match info(&answer).ok_or("its answer is no PluginInfo")?.check(&place) {
            Ok((resource, endpoint)) => self.accept(&resource, endpoint, None).err(),
            Err(why) => Some(why),
        };
        if let Some(why) = &refused {
            log::warn!("device plugin at {place}: refused: {why}");
        }
        self.ask_at(&place, &format!("{SERVICE}/NotifyRegistrationStatus"), &status(refused.as_deref())).await.map(|_| ())
    }
}

impl Info {
    /// The resource and where it is to be had; the error is for the plugin.
    fn check(self, place: &str) -> Result<(String, String), String> {
        if self.kind != TYPE {
            return Err(format!("no handler registered for plugin type: {} at socket {place}", self.kind));
        }
        if !self.versions.iter().any(|version| version == VERSION) {
            return Err(format!("none of its API versions {:?} is supported by this agent: {VERSION} is", self.versions));
        }
        let endpoint = if self.endpoint.is_empty() { place.to_string() } else { self.endpoint };
        if !endpoint.starts_with('/') || endpoint.len() > PATH_BYTES_MAX || endpoint.contains('\0') {
            return Err(format!("the endpoint {endpoint:?} must be the whole path of a socket"));
        }
        Ok((self.name, endpoint))
    }
}

fn info(message: &[u8]) -> Option<Info> {
    let mut all = Info::default();
    wire::read(message, &mut |field, value| {
        match field {
            1 => all.kind = value.text(),
            2 => all.name = value.text(),
            3 => all.endpoint = value.text(),
            4 => all.versions.push(value.text()),
            _ => {}
        }
        (all.versions.len() <= VERSIONS_MAX).then_some(())
    })?;
    Some(all)
}

/// A RegistrationStatus.
fn status(refused: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    match refused {
        None => wire::put_number(&mut out, 1, 1),
        Some(why) => wire::put_bytes(&mut out, 2, why.as_bytes()),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_judged() {
        let message = |kind: &str, version: &str, endpoint: &str| {
            let mut out = Vec::new();
            for (field, text) in [(1, kind), (2, "vendor.example/dongle"), (3, endpoint), (4, "v1alpha1"), (4, version)] {
                wire::put_bytes(&mut out, field, text.as_bytes());
            }
            info(&out).unwrap().check("/registry/a.sock")
        };
        let good = |endpoint: &str| Ok(("vendor.example/dongle".to_string(), endpoint.to_string()));
        assert_eq!(message("DevicePlugin", "v1beta1", ""), good("/registry/a.sock"));
        assert_eq!(message("DevicePlugin", "v1beta1", "/plugins/b.sock"), good("/plugins/b.sock"));
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        for (kind, version, endpoint, words) in [
            ("CSIPlugin", "v1beta1", "", "no handler registered for plugin type: CSIPlugin at socket /registry/a.sock"),
            ("DevicePlugin", "v2", "", "none of its API versions"),
            ("DevicePlugin", "v1beta1", "b.sock", "must be the whole path"),
            ("DevicePlugin", "v1beta1", &long, "must be the whole path"),
        ] {
            let error = message(kind, version, endpoint).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(info(b"\x0a\x09x"), None);
        assert_eq!((status(None), status(Some("no"))), (b"\x08\x01".to_vec(), b"\x12\x02no".to_vec()));
    }
}
