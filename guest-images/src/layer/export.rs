//! Layers become one tar: what an unpacked image would be, without unpacking it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use super::LayerError;
use super::merge::{Body, Merged, Node, Refused};
use super::scan::{Scanned, damaged};
use super::stream::Layer;
use super::tar::{Archive, Contents};
use super::write::{Body as Entry, Writer};
use crate::erofs::Metadata;

/// Writes the merged tree of these layers, the lowest first, as a tar (pax, where ustar has no room): directories
/// first, then each file once, in the order in which the layers have their data, then all other names. The same layers
/// give the same bytes. Packed layers are unpacked once, to `scratch`.
///
/// # Errors
/// [`LayerError`] names the layer and the entry; or `to` cannot be written.
pub fn export(layers: &[Layer], scratch: &Path, to: impl Write) -> Result<(), LayerError> {
    let mut merged = Merged::default();
    for (layer, entries) in layers.iter().zip(Scanned::read(layers, scratch)?.entries) {
        merged.apply(entries).map_err(|Refused { path, error }| LayerError::Entry {
            layer: layer.name.clone(),
            name: String::from_utf8_lossy(&path).escape_debug().collect(),
            source: error,
        })?;
    }
    let paths = paths(&merged);
    let mut out = Writer::new(to);
    directories(&mut out, &merged, &paths).map_err(LayerError::Output)?;
    files(layers, &merged, &paths, &mut out)?;
    let ended = others(&mut out, &merged, &paths).and_then(|()| out.finish()?.flush());
    ended.map_err(LayerError::Output)
}

/// All names of all nodes; each directory stands before what is in it.
fn paths(merged: &Merged) -> Vec<(Vec<u8>, Node)> {
    let mut all = Vec::new();
    let mut todo = vec![(Vec::new(), Merged::ROOT)];
    while let Some((path, node)) = todo.pop() {
        if let Body::Directory(names) = &merged.node(node).1 {
            for (name, child) in names.iter().rev() {
                let path = [&path[..], if path.is_empty() { b"" } else { b"/" }, name].concat();
                todo.push((path, *child));
            }
        }
        all.push((path, node));
    }
    all
}

/// The data of all files, in the order of the layers.
fn files(
    layers: &[Layer],
    merged: &Merged,
    paths: &[(Vec<u8>, Node)],
    out: &mut Writer<impl Write>,
) -> Result<(), LayerError> {
    let mut first: HashMap<Node, &[u8]> = HashMap::new();
    for (path, node) in paths {
        first.entry(*node).or_insert(path);
    }
    let mut wanted: Vec<(usize, &Contents, Node)> = first
        .keys()
        .filter_map(|node| match &merged.node(*node).1 {
            Body::File(layer, contents) => Some((*layer, contents, *node)),
            _ => None,
        })
        .collect();
    wanted.sort_unstable_by_key(|(layer, contents, node)| (*layer, contents.at, *node));
    for (index, layer) in layers.iter().enumerate() {
        let of_layer = wanted.iter().filter(|(layer, ..)| *layer == index);
        let mut archive: Option<Archive<Box<dyn Read + Send + '_>>> = None;
        for (_, contents, node) in of_layer {
            let archive = match &mut archive {
                Some(archive) => archive,
                none => {
                    let source = layer.open();
                    let source =
                        source.map_err(|source| LayerError::Read { layer: layer.name.clone(), source })?;
                    none.insert(Archive::new(source))
                }
            };
            let stored = match &contents.sparse {
                Some(segments) => segments.iter().map(|segment| segment.length).sum(),
                None => contents.size,
            };
            let data = archive.data_at(contents.at, stored).map_err(|error| damaged(layer, error))?;
            let (path, metadata) = (first[node], &merged.node(*node).0);
            file(out, path, metadata, contents, data).map_err(LayerError::Output)?;
        }
    }
    Ok(())
}

/// One file's header and data, holes as zeros.
fn file(
    out: &mut Writer<impl Write>,
    path: &[u8],
    metadata: &Metadata,
    contents: &Contents,
    mut data: impl Read,
) -> io::Result<()> {
    out.entry(path, metadata, Entry::File(contents.size))?;
    let Some(segments) = &contents.sparse else { return out.data(contents.size, data) };
    let mut at = 0;
    for segment in segments {
        out.part(segment.offset - at, io::repeat(0))?;
        out.part(segment.length, &mut data)?;
        at = segment.offset + segment.length;
    }
    out.part(contents.size - at, io::repeat(0))?;
    out.pad(contents.size)
}

