//! Names of system calls and their numbers.
//!
//! In: nothing. Out: one text, `name x86_64 aarch64 arm`, comma-separated; `-` where an architecture has no such call.
//! riscv64 has aarch64's numbers, those that the kernel gives to whoever brings none of its own, and differs in three calls.
//! A text and not a table: it is read once for each container, and a table of pointers would cost twice the room.
//! Numbers are those of the kernel's headers up to 6.17 (they never change).

pub const CALLS: &str = "\
    _llseek - - 140, _newselect - - 142, _sysctl 156 - 149, accept 43 202 285, accept4 288 242 366, access 21 - 33, \
    acct 163 89 51, add_key 248 217 309, adjtimex 159 171 124, afs_syscall 183 - -, alarm 37 - -, arch_prctl 158 - -, \
    arm_fadvise64_64 - - 270, arm_sync_file_range - - 341, bdflush - - 134, bind 49 200 282, bpf 321 280 386, \
    breakpoint - - 983041, brk 12 214 45, cacheflush - - 983042, cachestat 451 451 451, capget 125 90 184, capset 126 91 185, \
    chdir 80 49 12, chmod 90 - 15, chown 92 - 182, chown32 - - 212, chroot 161 51 61, clock_adjtime 305 266 372, \
    clock_adjtime64 - - 405, clock_getres 229 114 264, clock_getres_time64 - - 406, clock_gettime 228 113 263, \
    clock_gettime64 - - 403, clock_nanosleep 230 115 265, clock_nanosleep_time64 - - 407, clock_settime 227 112 262, \
    clock_settime64 - - 404, clone 56 220 120, clone3 435 435 435, close 3 57 6, close_range 436 436 436, connect 42 203 283, \
    copy_file_range 326 285 391, creat 85 - 8, create_module 174 - -, delete_module 176 106 129, dup 32 23 41, dup2 33 - 63, \
    dup3 292 24 358, epoll_create 213 - 250, epoll_create1 291 20 357, epoll_ctl 233 21 251, epoll_ctl_old 214 - -, \
    epoll_pwait 281 22 346, epoll_pwait2 441 441 441, epoll_wait 232 - 252, epoll_wait_old 215 - -, eventfd 284 - 351, \
    eventfd2 290 19 356, execve 59 221 11, execveat 322 281 387, exit 60 93 1, exit_group 231 94 248, faccessat 269 48 334, \
    faccessat2 439 439 439, fadvise64 221 223 -, fallocate 285 47 352, fanotify_init 300 262 367, fanotify_mark 301 263 368, \
    fchdir 81 50 133, fchmod 91 52 94, fchmodat 268 53 333, fchmodat2 452 452 452, fchown 93 55 95, fchown32 - - 207, \
    fchownat 260 54 325, fcntl 72 25 55, fcntl64 - - 221, fdatasync 75 83 148, fgetxattr 193 10 231, \
    file_getattr 468 468 468, file_setattr 469 469 469, finit_module 313 273 379, flistxattr 196 13 234, flock 73 32 143, \
    fork 57 - 2, fremovexattr 199 16 237, fsconfig 431 431 431, fsetxattr 190 7 228, fsmount 432 432 432, fsopen 430 430 430, \
    fspick 433 433 433, fstat 5 80 108, fstat64 - - 197, fstatat64 - - 327, fstatfs 138 44 100, fstatfs64 - - 267, \
    fsync 74 82 118, ftruncate 77 46 93, ftruncate64 - - 194, futex 202 98 240, futex_requeue 456 456 456, \
    futex_time64 - - 422, futex_wait 455 455 455, futex_waitv 449 449 449, futex_wake 454 454 454, futimesat 261 - 326, \
    get_kernel_syms 177 - -, get_mempolicy 239 236 320, get_robust_list 274 100 339, get_thread_area 211 - -, \
    getcpu 309 168 345, getcwd 79 17 183, getdents 78 - 141, getdents64 217 61 217, getegid 108 177 50, getegid32 - - 202, \
    geteuid 107 175 49, geteuid32 - - 201, getgid 104 176 47, getgid32 - - 200, getgroups 115 158 80, getgroups32 - - 205, \
    getitimer 36 102 105, getpeername 52 205 287, getpgid 121 155 132, getpgrp 111 - 65, getpid 39 172 20, getpmsg 181 - -, \
    getppid 110 173 64, getpriority 140 141 96, getrandom 318 278 384, getresgid 120 150 171, getresgid32 - - 211, \
    getresuid 118 148 165, getresuid32 - - 209, getrlimit 97 163 -, getrusage 98 165 77, getsid 124 156 147, \
    getsockname 51 204 286, getsockopt 55 209 295, gettid 186 178 224, gettimeofday 96 169 78, getuid 102 174 24, \
    getuid32 - - 199, getxattr 191 8 229, getxattrat 464 464 464, init_module 175 105 128, inotify_add_watch 254 27 317, \
    inotify_init 253 - 316, inotify_init1 294 26 360, inotify_rm_watch 255 28 318, io_cancel 210 3 247, io_destroy 207 1 244, \
    io_getevents 208 4 245, io_pgetevents 333 292 399, io_pgetevents_time64 - - 416, io_setup 206 0 243, io_submit 209 2 246, \
    io_uring_enter 426 426 426, io_uring_register 427 427 427, io_uring_setup 425 425 425, ioctl 16 29 54, ioperm 173 - -, \
    iopl 172 - -, ioprio_get 252 31 315, ioprio_set 251 30 314, kcmp 312 272 378, kexec_file_load 320 294 401, \
    kexec_load 246 104 347, keyctl 250 219 311, kill 62 129 37, landlock_add_rule 445 445 445, \
    landlock_create_ruleset 444 444 444, landlock_restrict_self 446 446 446, lchown 94 - 16, lchown32 - - 198, \
    lgetxattr 192 9 230, link 86 - 9, linkat 265 37 330, listen 50 201 284, listmount 458 458 458, listxattr 194 11 232, \
    listxattrat 465 465 465, llistxattr 195 12 233, lookup_dcookie 212 18 249, lremovexattr 198 15 236, lseek 8 62 19, \
    lsetxattr 189 6 227, lsm_get_self_attr 459 459 459, lsm_list_modules 461 461 461, lsm_set_self_attr 460 460 460, \
    lstat 6 - 107, lstat64 - - 196, madvise 28 233 220, map_shadow_stack 453 453 453, mbind 237 235 319, \
    membarrier 324 283 389, memfd_create 319 279 385, memfd_secret 447 447 447, migrate_pages 256 238 400, \
    mincore 27 232 219, mkdir 83 - 39, mkdirat 258 34 323, mknod 133 - 14, mknodat 259 33 324, mlock 149 228 150, \
    mlock2 325 284 390, mlockall 151 230 152, mmap 9 222 -, mmap2 - - 192, modify_ldt 154 - -, mount 165 40 21, \
    mount_setattr 442 442 442, move_mount 429 429 429, move_pages 279 239 344, mprotect 10 226 125, \
    mq_getsetattr 245 185 279, mq_notify 244 184 278, mq_open 240 180 274, mq_timedreceive 243 183 277, \
    mq_timedreceive_time64 - - 419, mq_timedsend 242 182 276, mq_timedsend_time64 - - 418, mq_unlink 241 181 275, \
    mremap 25 216 163, mseal 462 462 462, msgctl 71 187 304, msgget 68 186 303, msgrcv 70 188 302, msgsnd 69 189 301, \
    msync 26 227 144, munlock 150 229 151, munlockall 152 231 153, munmap 11 215 91, name_to_handle_at 303 264 370, \
    nanosleep 35 101 162, newfstatat 262 79 -, nfsservctl 180 42 169, nice - - 34, open 2 - 5, open_by_handle_at 304 265 371, \
    open_tree 428 428 428, open_tree_attr 467 467 467, openat 257 56 322, openat2 437 437 437, pause 34 - 29, \
    pciconfig_iobase - - 271, pciconfig_read - - 272, pciconfig_write - - 273, perf_event_open 298 241 364, \
    personality 135 92 136, pidfd_getfd 438 438 438, pidfd_open 434 434 434, pidfd_send_signal 424 424 424, pipe 22 - 42, \
    pipe2 293 59 359, pivot_root 155 41 218, pkey_alloc 330 289 395, pkey_free 331 290 396, pkey_mprotect 329 288 394, \
    poll 7 - 168, ppoll 271 73 336, ppoll_time64 - - 414, prctl 157 167 172, pread64 17 67 180, preadv 295 69 361, \
    preadv2 327 286 392, prlimit64 302 261 369, process_madvise 440 440 440, process_mrelease 448 448 448, \
    process_vm_readv 310 270 376, process_vm_writev 311 271 377, pselect6 270 72 335, pselect6_time64 - - 413, \
    ptrace 101 117 26, putpmsg 182 - -, pwrite64 18 68 181, pwritev 296 70 362, pwritev2 328 287 393, query_module 178 - -, \
    quotactl 179 60 131, quotactl_fd 443 443 443, read 0 63 3, readahead 187 213 225, readlink 89 - 85, \
    readlinkat 267 78 332, readv 19 65 145, reboot 169 142 88, recv - - 291, recvfrom 45 207 292, recvmmsg 299 243 365, \
    recvmmsg_time64 - - 417, recvmsg 47 212 297, remap_file_pages 216 234 253, removexattr 197 14 235, \
    removexattrat 466 466 466, rename 82 - 38, renameat 264 38 329, renameat2 316 276 382, request_key 249 218 310, \
    restart_syscall 219 128 0, rmdir 84 - 40, rseq 334 293 398, rt_sigaction 13 134 174, rt_sigpending 127 136 176, \
    rt_sigprocmask 14 135 175, rt_sigqueueinfo 129 138 178, rt_sigreturn 15 139 173, rt_sigsuspend 130 133 179, \
    rt_sigtimedwait 128 137 177, rt_sigtimedwait_time64 - - 421, rt_tgsigqueueinfo 297 240 363, \
    sched_get_priority_max 146 125 159, sched_get_priority_min 147 126 160, sched_getaffinity 204 123 242, \
    sched_getattr 315 275 381, sched_getparam 143 121 155, sched_getscheduler 145 120 157, sched_rr_get_interval 148 127 161, \
    sched_rr_get_interval_time64 - - 423, sched_setaffinity 203 122 241, sched_setattr 314 274 380, \
    sched_setparam 142 118 154, sched_setscheduler 144 119 156, sched_yield 24 124 158, seccomp 317 277 383, \
    security 185 - -, select 23 - -, semctl 66 191 300, semget 64 190 299, semop 65 193 298, semtimedop 220 192 312, \
    semtimedop_time64 - - 420, send - - 289, sendfile 40 71 187, sendfile64 - - 239, sendmmsg 307 269 374, \
    sendmsg 46 211 296, sendto 44 206 290, set_mempolicy 238 237 321, set_mempolicy_home_node 450 450 450, \
    set_robust_list 273 99 338, set_thread_area 205 - -, set_tid_address 218 96 256, set_tls - - 983045, \
    setdomainname 171 162 121, setfsgid 123 152 139, setfsgid32 - - 216, setfsuid 122 151 138, setfsuid32 - - 215, \
    setgid 106 144 46, setgid32 - - 214, setgroups 116 159 81, setgroups32 - - 206, sethostname 170 161 74, \
    setitimer 38 103 104, setns 308 268 375, setpgid 109 154 57, setpriority 141 140 97, setregid 114 143 71, \
    setregid32 - - 204, setresgid 119 149 170, setresgid32 - - 210, setresuid 117 147 164, setresuid32 - - 208, \
    setreuid 113 145 70, setreuid32 - - 203, setrlimit 160 164 75, setsid 112 157 66, setsockopt 54 208 294, \
    settimeofday 164 170 79, setuid 105 146 23, setuid32 - - 213, setxattr 188 5 226, setxattrat 463 463 463, \
    shmat 30 196 305, shmctl 31 195 308, shmdt 67 197 306, shmget 29 194 307, shutdown 48 210 293, sigaction - - 67, \
    sigaltstack 131 132 186, signalfd 282 - 349, signalfd4 289 74 355, sigpending - - 73, sigprocmask - - 126, \
    sigreturn - - 119, sigsuspend - - 72, socket 41 198 281, socketpair 53 199 288, splice 275 76 340, stat 4 - 106, \
    stat64 - - 195, statfs 137 43 99, statfs64 - - 266, statmount 457 457 457, statx 332 291 397, swapoff 168 225 115, \
    swapon 167 224 87, symlink 88 - 83, symlinkat 266 36 331, sync 162 81 36, sync_file_range 277 84 -, syncfs 306 267 373, \
    sysfs 139 - 135, sysinfo 99 179 116, syslog 103 116 103, tee 276 77 342, tgkill 234 131 268, time 201 - -, \
    timer_create 222 107 257, timer_delete 226 111 261, timer_getoverrun 225 109 260, timer_gettime 224 108 259, \
    timer_gettime64 - - 408, timer_settime 223 110 258, timer_settime64 - - 409, timerfd_create 283 85 350, \
    timerfd_gettime 287 87 354, timerfd_gettime64 - - 410, timerfd_settime 286 86 353, timerfd_settime64 - - 411, \
    times 100 153 43, tkill 200 130 238, truncate 76 45 92, truncate64 - - 193, tuxcall 184 - -, ugetrlimit - - 191, \
    umask 95 166 60, umount2 166 39 52, uname 63 160 122, unlink 87 - 10, unlinkat 263 35 328, unshare 272 97 337, \
    uselib 134 - 86, \
    uretprobe 335 - -, userfaultfd 323 282 388, ustat 136 - 62, utime 132 - -, utimensat 280 88 348, utimensat_time64 - - 412, \
    utimes 235 - 269, vfork 58 - 190, vhangup 153 58 111, vmsplice 278 75 343, vserver 236 - 313, wait4 61 260 114, \
    waitid 247 95 280, write 1 64 4, writev 20 66 146";

