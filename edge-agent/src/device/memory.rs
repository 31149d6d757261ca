#![allow(unsafe_code)] // madvise on our own read-only mappings
//! Gives back the pages of the program that an idle process does not need.
//!
//! In: /proc/self/maps. Out: the program's read-only pages leave this process; the kernel reads back from its page
//! cache what is used again. On a board of 512 MB these pages belong to the pods.
//! Never: touches a page that was written to.

use std::{ffi::c_void, fs, sync::OnceLock};

type Range = (usize, usize);

/// Cheap enough for every time a process has nothing to do for a while: two or three calls into the kernel.
pub fn release_code() {
    static OWN: OnceLock<Vec<Range>> = OnceLock::new();
    for (start, end) in OWN.get_or_init(own_mappings) {
        // SAFETY: the range is a private, read-only mapping of this program's file, so that its pages can be read again
        // from the file at any time; nothing can have been written to them.
        unsafe { libc::madvise(*start as *mut c_void, end - start, libc::MADV_DONTNEED) };
    }
}

/// Mappings of the running program's file without write permission that have never been writable data.
fn own_mappings() -> Vec<Range> {
    let Ok(text) = fs::read_to_string("/proc/self/maps") else { return Vec::new() };
    let Some(main) = text.lines().find(|l| l.contains(" r-xp ")).and_then(file_of) else { return Vec::new() };
    // Relocated data ends up read-only too (RELRO); it follows the code, so only what comes before its end counts.
    let own: Vec<&str> = text.lines().filter(|l| file_of(l).as_ref() == Some(&main)).collect();
    let code = own.iter().rposition(|l| l.contains(" r-xp ")).unwrap_or(0);
    own.iter().take(code + 1).filter(|l| l.contains(" r-xp ") || l.contains(" r--p ")).filter_map(|l| range(l)).collect()
}

/// (device, inode) of the mapped file; `None` for memory without one.
fn file_of(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace().skip(3);
    let (device, inode) = (words.next()?.to_string(), words.next()?.to_string());
    (inode != "0").then_some((device, inode))
}

fn range(line: &str) -> Option<Range> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_can_be_given_back_and_runs_on() {
        assert!(!own_mappings().is_empty());
        release_code();
        let text: String = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(text.len(), 190);
        assert_eq!(range("00400000-0052a000 r-xp 00000000 08:01 123 /x"), Some((0x400000, 0x52a000)));
        assert_eq!(file_of("7f-80 rw-p 0 00:00 0 [heap]"), None);
    }
}
