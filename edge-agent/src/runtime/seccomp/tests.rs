//! Runs the generated programs in a tiny interpreter of classic BPF.

use crate::runtime::rt::cap_bit;
use super::calls::{Arch, CALLS, Numbers, is_call};
use super::profile::Profile;
use super::*;

/// One system call as a filter sees it.
#[derive(Clone, Copy)]
struct Call {
    arch: u32,
    number: u32,
    arguments: [u64; 6],
}

fn run(code: &[sock_filter], call: Call) -> u32 {
    let (mut at, mut acc) = (0usize, 0u32);
    let mut data = vec![call.number, call.arch, 0, 0];
    data.extend(call.arguments.iter().flat_map(|argument| [*argument as u32, (*argument >> 32) as u32]));
    for _ in 0..10_000 {
        let i = code[at];
        at += 1;
        match u32::from(i.code) & 7 {
            0 => acc = data[i.k as usize / 4],
            4 => acc &= i.k,
            5 => match u32::from(i.code) & 0xf0 {
                0 => at += i.k as usize,
                0x10 => at += usize::from(if acc == i.k { i.jt } else { i.jf }),
                0x20 => at += usize::from(if acc > i.k { i.jt } else { i.jf }),
                0x30 => at += usize::from(if acc >= i.k { i.jt } else { i.jf }),
                other => panic!("jump {other:#x}"),
            },
            6 => return i.k,
            other => panic!("class {other}"),
        }
    }
    panic!("no end");
}

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::Aarch64, Arch::Arm, Arch::Riscv64];

#[test]
fn the_default_profile_answers_as_docker_does_on_every_architecture() {
    let cases = [
        ("read", 0, ALLOW, ALLOW),
        ("execve", 0, ALLOW, ALLOW),
        ("openat", 0, ALLOW, ALLOW),
        ("futex_time64", 0, ALLOW, ALLOW),
        ("mmap2", 0, ALLOW, ALLOW),
        ("set_tls", 0, ALLOW, ALLOW),
        ("riscv_flush_icache", 0, ALLOW, ALLOW),
        ("riscv_hwprobe", 0, ALLOW, ALLOW),
        ("ugetrlimit", 0, ALLOW, ALLOW),
        ("mount", 0, EPERM, ALLOW),
        ("unshare", 0, EPERM, ALLOW),
        ("setns", 0, EPERM, ALLOW),
        ("bpf", 0, EPERM, ALLOW),
        ("kexec_load", 0, EPERM, EPERM),
        ("io_uring_setup", 0, EPERM, EPERM),
        ("keyctl", 0, EPERM, EPERM),
        ("add_key", 0, EPERM, EPERM),
        ("userfaultfd", 0, EPERM, EPERM),
        ("uselib", 0, EPERM, EPERM),
        ("clone", 0x0011_0000, ALLOW, ALLOW),
        ("clone", libc::CLONE_NEWUSER as u64, EPERM, ALLOW),
        ("clone", libc::CLONE_NEWNET as u64, EPERM, ALLOW),
        ("clone3", 0, ENOSYS, ALLOW),
        ("socket", libc::AF_INET as u64, ALLOW, ALLOW),
        ("socket", 40, EPERM, EPERM),
        ("personality", 0, ALLOW, ALLOW),
        ("personality", 0xffff_ffff, ALLOW, ALLOW),
        ("personality", 0x0004_0000, EPERM, EPERM),
    ];
    for arch in ARCHES {
        let numbers = Numbers::of(arch);
        let made = |caps| assemble_for(&default::profile(caps), arch);
        let (plain, admin) = (made(0), made(crate::runtime::rt::cap_bit("SYS_ADMIN")));
        println!("{arch:?}: {} instructions", plain.len());
        assert!(plain.len() < 700);
        for (name, first, without, with) in cases {
            let Some(number) = numbers.get(name) else { continue };
            let call = Call { arch: arch.audit(), number, arguments: [first, 0, 0, 0, 0, 0] };
            assert_eq!(run(&plain, call), without, "{arch:?}: {name} {first:#x}");
            assert_eq!(run(&admin, call), with, "{arch:?}: {name} {first:#x} with SYS_ADMIN");
        }
        let number = |number| Call { arch: arch.audit(), number, arguments: [0; 6] };
        let foreign = Call { arch: arch.audit() ^ 1, ..number(0) };
        assert_eq!(run(&plain, foreign), EPERM, "another architecture");
        assert_eq!(run(&plain, number(u32::MAX)), EPERM);
        assert_eq!(run(&plain, number(0x4000_0000)), EPERM, "x32");
    }
}

