//! The default profile of containers, by subject. It allows what moby's default profile allows on
//! x86-64 to a container with the 14 default capabilities (github.com/moby/profiles, seccomp).
//!
//! What is not named fails with EPERM: everything that reaches the host as a whole (mounts, modules,
//! clocks, kexec, keys, quotas, tracing by events) and what has been a way out of containers again and
//! again (bpf, userfaultfd, io_uring, new user namespaces).

use libc::*;

use super::{Comparison, Condition, Profile, Rule, Verdict};

const NOT_PERMITTED: Verdict = Verdict::Errno(EPERM as u16);

/// Namespaces that clone(2) can make, as a mask over its flags.
const NEW_NAMESPACES: u64 = (CLONE_NEWNS
    | CLONE_NEWCGROUP
    | CLONE_NEWUTS
    | CLONE_NEWIPC
    | CLONE_NEWUSER
    | CLONE_NEWPID
    | CLONE_NEWNET) as u64;

/// Address families that lead to other machines' kernels or the host's crypto API.
const REFUSED_FAMILIES: [i32; 2] = [AF_ALG, AF_VSOCK];

/// Execution domains: PER_LINUX and PER_LINUX32, with and without UNAME26, and the query.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];

pub(super) fn profile() -> Profile {
    let groups =
        [FILES, DIRECTORIES, DESCRIPTORS, MEMORY, PROCESSES, SIGNALS, TIME, SCHEDULING, SOCKETS, IPC, SYSTEM];
    let plain = groups.into_iter().flatten().map(|number| Rule::plain(*number as u32, Verdict::Allow));
    let mut rules: Vec<Rule> = plain.collect();
    rules.push(clone_without_namespaces());
    // Its flags lie in memory, where no filter can look: C libraries then fall back to clone.
    rules.push(Rule::plain(SYS_clone3 as u32, Verdict::Errno(ENOSYS as u16)));
    rules.push(sockets_of_known_families());
    rules.push(known_personalities());
    Profile::new(rules, NOT_PERMITTED)
}

fn clone_without_namespaces() -> Rule {
    let none = Condition { argument: 0, mask: NEW_NAMESPACES, comparison: Comparison::Equal, value: 0 };
    Rule { number: SYS_clone as u32, cases: vec![(vec![none], Verdict::Allow)], otherwise: NOT_PERMITTED }
}

fn sockets_of_known_families() -> Rule {
    let refuse = |family: i32| (vec![Condition::int(0, Comparison::Equal, family as u32)], NOT_PERMITTED);
    Rule { number: SYS_socket as u32, cases: REFUSED_FAMILIES.map(refuse).into(), otherwise: Verdict::Allow }
}

fn known_personalities() -> Rule {
    let allow = |persona: u32| (vec![Condition::int(0, Comparison::Equal, persona)], Verdict::Allow);
    Rule { number: SYS_personality as u32, cases: PERSONALITIES.map(allow).into(), otherwise: NOT_PERMITTED }
}

// Calls that the libc crate does not name yet; arch/x86/entry/syscalls/syscall_64.tbl.
const SYS_IO_PGETEVENTS: c_long = 333;
const SYS_URETPROBE: c_long = 335;
const SYS_CACHESTAT: c_long = 451;
const SYS_MAP_SHADOW_STACK: c_long = 453;
const SYS_FUTEX_WAKE: c_long = 454;
const SYS_FUTEX_WAIT: c_long = 455;
const SYS_FUTEX_REQUEUE: c_long = 456;
const SYS_STATMOUNT: c_long = 457;
const SYS_LISTMOUNT: c_long = 458;
const SYS_SETXATTRAT: c_long = 463;
const SYS_GETXATTRAT: c_long = 464;
const SYS_LISTXATTRAT: c_long = 465;
const SYS_REMOVEXATTRAT: c_long = 466;

