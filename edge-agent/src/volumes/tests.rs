//! Volumes in a temporary directory. What needs root says so and is skipped without it.

use super::atomic::{File, Payload, STEPS_LEFT, write};
use super::*;
use std::os::unix::fs::PermissionsExt;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("limpet-volumes-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = unmount_below(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn payload(files: &[(&str, &str, u32)]) -> Payload {
    let file = |text: &str, mode| File { bytes: text.as_bytes().to_vec(), mode, owner: None };
    files.iter().map(|(path, text, mode)| (path.to_string(), file(text, *mode))).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_swap_is_seen_whole_and_leaves_nothing_behind() {
    let dir = Dir::new("swap");
    let volume = &dir.0;
    assert!(write(volume, &payload(&[("a", "1", 0o644), ("deep/b", "1", 0o400)]), None).unwrap());
    let first = std::fs::read_link(volume.join("..data")).unwrap();
    assert!(first.to_str().unwrap().starts_with("..20"), "{first:?}");
    assert_eq!(std::fs::read_link(volume.join("deep")).unwrap(), Path::new("..data/deep"));
    let mode = std::fs::metadata(volume.join("deep/b")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    assert!(!write(volume, &payload(&[("a", "1", 0o644), ("deep/b", "1", 0o400)]), None).unwrap(), "nothing changed");
    assert_eq!(std::fs::read_link(volume.join("..data")).unwrap(), first);

    // A reader that holds the old directory open never meets the new content through it.
    let old = volume.join(&first);
    assert!(write(volume, &payload(&[("a", "2", 0o644), ("c", "2", 0o644)]), None).unwrap());
    assert!(!old.exists());
    assert_eq!(std::fs::read_to_string(volume.join("a")).unwrap(), "2");
    let seen = names(volume);
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(seen.contains(&"a".into()) && seen.contains(&"c".into()) && seen.contains(&"..data".into()));

    assert!(write(volume, &payload(&[("a", "2", 0o600), ("c", "2", 0o644)]), None).unwrap(), "a mode is a change");
    std::fs::create_dir(volume.join("..2020_01_01_00_00_00.1")).unwrap();
    assert!(!write(volume, &payload(&[("a", "2", 0o600), ("c", "2", 0o644)]), None).unwrap());
    assert!(!volume.join("..2020_01_01_00_00_00.1").exists(), "what a crash left is gone");
    assert!(write(volume, &Payload::new(), None).unwrap());
    assert_eq!(names(volume).len(), 2, "an empty volume keeps only its data directory");
}

#[test]
fn a_file_goes_to_its_owner_and_the_group_may_read_it() {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: giving files away needs root");
        return;
    }
    let dir = Dir::new("owner");
    let volume = &dir.0;
    let of = |owner| {
        let mut files = payload(&[("token", "t", 0o600), ("ca.crt", "c", 0o644)]);
        files.get_mut("token").unwrap().owner = owner;
        files
    };
    let look = |name: &str| {
        let found = std::fs::metadata(volume.join(name)).unwrap();
        (found.uid(), found.gid(), found.mode() & 0o777)
    };
    assert!(write(volume, &of(None), None).unwrap());
    assert_eq!(look("token"), (0, 0, 0o600));
    assert!(write(volume, &of(Some(1000)), None).unwrap(), "an owner is a change");
    assert_eq!((look("token"), look("ca.crt")), ((1000, 0, 0o600), (0, 0, 0o644)));
    assert!(!write(volume, &of(Some(1000)), None).unwrap());
    assert!(write(volume, &of(Some(1000)), Some(2000)).unwrap());
    assert_eq!((look("token"), look("ca.crt")), ((1000, 2000, 0o640), (0, 2000, 0o644)));
}

/// Files by their visible names.
fn visible(volume: &Path) -> Vec<(String, String)> {
    let shown = names(volume).into_iter().filter(|name| !name.starts_with(".."));
    let text = |name: String| {
        let path = volume.join(&name);
        let path = if path.is_dir() { path.join("b") } else { path };
        Some((name, std::fs::read_to_string(path).ok()?))
    };
    shown.filter_map(text).collect()
}

#[test]
fn a_swap_that_is_cut_at_any_step_shows_one_set_and_is_done_the_next_time() {
    let old = payload(&[("a", "1", 0o644), ("deep/b", "1", 0o644), ("goes", "1", 0o644)]);
    let new = payload(&[("a", "2", 0o644), ("deep/b", "2", 0o600), ("comes", "2", 0o644)]);
    let mut cuts = 0;
    loop {
        let dir = Dir::new("cut");
        let volume = dir.0.join("v");
        write(&volume, &old, None).unwrap();
        STEPS_LEFT.set(Some(cuts));
        let done = write(&volume, &new, None);
        STEPS_LEFT.set(None);
        let seen = visible(&volume);
        let is = |text: &str| seen.iter().all(|(_, found)| found == text) && !seen.is_empty();
        assert!(is("1") || is("2"), "a mixture after {cuts} steps: {seen:?}");
        write(&volume, &new, None).unwrap_or_else(|why| panic!("{cuts}: {why}"));
        let seen = visible(&volume);
        let expected = ["a", "comes", "deep"].map(|name| (name.to_string(), "2".to_string()));
        assert_eq!(seen, expected, "after {cuts} steps and another try");
        assert_eq!(names(&volume).len(), 5, "nothing half is left after {cuts} steps: {:?}", names(&volume));
        if done.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "only {cuts} steps were cut");
}

#[test]
fn paths_that_leave_the_volume_are_refused() {
    let dir = Dir::new("bad");
    for bad in ["", "/etc/passwd", "../x", "a/../b", "..data", "a/", "..x"] {
        let err = write(&dir.0, &payload(&[(bad, "x", 0o644)]), None).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InvalidInput, "{bad}");
    }
    assert_eq!(names(&dir.0), Vec::<String>::new());
}

