//! Seccomp without a C library: the RuntimeDefault profile as a classic BPF program.
//!
//! In: the container's capabilities. Out: instructions for seccomp(2). Never: a program for another architecture's
//! calls (they are refused), or a profile that allows what it does not name.

mod table;

use libc::sock_filter;

/// What happens to one system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    Allow,
    /// Refused as if the kernel did not have it, so that libraries fall back.
    Missing,
    /// Allowed when the masked first argument is zero (clone: no new namespaces).
    FirstMasked(u32),
    /// Allowed when the first argument is not this (socket: no AF_VSOCK).
    FirstIsNot(u32),
    /// Allowed when the first argument is one of these (personality).
    FirstIsOneOf(&'static [u32]),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    first: u32,
    last: u32,
    rule: Rule,
}

const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ERRNO: u32 = 0x0005_0000;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const AUDIT_ARCH: Option<u32> = None;

/// The filter of `seccompProfile: RuntimeDefault`; `None` on an architecture without a table (said once in the log).
pub fn runtime_default(caps: u64) -> Option<Vec<sock_filter>> {
    let Some(arch) = AUDIT_ARCH else {
        eprintln!("rt: no seccomp table for this architecture: the container runs without a filter");
        return None;
    };
    Some(assemble(arch, &ranges(table::rules(caps))))
}

/// Sorts and joins neighbours with the same rule. Of two rules for one call the first named wins.
fn ranges(mut rules: Vec<(u32, Rule)>) -> Vec<Range> {
    rules.sort_by_key(|(number, _)| *number);
    rules.dedup_by_key(|(number, _)| *number);
    let mut ranges: Vec<Range> = Vec::new();
    for (number, rule) in rules {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == number && range.rule == rule => range.last = number,
            _ => ranges.push(Range { first: number, last: number, rule }),
        }
    }
    ranges
}

fn assemble(arch: u32, ranges: &[Range]) -> Vec<sock_filter> {
    const ARCH: u32 = 4;
    const NUMBER: u32 = 0;
    let mut code = vec![load(ARCH), jump_equal(arch, 1, 0), ret(deny()), load(NUMBER)];
    code.extend(search(ranges));
    code
}

/// Binary search; every leaf returns.
fn search(ranges: &[Range]) -> Vec<sock_filter> {
    match ranges {
        [] => vec![ret(deny())],
        [range] => leaf(*range),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low_code, high_code) = (search(low), search(high));
            // A conditional jump reaches 255 instructions only, an unconditional one any distance.
            let mut code = vec![jump_at_least(high[0].first, 0, 1), jump(low_code.len() as u32)];
            code.extend(low_code);
            code.extend(high_code);
            code
        }
    }
}

fn leaf(range: Range) -> Vec<sock_filter> {
    let mut code = vec![jump_at_least(range.first, 1, 0), ret(deny()), jump_above(range.last, 0, 1), ret(deny())];
    code.extend(verdict(range.rule));
    code
}

fn verdict(rule: Rule) -> Vec<sock_filter> {
    const FIRST_ARGUMENT: u32 = 16; // low word on little endian
    match rule {
        Rule::Allow => vec![ret(RET_ALLOW)],
        Rule::Missing => vec![ret(RET_ERRNO | libc::ENOSYS as u32)],
        Rule::FirstMasked(mask) => {
            vec![load(FIRST_ARGUMENT), and(mask), jump_equal(0, 0, 1), ret(RET_ALLOW), ret(deny())]
        }
        Rule::FirstIsNot(value) => {
            vec![load(FIRST_ARGUMENT), jump_equal(value, 1, 0), ret(RET_ALLOW), ret(deny())]
        }
        Rule::FirstIsOneOf(values) => {
            let mut code = vec![load(FIRST_ARGUMENT)];
            for value in values {
                code.extend([jump_equal(*value, 0, 1), ret(RET_ALLOW)]);
            }
            code.push(ret(deny()));
            code
        }
    }
}

const fn deny() -> u32 {
    RET_ERRNO | libc::EPERM as u32
}

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

const fn and(mask: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

const fn ret(value: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

const fn jump(skip: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, skip, 0, 0)
}

const fn jump_equal(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, yes, no)
}

const fn jump_at_least(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, yes, no)
}

/// Greater than: `yes` skips instructions when the number is above `value`.
const fn jump_above(value: u32, yes: u8, no: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, value, yes, no)
}

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests;