fn directories(out: &mut Writer<impl Write>, merged: &Merged, paths: &[(Vec<u8>, Node)]) -> io::Result<()> {
    for (path, node) in paths {
        if let (metadata, Body::Directory(_)) = merged.node(*node) {
            out.entry(if path.is_empty() { b"." } else { path }, metadata, Entry::Directory)?;
        }
    }
    Ok(())
}

/// Links, devices and pipes, and further names of files.
fn others(out: &mut Writer<impl Write>, merged: &Merged, paths: &[(Vec<u8>, Node)]) -> io::Result<()> {
    let mut known: HashMap<Node, &[u8]> = HashMap::new();
    for (path, node) in paths {
        let (metadata, body) = merged.node(*node);
        let entry = match (known.get(node), body) {
            (Some(target), _) => Entry::HardLink(target),
            (None, Body::Directory(_)) => continue,
            (None, Body::File(..)) => {
                known.insert(*node, path);
                continue;
            }
            (None, Body::Link(target)) => Entry::Link(target),
            (None, Body::Character(major, minor)) => Entry::Character(*major, *minor),
            (None, Body::Block(major, minor)) => Entry::Block(*major, *minor),
            (None, Body::Fifo) => Entry::Fifo,
        };
        out.entry(path, metadata, entry)?;
        known.entry(*node).or_insert(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tar::What;

    fn read(bytes: &[u8]) -> Vec<(Vec<u8>, Metadata, What)> {
        let mut archive = Archive::new(bytes);
        let mut all = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            all.push((entry.path, entry.metadata, entry.what));
        }
        all
    }

    fn layer(bytes: &[u8]) -> Layer {
        let file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut &file, bytes).unwrap();
        Layer { name: "test".into(), blob: file, diff_id: None }
    }

    #[test]
    fn what_ustar_has_no_room_for_reads_back() {
        let mut out = Writer::new(Vec::new());
        let long = [b'n'; 150];
        let odd = Metadata {
            permissions: 0o4755,
            uid: 3_000_000,
            gid: 4_000_000_000,
            seconds: -5,
            nanoseconds: 250_000_000,
            xattrs: [(b"security.capability".to_vec(), vec![0, 1, b'\n', 255])].into(),
        };
        let data = Contents { size: 3, at: 0, sparse: None };
        file(&mut out, &long, &odd, &data, &b"abc"[..]).unwrap();
        out.entry(b"link", &odd, Entry::Link(&long)).unwrap();
        let found = read(&out.finish().unwrap());
        assert_eq!((&found[0].0[..], &found[0].1), (&long[..], &odd));
        assert_eq!(found[1].2, What::Link(long.to_vec()));
    }

    #[test]
    fn layers_come_out_as_one_and_come_out_of_that_the_same() {
        let mut lower = Writer::new(Vec::new());
        let plain = Metadata { permissions: 0o644, ..Metadata::default() };
        let dir = Metadata { permissions: 0o755, ..Metadata::default() };
        let data = |size| Contents { size, at: 0, sparse: None };
        lower.entry(b"d", &dir, Entry::Directory).unwrap();
        file(&mut lower, b"d/old", &plain, &data(3), &b"old"[..]).unwrap();
        file(&mut lower, b"d/kept", &plain, &data(4), &b"kept"[..]).unwrap();
        lower.entry(b"null", &plain, Entry::Character(1, 3)).unwrap();
        let mut upper = Writer::new(Vec::new());
        file(&mut upper, b"d/.wh.old", &plain, &data(0), &b""[..]).unwrap();
        upper.entry(b"again", &plain, Entry::HardLink(b"d/kept")).unwrap();
        let layers = [layer(&lower.finish().unwrap()), layer(&upper.finish().unwrap())];
        let mut first = Vec::new();
        export(&layers, &std::env::temp_dir(), &mut first).unwrap();
        let names: Vec<_> =
            read(&first).into_iter().map(|(path, ..)| String::from_utf8(path).unwrap()).collect();
        assert_eq!(names, ["./", "d/", "again", "d/kept", "null"]);
        let mut second = Vec::new();
        export(&[layer(&first)], &std::env::temp_dir(), &mut second).unwrap();
        assert_eq!(first, second);
    }
}
