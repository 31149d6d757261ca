//! Large pages: a volume of them, and limits that hold for each container.
//!
//! In: a machine that gives four pages of 2 MiB more. Out: what a container gets up to its limit, what it is refused beyond, what
//! its neighbour still gets.
//! Never: leaves the machine with more pages, or with a hierarchy that it did not have.

use super::files::{made, mounted, on_board};
use limpet_e2e::pods::{apply, container, delete, has, has_event, hasnt, inside, is, merge, ready, sleeper};
use limpet_e2e::process::sh;
use limpet_e2e::wait::until_every;
use limpet_e2e::{Result, World, until, wait};
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// Beside the slots' own locks.
const PAGES_LOCK: &str = "/var/tmp/limpet-e2e/large-pages.lock";

/// Four pages of 2 MiB more than before, while this lives. The machine has one number for all, so worlds take turns; it is
/// written down, so that who comes after one that was killed puts it back.
pub struct LargePages {
    before: Option<u64>,
    lock: Option<std::fs::File>,
}

impl LargePages {
    pub fn reserve() -> LargePages {
        if limpet_e2e::missing().is_some() {
            return LargePages { before: None, lock: None };
        }
        let lock = LargePages::turn();
        if lock.is_some() {
            give_back_controller();
        }
        let count = || std::fs::read_to_string(PAGES).ok()?.trim().parse::<u64>().ok();
        let left_by_another = std::fs::read_to_string(PAGES_LOCK).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let before = lock.as_ref().and_then(|_| left_by_another.or_else(count));
        let pages = LargePages { before, lock };
        let set = |n: u64| {
            let noted = std::fs::write(PAGES_LOCK, (n - 4).to_string()).is_ok();
            noted && std::fs::write(PAGES, n.to_string()).is_ok() && count() >= Some(n)
        };
        if before.is_some_and(|n| set(n + 4)) {
            return pages;
        }
        // What was given of them goes back.
        drop(pages);
        LargePages { before: None, lock: None }
    }

    /// The lock is the file's, whoever has it open: it goes with the process.
    fn turn() -> Option<std::fs::File> {
        std::fs::create_dir_all(Path::new(PAGES_LOCK).parent()?).ok()?;
        let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(PAGES_LOCK).ok()?;
        file.lock().ok()?;
        Some(file)
    }
}

impl Drop for LargePages {
    fn drop(&mut self) {
        let (Some(before), Some(lock)) = (self.before, &self.lock) else { return };
        if std::fs::write(PAGES, before.to_string()).is_ok() {
            let _ = lock.set_len(0);
        }
        give_back_controller();
    }
}

