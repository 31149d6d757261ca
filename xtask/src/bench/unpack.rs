//! Unpacking a layer beside `tar -xzf`, in turns.
//!
//! In: the agent's binary, tar. Out: the middle of each and their ratio, and the processor time of each. Ours checks two digests
//! and every path, and has all of it on disk when it ends; tar is followed by a `sync` of its file system for that.
//! Never: a comparison of two runs.

use super::{Figure, middle};
use limpet_oci::Digest;
use limpet_oci::builder::{Layer, gzip};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 9;
const WARM_UPS: usize = 1;
/// As a small distribution's image: many small files, some large ones.
const FILES: usize = 4000;
const LARGE: usize = 12;

pub fn run(agent: &Path) -> Result<Vec<Figure>, String> {
    let place = Place::new()?;
    let tar = layer();
    let blob = gzip(&tar);
    let path = place.0.join("layer.tar.gz");
    fs::write(&path, &blob).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    println!("unpacking {} files, {:.1} MiB, {:.1} MiB compressed, {ROUNDS} times each", FILES + LARGE, mib(&tar), mib(&blob));
    let job = json!({"blob": path, "digest": Digest::of(&blob), "size": blob.len(), "diff_id": Digest::of(&tar)});
    let (mut times, mut cpu) = ([Vec::new(), Vec::new()], [0.0; 2]);
    for round in 0..WARM_UPS + ROUNDS {
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let into = place.fresh()?;
            let before = cpu_ms()?;
            let begun = Instant::now();
            match which {
                0 => ours(agent, &job, &into)?,
                _ => tars(&path, &into)?,
            }
            if round >= WARM_UPS {
                times[which].push(begun.elapsed().as_secs_f64() * 1000.0);
                cpu[which] += cpu_ms()? - before;
            }
            place.clear(&into)?;
        }
    }
    let [(ours, _), (theirs, _)] = times.each_mut().map(|times| middle(times));
    let cpus = cpu.map(|sum| sum / ROUNDS as f64);
    let cpu = format!("{:.2} × tar -xzf ({:.0} ms; tar {:.0} ms)", cpus[0] / cpus[1], cpus[0], cpus[1]);
    Ok(vec![
        Figure::new(
            "unpacking a layer",
            format!("{:.2} × tar -xzf and sync ({ours:.0} ms; tar {theirs:.0} ms)", ours / theirs),
            "≤ 1.5 × tar -xzf",
        ),
        Figure::new("CPU for it", cpu, "report"),
    ])
}

fn mib(bytes: &[u8]) -> f64 {
    bytes.len() as f64 / 1_048_576.0
}

/// The same bytes every time: words of a small vocabulary, and noise that does not compress.
fn layer() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut content = |length: usize, plain: bool| -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            let n = next();
            match plain {
                true => bytes.extend_from_slice(format!("word{} ", n % 997).as_bytes()),
                false => bytes.extend_from_slice(&n.to_le_bytes()),
            }
        }
        bytes.truncate(length);
        bytes
    };
    let mut layer = Layer::new();
    for n in 0..FILES {
        if n % 50 == 0 {
            layer = layer.directory(&format!("usr/share/d{}", n / 50), 0o755);
        }
        layer = layer.file(&format!("usr/share/d{}/f{n}", n / 50), 0o644, &content(500 + n * 7 % 16_000, true));
    }
    for n in 0..LARGE {
        layer = layer.file(&format!("usr/lib/l{n}.so"), 0o755, &content(3 << 20, n % 2 == 0));
    }
    layer.tar()
}

fn ours(agent: &Path, job: &Value, into: &Path) -> Result<(), String> {
    let mut job = job.clone();
    job["into"] = json!(into);
    let line = json!({"Whole": job}).to_string() + "\n";
    let mut command = Command::new(agent);
    let command = command.arg("unpack").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot start {}: {e}", agent.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(line.as_bytes()).map_err(|e| format!("the unpacker does not listen: {e}"))?;
    }
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&out.stdout);
    match out.status.success() && said.contains("Done") {
        true => Ok(()),
        false => Err(format!("the unpacker says {said} ({})", out.status)),
    }
}

fn tars(blob: &Path, into: &Path) -> Result<(), String> {
    let run = |command: &mut Command| match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(e) => Err(format!("{command:?}: {e}")),
    };
    run(Command::new("tar").arg("-xzf").arg(blob).arg("-C").arg(into))?;
    run(Command::new("sync").arg("-f").arg(into))
}

/// What children that ended have used.
fn cpu_ms() -> Result<f64, String> {
    super::create::stat_ms("self", 16)
}

/// A directory on a real disk; gone at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Result<Place, String> {
        let place = Place(PathBuf::from(format!("/var/tmp/limpet-unpack-{}", std::process::id())));
        fs::create_dir_all(&place.0).map_err(|e| format!("cannot make {}: {e}", place.0.display()))?;
        Ok(place)
    }

    fn fresh(&self) -> Result<PathBuf, String> {
        let into = self.0.join("into");
        fs::create_dir(&into).map(|()| into).map_err(|e| e.to_string())
    }

    /// Outside of what is timed, and on disk before the next is.
    fn clear(&self, into: &Path) -> Result<(), String> {
        fs::remove_dir_all(into).map_err(|e| e.to_string())?;
        let _ = Command::new("sync").arg("-f").arg(&self.0).status();
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} is left: {e}", self.0.display());
        }
    }
}
