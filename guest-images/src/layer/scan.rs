//! Reads layers once, for their entries and digests. All of them are counted together, so that no image,
//! however many layers it has, takes more than the stated limits.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::stream::Layer;
use super::tar::{Archive, Entry, TarError, What};
use super::{LayerError, MAX_ENTRIES, MAX_LAYERS, MAX_NAMES, MAX_UNPACKED};

/// What is in layers, and what each unpacks to; without their data.
#[derive(Debug)]
pub struct Scanned {
    pub(super) entries: Vec<Vec<Entry>>,
    pub(super) diff_ids: Vec<String>,
}

impl Scanned {
    /// Reads layers, the lowest first; as many at once as there are processors.
    ///
    /// # Errors
    /// [`LayerError`] names the layer.
    pub fn read(layers: &[Layer]) -> Result<Scanned, LayerError> {
        Scanned::within(layers, Limits::ALL)
    }

    pub(super) fn within(layers: &[Layer], limits: Limits) -> Result<Scanned, LayerError> {
        if layers.len() > MAX_LAYERS {
            return Err(LayerError::TooMuch { limit: "1024 layers" });
        }
        let (entries, diff_ids) = scan_all(layers, Total::new(limits))?.into_iter().unzip();
        Ok(Scanned { entries, diff_ids })
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

type One = Result<(Vec<Entry>, String), LayerError>;

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
fn scan_all(layers: &[Layer], total: Total) -> Result<Vec<(Vec<Entry>, String)>, LayerError> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Option<One>>> = Mutex::new(layers.iter().map(|_| None).collect());
    let work = || {
        while let Some((index, layer)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            layers.get(index).map(|layer| (index, layer))
        } {
            let scanned = scan(layer, &total);
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

fn scan(layer: &Layer, total: &Total) -> One {
    let source = layer.open().map_err(|source| LayerError::Read { layer: layer.name.clone(), source })?;
    let mut archive = Archive::new(Hashed { source, hash: Sha256::new(), total, exceeded: false });
    let mut entries = Vec::new();
    loop {
        match archive.next_entry() {
            Ok(Some(entry)) => {
                total.add_entry(&entry)?;
                entries.push(entry);
            }
            Ok(None) => break,
            Err(error) => {
                return Err(match archive.into_inner().exceeded {
                    true => LayerError::TooMuch { limit: UNPACKED },
                    false => damaged(layer, error),
                });
            }
        }
    }
    // The digest is of the whole stream, with what fills it up behind the end.
    let mut rest = archive.into_inner();
    if let Err(source) = io::copy(&mut rest, &mut io::sink()) {
        return Err(match rest.exceeded {
            true => LayerError::TooMuch { limit: UNPACKED },
            false => LayerError::Read { layer: layer.name.clone(), source },
        });
    }
    let found = crate::hex(&rest.hash.finalize());
    match &layer.diff_id {
        Some(expected) if *expected != found => {
            Err(LayerError::Digest { layer: layer.name.clone(), expected: expected.clone(), found })
        }
        _ => Ok((entries, found)),
    }
}

pub(super) const UNPACKED: &str = "256 GiB of unpacked data";

pub(super) fn damaged(layer: &Layer, source: TarError) -> LayerError {
    LayerError::Tar { layer: layer.name.clone(), source }
}

/// Bytes on their way, hashed and counted.
struct Hashed<'a, R> {
    source: R,
    hash: Sha256,
    total: &'a Total,
    exceeded: bool,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        self.hash.update(&into[..count]);
        if Total::add(&self.total.bytes, count as u64, self.total.limits.unpacked, UNPACKED).is_err() {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(count)
    }
}
