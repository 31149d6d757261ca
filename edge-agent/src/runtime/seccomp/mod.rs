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

/// A program and the flags to load it with.
#[derive(Clone, Debug)]
pub struct Filter {
    pub code: Vec<sock_filter>,
    pub flags: u32,
}

/// A profile's file.
pub const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// The filter of `seccompProfile: RuntimeDefault`.
pub fn runtime_default(caps: u64) -> Result<Filter, String> {
    filter(&default::profile(caps))
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
