//! Attempts on files of the kernel's, and on devices.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, makedev};
use rustix::io::Errno;

use super::{Around, Behind, Reach};
use crate::sys::attempt;

/// Where something can be made, in a root that may be read-only.
const PLACES: [&str; 5] = ["/dev/shm", "/tmp", "/run", "/dev", "/"];
/// The most of a file that is looked through.
const LOOKED_AT: u64 = 64 << 10;
/// The most names below /dev that are listed.
const DEVICES: usize = 1024;

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Opens, and says whether there is a first byte.
fn first_byte(path: &str) -> Reach {
    let mut byte = [0u8; 1];
    let count = File::open(path).and_then(|mut file| file.read(&mut byte)).map_err(|error| errno(&error))?;
    Ok(if count == 0 { Behind::Nothing } else { Behind::Something })
}

fn opens_for_writing(path: &str) -> Reach {
    OpenOptions::new().write(true).open(path).map_err(|error| errno(&error))?;
    Ok(Behind::Something)
}

pub(super) fn kcore(_: &Around) -> Reach {
    first_byte("/proc/kcore")
}

pub(super) fn dev_mem(_: &Around) -> Reach {
    File::open("/dev/mem").map(|_| Behind::Something).map_err(|error| errno(&error))
}

/// Whoever may not see them reads zeros (kernel.kptr_restrict).
pub(super) fn symbols(_: &Around) -> Reach {
    let mut text = Vec::new();
    let file = File::open("/proc/kallsyms").map_err(|error| errno(&error))?;
    file.take(LOOKED_AT).read_to_end(&mut text).map_err(|error| errno(&error))?;
    let address = |line: &[u8]| line.iter().take(16).any(|byte| !b"0 ".contains(byte));
    // The first symbols lie at 0 by right: offsets into each processor's own data.
    let shown = text.split(|byte| *byte == b'\n').filter(|line| line.len() > 16).any(address);
    Ok(if shown { Behind::Something } else { Behind::Nothing })
}

pub(super) fn sysrq(_: &Around) -> Reach {
    opens_for_writing("/proc/sysrq-trigger")
}

pub(super) fn core_pattern(_: &Around) -> Reach {
    opens_for_writing("/proc/sys/kernel/core_pattern")
}

pub(super) fn modprobe(_: &Around) -> Reach {
    opens_for_writing("/proc/sys/kernel/modprobe")
}

pub(super) fn same_sysctl(_: &Around) -> Reach {
    let path = "/proc/sys/kernel/panic";
    let write = || {
        let value = fs::read(path)?;
        OpenOptions::new().write(true).open(path)?.write_all(&value)
    };
    write().map(|()| Behind::Something).map_err(|error| errno(&error))
}

pub(super) fn parameter(_: &Around) -> Reach {
    opens_for_writing("/sys/module/kernel/parameters/panic")
}

/// In the first directory of control groups there is: of v2 the top, of v1 that of a controller.
pub(super) fn cgroup(_: &Around) -> Reach {
    let top = Path::new("/sys/fs/cgroup");
    let unified = top.join("cgroup.procs").exists();
    let below = || -> io::Result<_> {
        let mut names: Vec<_> = fs::read_dir(top)?.flatten().map(|entry| entry.path()).collect();
        names.sort();
        names
            .into_iter()
            .find(|path| path.join("cgroup.procs").exists())
            .ok_or(io::ErrorKind::NotFound.into())
    };
    let dir = if unified { top.to_owned() } else { below().map_err(|_| Errno::NOENT)? };
    let made = dir.join(format!("hv-drill-{}", std::process::id()));
    fs::create_dir(&made).and_then(|()| fs::remove_dir(&made)).map_err(|error| errno(&error))?;
    Ok(Behind::Something)
}

/// Makes a node of the disk's numbers, opens it if asked to, and removes it.
fn with_node(around: &Around, open: bool) -> Reach {
    let Some((major, minor)) = around.disk else { return Ok(Behind::Untried) };
    let name = CString::new(format!("hv-drill-{}", std::process::id())).map_err(|_| Errno::INVAL)?;
    let mut last = Errno::NOENT;
    for place in PLACES {
        let Ok(dir) = rustix::fs::open(place, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        match attempt::make_node(dir.as_fd(), &name, makedev(major, minor)) {
            Ok(()) => {
                let opened = if open { opened(&dir, &name) } else { Ok(()) };
                rustix::fs::unlinkat(&dir, &name, rustix::fs::AtFlags::empty())?;
                return opened.map(|()| Behind::Something);
            }
            // What a read-only place says is only the answer where there is no other.
            Err(errno) if last == Errno::NOENT || errno != Errno::ROFS => last = errno,
            Err(_) => {}
        }
    }
    Err(last)
}

fn opened(dir: &OwnedFd, name: &CString) -> Result<(), Errno> {
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map(drop)
}

pub(super) fn node(around: &Around) -> Reach {
    with_node(around, false)
}

/// By the name that it has in /dev, or by one that is made.
pub(super) fn disk(around: &Around) -> Reach {
    let Some((major, minor)) = around.disk else { return Ok(Behind::Untried) };
    let number = makedev(major, minor);
    let names = fs::read_dir("/dev").into_iter().flatten().flatten();
    let known = names.map(|entry| entry.path()).find(|path| {
        fs::symlink_metadata(path).is_ok_and(|of| of.file_type().is_block_device() && of.rdev() == number)
    });
    match known {
        Some(path) => File::open(path).map(|_| Behind::Something).map_err(|error| errno(&error)),
        None => with_node(around, true),
    }
}

pub(super) fn kvm(_: &Around) -> Reach {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").map_err(|error| errno(&error))?;
    attempt::make_machine(kvm.as_fd())?;
    Ok(Behind::Something)
}

/// The namespaces of this process, by the names of /proc/self/ns.
pub(super) fn namespaces() -> BTreeMap<String, u64> {
    let of = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name, fs::metadata(entry.path()).ok()?.ino()))
    };
    fs::read_dir("/proc/self/ns").into_iter().flatten().flatten().filter_map(of).collect()
}

/// Names below /dev of what is a device, in order.
pub(super) fn devices() -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![Path::new("/dev").to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            // A node that is bound over a file is a file to readdir(3).
            let Ok(kind) = fs::symlink_metadata(entry.path()).map(|of| of.file_type()) else { continue };
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if (kind.is_block_device() || kind.is_char_device()) && found.len() < DEVICES {
                let path = entry.path();
                let name = path.strip_prefix("/dev").unwrap_or(&path).display().to_string();
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// Device numbers of the virtio bus, in order; none where /sys is not there.
pub(super) fn virtio() -> Vec<u32> {
    let of = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("device")).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let mut found: Vec<u32> =
        fs::read_dir("/sys/bus/virtio/devices").into_iter().flatten().flatten().filter_map(of).collect();
    found.sort_unstable();
    found
}