#[test]
fn sub_paths_stay_inside() {
    let dir = Dir::new("sub");
    let volume = dir.0.join("volume");
    std::fs::create_dir_all(volume.join("real")).unwrap();
    std::fs::write(dir.0.join("secret"), "x").unwrap();
    for (link, target) in [("up", ".."), ("abs", "/etc"), ("in", "real"), ("far", "../secret")] {
        std::os::unix::fs::symlink(target, volume.join(link)).unwrap();
    }
    for good in ["real", "in", "new/dir/here", "./real"] {
        subpath::open(&volume, good).unwrap_or_else(|err| panic!("{good}: {err}"));
    }
    assert!(volume.join("new/dir/here").is_dir());
    for bad in ["..", "real/../..", "/etc", "up", "up/secret", "abs/passwd", "far", "up/new"] {
        subpath::open(&volume, bad).map(|_| panic!("{bad} was opened")).unwrap_err();
    }
    assert_eq!(names(&dir.0), ["secret", "volume"]);
}

#[test]
fn a_sub_path_that_is_made_may_be_used_like_its_volume() {
    let dir = Dir::new("sub-mode");
    for (mode, there) in [(0o777, 0o700), (0o2770, 0o2755), (0o755, 0o700)] {
        let volume = dir.0.join(format!("{mode:o}"));
        std::fs::create_dir_all(volume.join("there")).unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(&volume, mode);
        set(&volume.join("there"), there);
        subpath::open(&volume, "there/new/dir").unwrap();
        subpath::open(&volume, "other").unwrap();
        let look = |path: &str| std::fs::metadata(volume.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(["there", "there/new", "there/new/dir", "other"].map(look), [there, mode, mode, mode], "{mode:o}");
    }
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let dir = Dir::new("conflict");
    let why = write(&dir.0, &payload(&[("x", "1", 0o644), ("x/b", "2", 0o644)]), None).unwrap_err();
    assert!(why.to_string().contains("x/b"), "{why}");
    assert_eq!(names(&dir.0), Vec::<String>::new());
}

#[test]
fn host_paths_are_what_their_type_says() {
    let dir = Dir::new("host");
    let file = dir.0.join("file");
    std::fs::write(&file, "").unwrap();
    let cases = [
        ("", dir.0.clone(), true),
        ("", dir.0.join("auto"), true),
        ("Directory", dir.0.clone(), true),
        ("Directory", file.clone(), false),
        ("Directory", dir.0.join("none"), false),
        ("DirectoryOrCreate", dir.0.join("made"), true),
        ("File", file.clone(), true),
        ("File", dir.0.clone(), false),
        ("FileOrCreate", dir.0.join("made-file"), true),
        ("Socket", file.clone(), false),
        ("CharDevice", "/dev/null".into(), true),
        ("CharDevice", file.clone(), false),
        ("BlockDevice", "/dev/null".into(), false),
        ("", "relative".into(), false),
    ];
    for (word, path, good) in cases {
        let got = hostpath::set_up(&path, HostPathType::parse(word).unwrap());
        assert_eq!(got.is_ok(), good, "{word} {}: {got:?}", path.display());
    }
    assert_eq!(HostPathType::parse("Fifo"), None);
}

#[test]
fn memory_volumes_are_mounted_once_and_torn_down() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: mounting needs root");
        return;
    }
    let dir = Dir::new("memory");
    let volume = super::dir(&dir.0, "uid", "empty-dir", "cache");
    let medium = Medium::Memory { bytes: Some(1 << 20) };
    emptydir::set_up(&volume, medium, Some(1234)).unwrap();
    std::fs::write(volume.join("kept"), "x").unwrap();
    emptydir::set_up(&volume, medium, Some(1234)).unwrap();
    assert!(volume.join("kept").exists(), "a second set-up must not hide what is there");
    let found = std::fs::metadata(&volume).unwrap();
    assert_eq!((std::os::unix::fs::MetadataExt::gid(&found), found.permissions().mode() & 0o7777), (1234, 0o2777));
    assert!(std::fs::write(volume.join("big"), vec![0; 2 << 20]).is_err(), "the size is a limit");
    tear_down_pod(&dir.0, "uid").unwrap();
    assert!(!volume.exists() && !is_mount_point(&volume).unwrap());
    tear_down_pod(&dir.0, "uid").unwrap();
}

