//! From a profile to instructions.
//!
//! In: a profile, an architecture's numbers. Out: a program: first the architecture, then a binary search over ranges of
//! calls with the same rule. Never: more instructions than the kernel takes (4096).

use super::calls::{Arch, Numbers};
use super::profile::{Action, Case, Op, Profile, Rule, Test};
use libc::sock_filter;

pub const INSTRUCTIONS_MAX: usize = 4096;
/// Calls of x86_64's other face, which has numbers of its own.
const X32: u32 = 0x4000_0000;

// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Calls first..=last, all with one rule.
struct Range<'a> {
    first: u32,
    last: u32,
    rule: &'a Rule,
}

pub fn assemble(profile: &Profile, arch: Arch, numbers: &Numbers) -> Result<Vec<sock_filter>, String> {
    let refused = Action::errno(libc::EPERM);
    let mut code = vec![load(ARCH), jump(Jump::Equal, arch.audit(), 1, 0), ret(refused), load(NUMBER)];
    if arch == Arch::X86_64 {
        code.extend([jump(Jump::AtLeast, X32, 0, 1), ret(refused)]);
    }
    code.extend(search(&ranges(profile, numbers), profile.default));
    match code.len() > INSTRUCTIONS_MAX {
        true => Err(format!("the profile makes {} instructions; the kernel takes {INSTRUCTIONS_MAX}", code.len())),
        false => Ok(code),
    }
}

/// By number; neighbours with the same rule are one range.
fn ranges<'a>(profile: &'a Profile, numbers: &Numbers) -> Vec<Range<'a>> {
    let mut rules: Vec<(u32, &Rule)> =
        profile.calls.iter().filter_map(|(name, rule)| Some((numbers.get(name)?, rule))).collect();
    rules.sort_by_key(|(number, _)| *number);
    let mut ranges: Vec<Range<'_>> = Vec::new();
    for (number, rule) in rules {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == number && range.rule == rule => range.last = number,
            _ => ranges.push(Range { first: number, last: number, rule }),
        }
    }
    ranges
}

/// Binary search; every leaf returns.
fn search(ranges: &[Range<'_>], default: Action) -> Vec<sock_filter> {
    match ranges {
        [] => vec![ret(default)],
        [range] => leaf(range, default),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (low_code, high_code) = (search(low, default), search(high, default));
            // A conditional jump reaches 255 instructions only, an unconditional one any distance.
            let mut code = vec![jump(Jump::AtLeast, high[0].first, 0, 1), skip(low_code.len() as u32)];
            code.extend(low_code);
            code.extend(high_code);
            code
        }
    }
}

fn leaf(range: &Range<'_>, default: Action) -> Vec<sock_filter> {
    let mut code = vec![
        jump(Jump::AtLeast, range.first, 1, 0),
        ret(default),
        jump(Jump::Above, range.last, 0, 1),
        ret(default),
    ];
    for case in &range.rule.cases {
        code.extend(case_code(case));
    }
    code.push(ret(range.rule.otherwise.unwrap_or(default)));
    code
}

/// Returns when all tests hold, otherwise falls out at its end. At most 12 tests of 6 instructions: every jump is short.
fn case_code(case: &Case) -> Vec<sock_filter> {
    case.tests.iter().rev().fold(vec![ret(case.then)], |then, test| {
        let mut code = test_code(test, then.len() as u8);
        code.extend(then);
        code
    })
}

/// Goes on with the next instruction when the test holds, and past `rest` more when not.
fn test_code(test: &Test, rest: u8) -> Vec<sock_filter> {
    let (low, high) = (ARGUMENTS + 8 * test.argument, ARGUMENTS + 8 * test.argument + 4);
    let (value_high, value_low) = ((test.value >> 32) as u32, test.value as u32);
    let equal = |value: u32, yes: u8, no: u8| jump(Jump::Equal, value, yes, no);
    match test.op {
        Op::Equal => {
            vec![load(high), equal(value_high, 0, rest + 2), load(low), equal(value_low, 0, rest)]
        }
        Op::NotEqual => {
            vec![load(high), equal(value_high, 0, 2), load(low), equal(value_low, rest, 0)]
        }
        Op::MaskedEqual => vec![
            load(high),
            and(value_high),
            equal((test.datum >> 32) as u32, 0, rest + 3),
            load(low),
            and(value_low),
            equal(test.datum as u32, 0, rest),
        ],
        Op::Greater => order(high, low, test.value, Jump::Above, (0, rest)),
        Op::GreaterOrEqual => order(high, low, test.value, Jump::AtLeast, (0, rest)),
        Op::LessOrEqual => order(high, low, test.value, Jump::Above, (rest, 0)),
        Op::Less => order(high, low, test.value, Jump::AtLeast, (rest, 0)),
    }
}

/// `greater`: how far to jump from the end when the argument is above (or at) the value, and when not.
fn order(high: u32, low: u32, value: u64, last: Jump, greater: (u8, u8)) -> Vec<sock_filter> {
    let (yes, no) = greater;
    vec![
        load(high),
        jump(Jump::Above, (value >> 32) as u32, yes + 3, 0),
        jump(Jump::Equal, (value >> 32) as u32, 0, no + 2),
        load(low),
        jump(last, value as u32, yes, no),
    ]
}

#[derive(Clone, Copy)]
enum Jump {
    Equal,
    Above,
    AtLeast,
}

const fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

const fn and(mask: u32) -> sock_filter {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

const fn ret(action: Action) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action.0, 0, 0)
}

/// Passes over this many instructions.
const fn skip(count: u32) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JA, count, 0, 0)
}

const fn jump(kind: Jump, value: u32, yes: u8, no: u8) -> sock_filter {
    let kind = match kind {
        Jump::Equal => libc::BPF_JEQ,
        Jump::Above => libc::BPF_JGT,
        Jump::AtLeast => libc::BPF_JGE,
    };
    instruction(libc::BPF_JMP | kind | libc::BPF_K, value, yes, no)
}

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
