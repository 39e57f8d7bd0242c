//! Opens a kernel: an ELF as it is, a bzImage unpacked once and cached.
//!
//! Unpacking on the host saves every guest the most expensive part of its boot, and lets guests share
//! the kernel's pages through the host's page cache.

mod bzimage;
pub(crate) mod cache;
pub(crate) mod elf;
mod error;
mod scan;
mod unpack;

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use sha2::{Digest, Sha256};

use bzimage::{NotBzImage, SetupHeader};
use cache::{Cache, Record, Stamp};
use elf::NotElf;
pub use error::KernelError;
use error::{Doing, Failed};
use unpack::Unpacked;

/// The largest kernel file, packed or not, in bytes.
pub const MAX_SIZE: u64 = 512 << 20;

/// A kernel that a monitor can load.
#[derive(Debug)]
pub struct Kernel {
    /// Where the user has it; only for messages and to find what lies beside it.
    pub path: PathBuf,
    /// A 64-bit x86 ELF, opened for reading only. Bytes behind its last segment mean nothing.
    pub elf: File,
    /// Its release, as `uname -r` prints it.
    pub version: Option<String>,
    /// SHA-256 of the file at `path`, hexadecimal.
    pub digest: String,
    config: Config,
    unpacked: bool,
}

#[derive(Debug)]
enum Config {
    None,
    Text(String),
    Cached(PathBuf),
}

impl Kernel {
    /// Whether `elf` is a copy, unpacked from the file at `path`.
    pub fn is_unpacked_copy(&self) -> bool {
        self.unpacked
    }

    /// The configuration that the kernel carries inside (CONFIG_IKCONFIG), as text.
    ///
    /// # Errors
    /// The cached copy cannot be read.
    pub fn config(&self) -> Result<Option<String>, KernelError> {
        match &self.config {
            Config::None => Ok(None),
            Config::Text(text) => Ok(Some(text.clone())),
            Config::Cached(path) => match std::fs::read_to_string(path) {
                Ok(text) => Ok(Some(text)),
                Err(source) => Err(Failed::Io(Doing::Read, source).at(path)),
            },
        }
    }
}

/// Opens the kernel at `path`. What was unpacked is kept in `cache` (made if need be), and found there
/// by the next start without reading the kernel again. A cache that cannot be written to costs time
/// and memory, and is no error.
///
/// # Errors
/// [`KernelError`] says what the file is instead, or what is wrong with it.
pub fn open(path: &Path, cache: &Path) -> Result<Kernel, KernelError> {
    open_in(path, &Cache(cache)).map_err(|failed| failed.at(path))
}

fn open_in(path: &Path, cache: &Cache<'_>) -> Result<Kernel, Failed> {
    let file = open_regular(path)?;
    let stamp = Stamp::of(&file).map_err(Failed::read)?;
    if let Some(digest) = cache.digest(&stamp)
        && let Some(record) = cache.record(&digest)
        && let Some(kernel) = recall(path, &file, &digest, &record, cache)
    {
        return Ok(kernel);
    }
    let length = file.metadata().map_err(Failed::read)?.len();
    let setup = recognise(&file, length)?;
    let digest = digest_of(&file).map_err(Failed::read)?;
    // A file that was changed meanwhile must not be remembered under its new stamp.
    if Stamp::of(&file).map_err(Failed::read)? != stamp {
        return Err(Failed::Changed);
    }
    let kernel = match setup {
        None => open_elf(path, file, digest, length, cache)?,
        Some(setup) => open_packed(path, &file, digest, &setup, cache)?,
    };
    // Not remembered: the next start hashes again.
    let _ = cache.remember(&stamp, &kernel.digest);
    Ok(kernel)
}

/// Opens what the cache has, unless it is missing or has been touched.
fn recall(path: &Path, file: &File, digest: &str, record: &Record, cache: &Cache<'_>) -> Option<Kernel> {
    let elf = match &record.unpacked {
        None => file.try_clone().ok()?,
        Some(unpacked) => {
            let elf = File::open(cache.elf(digest)).ok()?;
            (Stamp::of(&elf).ok()? == unpacked.stamp).then_some(elf)?
        }
    };
    let config = match record.has_config {
        true => Config::Cached(cache.config(digest)),
        false => Config::None,
    };
    let (version, unpacked) = (record.release.clone(), record.unpacked.is_some());
    Some(Kernel { path: path.into(), elf, version, digest: digest.into(), config, unpacked })
}

