//! A loop device: a block device whose blocks are a file's. Only for file systems that the kernel
//! cannot mount from the file itself.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Others may take a free device before us; give up after that many times.
const TRIES: usize = 64;

/// A device that goes away with its last user: this value, or the mount made of it.
#[derive(Debug)]
pub struct LoopDevice {
    path: String,
    // Held open until the mount holds it.
    _device: OwnedFd,
}

impl LoopDevice {
    /// Makes one for `file`.
    ///
    /// # Errors
    /// The kernel has no loop devices, gives none, or this process may not make one.
    pub fn attach(file: &File, read_only: bool) -> Result<LoopDevice, Errno> {
        let control =
            rustix::fs::openat(CWD, "/dev/loop-control", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        for _ in 0..TRIES {
            let number = free_number(control.as_fd())?;
            let path = format!("/dev/loop{number}");
            let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
            let device = rustix::fs::openat(CWD, &path, access | OFlags::CLOEXEC, Mode::empty())?;
            match configure(device.as_fd(), file.as_fd(), read_only) {
                Err(Errno::BUSY) => {}
                other => return other.map(|()| LoopDevice { path, _device: device }),
            }
        }
        Err(Errno::BUSY)
    }

    /// Its name in /dev.
    pub fn path(&self) -> &str {
        &self.path
    }
}

fn free_number(control: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: this ioctl takes no argument and gives a number.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    if number < 0 { Err(last_error()) } else { Ok(number) }
}

fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, read_only: bool) -> Result<(), Errno> {
    // SAFETY: all members are integers or arrays of them, for which zero is a value.
    let mut config: Config = unsafe { std::mem::zeroed() };
    config.fd = file.as_raw_fd() as u32;
    config.info.flags = LO_FLAGS_AUTOCLEAR | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    // SAFETY: the argument is a whole loop_config, valid for the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result < 0 { Err(last_error()) } else { Ok(()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Info>(), 232);
        assert_eq!(size_of::<Config>(), 304);
    }
}
