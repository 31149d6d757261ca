//! Debian's kernel as a program of this machine: User-mode Linux.
//!
//! In: the source of Debian's kernel; `user_mode.config`, which names what Limpet needs of it. Out: `linux`, built once for each
//! version, and the command that runs it with a disk.
//! Never: a driver of hardware; its disk and its console are files of this machine.

use super::{
    boot::MEMORY_MIB,
    kernel::{first, newest},
};
use crate::{setup, sh};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    unistd::Pid,
};
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::available_parallelism,
};

const SOURCE: &str = "linux-source";
const PACKAGES: &[setup::Package] = &[
    ("gcc", "gcc", "compiles the kernel"),
    ("make", "make", "builds the kernel"),
    ("bc", "bc", "computes constants of the kernel"),
    ("flex", "flex", "reads the kernel's configuration"),
    ("bison", "bison", "reads the kernel's configuration"),
    ("xz", "xz-utils", "the kernel's source is compressed"),
    ("taskset", "util-linux", "keeps the kernel on one processor"),
];
/// Beyond the kernel's own default for this kind of machine.
const WANTED: &str = include_str!("user_mode.config");

/// Built once; a few minutes.
pub fn kernel(work: &Path) -> Result<PathBuf, String> {
    setup::packages(PACKAGES)?;
    let name = newest(SOURCE, "linux-source-")?;
    let (kernel, config) = (work.join(format!("{name}-user-mode")), work.join(format!("{name}-user-mode.config")));
    if kernel.is_file() && fs::read_to_string(&config).is_ok_and(|made_with| made_with == WANTED) {
        return Ok(kernel);
    }
    println!("Fetching from Debian: {name}, and building it as a program of this machine");
    let partial = work.join("partial");
    let io = |e: std::io::Error| format!("{}: {e}", partial.display());
    let _ = fs::remove_dir_all(&partial);
    fs::create_dir_all(&partial).map_err(io)?;
    sh::status(Command::new("apt-get").args(["download", "-q", &name]).current_dir(&partial))?;
    let package = first(&partial, |file| file.ends_with(".deb"))?;
    sh::status(Command::new("dpkg-deb").arg("-x").arg(&package).arg(partial.join("root")))?;
    let packed = first(&partial.join("root/usr/src"), |file| file.ends_with(".tar.xz"))?;
    sh::status(Command::new("tar").arg("-xf").arg(&packed).current_dir(&partial))?;
    let source = partial.join(&name);
    fs::write(source.join("wanted.config"), WANTED).map_err(io)?;
    let quiet = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        sh::status(command.args(words).current_dir(&source).stdout(Stdio::null()))
    };
    quiet("make", &["ARCH=um", "defconfig"])?;
    quiet("scripts/kconfig/merge_config.sh", &["-m", ".config", "wanted.config"])?;
    quiet("make", &["ARCH=um", "olddefconfig"])?;
    let made = fs::read_to_string(source.join(".config")).map_err(io)?;
    if let Some(missing) = missing(WANTED, &made) {
        return Err(format!("{name} has no {missing}: see xtask/src/v2/user_mode.config"));
    }
    let jobs = format!("-j{}", available_parallelism().map_or(1, usize::from));
    quiet("make", &["ARCH=um", &jobs, "linux"])?;
    fs::rename(source.join("linux"), &kernel).and_then(|()| fs::write(&config, WANTED)).map_err(io)?;
    let _ = fs::remove_dir_all(&partial);
    Ok(kernel)
}

/// The first option that was wanted and is not there.
fn missing<'a>(wanted: &'a str, made: &str) -> Option<&'a str> {
    let options = wanted.lines().filter(|line| line.starts_with("CONFIG_"));
    options.filter(|line| line.ends_with("=y")).find(|line| !made.lines().any(|other| other == *line))
}

/// Its memory is a file without a name, its disk the first one. It and the process that has its turn in it wait for each other:
/// that is quicker on one processor than between two.
pub fn command(kernel: &Path, work: &Path, disk: &Path) -> Vec<OsString> {
    let own = [format!("mem={MEMORY_MIB}M"), format!("ubd0={}", disk.display()), format!("uml_dir={}", work.display())];
    let words = ["root=/dev/ubda", "rw", "rootfstype=ext4", "init=/run.sh", "con=null", "con0=null,fd:1", "quiet"];
    let words = words.into_iter().map(OsString::from);
    let pinned = ["taskset".into(), "--cpu-list".into(), processor().to_string().into(), kernel.into()];
    pinned.into_iter().chain(own.into_iter().map(OsString::from)).chain(words).collect()
}

/// The last that this program may use.
fn processor() -> usize {
    let may = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).rfind(|number| may.is_set(*number).unwrap_or(false)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_the_source_does_not_know_is_named() {
        assert_eq!(missing("# why\nCONFIG_A=y\nCONFIG_B=n\n", "CONFIG_A=y\n# CONFIG_B is not set\n"), None);
        assert_eq!(missing("CONFIG_A=y\nCONFIG_C=y\n", "CONFIG_A=y\nCONFIG_CC=y\n"), Some("CONFIG_C=y"));
    }

    #[test]
    fn what_limpet_needs_of_a_kernel_is_asked_for() {
        for option in ["MEMCG", "CGROUP_PIDS", "CGROUP_BPF", "CFS_BANDWIDTH", "USER_NS", "SECCOMP_FILTER", "OVERLAY_FS"] {
            assert!(WANTED.lines().any(|line| line == format!("CONFIG_{option}=y")), "{option}");
        }
    }
}
