//! Ways out of a container that other runtimes had, one case each.
//!
//! In: containers that try. Out: an error, or something harmless. Never: a case that passes because its attack did not run.

use super::world::{World, read_until};
use crate::runtime::*;
use crate::volumes::subpath;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// CVE-2024-21626: a working directory that is a leaked fd of the runtime leads to the host's files.
pub async fn working_directories(mut world: World) {
    world.pod("pod-w").await;
    let witness = world.base.join("witness");
    std::fs::write(&witness, "host").unwrap();
    let up = "../".repeat(12);
    let look = format!("pwd -P; cat {up}{} 2>/dev/null && echo ESCAPED", witness.strip_prefix("/").unwrap().display());
    for fd in 0..16 {
        for process in ["self", "1", "thread-self"] {
            let mut spec = world.container("pod-w", &format!("w{fd}-{process}"), &look);
            spec.cwd = format!("/proc/{process}/fd/{fd}");
            match world.runtime.start_container(&spec).await {
                Ok(started) => {
                    let text = super::world::read_all(started.streams.stdout.unwrap()).await;
                    assert!(!text.contains("ESCAPED"), "{}: {text}", spec.cwd);
                    world.ended(&spec.id).await;
                    world.runtime.remove_container(&spec.id).await.unwrap();
                }
                Err(err) => assert!(!err.to_string().is_empty()),
            }
        }
    }
    let mut main = world.container("pod-w", "main", "exec sleep 1000");
    main.cwd = "/tmp".into();
    world.runtime.start_container(&main).await.unwrap();
    for fd in 3..16 {
        let exec = ExecSpec {
            container_id: "main".into(),
            args: ["sh", "-c", &look].map(String::from).to_vec(),
            cwd: Some(format!("/proc/self/fd/{fd}")),
            ..ExecSpec::default()
        };
        if let Ok(run) = world.runtime.exec(&exec).await {
            let text = super::world::read_all(run.streams.stdout.unwrap()).await;
            assert!(!text.contains("ESCAPED"), "exec {fd}: {text}");
        }
    }
    // One that the image does not have is made, root's, in the container's root and nowhere else.
    let mut new = world.container("pod-w", "new", "pwd; stat -c '%u:%g %a' /made /made/here");
    (new.cwd, new.user) = ("/made/here".into(), User { uid: 1000, gid: 1000, ..User::default() });
    let (text, ended) = world.run(&new).await;
    assert_eq!((text.as_str(), ended.code), ("/made/here\n0:0 755\n0:0 755\n", 0));
    std::os::unix::fs::symlink(&world.base, world.base.join("layer/away")).unwrap();
    let mut away = world.container("pod-w", "away", "pwd");
    away.cwd = "/away/made".into();
    assert!(world.runtime.start_container(&away).await.is_err(), "in the container's root the link leads to nothing");
    assert!(!world.base.join("made").exists());
    // A link of the image into a volume is followed when the volume is there.
    let volume = world.base.join("volume");
    std::fs::create_dir_all(volume.join("app")).unwrap();
    std::os::unix::fs::symlink("/volume/app", world.base.join("layer/app")).unwrap();
    let mut linked = world.container("pod-w", "linked", "pwd -P");
    linked.cwd = "/app".into();
    linked.mounts = vec![Mount { source: volume, destination: "/volume".into(), ..Mount::default() }];
    assert_eq!(world.run(&linked).await.0, "/volume/app\n");
}

