//! The home directory of the user that a program runs as.
//!
//! In: a number, from inside the container. Out: what the image's /etc/passwd says. libcontainer would ask the C library, which
//! reads more files of the image and, in a program with glibc, loads the libraries that those name, with the capabilities of
//! the setup.
//! Never: waits for an image's file (a pipe), reads it without end, or fails: who has no home there has `/`, as with runc.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

/// Stands in config.json where no environment names a home, so that libcontainer does not look for one. The program never
/// sees it.
pub const NONE: &str = "HOME=/";

const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whether an environment has no home that libcontainer would be content with.
pub fn is_missing(env: &[String]) -> bool {
    env.iter().rev().find_map(|pair| pair.strip_prefix("HOME=")).is_none_or(str::is_empty)
}

/// Of whom nobody knows one.
const NOBODYS: &str = "/";

pub fn of(uid: u32) -> String {
    read(uid).unwrap_or_else(|| NOBODYS.to_owned())
}

fn read(uid: u32) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd").ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
    find(&String::from_utf8_lossy(&text), uid)
}

/// `name:password:uid:gid:comment:home:shell`
fn find(text: &str, uid: u32) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let number: u32 = fields.next()?.parse().ok()?;
        let home = fields.nth(2)?;
        (number == uid && !home.is_empty()).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_found_by_number() {
        let text = "# users\nroot:x:0:0:root:/root:/bin/sh\n\nshort:x:7\nweb:x:101:102::/srv/web:\nnone:x:8:8:::\nweb2:x:101:1::/other:\n";
        let homes = [0, 101, 7, 8, 102].map(|uid| find(text, uid));
        assert_eq!(homes, [Some("/root".into()), Some("/srv/web".into()), None, None, None]);
    }

    #[test]
    fn an_environment_has_one_or_not() {
        let env = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        for (words, missing) in [
            (&[][..], true),
            (&["PATH=/bin", "HOMER=/x"], true),
            (&["HOME=/x"], false),
            (&["HOME=/x", "HOME="], true),
            (&["HOME=", "HOME=/x"], false),
        ] {
            assert_eq!(is_missing(&env(words)), missing, "{words:?}");
        }
    }
}