fn open_elf(
    path: &Path,
    file: File,
    digest: String,
    length: u64,
    cache: &Cache<'_>,
) -> Result<Kernel, Failed> {
    let found = scan::scan(&file, length).map_err(Failed::read)?;
    let _ = save_record(
        cache,
        &digest,
        &Record::new(found.version.clone(), found.config.is_some(), None),
        &found,
    );
    let config = found.config.map_or(Config::None, Config::Text);
    Ok(Kernel { path: path.into(), elf: file, version: found.version, digest, config, unpacked: false })
}

fn open_packed(
    path: &Path,
    file: &File,
    digest: String,
    setup: &SetupHeader,
    cache: &Cache<'_>,
) -> Result<Kernel, Failed> {
    if let Some(record) = cache.record(&digest).and_then(|record| renew(record, &digest, cache))
        && let Some(kernel) = recall(path, file, &digest, &record, cache)
    {
        return Ok(kernel);
    }
    let Unpacked { elf, length, digest: elf_digest } = unpack::unpack(file, setup, cache, &digest)?;
    let found = scan::scan(&elf, length).map_err(Failed::read)?;
    let version = setup.version.clone().or_else(|| found.version.clone());
    let stamp = Stamp::of(&elf).map_err(Failed::read)?;
    let unpacked = Some(cache::Unpacked { stamp, digest: elf_digest });
    let _ =
        save_record(cache, &digest, &Record::new(version.clone(), found.config.is_some(), unpacked), &found);
    let config = found.config.map_or(Config::None, Config::Text);
    Ok(Kernel { path: path.into(), elf, version, digest, config, unpacked: true })
}

/// The record with the stamp that the cached kernel has now, if its bytes are still the same. None: it
/// is damaged or gone, and has to be made again.
fn renew(mut record: Record, digest: &str, cache: &Cache<'_>) -> Option<Record> {
    let unpacked = record.unpacked.as_mut()?;
    let elf = File::open(cache.elf(digest)).ok()?;
    let stamp = Stamp::of(&elf).ok()?;
    if stamp != unpacked.stamp {
        if digest_of(&elf).ok()? != unpacked.digest {
            return None;
        }
        unpacked.stamp = stamp;
        let _ = cache.set_record(digest, &record);
    }
    (!record.has_config || cache.config(digest).exists()).then_some(record)
}

fn save_record(cache: &Cache<'_>, digest: &str, record: &Record, found: &scan::Findings) -> io::Result<()> {
    if let Some(config) = &found.config {
        crate::draft::write(cache.0, &cache::config_name(digest), config.as_bytes())?;
    }
    cache.set_record(digest, record)
}

fn open_regular(path: &Path) -> Result<File, Failed> {
    let found = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Failed::Io(Doing::Open, error.into()))?;
    let stat = rustix::fs::fstat(&found).map_err(|error| Failed::read(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Failed::NotAKernel("not a regular file"));
    }
    let same = format!("/proc/self/fd/{}", found.as_raw_fd());
    OpenOptions::new().read(true).open(same).map_err(|source| Failed::Io(Doing::Open, source))
}

/// None: an ELF that can be used as it is. Else a bzImage.
fn recognise(file: &File, length: u64) -> Result<Option<SetupHeader>, Failed> {
    if length == 0 {
        return Err(Failed::NotAKernel("an empty file"));
    }
    if length > MAX_SIZE {
        return Err(Failed::TooLarge);
    }
    match elf::check(file, length).map_err(Failed::read)? {
        Ok(()) => return Ok(None),
        Err(NotElf::NoMagic) => {}
        Err(not) => return Err(not.into()),
    }
    let mut head = vec![0; bzimage::HEAD];
    let got = read_start(file, &mut head).map_err(Failed::read)?;
    match SetupHeader::parse(&head[..got], length) {
        Ok(setup) => Ok(Some(setup)),
        Err(NotBzImage::NoHeader) => Err(error::name(&head[..got])),
        Err(NotBzImage::Old) => Err(Failed::NotAKernel("a kernel from before Linux 3.8")),
        Err(NotBzImage::Bits32) => Err(Failed::Machine("32-bit processors")),
        Err(NotBzImage::Truncated) => Err(Failed::Truncated),
    }
}

/// Fills as much of `into` as the file has bytes at its start.
fn read_start(file: &File, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// SHA-256 of a whole file, hexadecimal.
fn digest_of(file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut stream = bzimage::stream(file, 0..u64::MAX);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(crate::hex(&hash.finalize())),
            Ok(count) => hash.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