/// CVE-2019-5736 and its kin: the image's entrypoint is the runtime itself, and another process of the pod holds whatever is not
/// the image's own program open, waits for its end and writes to it. (`bites.rs` does so to a runtime that nobody protects.)
pub async fn own_program(world: World) {
    let mut shared = world.sandbox("pod-o");
    shared.share_pid = true;
    world.runtime.create_sandbox(&shared).await.unwrap();
    let evil = world.base.join("layer/bin/evil");
    std::fs::write(&evil, "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(&evil, std::fs::Permissions::from_mode(0o755)).unwrap();
    let before = hash_of(&std::env::current_exe().unwrap());
    let writer = world.container("pod-o", "writer", &format!("echo ready; {}", hold_and_write("*/busybox) continue;;")));
    let started = world.runtime.start_container(&writer).await.unwrap();
    let out = sys::watch(started.streams.stdout.unwrap()).unwrap();
    assert!(read_until(&out, "ready").await.contains("ready"));
    for n in 0..12 {
        let mut spec = world.container("pod-o", &format!("evil{n}"), "");
        spec.args = vec!["evil".into(), "--help".into()];
        let _ = world.runtime.start_container(&spec).await;
        let exec = ExecSpec { container_id: "writer".into(), args: vec!["evil".into()], ..ExecSpec::default() };
        let _ = world.runtime.exec(&exec).await;
    }
    let (_, code) = world.exec("writer", &["touch", "/tmp/stop"]).await;
    assert_eq!(code, 0);
    let text = read_until(&out, "done").await;
    assert!(text.contains("TRIED"), "nothing was tried, so this case proves nothing: {text}");
    assert!(!text.contains("WROTE"), "{text}");
    assert_eq!(hash_of(&std::env::current_exe().unwrap()), before, "the program on disk is what it was");
}

/// A line of shell: until there is /tmp/stop, opens the programs around it whose path `which` of a `case` goes on with, and
/// writes to them once they may be written.
pub fn hold_and_write(which: &str) -> String {
    format!(
        "while [ ! -e /tmp/stop ]; do for p in /proc/[0-9]*; do case \"$(readlink $p/exe)\" in {which} esac; \
         [ -d $p ] || continue; echo TRIED $(cat $p/comm); \
         (exec 3<$p/exe && echo HELD && i=0 && while [ $i -lt 300 ]; do i=$((i+1)); \
         (echo x >>/proc/self/fd/3) && echo WROTE && exit; done) 2>/dev/null; done; done; echo done"
    )
}

/// CVE-2025-27612: a program whose file lends what the process inherits. Nothing is inherited, by no container and no exec.
pub async fn inherited(world: World) {
    world.pod("pod-j").await;
    lend_capabilities(&world.base.join("layer"));
    let look = "/evil/grep -E 'CapEff|CapInh' /proc/self/status";
    let user = User { uid: 1000, gid: 1000, groups: vec![] };
    let main =
        ContainerSpec { user: user.clone(), ..world.container("pod-j", "main", &format!("{look}; echo ready; exec sleep 1000")) };
    let started = world.runtime.start_container(&main).await.unwrap();
    let none = "CapInh:\t0000000000000000\nCapEff:\t0000000000000000\n";
    let text = read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
    assert_eq!(text, format!("{none}ready\n"));
    for user in [None, Some(user)] {
        let args = ["sh", "-c", look].map(String::from).to_vec();
        let exec = ExecSpec { container_id: "main".into(), args, user, ..ExecSpec::default() };
        let exec = world.runtime.exec(&exec).await.unwrap();
        assert_eq!(super::world::read_all(exec.streams.stdout.unwrap()).await, none);
    }
}

/// Puts busybox into `root/evil/grep`, its file lending CAP_SYS_ADMIN and CAP_NET_RAW to who has inherited them.
#[allow(unsafe_code)]
pub fn lend_capabilities(root: &Path) {
    let program = root.join("evil/grep");
    std::fs::create_dir_all(root.join("evil")).unwrap();
    std::fs::copy("/bin/busybox", &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (version_2_effective, permitted, inheritable) = (0x0200_0001_u32, 0_u32, 1_u32 << 21 | 1 << 13);
    let value: Vec<u8> = [version_2_effective, permitted, inheritable, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    let path = sys::c_path(&program).unwrap();
    // SAFETY: live C strings, and a buffer with its own length.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

fn hash_of(path: &Path) -> u32 {
    crc32fast::hash(&std::fs::read(path).unwrap())
}

/// CVE-2025-31133: what masks a path must be the real /dev/null, whatever the image has there; and the paths stay masked.
/// CVE-2025-52565, CVE-2025-52881: nothing may be mounted where the runtime or the kernel's files are.
pub async fn masks(mut world: World) {
    world.pod("pod-k").await;
    let top = world.base.join("evil-null");
    std::fs::create_dir_all(top.join("dev")).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", top.join("dev/null")).unwrap();
    std::os::unix::fs::symlink("/proc/sysrq-trigger", top.join("dev/console")).unwrap();
    let script = "stat -c '%t:%T' /dev/null; for p in /proc/kcore /proc/keys /proc/timer_list; do \
                  [ -e $p ] && stat -c '%t:%T' $p; done; echo x > /proc/sys/kernel/core_pattern || echo refused";
    let before = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for tty in [false, true] {
        let mut spec = world.container("pod-k", &format!("null-{tty}"), script);
        spec.layers.insert(0, top.clone());
        if tty {
            spec.tty = true;
            world.runtime.start_container(&spec).await.unwrap();
            world.ended(&spec.id).await;
        } else {
            let text = world.output(&spec).await;
            let numbers: Vec<&str> = text.lines().filter(|l| l.contains(':') && l.len() < 8).collect();
            assert!(numbers.len() >= 2 && numbers.iter().all(|n| *n == "1:3"), "{text}");
            assert!(text.contains("refused"), "{text}");
        }
        assert_eq!(std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), before);
    }
    let volume = world.base.join("volume");
    std::fs::create_dir_all(&volume).unwrap();
    std::os::unix::fs::symlink("/proc/self/attr", volume.join("link")).unwrap();
    for destination in ["/proc", "/proc/self/attr", "/proc/sys/kernel", "/proc/1", "/proc/thread-self/attr/apparmor"] {
        let mut spec = world.container("pod-k", "over-proc", "true");
        spec.mounts = vec![Mount { source: volume.clone(), destination: destination.into(), ..Mount::default() }];
        let got = world.runtime.start_container(&spec).await;
        assert!(got.is_err(), "a volume was mounted on {destination}");
    }
    // By way of a link that the image brings along.
    let top = world.base.join("evil-link");
    std::fs::create_dir_all(&top).unwrap();
    std::os::unix::fs::symlink("/proc", top.join("innocent")).unwrap();
    let mut spec = world.container("pod-k", "by-link", "true");
    spec.layers.insert(0, top);
    spec.mounts = vec![Mount { source: volume.clone(), destination: "/innocent/self/attr".into(), ..Mount::default() }];
    let got = world.runtime.start_container(&spec).await;
    assert!(got.is_err(), "a volume was mounted below /proc through a link");
}

/// CVE-2021-25741: a directory is exchanged for a link between the look and the mount. The naive way is caught by it.
pub async fn sub_path_race(world: World) {
    let volume = world.base.join("raced");
    let outside = world.base.join("outside");
    for dir in [volume.join("dir"), outside.clone()] {
        std::fs::create_dir_all(dir).unwrap();
    }
    std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
    let forbidden = std::fs::metadata(&outside).unwrap().ino();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (flag, place) = (stop.clone(), volume.clone());
    let racer = std::thread::spawn(move || {
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            exchange(&place.join("dir"), &place.join("link"));
        }
    });
    let naive = |sub: &str| -> Option<u64> {
        let path = volume.join(sub);
        std::fs::symlink_metadata(&path).ok().filter(|found| found.is_dir())?;
        std::fs::metadata(&path).ok().map(|found| found.ino())
    };
    let (mut fooled, mut inside) = (0, 0);
    for round in 0..400_000 {
        fooled += usize::from(naive("dir") == Some(forbidden));
        if let Ok(opened) = subpath::open(&volume, "dir") {
            let found = nix::sys::stat::fstat(&opened).unwrap();
            assert_ne!(found.st_ino, forbidden, "the sub path led out of the volume");
            inside += 1;
        }
        if fooled > 3 && inside > 100 && round > 20_000 {
            break;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    racer.join().unwrap();
    assert!(inside > 100, "{inside}");
    assert!(fooled > 0, "the race never happened, so this case proves nothing");
}

#[allow(unsafe_code)]
fn exchange(a: &Path, b: &Path) {
    let (a, b) = (sys::c_path(a).unwrap(), sys::c_path(b).unwrap());
    // SAFETY: two live C strings.
    unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, a.as_ptr(), libc::AT_FDCWD, b.as_ptr(), libc::RENAME_EXCHANGE) };
}

/// `seccompProfile: Localhost`: the node's file holds, also for execs after it has gone.
pub async fn node_profiles(mut world: World) {
    world.pod("pod-f").await;
    let dir = world.base.join("data/seccomp");
    std::fs::create_dir_all(dir.join("team")).unwrap();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}"#;
    std::fs::write(dir.join("team/no-mkdir.json"), profile).unwrap();
    std::fs::write(dir.join("broken.json"), "{").unwrap();
    std::fs::write(world.base.join("data/outside.json"), profile).unwrap();
    std::os::unix::fs::symlink("../outside.json", dir.join("link.json")).unwrap();
    let script = "mkdir /tmp/x; grep Seccomp: /proc/self/status; echo ready; exec sleep 1000";
    let mut spec = world.container("pod-f", "main", &format!("exec 2>&1; {script}"));
    spec.seccomp = Seccomp::Localhost("team/no-mkdir.json".into());
    let started = world.runtime.start_container(&spec).await.unwrap();
    let text = read_until(&sys::watch(started.streams.stdout.unwrap()).unwrap(), "ready").await;
    assert!(text.contains("Read-only file system") && text.contains("Seccomp:\t2"), "{text}");
    std::fs::remove_file(dir.join("team/no-mkdir.json")).unwrap();
    let (text, code) = world.exec("main", &["mkdir", "/tmp/y"]).await;
    assert!(code != 0 && text.contains("Read-only file system"), "{code} {text}");
    for (name, why) in [
        ("none.json", "No such file"),
        ("team/no-mkdir.json", "No such file"),
        ("broken.json", "EOF"),
        ("../outside.json", "must not contain"),
        ("/etc/passwd", "relative"),
        ("link.json", ""),
        ("team", "is not a file"),
    ] {
        let mut spec = world.container("pod-f", "refused", "true");
        spec.seccomp = Seccomp::Localhost(name.into());
        let err = world.runtime.start_container(&spec).await.unwrap_err().to_string();
        assert!(err.contains("seccomp profile") && err.contains(why), "{name}: {err}");
    }
    world.runtime.remove_container("main").await.unwrap();
    world.ended("main").await;
}
