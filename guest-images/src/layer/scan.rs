//! Reads layers once, for their entries and digests. All of them are counted together, so that no image,
//! however many layers it has, takes more than the stated limits.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::stream::{Layer, Packing};
use super::tar::{Archive, Entry, TarError, What};
use super::{LayerError, MAX_ENTRIES, MAX_LAYERS, MAX_NAMES, MAX_UNPACKED};
use crate::draft;
use crate::erofs::WriteError;

/// What is in layers, and what each unpacks to; without their data.
#[derive(Debug)]
pub struct Scanned {
    pub(super) entries: Vec<Vec<Entry>>,
    pub(super) diff_ids: Vec<String>,
    /// What packed layers unpack to.
    pub(super) unpacked: Vec<Option<File>>,
}

impl Scanned {
    /// Reads layers, the lowest first; as many at once as there are processors. Packed ones are unpacked once: what
    /// comes out is kept in nameless files in `scratch`, until the image is made of it.
    ///
    /// # Errors
    /// [`LayerError`] names the layer.
    pub fn read(layers: &[Layer], scratch: &Path) -> Result<Scanned, LayerError> {
        Scanned::within(layers, scratch, Limits::ALL)
    }

    pub(super) fn within(layers: &[Layer], scratch: &Path, limits: Limits) -> Result<Scanned, LayerError> {
        if layers.len() > MAX_LAYERS {
            return Err(LayerError::TooMuch { limit: "1024 layers" });
        }
        let mut all = Scanned { entries: Vec::new(), diff_ids: Vec::new(), unpacked: Vec::new() };
        for one in scan_all(layers, scratch, Total::new(limits))? {
            all.entries.push(one.entries);
            all.diff_ids.push(one.diff_id);
            all.unpacked.push(one.unpacked);
        }
        Ok(all)
    }

    /// For each layer the SHA-256 of its unpacked stream, as hexadecimal digits.
    pub fn diff_ids(&self) -> &[String] {
        &self.diff_ids
    }

    /// Whether a layer has an entry of this name (without a slash, in the root directory).
    pub fn has(&self, name: &str) -> bool {
        let same = |entry: &Entry| {
            let path = &entry.path[..];
            let path = path.strip_prefix(b"./").unwrap_or(path);
            path.strip_suffix(b"/").unwrap_or(path) == name.as_bytes()
        };
        self.entries.iter().flatten().any(same)
    }

    /// Whether there is no file, directory or other thing in any layer beside the root itself.
    pub fn is_empty(&self) -> bool {
        let is_root = |entry: &Entry| entry.path.iter().all(|byte| matches!(byte, b'.' | b'/'));
        self.entries.iter().flatten().all(is_root)
    }
}

type Outcome = Result<One, LayerError>;

/// One layer.
struct One {
    entries: Vec<Entry>,
    diff_id: String,
    unpacked: Option<File>,
}

/// What all layers of an image may have together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub entries: u64,
    pub names: u64,
    pub unpacked: u64,
}

impl Limits {
    /// Those that are stated.
    pub(super) const ALL: Limits = Limits { entries: MAX_ENTRIES, names: MAX_NAMES, unpacked: MAX_UNPACKED };
}

/// What is counted over all layers.
struct Total {
    limits: Limits,
    entries: AtomicU64,
    names: AtomicU64,
    bytes: AtomicU64,
}

impl Total {
    fn new(limits: Limits) -> Total {
        let [entries, names, bytes] = [const { AtomicU64::new(0) }; 3];
        Total { limits, entries, names, bytes }
    }

    fn add(to: &AtomicU64, more: u64, most: u64, limit: &'static str) -> Result<(), LayerError> {
        match to.fetch_add(more, Ordering::Relaxed) + more > most {
            true => Err(LayerError::TooMuch { limit }),
            false => Ok(()),
        }
    }

    fn add_entry(&self, entry: &Entry) -> Result<(), LayerError> {
        let rest = match &entry.what {
            What::HardLink(target) | What::Link(target) => target.len(),
            What::File(contents) => 16 * contents.sparse.as_ref().map_or(0, Vec::len),
            _ => 0,
        };
        let xattrs: usize = entry.metadata.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        let bytes = (entry.path.len() + rest + xattrs) as u64;
        Total::add(&self.entries, 1, self.limits.entries, "4194304 entries")?;
        Total::add(&self.names, bytes, self.limits.names, "1 GiB of names and attributes")
    }
}