#[test]
fn a_kernel_without_noswap_is_asked_once() {
    use nix::errno::Errno;
    use std::{cell::RefCell, sync::atomic::AtomicBool};
    // Each kernel: what it answers with the word and without; what two mounts ask of it.
    let ask = |with: nix::Result<()>, without: nix::Result<()>| {
        let (known, asked) = (AtomicBool::new(true), RefCell::new(Vec::new()));
        let attempt = |options: &str| {
            asked.borrow_mut().push(options.to_string());
            if options.ends_with(",noswap") { with } else { without }
        };
        let results = [(); 2].map(|()| emptydir::out_of_swap(&known, "mode=777", attempt));
        (results, asked.into_inner().join(" "))
    };
    let (old, none, full) = (Err(Errno::EINVAL), Err(Errno::ENOENT), Err(Errno::ENOMEM));
    assert_eq!(ask(Ok(()), Ok(())), ([Ok(()); 2], "mode=777,noswap mode=777,noswap".into()));
    assert_eq!(ask(old, Ok(())), ([Ok(()); 2], "mode=777,noswap mode=777 mode=777".into()));
    // Nothing is learned from what goes wrong either way, or for another reason.
    assert_eq!(ask(none, none), ([none; 2], "mode=777,noswap mode=777 mode=777,noswap mode=777".into()));
    assert_eq!(ask(full, Ok(())), ([Ok(()); 2], "mode=777,noswap mode=777 mode=777,noswap mode=777".into()));
}

#[test]
fn mountinfo_octal_is_read() {
    assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    assert_eq!(unescape("/plain\\"), "/plain\\");
}
