//! Runs the generated programs in a tiny interpreter of classic BPF.

use super::*;

fn run(code: &[sock_filter], arch: u32, number: u32, first: u32) -> u32 {
    let (mut at, mut acc) = (0usize, 0u32);
    for _ in 0..10_000 {
        let i = code[at];
        at += 1;
        let class = u32::from(i.code) & 7;
        match class {
            0 => acc = [number, arch, 0, 0, first][i.k as usize / 4],
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

const EPERM: u32 = RET_ERRNO | 1;
const ENOSYS: u32 = RET_ERRNO | 38;

#[test]
fn the_default_profile_answers_as_docker_does() {
    let Some(arch) = AUDIT_ARCH else { return };
    let plain = runtime_default(0).unwrap();
    let admin = runtime_default(crate::runtime::rt::cap_bit("SYS_ADMIN")).unwrap();
    println!("{} instructions", plain.len());
    assert!(plain.len() < 400);
    let cases = [
        (libc::SYS_read, 0, RET_ALLOW, RET_ALLOW),
        (libc::SYS_execve, 0, RET_ALLOW, RET_ALLOW),
        (libc::SYS_openat, 0, RET_ALLOW, RET_ALLOW),
        (libc::SYS_mount, 0, EPERM, RET_ALLOW),
        (libc::SYS_unshare, 0, EPERM, RET_ALLOW),
        (libc::SYS_bpf, 0, EPERM, RET_ALLOW),
        (libc::SYS_kexec_load, 0, EPERM, EPERM),
        (libc::SYS_io_uring_setup, 0, EPERM, EPERM),
        (libc::SYS_keyctl, 0, EPERM, EPERM),
        (libc::SYS_add_key, 0, EPERM, EPERM),
        (libc::SYS_userfaultfd, 0, EPERM, EPERM),
        (libc::SYS_clone, 0x0011_0000, RET_ALLOW, RET_ALLOW),
        (libc::SYS_clone, libc::CLONE_NEWUSER as u32, EPERM, RET_ALLOW),
        (libc::SYS_clone, libc::CLONE_NEWNET as u32, EPERM, RET_ALLOW),
        (libc::SYS_clone3, 0, ENOSYS, RET_ALLOW),
        (libc::SYS_socket, libc::AF_INET as u32, RET_ALLOW, RET_ALLOW),
        (libc::SYS_socket, 40, EPERM, EPERM),
        (libc::SYS_personality, 0, RET_ALLOW, RET_ALLOW),
        (libc::SYS_personality, 0xffff_ffff, RET_ALLOW, RET_ALLOW),
        (libc::SYS_personality, 0x0004_0000, EPERM, EPERM),
    ];
    for (number, first, without, with) in cases {
        assert_eq!(run(&plain, arch, number as u32, first), without, "call {number} {first:#x}");
        assert_eq!(run(&admin, arch, number as u32, first), with, "call {number} {first:#x} with SYS_ADMIN");
    }
    assert_eq!(run(&plain, arch ^ 1, libc::SYS_read as u32, 0), EPERM, "another architecture");
    assert_eq!(run(&plain, arch, 0x4000_0000, 0), EPERM, "x32");
    assert_eq!(run(&plain, arch, u32::MAX, 0), EPERM);
}

#[test]
fn ranges_join_only_equals() {
    let rules = vec![(3, Rule::Allow), (1, Rule::Allow), (2, Rule::Allow), (4, Rule::Missing), (3, Rule::Missing)];
    let got = ranges(rules);
    assert_eq!(got.len(), 2);
    assert_eq!((got[0].first, got[0].last, got[0].rule), (1, 3, Rule::Allow));
    assert_eq!((got[1].first, got[1].last), (4, 4));
}