fn assemble_for(profile: &Profile, arch: Arch) -> Vec<sock_filter> {
    program::assemble(profile, arch, &Numbers::of(arch)).unwrap()
}

/// The table's numbers are libc's where libc has a name for them.
#[test]
fn numbers_are_the_kernels() {
    let here = Numbers::of(Arch::HERE.unwrap());
    for (name, number) in [
        ("read", libc::SYS_read),
        ("openat2", libc::SYS_openat2),
        ("clone3", libc::SYS_clone3),
        ("seccomp", libc::SYS_seccomp),
        ("execveat", libc::SYS_execveat),
        ("io_uring_setup", libc::SYS_io_uring_setup),
    ] {
        assert_eq!(here.get(name), Some(number as u32), "{name}");
    }
    assert_eq!(CALLS.split(',').count(), CALLS.split(',').collect::<std::collections::BTreeSet<_>>().len());
    for entry in CALLS.split(',') {
        assert_eq!(entry.split_whitespace().count(), 4, "{entry}");
    }
    for (arch, read, clone) in
        [(Arch::X86_64, 0, 56), (Arch::Aarch64, 63, 220), (Arch::Arm, 3, 120), (Arch::Riscv64, 63, 220)]
    {
        let numbers = Numbers::of(arch);
        assert_eq!((numbers.get("read"), numbers.get("clone")), (Some(read), Some(clone)));
    }
    assert!(is_call("cacheflush") && is_call("riscv_hwprobe") && !is_call("frobnicate"));
}

/// asm-generic/unistd.h is for whoever brings no numbers of its own; what differs is in each one's asm/unistd.h.
#[test]
fn riscv64_has_the_generic_numbers_but_for_three_calls() {
    let (ours, theirs) = (Numbers::of(Arch::Riscv64), Numbers::of(Arch::Aarch64));
    let names = || CALLS.split(',').filter_map(|entry| entry.split_whitespace().next());
    let differ: Vec<&str> = names().filter(|name| ours.get(name) != theirs.get(name)).collect();
    assert_eq!(differ, ["renameat"]);
    assert_eq!((ours.get("renameat"), ours.get("renameat2")), (None, Some(276)));
    for (name, number) in [("riscv_hwprobe", 258), ("riscv_flush_icache", 259)] {
        assert_eq!((ours.get(name), theirs.get(name)), (Some(number), None), "{name}");
        assert!(names().all(|other| ours.get(other) != Some(number)), "{name} is alone at its number");
    }
}

#[test]
fn every_comparison_looks_at_all_64_bits() {
    let big = 0x1_0000_0005u64;
    // Each: operation, value, second value, then arguments that pass and arguments that do not.
    type Case = (&'static str, u64, u64, &'static [u64], &'static [u64]);
    let cases: [Case; 7] = [
        ("EQ", big, 0, &[0x1_0000_0005], &[5, 0x1_0000_0004, 0x2_0000_0005]),
        ("NE", big, 0, &[5, 0x1_0000_0004, 0], &[0x1_0000_0005]),
        ("LT", big, 0, &[0, 5, 0xffff_ffff, 0x1_0000_0004], &[0x1_0000_0005, 0x1_0000_0006, 0x2_0000_0000]),
        ("LE", big, 0, &[0, 0x1_0000_0005], &[0x1_0000_0006, 0x2_0000_0000]),
        ("GT", big, 0, &[0x1_0000_0006, 0x2_0000_0000], &[0x1_0000_0005, 0xffff_ffff, 6]),
        ("GE", big, 0, &[0x1_0000_0005, 0x2_0000_0000], &[0x1_0000_0004, 0xffff_ffff]),
        ("MASKED_EQ", 0xf_0000_000f, big, &[0x1_0000_0005, 0x1_00ff_fff5], &[5, 0x1_0000_0006]),
    ];
    for (op, value, datum, good, bad) in cases {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["write","nonsense"],"action":"SCMP_ACT_ALLOW",
                "args":[{{"index":2,"value":{value},"valueTwo":{datum},"op":"SCMP_CMP_{op}"}},
                        {{"index":0,"value":7,"op":"SCMP_CMP_EQ"}}]}}]}}"#
        );
        let profile = Profile::parse(text.as_bytes()).unwrap();
        let code = assemble_for(&profile, Arch::X86_64);
        let call = |third, first| Call { arch: Arch::X86_64.audit(), number: 1, arguments: [first, 0, third, 0, 0, 0] };
        for third in good {
            assert_eq!(run(&code, call(*third, 7)), ALLOW, "{op} {third:#x}");
            assert_eq!(run(&code, call(*third, 8)), EPERM, "{op} {third:#x}: both tests count");
        }
        for third in bad {
            assert_eq!(run(&code, call(*third, 7)), EPERM, "{op} {third:#x}");
        }
    }
}

