//! AppArmor: whether the kernel has it, which profiles, and our own profile into it.
//!
//! In: the kernel's files. Out: names of profiles; `limpet-default`, compiled, in the kernel.
//! Never: needs a compiler of profiles on the board, or touches a profile of another name.

use super::facts::read;
use nix::mount::{MsFlags, mount};
use std::{collections::BTreeSet, fs, io, path::Path};

/// What containers run under for which nothing else was said.
pub const DEFAULT: &str = "limpet-default";
/// `limpet-default.apparmor` beside it, by `cargo xtask app-armor`.
const POLICY: &[u8] = include_bytes!("limpet-default.policy");
const SECURITY: &str = "/sys/kernel/security";
const ROOM: &str = "/sys/kernel/security/apparmor";

/// Whether the kernel enforces AppArmor profiles.
pub fn app_armor() -> bool {
    read("/sys/module/apparmor/parameters/enabled").starts_with('Y')
}

/// Names of the profiles in the kernel.
pub fn app_armor_profiles() -> BTreeSet<String> {
    let list = read(Path::new(ROOM).join("profiles"));
    // `name (enforce)`; a name may have spaces.
    list.lines().filter_map(|line| Some(line.rsplit_once(" (")?.0.to_string())).collect()
}

/// Brings our profile into the kernel, or this agent's version of it. Containers that run under it follow the new one.
///
/// Errors: the kernel's, when it does not take the profile (a container's agent may not, an old kernel may not know a rule).
pub fn load_app_armor() -> io::Result<()> {
    if !app_armor() {
        return Ok(());
    }
    if !Path::new(ROOM).is_dir() {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("securityfs"), SECURITY, Some("securityfs"), flags, None::<&str>)?;
    }
    // One write: the kernel takes a whole policy or nothing.
    let file = fs::OpenOptions::new().write(true).open(Path::new(ROOM).join(".replace"))?;
    match io::Write::write(&mut &file, POLICY)? {
        whole if whole == POLICY.len() => Ok(()),
        _ => Err(io::Error::other("the kernel took a part of the profile")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's format: a version first, then the profile by its name.
    #[test]
    fn the_compiled_profile_is_the_one_of_its_name() {
        assert_eq!(&POLICY[..11], b"\x04\x08\x00version\x00");
        let name = [DEFAULT.as_bytes(), b"\0"].concat();
        assert_eq!(POLICY.windows(name.len()).position(|bytes| bytes == name), Some(31), "where Debian's parser puts it");
        let source = include_str!("limpet-default.apparmor");
        assert!(source.contains(&format!("profile {DEFAULT} ")));
    }
}
