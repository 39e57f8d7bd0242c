//! Layers become one EROFS file.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::merge::{Body, Merged, Node, Refused};
use super::stream::Layer;
use super::tar::{Archive, Contents, Entry, TarError, What};
use super::{LayerError, MAX_ENTRIES, MAX_LAYERS, MAX_NAMES, MAX_UNPACKED};
use crate::erofs::{self, Data, DataArea, Kind, NodeId, Tree, WriteError};

/// An image's file.
#[derive(Debug)]
pub struct Flattened {
    /// A nameless file, open for reading and writing.
    pub file: File,
    /// For each layer the SHA-256 of its unpacked stream, as hexadecimal digits.
    pub diff_ids: Vec<String>,
    /// How many files, directories and so on there are.
    pub files: usize,
}

/// Merges layers, the lowest first, into one read-only EROFS file without a name in `scratch`.
///
/// Equal layers give equal bytes. Memory is bounded by the number of entries, not by their data; equal
/// files are stored once.
///
/// # Errors
/// [`LayerError`] names the layer and the entry.
pub fn flatten(layers: &[Layer], scratch: &Path) -> Result<Flattened, LayerError> {
    if layers.len() > MAX_LAYERS {
        return Err(LayerError::TooMuch { limit: "1024 layers" });
    }
    let mut merged = Merged::default();
    let mut diff_ids = Vec::new();
    for (layer, (entries, diff_id)) in layers.iter().zip(scan_all(layers)?) {
        diff_ids.push(diff_id);
        merged.apply(entries).map_err(|Refused { path, error }| LayerError::Entry {
            layer: layer.name.clone(),
            name: String::from_utf8_lossy(&path).escape_debug().collect(),
            source: error,
        })?;
    }
    let mut area = DataArea::new(scratch).map_err(LayerError::Write)?;
    area.store_equal_once();
    let nodes = merged.reachable();
    let data = store(layers, &merged, &nodes, &mut area)?;
    let tree = tree(&merged, &data, &mut area).map_err(LayerError::Write)?;
    let file = area.complete(&tree).map_err(LayerError::Write)?;
    Ok(Flattened { file, diff_ids, files: nodes.len() })
}

type Scanned = Result<(Vec<Entry>, String), LayerError>;

/// What is counted over all layers.
#[derive(Default)]
struct Total {
    entries: AtomicU64,
    names: AtomicU64,
    bytes: AtomicU64,
}

impl Total {
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
        Total::add(&self.entries, 1, MAX_ENTRIES, "4194304 entries")?;
        Total::add(&self.names, bytes, MAX_NAMES, "1 GiB of names and attributes")
    }
}

/// The entries of all layers; as many layers at once as there are processors.
fn scan_all(layers: &[Layer]) -> Result<Vec<(Vec<Entry>, String)>, LayerError> {
    let (next, total) = (AtomicUsize::new(0), Total::default());
    let found: Mutex<Vec<Option<Scanned>>> = Mutex::new(layers.iter().map(|_| None).collect());
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

fn scan(layer: &Layer, total: &Total) -> Scanned {
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

const UNPACKED: &str = "256 GiB of unpacked data";

fn damaged(layer: &Layer, source: TarError) -> LayerError {
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
        if Total::add(&self.total.bytes, count as u64, MAX_UNPACKED, UNPACKED).is_err() {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(count)
    }
}

/// Stores the data of all files that are left, in the order in which the layers have them.
fn store(
    layers: &[Layer],
    merged: &Merged,
    nodes: &[Node],
    area: &mut DataArea,
) -> Result<HashMap<Node, Data>, LayerError> {
    let mut wanted: Vec<(usize, &Contents, Node)> = nodes
        .iter()
        .filter_map(|node| match &merged.node(*node).1 {
            Body::File(layer, contents) => Some((*layer, contents, *node)),
            _ => None,
        })
        .collect();
    wanted.sort_unstable_by_key(|(layer, contents, node)| (*layer, contents.at, *node));
    let mut stored = HashMap::with_capacity(wanted.len());
    let mut expanded = 0;
    for (index, layer) in layers.iter().enumerate() {
        let from = wanted.partition_point(|(layer, ..)| *layer < index);
        let to = wanted.partition_point(|(layer, ..)| *layer <= index);
        if from == to {
            continue;
        }
        let source = layer.open().map_err(|source| LayerError::Read { layer: layer.name.clone(), source })?;
        let mut archive = Archive::new(io::BufReader::with_capacity(64 << 10, source));
        for (_, contents, node) in &wanted[from..to] {
            let room = merged.node(*node).0.room();
            let data = read(&mut archive, contents, room, area, &mut expanded, layer)?;
            stored.insert(*node, data);
        }
    }
    Ok(stored)
}

fn read(
    archive: &mut Archive<impl Read>,
    contents: &Contents,
    room: usize,
    area: &mut DataArea,
    expanded: &mut u64,
    layer: &Layer,
) -> Result<Data, LayerError> {
    let length = |segments: &Vec<_>| segments.iter().map(|one: &super::tar::Segment| one.length).sum();
    let length = contents.sparse.as_ref().map_or(contents.size, length);
    let mut source = archive.data_at(contents.at, length).map_err(|error| damaged(layer, error))?;
    let stored = match &contents.sparse {
        None => area.store(&mut source, contents.size, room),
        Some(segments) => {
            let segments: Vec<_> = segments.iter().map(|one| (one.offset, one.length)).collect();
            *expanded += erofs::chunked_bytes(contents.size, &segments);
            if *expanded > MAX_UNPACKED {
                return Err(LayerError::TooMuch { limit: UNPACKED });
            }
            area.store_segments(&mut source, contents.size, &segments)
        }
    };
    stored.map_err(|error| match error {
        WriteError::Source(source) => LayerError::Read { layer: layer.name.clone(), source },
        WriteError::Shorter => damaged(layer, TarError::Short),
        other => LayerError::Write(other),
    })
}

/// The tree that the writer wants.
fn tree(merged: &Merged, data: &HashMap<Node, Data>, area: &mut DataArea) -> Result<Tree, WriteError> {
    let mut tree = Tree::new(merged.node(Merged::ROOT).0.clone());
    let mut known: HashMap<Node, NodeId> = HashMap::new();
    let mut todo = vec![(Merged::ROOT, Tree::ROOT)];
    while let Some((from, to)) = todo.pop() {
        let Body::Directory(names) = &merged.node(from).1 else { continue };
        for (name, node) in names {
            if let Some(same) = known.get(node) {
                tree.link(to, name, *same).map_err(WriteError::Tree)?;
                continue;
            }
            let (metadata, body) = merged.node(*node);
            let kind = match body {
                Body::Directory(_) => Kind::Directory(Default::default()),
                Body::File(..) => Kind::File(data[node].clone()),
                Body::Link(target) => {
                    Kind::Link(area.store(&mut &target[..], target.len() as u64, metadata.room())?)
                }
                Body::Character(major, minor) => Kind::Character { major: *major, minor: *minor },
                Body::Block(major, minor) => Kind::Block { major: *major, minor: *minor },
                Body::Fifo => Kind::Fifo,
            };
            let is_directory = matches!(kind, Kind::Directory(_));
            let new = tree.add(to, name, erofs::Node { metadata: metadata.clone(), kind });
            let new = new.map_err(WriteError::Tree)?;
            if is_directory {
                todo.push((*node, new));
            } else {
                known.insert(*node, new);
            }
        }
    }
    Ok(tree)
}
