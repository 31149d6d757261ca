//! Names of users and groups in an image as numbers.
//!
//! In: what manifest and image say, the image's layers. Out: numbers. `/etc/passwd` and `/etc/group` are read from the
//! topmost layer that has them.
//! Never: follows a link in a layer; a layer that makes /etc a link is refused.

use crate::runtime::spec::User;
use limpet_agent_core::plan::UserPlan;
use std::{
    io::Read,
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The error is a sentence for the container's status.
pub fn resolve(plan: &UserPlan, layers: &[PathBuf]) -> Result<User, String> {
    let (name, group) = plan.image_user.split_once(':').unwrap_or((&plan.image_user, ""));
    let passwd = Table::read(layers, "passwd");
    let (uid, primary, user_name) = match plan.uid {
        Some(uid) => {
            let line = passwd.by_number(uid);
            (uid, line.as_ref().and_then(|l| l.number(3)), line.map(|l| l.0[0].clone()))
        }
        None if name.is_empty() => (0, Some(0), Some("root".into())),
        None => match (passwd.by_name(name), name.parse::<u32>()) {
            (Some(line), _) => {
                let uid = line.number(2).ok_or_else(|| format!("user {name} has no number in /etc/passwd"))?;
                (uid, line.number(3), Some(name.to_string()))
            }
            (None, Ok(uid)) => {
                let line = passwd.by_number(uid);
                (uid, line.as_ref().and_then(|l| l.number(3)), line.map(|l| l.0[0].clone()))
            }
            (None, Err(_)) => return Err(format!("unable to find user {name}: no matching entries in passwd file")),
        },
    };
    if uid > i32::MAX as u32 {
        return Err(format!("user {uid} is out of range: must be between 0 and 2147483647"));
    }
    if uid == 0 && plan.must_not_be_root {
        return Err("container has runAsNonRoot and image will run as root".into());
    }
    let groups = Table::read(layers, "group");
    // Who names another user has that user's group, not the one that the image gives its own.
    let group = if plan.uid.is_some() { "" } else { group };
    let gid = match (plan.gid, group) {
        (Some(gid), _) => gid,
        (None, "") => primary.unwrap_or(0),
        (None, group) => match (groups.by_name(group), group.parse::<u32>()) {
            (Some(line), _) => line.number(2).unwrap_or(0),
            (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(format!("unable to find group {group}: no matching entries in group file")),
        },
    };
    let mut extra = plan.supplemental_groups.clone();
    // `supplementalGroupsPolicy: Strict`: what the image's files say about groups does not count.
    if let Some(user_name) = user_name.filter(|_| !plan.strict_groups) {
        extra.extend(groups.with_member(&user_name));
    }
    extra.sort_unstable();
    extra.dedup();
    Ok(User { uid, gid, groups: extra })
}

struct Table(Vec<Line>);

#[derive(Clone)]
struct Line(Vec<String>);

impl Line {
    fn number(&self, at: usize) -> Option<u32> {
        self.0.get(at)?.parse().ok()
    }
}

impl Table {
    /// Layers are lowest first.
    fn read(layers: &[PathBuf], file: &str) -> Table {
        let text = layers.iter().rev().find_map(|layer| match look(layer, file) {
            Look::Text(text) => Some(Some(text)),
            Look::Gone => Some(None),
            Look::Below => None,
        });
        let lines = text.flatten().unwrap_or_default();
        let split = |l: &str| Line(l.split(':').map(str::to_string).collect());
        Table(lines.lines().filter(|l| !l.starts_with('#') && l.contains(':')).map(split).collect())
    }

    fn by_name(&self, name: &str) -> Option<Line> {
        self.0.iter().find(|l| l.0[0] == name).cloned()
    }

    fn by_number(&self, number: u32) -> Option<Line> {
        self.0.iter().find(|l| l.number(2) == Some(number)).cloned()
    }

    fn with_member(&self, user: &str) -> Vec<u32> {
        let is_in = |l: &&Line| l.0.get(3).is_some_and(|members| members.split(',').any(|m| m == user));
        self.0.iter().filter(is_in).filter_map(|l| l.number(2)).collect()
    }
}

enum Look {
    Text(String),
    /// A whiteout or a link: what lies below does not count.
    Gone,
    Below,
}

fn look(layer: &Path, file: &str) -> Look {
    let etc = layer.join("etc");
    match std::fs::symlink_metadata(&etc) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Look::Gone,
        Err(_) => return Look::Below,
    }
    let path = etc.join(file);
    let found = match std::fs::symlink_metadata(&path) {
        Ok(found) => found.file_type(),
        Err(_) => return Look::Below,
    };
    if found.is_char_device() || !found.is_file() {
        return Look::Gone;
    }
    let open = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let mut bytes = Vec::new();
    match open.and_then(|f| f.take(FILE_BYTES_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Look::Text(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => Look::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_groups() {
        let base = std::env::temp_dir().join(format!("limpet-users-{}", std::process::id()));
        let layers = [base.join("0"), base.join("1")];
        for layer in &layers {
            std::fs::create_dir_all(layer.join("etc")).unwrap();
        }
        std::fs::write(layers[0].join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:101:102::/:\n").unwrap();
        std::fs::write(layers[0].join("etc/group"), "root:x:0:\nweb:x:102:\nextra:x:200:web,other\n").unwrap();
        let user = |image: &str, uid: Option<u32>| {
            let plan = UserPlan { image_user: image.into(), uid, supplemental_groups: vec![7], ..UserPlan::default() };
            resolve(&plan, &layers).map(|u| (u.uid, u.gid, u.groups))
        };
        for (image, uid, want) in [
            ("", None, Ok((0, 0, vec![7]))),
            ("web", None, Ok((101, 102, vec![7, 200]))),
            ("web:extra", None, Ok((101, 200, vec![7, 200]))),
            ("101", None, Ok((101, 102, vec![7, 200]))),
            ("5000:5001", None, Ok((5000, 5001, vec![7]))),
            ("web", Some(0), Ok((0, 0, vec![7]))),
            ("web:extra", Some(5000), Ok((5000, 0, vec![7]))),
            ("web:extra", Some(101), Ok((101, 102, vec![7, 200]))),
            ("nobody", None, Err("unable to find user nobody: no matching entries in passwd file".to_string())),
        ] {
            assert_eq!(user(image, uid), want, "{image}");
        }
        let plan = UserPlan { image_user: "web".into(), strict_groups: true, ..UserPlan::default() };
        assert_eq!(resolve(&plan, &layers).unwrap().groups, [0u32; 0], "Strict: none from the image");
        std::os::unix::fs::symlink("/etc", base.join("link")).unwrap();
        let plan = UserPlan { image_user: "root".into(), ..UserPlan::default() };
        std::fs::create_dir_all(base.join("2")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("2/etc")).unwrap();
        assert!(resolve(&plan, &[base.join("2")]).is_err(), "links are not followed out of the layer");
        let _ = std::fs::remove_dir_all(&base);
    }
}