/// Opening, reading, writing and describing files.
#[rustfmt::skip]
const FILES: &[c_long] = &[
    SYS_open, SYS_openat, SYS_openat2, SYS_creat, SYS_close, SYS_close_range,
    SYS_read, SYS_readv, SYS_pread64, SYS_preadv, SYS_preadv2, SYS_readahead,
    SYS_write, SYS_writev, SYS_pwrite64, SYS_pwritev, SYS_pwritev2,
    SYS_lseek, SYS_truncate, SYS_ftruncate, SYS_fallocate, SYS_fadvise64, SYS_copy_file_range, SYS_sendfile,
    SYS_stat, SYS_fstat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access, SYS_faccessat, SYS_faccessat2,
    SYS_statfs, SYS_fstatfs, SYS_STATMOUNT, SYS_LISTMOUNT, SYS_CACHESTAT,
    SYS_chmod, SYS_fchmod, SYS_fchmodat, SYS_fchmodat2, SYS_umask,
    SYS_chown, SYS_fchown, SYS_lchown, SYS_fchownat,
    SYS_utime, SYS_utimes, SYS_futimesat, SYS_utimensat,
    SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr, SYS_GETXATTRAT,
    SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr, SYS_SETXATTRAT,
    SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_LISTXATTRAT,
    SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr, SYS_REMOVEXATTRAT,
    SYS_flock, SYS_fsync, SYS_fdatasync, SYS_sync, SYS_syncfs, SYS_sync_file_range,
    SYS_io_setup, SYS_io_submit, SYS_io_cancel, SYS_io_getevents, SYS_IO_PGETEVENTS, SYS_io_destroy,
];

/// Names of files.
#[rustfmt::skip]
const DIRECTORIES: &[c_long] = &[
    SYS_getcwd, SYS_chdir, SYS_fchdir, SYS_chroot, SYS_getdents, SYS_getdents64,
    SYS_mkdir, SYS_mkdirat, SYS_rmdir, SYS_mknod, SYS_mknodat,
    SYS_link, SYS_linkat, SYS_unlink, SYS_unlinkat, SYS_symlink, SYS_symlinkat, SYS_readlink, SYS_readlinkat,
    SYS_rename, SYS_renameat, SYS_renameat2, SYS_name_to_handle_at,
    SYS_inotify_init, SYS_inotify_init1, SYS_inotify_add_watch, SYS_inotify_rm_watch, SYS_fanotify_mark,
];

/// Descriptors of any kind, and waiting on them.
#[rustfmt::skip]
const DESCRIPTORS: &[c_long] = &[
    SYS_dup, SYS_dup2, SYS_dup3, SYS_fcntl, SYS_ioctl, SYS_pipe, SYS_pipe2, SYS_splice, SYS_tee, SYS_vmsplice,
    SYS_poll, SYS_ppoll, SYS_select, SYS_pselect6,
    SYS_epoll_create, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_ctl_old,
    SYS_epoll_wait, SYS_epoll_wait_old, SYS_epoll_pwait, SYS_epoll_pwait2,
    SYS_eventfd, SYS_eventfd2, SYS_signalfd, SYS_signalfd4,
    SYS_timerfd_create, SYS_timerfd_gettime, SYS_timerfd_settime,
];

/// Memory, and futexes in it.
#[rustfmt::skip]
const MEMORY: &[c_long] = &[
    SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_msync, SYS_mincore,
    SYS_remap_file_pages, SYS_mseal, SYS_MAP_SHADOW_STACK,
    SYS_mlock, SYS_mlock2, SYS_mlockall, SYS_munlock, SYS_munlockall,
    SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_memfd_create, SYS_memfd_secret, SYS_membarrier,
    SYS_futex, SYS_futex_waitv, SYS_FUTEX_WAKE, SYS_FUTEX_WAIT, SYS_FUTEX_REQUEUE,
    SYS_get_robust_list, SYS_set_robust_list, SYS_rseq,
];

