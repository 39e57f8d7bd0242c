//! Attempts by system calls that reach the machine as a whole.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, OpenTreeFlags};
use rustix::thread::UnshareFlags;

use super::{Around, Behind, Reach};
use crate::sys::{attempt, fork};

/// A call that works is one that reaches what it is after.
fn reached(done: Result<(), Errno>) -> Reach {
    done.map(|()| Behind::Something)
}

/// One attempt that is one call.
macro_rules! calls {
    ($($name:ident = $call:ident;)+) => {
        $(pub(super) fn $name(_: &Around) -> Reach {
            reached(attempt::$call())
        })+
    };
}

calls! {
    read_log = read_log;
    load_module = load_module;
    load_kernel = load_kernel;
    restart = restart;
    set_clock = set_no_time;
    swap = swap_to_nothing;
    account = account_to_directory;
    quota = quota_on_nothing;
    ports = open_ports;
    mount = mount_nothing;
    bpf = make_bpf_map;
    perf = watch_processor;
    keyring = find_user_keyring;
    ring = make_ring;
    faults = catch_page_faults;
    fanotify = watch_files;
    personality = fixed_addresses;
}

pub(super) fn set_hostname(_: &Around) -> Reach {
    let now = rustix::system::uname();
    reached(rustix::system::sethostname(now.nodename().to_bytes()))
}

pub(super) fn new_mount(_: &Around) -> Reach {
    reached(rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map(drop))
}

pub(super) fn clone_mount(_: &Around) -> Reach {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    reached(rustix::mount::open_tree(rustix::fs::CWD, "/", flags).map(drop))
}

pub(super) fn pivot(_: &Around) -> Reach {
    reached(rustix::process::pivot_root("/", "/"))
}

pub(super) fn by_handle(_: &Around) -> Reach {
    let root = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    reached(attempt::open_by_handle(root.as_fd()))
}

pub(super) fn crypto(_: &Around) -> Reach {
    reached(attempt::socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0).map(drop))
}

fn unshared(namespace: UnshareFlags) -> Reach {
    let done = fork::unshare(namespace);
    reached(done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}

pub(super) fn user_namespace(_: &Around) -> Reach {
    unshared(UnshareFlags::NEWUSER)
}

pub(super) fn mount_namespace(_: &Around) -> Reach {
    unshared(UnshareFlags::NEWNS)
}
