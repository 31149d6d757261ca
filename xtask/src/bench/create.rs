//! Container create → first byte written by the container, beside crun in the same run.
//!
//! In: the agent's binary, crun if it is there. Out: the middle of each and their ratio, and the CPU that each took;
//! crun both as one `run` and as engines use it (create, start, delete).
//!
//! Both start the same program from the same layer with the same limits, mounts, capabilities and system call names,
//! in the namespaces of the same pod, one after the other with the order reversed every time. Limpet's time holds
//! its overlay mount; crun gets a plain directory. Limpet's ends in the agent, crun's here: what each caller sees.
//! Both have their data on an ext4 with a journal, as boards have, and their state on a tmpfs, as in /run.
//! Never: a comparison of two runs.

mod crun;
mod ours;

use super::{Figure, middle};
use crate::sh;
use crun::Crun;
use limpet_e2e::disk::Disk;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use ours::Ours;
use std::{
    fs,
    path::{Path, PathBuf},
};

const PAIRS: usize = 100;
const WARM_UPS: usize = 3;
pub(super) const BUSYBOX: &str = "/bin/busybox";

pub fn run(agent: &Path) -> Result<Vec<Figure>, String> {
    if !sh::is_root() {
        return Err("containers need root: run this as root".into());
    }
    // Namespaces belong to a thread: the end of this one takes links and mounts along.
    std::thread::scope(|scope| scope.spawn(|| measure(agent)).join())
        .unwrap_or_else(|_| Err("the thread that timed containers panicked".into()))
}

fn measure(agent: &Path) -> Result<Vec<Figure>, String> {
    leave_the_host()?;
    // What crun leaves behind, its containers, comes to this process and counts; ours come to their keeper.
    prctl::set_child_subreaper(true).map_err(|e| format!("cannot take in crun's containers: {e}"))?;
    let place = Place::new()?;
    let mut ours = Ours::start(agent, &place.path)?;
    let mut crun = sh::find("crun").map(|program| Crun::new(program, &place.path)).transpose()?;
    let mut sides: [Side; 3] = Default::default();
    let mut begun = 0.0;
    println!("timing {PAIRS} containers{}", if crun.is_some() { ", and crun's between them" } else { "" });
    for round in 0..WARM_UPS + PAIRS {
        if round == WARM_UPS {
            sides = Default::default();
            begun = ours.cpu_ms()?;
        }
        for turn in 0..sides.len() {
            let which = if round % 2 == 0 { turn } else { sides.len() - 1 - turn };
            let before = crun::cpu_ms()?;
            let took = match (which, &mut crun) {
                (0, _) => ours.once()?,
                (1, Some(crun)) => crun.run()?,
                (_, Some(crun)) => crun.steps()?,
                (_, None) => continue,
            };
            sides[which].times.push(took);
            sides[which].cpu += crun::cpu_ms()? - before;
        }
    }
    // From the first to the last: nothing else makes it work, some of its helpers are collected a little late, and the kernel
    // tells of this in ticks.
    sides[0].cpu = ours.cpu_ms()? - begun;
    ours.end()?;
    prctl::set_child_subreaper(false).map_err(|e| e.to_string())?;
    Ok(figures(&mut sides, crun.map(|crun| crun.version)))
}

/// Limpet, `crun run`, or crun's three commands.
#[derive(Default)]
struct Side {
    times: Vec<f64>,
    cpu: f64,
}

fn figures(sides: &mut [Side; 3], version: Option<String>) -> Vec<Figure> {
    let cpus = sides.each_ref().map(|side| side.cpu / PAIRS as f64);
    let times = sides.each_mut().map(|side| middle(&mut side.times));
    let time = |which: usize| format!("{:.1} ms (p90 {:.1})", times[which].0, times[which].1);
    let (mut all_times, mut all_cpu) = (time(0), format!("{:.1} ms", cpus[0]));
    match version {
        None => all_times.push_str("; crun is not installed"),
        Some(version) => {
            for (which, way) in [(1, "run"), (2, "create + start")] {
                let ratio = times[0].0 / times[which].0;
                all_times += &format!("; {ratio:.2} × {version} {way}, {}", time(which));
                all_cpu += &format!("; {:.2} × {version} {way}, {:.1} ms", cpus[0] / cpus[which], cpus[which]);
            }
        }
    }
    vec![
        Figure::new("container create → first byte", all_times, "≤ 0.5 × crun"),
        Figure::new("CPU to create, run and remove it", all_cpu, "≤ 0.5 × crun"),
    ]
}

/// Mounts and a network of this thread's own; what it starts has them too.
pub(super) fn leave_the_host() -> Result<(), String> {
    own_mounts()?;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| format!("cannot leave the host's network: {e}"))?;
    // Some releases of crun refuse a unified hierarchy beside the old ones; where there is none this does nothing.
    let _ = umount2("/sys/fs/cgroup/unified", MntFlags::MNT_DETACH);
    Ok(())
}

fn own_mounts() -> Result<(), String> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("cannot leave the host's mounts: {e}"))?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(|e| format!("private mounts: {e}"))
}

/// A directory with the layer that both start from; gone at the end.
struct Place {
    path: PathBuf,
    /// The machine's own may be one without a journal, which looks for a free inode past all that were freed in the last
    /// minutes: every directory that is made and removed again costs a multiple there.
    disk: Option<Disk>,
}

impl Place {
    fn new() -> Result<Place, String> {
        let path = std::env::temp_dir().join(format!("limpet-bench-{}", std::process::id()));
        let disk = Some(Disk::under(&path)?);
        let place = Place { path, disk };
        for root in ["layer", "crun/rootfs"] {
            let bin = place.path.join(root).join("bin");
            fs::create_dir_all(&bin).map_err(|e| format!("cannot make {}: {e}", bin.display()))?;
            fs::create_dir_all(place.path.join(root).join("etc")).map_err(|e| e.to_string())?;
            fs::copy(BUSYBOX, bin.join("busybox"))
                .map_err(|e| format!("cannot copy {BUSYBOX}: {e}; install it (apt-get install busybox-static)"))?;
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.disk.take());
        if let Err(e) = fs::remove_dir_all(&self.path) {
            eprintln!("xtask: {} is left: {e}", self.path.display());
        }
    }
}

/// Milliseconds of processor time in /proc/PID/stat, from field `first` to 17 (14: its own, 16: of its children).
pub(super) fn stat_ms(pid: &str, first: usize) -> Result<f64, String> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(|e| format!("cannot read {path}: {e}"))?;
    let fields = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace()).ok_or("a stat without a name")?;
    // The kernel counts from 1 and the field after the name is the third; times end with the 17th, in ticks of 10 ms.
    Ok(fields.take(15).skip(first - 3).filter_map(|f| f.parse::<f64>().ok()).sum::<f64>() * 10.0)
}
