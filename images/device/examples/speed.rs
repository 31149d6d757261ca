//! Flashing beside `dd`, in turns, on one loop device: `cargo run --release -p limpet-device --example speed -- [MIB] [ROUNDS]`.
//!
//! In: root, room for three times MIB in the temporary folder. Out: seconds of both in each round on stderr, the ratios of the
//! medians on stdout, a name and a value a line. Writing ends for both with the flush after the last byte; reading back and the
//! first MiB, which the flasher writes last, are told beside it: `dd` is made to read as much, and sums nothing.
//! Never: a judgement; whoever runs it knows what else the machine did.

use limpet_device::flash::{Job, Phase, Progress, Target, write_all};
use std::{
    fs::File,
    io::Write,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

type Result<T> = std::result::Result<T, String>;

fn sh(program: &str, words: &[&str]) -> Result<String> {
    let out = Command::new(program).args(words).output().map_err(|e| format!("{program}: {e}"))?;
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_string()),
        false => Err(format!("{program} {words:?}: {}", String::from_utf8_lossy(&out.stderr))),
    }
}

/// Noise with a partition table.
fn image(path: &Path, mib: usize) -> Result<()> {
    let mut file = File::create(path).map_err(|e| e.to_string())?;
    let mut state = 7u64;
    for block in 0..mib {
        let mut data: Vec<u8> = (0..(1 << 20) / 8)
            .flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .collect();
        if block == 0 {
            data[446..512].fill(0);
            data[450] = 0x83;
            data[454..458].copy_from_slice(&2048u32.to_le_bytes());
            data[458..462].copy_from_slice(&((mib as u32 - 1) * 2048).to_le_bytes());
            data[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        file.write_all(&data).map_err(|e| e.to_string())?;
    }
    file.sync_all().map_err(|e| e.to_string())
}

/// Until the last byte was written; until it was read back, too.
fn flash(image: &Path, device: &str, bytes: u64) -> Result<(f64, f64)> {
    let progress = Arc::new(Progress::default());
    let target = Target::open(Path::new(device)).map_err(|e| e.to_string())?;
    let source = File::open(image).map_err(|e| e.to_string())?;
    let job = Job { target, progress: progress.clone(), finish: None };
    let begun = Instant::now();
    let watch = std::thread::spawn(move || {
        while matches!(progress.phase(), Phase::Writing) {
            std::thread::sleep(Duration::from_millis(2));
        }
        begun.elapsed().as_secs_f64()
    });
    let results = write_all(source, Some(bytes), vec![job]);
    let whole = begun.elapsed().as_secs_f64();
    results.into_iter().try_for_each(|r| r.map(drop)).map_err(|e| e.to_string())?;
    Ok((watch.join().unwrap_or(whole), whole))
}

fn dd(words: &[&str]) -> Result<f64> {
    let begun = Instant::now();
    sh("dd", words)?;
    Ok(begun.elapsed().as_secs_f64())
}

fn dd_write(image: &str, device: &str) -> Result<f64> {
    dd(&[&format!("if={image}"), &format!("of={device}"), "bs=4M", "oflag=direct", "conv=fsync"])
}

fn dd_read(device: &str) -> Result<f64> {
    dd(&[&format!("if={device}"), "of=/dev/null", "bs=4M", "iflag=direct"])
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<()> {
    let number = |at, default| std::env::args().nth(at).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (mib, rounds): (usize, usize) = (number(1, 256), number(2, 5));
    let dir = std::env::temp_dir().join(format!("limpet-speed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let (source, card) = (dir.join("image"), dir.join("card"));
    image(&source, mib)?;
    File::create(&card).and_then(|f| f.set_len((mib as u64) << 20)).map_err(|e| e.to_string())?;
    let device = sh("losetup", &["--find", "--show", "--direct-io=on", &card.to_string_lossy()])
        .or_else(|_| sh("losetup", &["--find", "--show", &card.to_string_lossy()]))?;
    let outcome = measure(&source, &device, (mib as u64) << 20, rounds);
    let cleaned = sh("losetup", &["-d", &device]);
    let _ = std::fs::remove_dir_all(&dir);
    let [written, read, dd_written, dd_read] = outcome?;
    cleaned?;
    let both = |one: &[f64], two: &[f64]| median(one.iter().zip(two).map(|(a, b)| a + b).collect());
    println!("both\t{:.0} %", both(&dd_written, &dd_read) / both(&written, &read) * 100.0);
    println!("written\t{:.0} %", median(dd_written) / median(written) * 100.0);
    println!("read back\t{:.0} %", median(dd_read) / median(read) * 100.0);
    Ok(())
}

/// Seconds: written, from then to the end, `dd` writing, `dd` reading. Who begins takes turns.
fn measure(image: &Path, device: &str, bytes: u64, rounds: usize) -> Result<[Vec<f64>; 4]> {
    let mut all: [Vec<f64>; 4] = Default::default();
    let name = image.to_string_lossy();
    // The file under the loop device gets its room now, and not from whoever comes first.
    dd_write(&name, device)?;
    for round in 0..rounds {
        let mut other = [0.0; 2];
        let mut own = (0.0, 0.0);
        for turn in 0..2 {
            match (round + turn) % 2 {
                0 => own = flash(image, device, bytes)?,
                _ => other = [dd_write(&name, device)?, dd_read(device)?],
            }
        }
        let (written, rest) = (own.0, own.1 - own.0);
        let [dd_written, dd_read] = other;
        eprintln!("round {round}: written {written:.2} s, dd {dd_written:.2} s; read back {rest:.2} s, dd {dd_read:.2} s");
        for (list, value) in all.iter_mut().zip([written, rest, dd_written, dd_read]) {
            list.push(value);
        }
    }
    Ok(all)
}