#[test]
fn profiles_of_the_node_are_read_or_refused() {
    let text = br#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],
        "flags":["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":30,"args":null},
                    {"names":["chmod"],"action":"SCMP_ACT_LOG"},{"names":["kill"],"action":"SCMP_ACT_KILL_PROCESS"}]}"#;
    let profile = Profile::parse(text).unwrap();
    assert_eq!(profile.flags, 2);
    let code = assemble_for(&profile, Arch::X86_64);
    let call = |number| run(&code, Call { arch: Arch::X86_64.audit(), number, arguments: [0; 6] });
    assert_eq!([call(0), call(83), call(90), call(62)], [ALLOW, 0x0005_001e, 0x7ffc_0000, 0x8000_0000]);
    assert_eq!(call(0x4000_0000 + 83), EPERM, "x32 is no way around a list of what is forbidden");
    for (bad, why) in [
        ("", "EOF"),
        ("[]", "invalid length"),
        ("{}", "defaultAction"),
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "not supported"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#, "not supported"),
        (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":70000}"#, "error number"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
               "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "past the sixth",
        ),
    ] {
        let err = Profile::parse(bad.as_bytes()).unwrap_err();
        assert!(err.contains(why), "{bad}: {err}");
    }
}

/// What another runtime reads is the same profile: read back, it makes the same program.
#[test]
fn as_json_and_back() {
    for caps in [0, cap_bit("SYS_ADMIN") | cap_bit("BPF"), u64::MAX] {
        let text = runtime_default_json(caps).to_string();
        let (ours, theirs) = (runtime_default(caps).unwrap(), of_profile(text.as_bytes()).unwrap());
        let code = |filter: &Filter| filter.code.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect::<Vec<_>>();
        assert_eq!(code(&ours), code(&theirs), "{caps:x}");
    }
}

/// A helper that finds a program takes it as it is; one that finds a part of one makes its own, and leaves it whole.
#[test]
fn kept_programs_are_whole_or_made_again() {
    let dir = std::env::temp_dir().join(format!("limpet-seccomp-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let code = |filter: &Filter| filter.code.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect::<Vec<_>>();
    let made = code(&runtime_default(5).unwrap());
    assert_eq!(code(&runtime_default_kept(&dir, 5).unwrap()), made, "without a directory");
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{:016x}", 5));
    assert_eq!(code(&runtime_default_kept(&dir, 5).unwrap()), made);
    let whole = std::fs::read(&path).unwrap();
    // One instruction less is a program too: what is in the file counts.
    std::fs::write(&path, &whole[..whole.len() - 8]).unwrap();
    assert_eq!(code(&runtime_default_kept(&dir, 5).unwrap()), made[..made.len() - 1]);
    for part in [0, 3, 4, whole.len() - 1] {
        std::fs::write(&path, &whole[..part]).unwrap();
        assert_eq!(code(&runtime_default_kept(&dir, 5).unwrap()), made, "{part}");
        assert_eq!(std::fs::read(&path).unwrap(), whole, "{part}");
    }
    for caps in 100..200 {
        runtime_default_kept(&dir, caps).unwrap();
    }
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), KEPT_MAX);
    std::fs::remove_dir_all(dir).unwrap();
}