/// Large pages: counted by the node, limits of containers, a volume of them.
pub fn large_pages(world: &World, pages: &LargePages) -> Result<()> {
    if pages.before.is_none() {
        eprintln!("skipped: this machine gives no large pages");
        return Ok(());
    }
    let node = world.kubectl.json("get node board-1")?;
    let has_some = node["status"]["capacity"]["hugepages-2Mi"].as_str().is_some_and(|n| n != "0");
    wait::yes(has_some, || node["status"]["capacity"].to_string())?;
    let mut fields = mounted(json!({}));
    merge(&mut fields, json!({"resources": {"limits": {"hugepages-2Mi": "4Mi", "memory": "32Mi", "cpu": "100m"}}}));
    sleeper(world, "pages", fields, json!({"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]}))?;
    ready(world, "pages")?;
    has(&inside(world, "pages", "cat /proc/mounts")?, &[" /v hugetlbfs rw"])?;
    let too_many = json!({"resources": {"limits": {"hugepages-2Mi": "1Gi", "memory": "32Mi", "cpu": "100m"}}});
    sleeper(world, "too-many", too_many, json!({}))?;
    has_event(world, "too-many", "FailedScheduling", "Insufficient hugepages-2Mi")?;
    hasnt(&world.kubectl.json("get pod too-many")?["status"].to_string(), &["Running"])?;
    delete(world, &["pages", "too-many"])?;
    match no_controller(world)? {
        None => limits_of_each(world),
        Some(why) => {
            eprintln!("skipped: limits of large pages: {why}");
            Ok(())
        }
    }
}

/// The controller's hierarchy, its own line in /proc/cgroups: 0 is version 2's, or none.
fn hierarchy() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/cgroups").ok()?;
    text.lines().find_map(|line| line.strip_prefix("hugetlb")?.split_whitespace().next()?.parse().ok())
}

/// Whether containers have groups of it anyhow.
fn is_mounted() -> bool {
    let alone = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_v1 = |line: &str| line.contains(" - cgroup ") && line.split([',', ' ']).any(|word| word == "hugetlb");
    alone.split_whitespace().any(|word| word == "hugetlb") || mounts.lines().any(of_v1)
}

/// Why this board cannot limit large pages. Where the machine has the controller and nobody uses it (version 1 and 2 side by
/// side), the board gets it as a hierarchy of version 1, which no other world sees.
fn no_controller(world: &World) -> Result<Option<String>> {
    if is_mounted() {
        return Ok(None);
    }
    if hierarchy() != Some(0) {
        return Ok(Some("this kernel has no controller of large pages, or somebody else uses it".into()));
    }
    let dir = made(world, "hugetlb")?;
    if let Err(why) = on_board(world, &["mount", "-t", "cgroup", "-o", "hugetlb", "hugetlb", &dir.to_string_lossy()]) {
        return Ok(Some(why));
    }
    // It looks for controllers when it starts.
    let before = world.agents[0].agent_process()?;
    kill(nix::unistd::Pid::from_raw(before.pid), Signal::SIGKILL).map_err(|e| e.to_string())?;
    until("another agent", Duration::from_secs(60), || {
        let now = world.agents[0].agent_process()?;
        wait::yes(now.pid != before.pid, || format!("{} is the old one", now.pid))
    })?;
    Ok(None)
}

/// Groups that a board has left, and then the hierarchy: the controller is version 2's again.
fn give_back_controller() {
    if is_mounted() || matches!(hierarchy(), None | Some(0)) {
        return;
    }
    let line = "mount -t cgroup -o hugetlb hugetlb /mnt || exit; find /mnt -depth -type d -path '/mnt/limpet-e2e-*' -exec rmdir {} +; \
        umount /mnt";
    // The kernel ends a hierarchy some time after it was unmounted, and one that had groups a moment before not at all.
    let given = until_every(Duration::from_secs(1), "the controller of large pages", Duration::from_secs(60), || {
        if hierarchy() == Some(0) {
            return Ok(());
        }
        let said = sh("unshare", ["--mount", "sh", "-c", line]).err();
        wait::yes(hierarchy() == Some(0), || format!("it still has a hierarchy of its own: {}", said.unwrap_or_default()))
    });
    if let Err(why) = given {
        eprintln!("{why}");
    }
}

/// One file of large pages, mapped by the page in place of /dev/mem: what reads and writes memory for busybox.
fn mapper(world: &World, name: &str) -> Result<()> {
    let mapped = json!({"name": "v", "mountPath": "/dev/mem", "subPath": "mapped"});
    let mut fields = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, mapped]});
    merge(&mut fields, json!({"resources": {"limits": {"hugepages-2Mi": "4Mi", "memory": "32Mi", "cpu": "100m"}}}));
    let first = container("first", "touch /v/mapped", mounted(json!({})));
    let spec = json!({"initContainers": [first], "containers": [container("c", "exec sleep 1000000", fields)],
        "volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]});
    apply(world, name, spec)?;
    ready(world, name).map(|_| ())
}

/// Touches page `n` of the container's file: what it said, and its code.
fn touch(world: &World, name: &str, n: u64) -> Result<String> {
    inside(world, name, &format!("devmem $((2097152 * {n})) 32 7 2>&1; echo code $?"))
}

/// Two containers may have two pages each, and the machine has four.
fn limits_of_each(world: &World) -> Result<()> {
    mapper(world, "greedy")?;
    mapper(world, "neighbour")?;
    for page in [0, 1] {
        is(&touch(world, "greedy", page)?, "code 0")?;
    }
    // Beyond the limit it is refused before it can touch anything: a program that is told can go on.
    let beyond = touch(world, "greedy", 2)?;
    has(&beyond, &["mmap", "code 1"])?;
    has(&inside(world, "greedy", "fallocate -l 2097152 /v/another 2>&1; echo code $?")?, &["code 1"])?;
    // The pages that it did not get are its neighbour's.
    for page in [0, 1] {
        is(&touch(world, "neighbour", page)?, "code 0")?;
    }
    hasnt(&touch(world, "neighbour", 2)?, &["code 0"])?;
    for name in ["greedy", "neighbour"] {
        let status = world.kubectl.json(&format!("get pod {name}"))?["status"].take();
        wait::yes(status["containerStatuses"][0]["restartCount"] == 0, || status.to_string())?;
    }
    delete(world, &["greedy", "neighbour"])
}
