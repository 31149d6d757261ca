//! A password, asked for at the terminal.
//!
//! In: keys. Out: a line that nobody saw. Never: an echo; a terminal that is left without one.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::Command,
};

/// More than any network takes.
const BYTES_MAX: usize = 256;

/// Gives the terminal back its habits.
struct Silent;

impl Silent {
    /// Ctrl-C arrives as a key, too: a program that it ended could not clean up.
    fn begin() -> Option<Silent> {
        habits(&["-echo", "-icanon", "-isig"]).then_some(Silent)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        habits(&["echo", "icanon", "isig"]);
    }
}

/// By the program of every system that has terminals.
fn habits(words: &[&str]) -> bool {
    Command::new("stty").args(["-F", "/dev/tty"]).args(words).output().is_ok_and(|out| out.status.success())
}

pub fn ask(question: &str) -> Result<String, String> {
    let nobody = || {
        "nobody is there to ask for the Wi-Fi's password: name a file with --wifi-password-file, set LIMPET_WIFI_PASSWORD, or say \
         --wifi-open for a network without one"
            .to_string()
    };
    let mut terminal: File = OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| nobody())?;
    let _silent = Silent::begin().ok_or_else(nobody)?;
    let told = |e: std::io::Error| format!("the terminal: {e}");
    terminal.write_all(question.as_bytes()).map_err(told)?;
    let line = line(terminal.try_clone().map_err(told)?);
    let _ = terminal.write_all(b"\n");
    line
}

#[allow(clippy::unbuffered_bytes)] // one key at a time: what comes after the line is not ours
fn line(keys: impl Read) -> Result<String, String> {
    let mut line = Vec::new();
    for key in keys.bytes() {
        match key.map_err(|e| format!("the terminal: {e}"))? {
            b'\r' | b'\n' => return String::from_utf8(line).map_err(|_| "a password is text".into()),
            3 | 4 => return Err("not asked any more; nothing was written".into()),
            8 | 127 => drop(line.pop()),
            21 => line.clear(),
            key if line.len() < BYTES_MAX => line.push(key),
            _ => return Err(format!("a password has at most {BYTES_MAX} bytes")),
        }
    }
    Err("the terminal is gone; nothing was written".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_a_line() {
        assert_eq!(line(&b"open sesamx\x7fe\r"[..]).as_deref(), Ok("open sesame"));
        assert_eq!(line(&b"wrong\x15right\n"[..]).as_deref(), Ok("right"));
        for keys in [&b"abc\x03"[..], b"abc", b"\xff\n"] {
            assert!(line(keys).is_err());
        }
        assert!(line(&[b'x'; 1000][..]).is_err());
    }
}