/// Processes, threads, users, and what they may do. ptrace and process_vm_* are safe beside seccomp
/// from Linux 4.8 on.
#[rustfmt::skip]
const PROCESSES: &[c_long] = &[
    SYS_fork, SYS_vfork, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid,
    SYS_getpid, SYS_getppid, SYS_gettid, SYS_getpgid, SYS_getpgrp, SYS_setpgid, SYS_getsid, SYS_setsid,
    SYS_pidfd_open, SYS_pidfd_send_signal, SYS_process_mrelease,
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_URETPROBE,
    SYS_getuid, SYS_geteuid, SYS_getresuid, SYS_setuid, SYS_setreuid, SYS_setresuid, SYS_setfsuid,
    SYS_getgid, SYS_getegid, SYS_getresgid, SYS_setgid, SYS_setregid, SYS_setresgid, SYS_setfsgid,
    SYS_getgroups, SYS_setgroups, SYS_capget, SYS_capset, SYS_prctl, SYS_arch_prctl, SYS_modify_ldt,
    SYS_seccomp, SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self,
    SYS_getrlimit, SYS_setrlimit, SYS_prlimit64, SYS_getrusage, SYS_times,
    SYS_set_tid_address, SYS_get_thread_area, SYS_set_thread_area,
];

/// Signals.
#[rustfmt::skip]
const SIGNALS: &[c_long] = &[
    SYS_kill, SYS_tkill, SYS_tgkill, SYS_pause, SYS_sigaltstack, SYS_restart_syscall,
    SYS_rt_sigaction, SYS_rt_sigpending, SYS_rt_sigprocmask, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo,
    SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigtimedwait,
];

/// Clocks (setting them needs a capability that containers lack) and timers.
#[rustfmt::skip]
const TIME: &[c_long] = &[
    SYS_time, SYS_gettimeofday, SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep,
    SYS_adjtimex, SYS_clock_adjtime, SYS_alarm, SYS_getitimer, SYS_setitimer,
    SYS_timer_create, SYS_timer_delete, SYS_timer_getoverrun, SYS_timer_gettime, SYS_timer_settime,
];

/// Scheduling and priorities.
#[rustfmt::skip]
const SCHEDULING: &[c_long] = &[
    SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_getattr, SYS_sched_setattr,
    SYS_sched_getparam, SYS_sched_setparam, SYS_sched_getscheduler, SYS_sched_setscheduler,
    SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_sched_rr_get_interval,
    SYS_getpriority, SYS_setpriority, SYS_ioprio_get, SYS_ioprio_set, SYS_getcpu,
];

/// Sockets; making one is ruled by family.
#[rustfmt::skip]
const SOCKETS: &[c_long] = &[
    SYS_socketpair, SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_shutdown,
    SYS_getsockname, SYS_getpeername, SYS_getsockopt, SYS_setsockopt,
    SYS_sendto, SYS_sendmsg, SYS_sendmmsg, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg,
];

/// System V and POSIX message queues, semaphores and shared memory: of the container's own namespace.
#[rustfmt::skip]
const IPC: &[c_long] = &[
    SYS_msgget, SYS_msgctl, SYS_msgsnd, SYS_msgrcv, SYS_semget, SYS_semctl, SYS_semop, SYS_semtimedop,
    SYS_shmget, SYS_shmctl, SYS_shmat, SYS_shmdt,
    SYS_mq_open, SYS_mq_unlink, SYS_mq_notify, SYS_mq_getsetattr, SYS_mq_timedsend, SYS_mq_timedreceive,
];

/// The system as a whole, to look at.
const SYSTEM: &[c_long] = &[SYS_uname, SYS_sysinfo, SYS_getrandom];

#[cfg(test)]
mod tests {
    use super::super::evaluate::{Call, evaluate};
    use super::*;

    fn says(number: c_long, arguments: &[u64]) -> Verdict {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        let call = Call::new(number as u32, all);
        let program = Profile::container().compile();
        let verdict = evaluate(&program, &call).unwrap();
        assert_eq!(verdict, Profile::container().verdict(&call));
        verdict
    }