/// What only riscv64 has.
const RISCV64: [(&str, u32); 2] = [("riscv_flush_icache", 259), ("riscv_hwprobe", 258)];
/// What aarch64 has and riscv64, which came later, has not.
const RISCV64_LACKS: &str = "renameat";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    X86_64,
    Aarch64,
    Arm,
    Riscv64,
}

impl Arch {
    /// What this program was built for.
    pub const HERE: Option<Arch> = if cfg!(target_arch = "x86_64") {
        Some(Arch::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Arch::Aarch64)
    } else if cfg!(target_arch = "arm") {
        Some(Arch::Arm)
    } else if cfg!(target_arch = "riscv64") {
        Some(Arch::Riscv64)
    } else {
        None
    };

    /// linux/audit.h
    pub fn audit(self) -> u32 {
        match self {
            Arch::X86_64 => 0xc000_003e,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
            Arch::Riscv64 => 0xc000_00f3,
        }
    }

    /// Which word after the name in `CALLS` is its number.
    fn column(self) -> usize {
        match self {
            Arch::X86_64 => 0,
            Arch::Aarch64 | Arch::Riscv64 => 1,
            Arch::Arm => 2,
        }
    }
}

/// Every call of one architecture, by name.
pub struct Numbers(Vec<(&'static str, u32)>);

impl Numbers {
    pub fn of(arch: Arch) -> Numbers {
        let riscv64 = arch == Arch::Riscv64;
        let mut list: Vec<(&str, u32)> = CALLS
            .split(',')
            .filter_map(|entry| {
                let mut words = entry.split_whitespace();
                let name = words.next()?;
                Some((name, words.nth(arch.column())?.parse().ok()?))
            })
            .filter(|(name, _)| !riscv64 || *name != RISCV64_LACKS)
            .chain(RISCV64.into_iter().filter(|_| riscv64))
            .collect();
        list.sort_unstable();
        Numbers(list)
    }

    pub fn get(&self, name: &str) -> Option<u32> {
        self.0.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|at| self.0[at].1)
    }
}

/// Whether any architecture has a call of this name: a profile may name calls of others.
pub fn is_call(name: &str) -> bool {
    let own = RISCV64.iter().any(|(known, _)| *known == name);
    own || CALLS.split(',').any(|entry| entry.split_whitespace().next() == Some(name))
}
