//! Where the hierarchies are mounted, and making, emptying and removing groups in them.
//!
//! In: /proc/self/mountinfo, relative names. Out: directories. Never: assumes that a mount is where it usually is.

use super::Controllers;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Controllers that pods get on v2; nothing else is switched on below the root.
const WANTED_V2: [&str; 5] = ["cpu", "memory", "pids", "hugetlb", "io"];
/// v1 hierarchies that containers get a group in; the others stay as they are.
const MANAGED_V1: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "devices", "hugetlb"];
/// Controllers that a container sees of v1: what runtimes of languages look for.
const SEEN_V1: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
const PIDS_MAX: usize = 65_536;
const DEPTH_MAX: usize = 16;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Hierarchies {
    /// Controller name (`cpu`, `memory`, …) and mount point; joined ones share a mount point.
    V1(Vec<(String, PathBuf)>),
    V2 { root: PathBuf, offered: Vec<String> },
}

impl Hierarchies {
    pub fn find() -> Result<Hierarchies> {
        Self::parse(&std::fs::read_to_string("/proc/self/mountinfo")?)
    }

    pub fn parse(mountinfo: &str) -> Result<Hierarchies> {
        let (mut v1, mut v2) = (Vec::new(), None);
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            match right.next() {
                Some("cgroup2") => v2 = v2.or(Some(PathBuf::from(point))),
                Some("cgroup") => {
                    let options = right.nth(1).unwrap_or_default();
                    for controller in options.split(',').filter(|word| is_controller(word)) {
                        if !v1.iter().any(|(name, _)| name == controller) {
                            v1.push((controller.to_owned(), PathBuf::from(point)));
                        }
                    }
                }
                _ => {}
            }
        }
        // With `memory` or `pids` on v1 the unified mount beside it has nothing to offer (hybrid).
        match (v1.is_empty(), v2) {
            (true, Some(root)) => {
                let text = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
                Ok(Hierarchies::V2 { root, offered: text.split_whitespace().map(str::to_owned).collect() })
            }
            (false, _) => Ok(Hierarchies::V1(v1)),
            (true, None) => Err(Error::other("no cgroup file system is mounted: mount cgroup2 on /sys/fs/cgroup")),
        }
    }

    pub fn is_v2(&self) -> bool {
        matches!(self, Hierarchies::V2 { .. })
    }

    pub fn controllers(&self) -> Controllers {
        let has = |name: &str| match self {
            Hierarchies::V1(mounts) => mounts.iter().any(|(controller, _)| controller == name),
            Hierarchies::V2 { offered, .. } => offered.iter().any(|controller| controller == name),
        };
        Controllers { cpu: has("cpu"), memory: has("memory"), pids: has("pids"), devices: self.is_v2() || has("devices") }
    }

    /// The group's directory in the hierarchy of a controller; `None` when the machine does not offer it.
    pub fn dir(&self, controller: &str, group: &str) -> Option<PathBuf> {
        match self {
            Hierarchies::V1(mounts) => {
                mounts.iter().find(|(name, _)| name == controller).map(|(_, point)| point.join(group))
            }
            Hierarchies::V2 { root, offered } => {
                offered.iter().any(|name| name == controller).then(|| root.join(group))
            }
        }
    }

    /// The group's directory in every hierarchy where containers have one, each once.
    pub fn places(&self, group: &str) -> Vec<PathBuf> {
        self.dirs(group, |name| MANAGED_V1.contains(&name))
    }

    fn dirs(&self, group: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        match self {
            Hierarchies::V1(mounts) => {
                let fitting = mounts.iter().filter(|(name, _)| wanted(name));
                let mut dirs: Vec<PathBuf> = fitting.map(|(_, point)| point.join(group)).collect();
                dirs.sort();
                dirs.dedup();
                dirs
            }
            Hierarchies::V2 { root, .. } => vec![root.join(group)],
        }
    }

    /// The hierarchies that programs in containers read, with all names of each. Empty on v2.
    pub fn view_v1(&self, group: &str) -> Vec<(Vec<String>, PathBuf)> {
        let Hierarchies::V1(mounts) = self else { return Vec::new() };
        let mut view: Vec<(Vec<String>, PathBuf)> = Vec::new();
        for (name, point) in mounts.iter().filter(|(name, _)| SEEN_V1.contains(&name.as_str())) {
            let dir = point.join(group);
            match view.iter_mut().find(|(_, seen)| *seen == dir) {
                Some((names, _)) => names.push(name.clone()),
                None => view.push((vec![name.clone()], dir)),
            }
        }
        view
    }

    /// Makes the group and its parents. `inner`: it will have children with limits of their own (v2).
    pub fn create(&self, group: &str, inner: bool) -> Result<()> {
        match self {
            Hierarchies::V1(_) => {
                for dir in self.places(group) {
                    make_dir(&dir).map_err(|err| tell("make", &dir, err))?;
                }
                Ok(())
            }
            Hierarchies::V2 { root, offered } => {
                let wanted: Vec<&str> = WANTED_V2.into_iter().filter(|w| offered.iter().any(|o| o == w)).collect();
                let mut dir = root.clone();
                enable(&dir, &wanted);
                let mut parts = group.split('/').peekable();
                while let Some(part) = parts.next() {
                    dir.push(part);
                    match std::fs::create_dir(&dir) {
                        Err(err) if err.kind() != ErrorKind::AlreadyExists => return Err(tell("make", &dir, err)),
                        _ => {}
                    }
                    if parts.peek().is_some() || inner {
                        enable(&dir, &wanted);
                    }
                }
                Ok(())
            }
        }
    }

    pub fn kill(&self, group: &str) {
        if let Hierarchies::V2 { root, .. } = self
            && std::fs::write(root.join(group).join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        // Without cgroup.kill a fork can slip away: the caller tries again until the group is empty.
        for pid in self.pids(group) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }

    pub fn pids(&self, group: &str) -> Vec<i32> {
        let mut pids = Vec::new();
        for place in self.places(group) {
            collect_pids(&place, &mut pids, 0);
        }
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    pub fn remove(&self, group: &str) -> Result<()> {
        // libcontainer makes groups in other hierarchies too when it is left to itself.
        for place in self.dirs(group, |_| true) {
            remove_dir(&place, 0).map_err(|err| tell("remove", &place, err))?;
        }
        Ok(())
    }
}

fn is_controller(word: &str) -> bool {
    !word.is_empty() && !word.contains('=') && !["rw", "ro", "xattr", "clone_children", "noprefix"].contains(&word)
}

/// Errors are left to the limits: writing a limit that has no file is skipped there.
fn enable(dir: &Path, wanted: &[&str]) {
    for controller in wanted {
        let _ = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// The usual case first: the pod's group is there, only the leaf is missing.
fn make_dir(dir: &Path) -> Result<()> {
    match std::fs::create_dir(dir) {
        Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(err) if err.kind() == ErrorKind::NotFound => std::fs::create_dir_all(dir),
        other => other,
    }
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>, depth: usize) {
    if let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) {
        let room = PIDS_MAX.saturating_sub(pids.len());
        pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).take(room));
    }
    if depth < DEPTH_MAX {
        for child in children(dir) {
            collect_pids(&child, pids, depth + 1);
        }
    }
}

fn remove_dir(dir: &Path, depth: usize) -> Result<()> {
    match std::fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        Err(err) if depth == DEPTH_MAX => return Err(err),
        Err(_) => {}
    }
    for child in children(dir) {
        remove_dir(&child, depth + 1)?;
    }
    match std::fs::remove_dir(dir) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

fn tell(what: &str, dir: &Path, err: Error) -> Error {
    Error::new(err.kind(), format!("{what} {}: {err}", dir.display()))
}