    #[test]
    fn ways_out_are_refused() {
        for number in [
            SYS_unshare,
            SYS_setns,
            SYS_mount,
            SYS_umount2,
            SYS_fsopen,
            SYS_move_mount,
            SYS_pivot_root,
            SYS_bpf,
            SYS_userfaultfd,
            SYS_io_uring_setup,
            SYS_perf_event_open,
            SYS_add_key,
            SYS_keyctl,
            SYS_request_key,
            SYS_init_module,
            SYS_finit_module,
            SYS_kexec_load,
            SYS_reboot,
            SYS_swapon,
            SYS_settimeofday,
            SYS_open_by_handle_at,
            SYS_kcmp,
            SYS_pidfd_getfd,
            SYS_syslog,
            SYS_acct,
            SYS_iopl,
            SYS_ioperm,
            SYS_move_pages,
            SYS_sethostname,
            SYS_quotactl,
            SYS_nfsservctl,
            SYS_uselib,
            SYS_ustat,
            SYS_sysfs,
        ] {
            assert_eq!(says(number, &[]), NOT_PERMITTED, "{number}");
            assert!(!Profile::container().allowed(number as u32));
        }
    }

    /// What a C library, an allocator, a panic or a lock does only now and then.
    #[test]
    fn bug_22_rare_paths_of_libraries_are_allowed() {
        for number in [
            SYS_tgkill,
            SYS_rt_sigprocmask,
            SYS_rt_sigaction,
            SYS_sigaltstack,
            SYS_madvise,
            SYS_mremap,
            SYS_mprotect,
            SYS_brk,
            SYS_writev,
            SYS_futex,
            SYS_sched_yield,
            SYS_clock_nanosleep,
            SYS_getrandom,
            SYS_newfstatat,
            SYS_statx,
            SYS_readlink,
            SYS_getcwd,
            SYS_prlimit64,
            SYS_rseq,
            SYS_set_robust_list,
            SYS_membarrier,
            SYS_sysinfo,
            SYS_restart_syscall,
            SYS_exit_group,
        ] {
            assert_eq!(says(number, &[]), Verdict::Allow, "{number}");
        }
    }

    #[test]
    fn arguments_decide() {
        let threads = (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD) as u64;
        assert_eq!(says(SYS_clone, &[threads]), Verdict::Allow);
        assert_eq!(says(SYS_clone, &[threads | 1 << 40]), Verdict::Allow);
        assert_eq!(says(SYS_clone, &[CLONE_NEWUSER as u64 | SIGCHLD as u64]), NOT_PERMITTED);
        assert_eq!(says(SYS_clone, &[CLONE_NEWNET as u64 | 1 << 33]), NOT_PERMITTED);
        assert_eq!(says(SYS_clone3, &[]), Verdict::Errno(ENOSYS as u16));
        assert_eq!(says(SYS_socket, &[AF_INET as u64]), Verdict::Allow);
        assert_eq!(says(SYS_socket, &[AF_UNIX as u64]), Verdict::Allow);
        assert_eq!(says(SYS_socket, &[AF_VSOCK as u64]), NOT_PERMITTED);
        // The kernel looks at 32 bits of it, and so must the filter.
        assert_eq!(says(SYS_socket, &[AF_ALG as u64 | 1 << 32]), NOT_PERMITTED);
        assert_eq!(says(SYS_personality, &[0x2_0000]), Verdict::Allow);
        assert_eq!(says(SYS_personality, &[0x40_0000]), NOT_PERMITTED, "ADDR_NO_RANDOMIZE");
    }

    #[test]
    fn the_program_is_short() {
        let profile = Profile::container();
        assert!(profile.count_allowed() > 280, "{}", profile.count_allowed());
        assert!(profile.compile().len() < 200, "{}", profile.compile().len());
    }
}
