//! The same small container at podman with conmon, where podman is installed: what others spend on one.
//!
//! In: podman from PATH, busybox as an image that is made here. Out: the time of `run --detach`, the CPU of podman and what it
//! waits for (conmon goes its own way and is not counted), the memory of the conmon that each running container keeps.
//! Never: podman's usual store, a registry, or a container that is left behind.

use super::{Figure, create, middle};
use crate::sh;
use limpet_e2e::disk::Disk;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

const ROUNDS: usize = 10;
const IMAGE: &str = "limpet-bench:1";

/// No figures where there is no podman.
pub fn run() -> Result<Vec<Figure>, String> {
    let Some(program) = sh::find("podman") else {
        println!("podman is not installed: no figures of it (apt-get install podman)");
        return Ok(Vec::new());
    };
    std::thread::scope(|scope| scope.spawn(|| measure(program)).join())
        .unwrap_or_else(|_| Err("the thread that timed podman panicked".into()))
}

fn measure(program: PathBuf) -> Result<Vec<Figure>, String> {
    create::leave_the_host()?;
    let base = std::env::temp_dir().join(format!("limpet-podman-{}", std::process::id()));
    let disk = Disk::under(&base)?;
    let podman = Podman { program, base };
    let measured = podman.measure();
    let _ = podman.call(&["rm", "--force", "--all", "--time", "0"]);
    drop(disk);
    let _ = fs::remove_dir_all(&podman.base);
    measured
}

struct Podman {
    program: PathBuf,
    base: PathBuf,
}

impl Podman {
    fn measure(&self) -> Result<Vec<Figure>, String> {
        self.import()?;
        let before = create::stat_ms("self", 16)?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            // Limits of files and processes as they are: podman raises them, which not every root may.
            self.call(&[
                "run", "--detach", "--network", "none", "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000", IMAGE,
                "/bin/busybox", "sleep", "1000",
            ])?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
        }
        let cpu = (create::stat_ms("self", 16)? - before) / ROUNDS as f64;
        let conmon = self.conmon_bytes()? as f64 / ROUNDS as f64 / 1024.0;
        let (p50, p90) = middle(&mut times);
        Ok(vec![
            Figure::new("podman run --detach", format!("{p50:.0} ms (p90 {p90:.0}), CPU without conmon's {cpu:.0} ms"), "report"),
            Figure::new("podman, a running container keeps a conmon, PSS", format!("{conmon:.0} KiB"), "report"),
        ])
    }

    fn import(&self) -> Result<(), String> {
        let bin = self.base.join("image/bin");
        fs::create_dir_all(&bin).map_err(|e| format!("cannot make {}: {e}", bin.display()))?;
        fs::copy(create::BUSYBOX, bin.join("busybox")).map_err(|e| format!("cannot copy {}: {e}", create::BUSYBOX))?;
        let (image, archive) = (self.path("image"), self.path("image.tar"));
        sh::run("tar", &["--directory", &image, "--create", "--file", &archive, "."])?;
        let policy = self.path("policy.json");
        fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).map_err(|e| format!("{policy}: {e}"))?;
        self.call(&["import", "--signature-policy", &policy, &archive, IMAGE])
    }

    fn path(&self, name: &str) -> String {
        self.base.join(name).to_string_lossy().into_owned()
    }

    fn call(&self, words: &[&str]) -> Result<(), String> {
        let (root, run, tmp) = (self.path("root"), self.path("run"), self.path("tmp"));
        let mut command = Command::new(&self.program);
        command.args(["--root", &root, "--runroot", &run, "--tmpdir", &tmp, "--cgroup-manager", "cgroupfs"]);
        command.args(["--events-backend", "file", "--log-level", "error"]).args(words);
        // A pipe would stay open in conmon.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("podman {} failed ({status}); what it said is above", words[0])),
            Err(e) => Err(format!("cannot start podman: {e}")),
        }
    }

    /// Of those that were started here.
    fn conmon_bytes(&self) -> Result<u64, String> {
        let own = self.path("root");
        let ours = |process: &Path| {
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            words.split('\0').next().is_some_and(|name| name.ends_with("conmon")) && words.contains(&own)
        };
        let processes = fs::read_dir("/proc").map_err(|e| format!("cannot read /proc: {e}"))?.flatten().map(|p| p.path());
        let rollups = processes.filter(|p| ours(p)).filter_map(|p| fs::read_to_string(p.join("smaps_rollup")).ok());
        let kib = |line: &str| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok();
        Ok(rollups.filter_map(|text| text.lines().find_map(kib)).sum::<u64>() * 1024)
    }
}
