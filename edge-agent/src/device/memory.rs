#![allow(unsafe_code)] // madvise on our own read-only mappings and on the unused part of our stack
//! Gives back the pages that an idle process does not need: of its program, of its stack, of its heap.
//!
//! In: /proc/self/maps. Out: the program's read-only pages leave this process; the kernel reads back from its page
//! cache what is used again. On a board of 512 MB these pages belong to the pods.
//! Never: touches a page of the program that was written to, or a part of the stack that is in use.

use std::{ffi::c_void, fs, sync::OnceLock};

type Range = (usize, usize);

/// So much below what is in use now stays: this function's own frame and those that it calls.
const STACK_MARGIN: usize = 64 << 10;
const PAGE: usize = 4096;

/// For every time a process of one thread has nothing to do for a while: a handful of calls into the kernel.
pub fn release() {
    release_stack();
    release_heap();
    // Last: what the others need would come back.
    release_code();
}

/// What the C library keeps for later; musl's gives back by itself.
fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers, and the allocator is free to give back what nobody holds at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The deepest call since the start has left pages below that are of no use to anybody.
#[inline(never)]
fn release_stack() {
    let here = 0u8;
    let used = std::ptr::from_ref(&here) as usize;
    let Ok(text) = fs::read_to_string("/proc/self/maps") else { return };
    let own = text.lines().filter_map(range).find(|(start, end)| (*start..*end).contains(&used));
    let Some((start, _)) = own else { return };
    let end = used.saturating_sub(STACK_MARGIN) / PAGE * PAGE;
    if end > start {
        // SAFETY: the range is the part of this thread's stack below everything that is in use, with a margin for this very
        // call; what lies there was left by calls that have returned, and nothing reads it before it writes it.
        unsafe { libc::madvise(start as *mut c_void, end - start, libc::MADV_DONTNEED) };
    }
}

fn release_code() {
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

    /// 4 KiB of stack a call.
    fn deep(levels: usize) -> usize {
        let page = std::hint::black_box([1u8; PAGE]);
        if levels == 0 { 0 } else { deep(levels - 1) + usize::from(page[levels % PAGE]) }
    }

    #[test]
    fn code_can_be_given_back_and_runs_on() {
        assert!(!own_mappings().is_empty());
        release();
        let text: String = (0..100).map(|n| n.to_string()).collect();
        assert_eq!(text.len(), 190);
        assert_eq!(deep(200), 200, "and so does what calls deeply");
        release_stack();
        assert_eq!(deep(100), 100);
        assert_eq!(range("00400000-0052a000 r-xp 00000000 08:01 123 /x"), Some((0x400000, 0x52a000)));
        assert_eq!(file_of("7f-80 rw-p 0 00:00 0 [heap]"), None);
    }
}
