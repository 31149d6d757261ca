//! Seccomp without a C library: profiles as classic BPF programs.
//!
//! In: RuntimeDefault with the container's capabilities, or a profile of the node. Out: a `Filter` for seccomp(2).
//! Never: a program for another architecture's calls (they are refused, as x32's are).

mod calls;
mod default;
mod profile;
mod program;

use calls::{Arch, Numbers};
use libc::sock_filter;
use profile::Profile;
use std::path::Path;

/// A program and the flags to load it with.
#[derive(Clone, Debug)]
pub struct Filter {
    pub code: Vec<sock_filter>,
    pub flags: u32,
}

/// Sets of capabilities whose programs are kept; most nodes see two or three.
const KEPT_MAX: usize = 64;

/// A profile's file.
pub const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// The filter of `seccompProfile: RuntimeDefault`.
pub fn runtime_default(caps: u64) -> Result<Filter, String> {
    filter(&default::profile(caps))
}

/// As `runtime_default`, made once for all of an agent's helpers: what the first of them leaves in `dir` the others read.
/// The agent empties the directory when it starts, because another version may know other calls.
pub fn runtime_default_kept(dir: &Path, caps: u64) -> Result<Filter, String> {
    let path = dir.join(format!("{caps:016x}"));
    if let Some(kept) = std::fs::read(&path).ok().and_then(|bytes| Filter::from_bytes(&bytes)) {
        return Ok(kept);
    }
    let made = runtime_default(caps)?;
    if std::fs::read_dir(dir).is_ok_and(|entries| entries.count() < KEPT_MAX) {
        // Whole or not at all: others may read at this moment.
        let temporary = dir.join(format!("{}.tmp", std::process::id()));
        let _ = std::fs::write(&temporary, made.to_bytes()).and_then(|()| std::fs::rename(&temporary, &path));
    }
    Ok(made)
}

impl Filter {
    /// The flags, then each instruction as seccomp(2) takes it.
    fn to_bytes(&self) -> Vec<u8> {
        let code = self.code.iter().flat_map(|one| {
            let ([a, b], [c, d, e, f]) = (one.code.to_ne_bytes(), one.k.to_ne_bytes());
            [a, b, one.jt, one.jf, c, d, e, f]
        });
        self.flags.to_ne_bytes().into_iter().chain(code).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Filter> {
        let (flags, code) = bytes.split_first_chunk::<4>()?;
        let (code, rest) = code.as_chunks::<8>();
        let one = |[a, b, jt, jf, c, d, e, f]: &[u8; 8]| sock_filter {
            code: u16::from_ne_bytes([*a, *b]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes([*c, *d, *e, *f]),
        };
        let whole = rest.is_empty() && !code.is_empty() && code.len() <= program::INSTRUCTIONS_MAX;
        whole.then(|| Filter { code: code.iter().map(one).collect(), flags: u32::from_ne_bytes(*flags) })
    }
}

/// The same for another runtime, which makes a filter of it itself.
pub fn runtime_default_json(caps: u64) -> serde_json::Value {
    default::profile(caps).to_json()
}

/// The filter of `seccompProfile: Localhost`, from the file's text.
pub fn of_profile(text: &[u8]) -> Result<Filter, String> {
    filter(&Profile::parse(text)?)
}

fn filter(profile: &Profile) -> Result<Filter, String> {
    let arch = Arch::HERE.ok_or("there is no table of system calls for this architecture")?;
    let code = program::assemble(profile, arch, &Numbers::of(arch))?;
    Ok(Filter { code, flags: profile.flags })
}

#[cfg(test)]
mod tests;
