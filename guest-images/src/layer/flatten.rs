//! Layers become one EROFS file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::merge::{Body, Merged, Node, Refused};
use super::scan::{Scanned, UNPACKED, damaged};
use super::stream::{Layer, plain};
use super::tar::{Archive, Contents, TarError};
use super::{LayerError, MAX_UNPACKED};
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
    Scanned::read(layers, scratch)?.flatten(layers, scratch)
}

impl Scanned {
    /// The second half of [`flatten()`], of the layers that were read.
    ///
    /// # Errors
    /// [`LayerError`] names the layer and the entry.
    pub fn flatten(self, layers: &[Layer], scratch: &Path) -> Result<Flattened, LayerError> {
        let Scanned { entries, diff_ids, unpacked } = self;
        let mut merged = Merged::default();
        for (layer, entries) in layers.iter().zip(entries) {
            merged.apply(entries).map_err(|Refused { path, error }| LayerError::Entry {
                layer: layer.name.clone(),
                name: String::from_utf8_lossy(&path).escape_debug().collect(),
                source: error,
            })?;
        }
        let mut area = DataArea::new(scratch).map_err(LayerError::Write)?;
        area.store_equal_once();
        let nodes = merged.reachable();
        let data = store(layers, &unpacked, &merged, &nodes, &mut area)?;
        let tree = tree(&merged, &data, &mut area).map_err(LayerError::Write)?;
        let file = area.complete(&tree).map_err(LayerError::Write)?;
        Ok(Flattened { file, diff_ids, files: nodes.len() })
    }
}

/// Stores the data of all files that are left, in the order in which the layers have them.
fn store(
    layers: &[Layer],
    unpacked: &[Option<File>],
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
        let source: Box<dyn Read + '_> = match unpacked.get(index) {
            Some(Some(file)) => Box::new(plain(file)),
            _ => layer.open().map_err(|source| LayerError::Read { layer: layer.name.clone(), source })?,
        };
        let mut archive = Archive::new(source);
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
