//! Small commands for `kubectl exec` in an image without a shell.
//!
//! In: arguments. Out: standard output. Never: writes anything.

use std::io::{self, Write};

pub fn cat(files: &[&str]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for file in files {
        let mut from = std::fs::File::open(file).map_err(|e| io::Error::new(e.kind(), format!("{file}: {e}")))?;
        io::copy(&mut from, &mut out)?;
    }
    out.flush()
}

pub fn env() -> io::Result<()> {
    let mut all: Vec<(String, String)> = std::env::vars().collect();
    all.sort();
    let mut out = io::stdout().lock();
    all.iter().try_for_each(|(key, value)| writeln!(out, "{key}={value}"))
}

pub fn hostname() -> io::Result<()> {
    cat(&["/proc/sys/kernel/hostname"])
}

pub fn echo(words: &[&str]) -> io::Result<()> {
    writeln!(io::stdout(), "{}", words.join(" "))
}

#[allow(clippy::disallowed_methods)] // sleeping is what was asked for
pub fn sleep(seconds: &str) -> io::Result<()> {
    let seconds: f64 = seconds.parse().map_err(|_| io::Error::other(format!("{seconds:?} is no number")))?;
    std::thread::sleep(std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e6)));
    Ok(())
}