/// The entries of all layers; as many layers at once as there are processors.
fn scan_all(layers: &[Layer], scratch: &Path, total: Total) -> Result<Vec<One>, LayerError> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Option<Outcome>>> = Mutex::new(layers.iter().map(|_| None).collect());
    let work = || {
        while let Some((index, layer)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            layers.get(index).map(|layer| (index, layer))
        } {
            let scanned = scan(layer, scratch, &total);
            let failed = scanned.is_err();
            found.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(scanned);
            if failed {
                // Nobody begins another one.
                next.store(layers.len(), Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get()).min(layers.len());
    std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A layer that was not begun stands behind one that failed, or beside it.
    let (whole, failed): (Vec<_>, Vec<_>) = found.into_iter().flatten().partition(Result::is_ok);
    match failed.into_iter().next() {
        Some(failed) => failed.map(|one| vec![one]),
        None => whole.into_iter().collect(),
    }
}

fn scan(layer: &Layer, scratch: &Path, total: &Total) -> Result<One, LayerError> {
    let read = |source| LayerError::Read { layer: layer.name.clone(), source };
    let source = layer.open().map_err(read)?;
    let keeper = match layer.packing().map_err(read)? {
        Packing::Plain => None,
        Packing::Gzip | Packing::Zstd => Some(Keeper::new(scratch).map_err(not_written)?),
    };
    let mut archive = Archive::new(Hashed { source, hash: Sha256::new(), total, keeper, stopped: None });
    let mut entries = Vec::new();
    loop {
        match archive.next_entry() {
            Ok(Some(entry)) => {
                total.add_entry(&entry)?;
                entries.push(entry);
            }
            Ok(None) => break,
            Err(error) => {
                return Err(archive.into_inner().stopped.unwrap_or_else(|| damaged(layer, error)));
            }
        }
    }
    // The digest is of the whole stream, with what fills it up behind the end.
    let mut rest = archive.into_inner();
    if let Err(source) = io::copy(&mut rest, &mut io::sink()) {
        return Err(rest.stopped.unwrap_or_else(|| read(source)));
    }
    let unpacked = rest.keeper.map(Keeper::finish).transpose().map_err(not_written)?;
    let found = crate::hex(&rest.hash.finalize());
    match &layer.diff_id {
        Some(expected) if *expected != found => {
            Err(LayerError::Digest { layer: layer.name.clone(), expected: expected.clone(), found })
        }
        _ => Ok(One { entries, diff_id: found, unpacked }),
    }
}

pub(super) const UNPACKED: &str = "256 GiB of unpacked data";

pub(super) fn damaged(layer: &Layer, source: TarError) -> LayerError {
    LayerError::Tar { layer: layer.name.clone(), source }
}

fn not_written(source: io::Error) -> LayerError {
    LayerError::Write(WriteError::Image(source))
}

/// Bytes on their way, hashed, counted, and kept if need be.
struct Hashed<'a, R> {
    source: R,
    hash: Sha256,
    total: &'a Total,
    keeper: Option<Keeper>,
    /// Why reading ended, where that was not the source's fault.
    stopped: Option<LayerError>,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        let bytes = &into[..count];
        self.hash.update(bytes);
        let counted = Total::add(&self.total.bytes, count as u64, self.total.limits.unpacked, UNPACKED);
        let kept =
            |()| self.keeper.as_mut().map_or(Ok(()), |keeper| keeper.write(bytes)).map_err(not_written);
        match counted.and_then(kept) {
            Ok(()) => Ok(count),
            Err(why) => {
                self.stopped = Some(why);
                Err(io::ErrorKind::FileTooLarge.into())
            }
        }
    }
}

/// Writes a stream to a nameless file.
struct Keeper {
    file: File,
    written: u64,
    pending: Vec<u8>,
}

impl Keeper {
    const PENDING: usize = 1 << 20;

    fn new(scratch: &Path) -> io::Result<Keeper> {
        Ok(Keeper { file: draft::nameless(scratch)?, written: 0, pending: Vec::with_capacity(Self::PENDING) })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.pending.len() + bytes.len() > Self::PENDING {
            self.flush()?;
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.written)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<File> {
        self.flush()?;
        Ok(self.file)
    }
}
