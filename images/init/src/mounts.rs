//! From the kernel's initial file system to one that containers can leave, and everything mounted on it.
//!
//! In: the initial file system. Out: a root in memory with the kernel's own file systems, the card's partitions by name.
//! Never: mounts the system's partition for longer than a file is read or written.

use crate::{log::say, mbr, modules, torn};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    ffi::CString,
    fs::{self, File},
    os::unix::fs::{FileExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// The argument of the second life of this program.
pub const SECOND: &str = "second";
pub const DATA: &str = "/data";
const ROOT: &str = "/new";
const DISK_WAIT: Duration = Duration::from_secs(30);
const SYSTEM_NAME: &str = "limpet-system";
const DATA_NAME: &str = "limpet-data";

/// (what, where, options): what every Linux program may expect.
const KERNEL: [(&str, &str, &str); 8] = [
    ("devtmpfs", "/dev", "mode=0755"),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tmpfs", "/run", "mode=0755,size=25%"),
    ("tmpfs", "/tmp", "mode=1777,size=25%"),
    ("devpts", "/dev/pts", "mode=0620,gid=5,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "mode=1777,size=25%"),
    ("cgroup2", "/sys/fs/cgroup", "nsdelegate"),
];

fn mount_one(kind: &str, at: &str, options: &str) -> Result<(), String> {
    fs::create_dir_all(at).map_err(|e| format!("{at}: {e}"))?;
    let flags = MsFlags::MS_NOSUID | if kind == "devtmpfs" || kind == "devpts" { MsFlags::empty() } else { MsFlags::MS_NODEV };
    match mount(Some(kind), at, Some(kind), flags, Some(options).filter(|o| !o.is_empty())) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(e) => Err(format!("{kind} on {at}: {e}")),
    }
}

/// pivot_root, which containers need, does not work in the kernel's first file system: everything moves to a tmpfs.
/// Returns only with a reason why it could not.
pub fn leave_initramfs() -> Result<(), String> {
    let told = |what: &str| { let what = what.to_string(); move |e: nix::Error| format!("{what}: {e}") };
    for (kind, at, options) in &KERNEL[..3] {
        mount_one(kind, at, options)?;
    }
    modules::load(Path::new("/modules"));
    fs::create_dir_all(ROOT).map_err(|e| format!("{ROOT}: {e}"))?;
    mount(Some("tmpfs"), ROOT, Some("tmpfs"), MsFlags::empty(), Some("mode=0755,size=64m")).map_err(told("the root"))?;
    move_tree(Path::new("/"), Path::new(ROOT), true)?;
    for (_, at, _) in &KERNEL[..3] {
        let to = format!("{ROOT}{at}");
        fs::create_dir_all(&to).map_err(|e| format!("{to}: {e}"))?;
        mount(Some(*at), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(told(at))?;
    }
    nix::unistd::chdir(ROOT).map_err(told("the new root"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).map_err(told("the new root"))?;
    nix::unistd::chroot(".").map_err(told("the new root"))?;
    nix::unistd::chdir("/").map_err(told("the new root"))?;
    let words = [c"/init".to_owned(), CString::new(SECOND).unwrap_or_default()];
    match nix::unistd::execv(c"/init", &words) {
        Ok(never) => match never {},
        Err(e) => Err(format!("/init: {e}")),
    }
}

/// File by file, the old one removed at once: memory is never needed twice.
fn move_tree(from: &Path, to: &Path, top: bool) -> Result<(), String> {
    let told = |e: std::io::Error| format!("{}: {e}", from.display());
    for entry in fs::read_dir(from).map_err(told)?.flatten() {
        let (path, kind) = (entry.path(), entry.file_type().map_err(told)?);
        let target = to.join(entry.file_name());
        if top && ["new", "dev", "proc", "sys", "modules"].iter().any(|n| entry.file_name() == *n) {
            continue;
        }
        if kind.is_dir() {
            fs::create_dir_all(&target).map_err(told)?;
            move_tree(&path, &target, false)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&path).map_err(told)?, &target).map_err(told)?;
        } else {
            fs::copy(&path, &target).map_err(|e| format!("{}: {e}", path.display()))?;
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// The card that this system was started from.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Name below /sys/block.
    pub name: String,
    pub system: PathBuf,
    pub data: PathBuf,
    pub data_number: u32,
    /// Otherwise the table is in the first sector alone.
    pub has_gpt: bool,
}

/// Names of partitions are in the kernel's uevent files; a table without names has a mark of ours. Drives may appear late.
pub fn find_disk() -> Result<Disk, String> {
    for (kind, at, options) in &KERNEL {
        mount_one(kind, at, options)?;
    }
    let start = Instant::now();
    loop {
        if let Some(disk) = look_for_disk() {
            return Ok(disk);
        }
        if start.elapsed() > DISK_WAIT {
            let all: Vec<String> = names("/sys/block");
            return Err(format!("no drive has the partitions {SYSTEM_NAME} and {DATA_NAME}; there are: {}", all.join(", ")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let mut all: Vec<String> =
        fs::read_dir(dir).map(|d| d.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()).unwrap_or_default();
    all.sort();
    all
}

fn look_for_disk() -> Option<Disk> {
    names("/sys/block").into_iter().find_map(|name| {
        let marked = marked(&name);
        let mut found = (None, None);
        for part in names(format!("/sys/block/{name}")) {
            let text = fs::read_to_string(format!("/sys/block/{name}/{part}/uevent")).unwrap_or_default();
            let field = |key: &str| text.lines().find_map(|l| l.strip_prefix(key)).map(str::to_string);
            let number: Option<u32> = field("PARTN=").and_then(|n| n.parse().ok());
            let title = field("PARTNAME=");
            let is = |wanted: &str, marked: Option<u32>| match title.as_deref() {
                Some(title) => title == wanted,
                None => marked.is_some() && number == marked,
            };
            if is(SYSTEM_NAME, marked.map(|(system, _)| system)) {
                found.0 = Some(part);
            } else if is(DATA_NAME, marked.map(|(_, data)| data)) {
                found.1 = number.map(|n| (part, n));
            }
        }
        let (system, (data, data_number)) = (found.0?, found.1?);
        let device = |part: String| Path::new("/dev").join(part);
        Some(Disk { name, system: device(system), data: device(data), data_number, has_gpt: marked.is_none() })
    })
}

/// The numbers of our partitions, where the first sector has our mark.
fn marked(name: &str) -> Option<(u32, u32)> {
    // Drives of memory and of files are none.
    if ["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind)) {
        return None;
    }
    let mut head = [0; 512];
    File::open(Path::new("/dev").join(name)).ok()?.read_exact_at(&mut head, 0).ok()?;
    mbr::parts(&head)
}

/// Journalled; a mount replays the journal after a power cut.
pub fn data(disk: &Disk) -> Result<(), String> {
    fs::create_dir_all(DATA).map_err(|e| format!("{DATA}: {e}"))?;
    let flags = MsFlags::MS_NOATIME | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let device = disk.data.as_path();
    let mount_it = || mount(Some(device), DATA, Some("ext4"), flags, Some("errors=remount-ro"));
    let mounted = match mount_it() {
        Err(_) if torn::mend(device).is_ok_and(|mended| mended) => {
            say!("the data partition's description was torn by a power cut and is mended");
            mount_it()
        }
        other => other,
    };
    mounted.map_err(|e| format!("the data partition {}: {e}", device.display()))?;
    for (inside, outside) in [("limpet", "/var/lib/limpet"), ("os/incoming", "")] {
        let from = format!("{DATA}/{inside}");
        fs::create_dir_all(&from).map_err(|e| format!("{from}: {e}"))?;
        if !outside.is_empty() {
            fs::create_dir_all(outside).map_err(|e| format!("{outside}: {e}"))?;
            let bound = mount(Some(from.as_str()), outside, None::<&str>, MsFlags::MS_BIND, None::<&str>);
            bound.map_err(|e| format!("{outside}: {e}"))?;
        }
    }
    Ok(())
}

/// The system's partition, for the length of `work`.
pub fn with_system<T>(disk: &Disk, write: bool, work: impl FnOnce(&Path) -> Result<T, String>) -> Result<T, String> {
    let at = Path::new("/run/limpet-system");
    fs::create_dir_all(at).map_err(|e| format!("{}: {e}", at.display()))?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID;
    let flags = if write { flags } else { flags | MsFlags::MS_RDONLY };
    mount(Some(disk.system.as_path()), at, Some("vfat"), flags, Some("umask=0077,errors=remount-ro"))
        .map_err(|e| format!("the system partition {}: {e}", disk.system.display()))?;
    let outcome = work(at);
    nix::unistd::sync();
    if let Err(e) = umount2(at, MntFlags::MNT_DETACH) {
        say!("the system partition stays mounted: {e}");
    }
    outcome
}

/// Before a restart: nothing of the data is only in memory.
pub fn leave() {
    nix::unistd::sync();
    let _ = umount2("/var/lib/limpet", MntFlags::MNT_DETACH);
    let _ = mount(None::<&str>, DATA, None::<&str>, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, None::<&str>);
    nix::unistd::sync();
}
