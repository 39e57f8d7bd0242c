//! Layers of an image: what any bytes become is what they say, read back from the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hv_image::layer::merge::{Body, Merged, Node};
use hv_image::layer::tar::{Archive, Contents};
use hv_image::layer::{Layer, flatten};

use crate::devices::memory_file;
use crate::erofs::{Found, Image};
use crate::input::Input;

/// Larger files than this are not read back.
const MAX_IMAGE: u64 = 32 << 20;
/// A tar's block.
const BLOCK: usize = 512;

/// Tar streams, one over the other: the number of blocks of each but the last is in front of it.
pub fn layers(data: &[u8]) {
    let mut input = Input(data);
    let mut tars: Vec<Vec<u8>> = (0..input.u8() % 4)
        .map(|_| {
            let blocks = usize::from(input.u8());
            with_sums(input.bytes(BLOCK * blocks))
        })
        .collect();
    tars.push(with_sums(input.0));
    let tars: Vec<&[u8]> = tars.iter().map(Vec::as_slice).collect();
    let layers: Vec<Layer> = tars
        .iter()
        .map(|tar| Layer { name: "layer".into(), blob: memory_file("layer", tar), diff_id: None })
        .collect();
    let made = flatten(&layers, Path::new("/dev/shm"));
    let Some(merged) = merge(&tars) else {
        assert!(made.is_err(), "what cannot be merged became an image");
        return;
    };
    let Ok(made) = made else { return };
    let length = made.file.metadata().expect("an open file has metadata").len();
    if length > MAX_IMAGE || sizes(&merged).any(|size| size > MAX_IMAGE) {
        return;
    }
    let found = Image::list(&bytes_of(&made.file, length));
    compare(&expected(&merged, &tars), &found);
}

/// The same with the sums that headers must have: without them, hardly anything that was changed would be read.
fn with_sums(tar: &[u8]) -> Vec<u8> {
    let mut tar = tar.to_vec();
    for header in tar.chunks_exact_mut(BLOCK).filter(|block| block[257..].starts_with(b"ustar")) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// None: a packed stream, or one that cannot be.
fn merge(tars: &[&[u8]]) -> Option<Merged> {
    let mut merged = Merged::default();
    for tar in tars {
        if !matches!(hv_image::layer::Packing::of(tar), hv_image::layer::Packing::Plain) {
            return None;
        }
        let mut archive = Archive::new(*tar);
        let mut entries = Vec::new();
        while let Some(entry) = archive.next_entry().ok()? {
            entries.push(entry);
        }
        merged.apply(entries).ok()?;
    }
    Some(merged)
}

fn sizes(merged: &Merged) -> impl Iterator<Item = u64> {
    merged.reachable().into_iter().filter_map(|node| match &merged.node(node).1 {
        Body::File(_, contents) => Some(contents.size),
        _ => None,
    })
}

fn bytes_of(file: &File, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).expect("the image can be read");
    bytes
}

/// Every path with its node, and how many names the node has.
fn expected(merged: &Merged, tars: &[&[u8]]) -> BTreeMap<Vec<u8>, (Node, Found)> {
    let (mut all, mut todo) = (BTreeMap::new(), vec![(Vec::new(), Merged::ROOT)]);
    let mut names: BTreeMap<Node, u32> = BTreeMap::new();
    while let Some((path, node)) = todo.pop() {
        let (metadata, body) = merged.node(node);
        let device = |major: u32, minor: u32| {
            ((minor & 0xff) | major << 8 | (minor & !0xff) << 12).to_le_bytes().to_vec()
        };
        let (kind, contents) = match body {
            Body::Directory(below) => {
                for (name, node) in below {
                    let path =
                        if path.is_empty() { name.to_vec() } else { [&path, &b"/"[..], name].concat() };
                    todo.push((path, *node));
                }
                (4, Vec::new())
            }
            Body::File(layer, contents) => (8, data(tars[*layer], contents)),
            Body::Link(target) => (10, target.clone()),
            Body::Character(major, minor) => (2, device(*major, *minor)),
            Body::Block(major, minor) => (6, device(*major, *minor)),
            Body::Fifo => (1, vec![0; 4]),
        };
        *names.entry(node).or_default() += 1;
        let found = Found {
            mode: kind << 12 | metadata.permissions,
            owner: (metadata.uid, metadata.gid),
            time: (metadata.seconds, metadata.nanoseconds),
            contents,
            xattrs: metadata.xattrs.clone(),
            number: 0,
            links: 0,
        };
        all.insert(path, (node, found));
    }
    for (node, found) in all.values_mut() {
        found.links = names[node];
    }
    all
}

fn data(tar: &[u8], contents: &Contents) -> Vec<u8> {
    let mut all = vec![0; contents.size as usize];
    let mut source = &tar[contents.at as usize..];
    match &contents.sparse {
        None => source.read_exact(&mut all).expect("the archive was read to its end"),
        Some(segments) => {
            for segment in segments {
                let into = &mut all[segment.offset as usize..][..segment.length as usize];
                source.read_exact(into).expect("the archive was read to its end");
            }
        }
    }
    all
}

fn compare(expected: &BTreeMap<Vec<u8>, (Node, Found)>, found: &BTreeMap<Vec<u8>, Found>) {
    assert!(expected.keys().eq(found.keys()), "other names");
    let mut inodes: BTreeMap<u64, Node> = BTreeMap::new();
    for ((path, (node, expected)), found) in expected.iter().zip(found.values()) {
        let name = String::from_utf8_lossy(path);
        assert_eq!(*inodes.entry(found.number).or_insert(*node), *node, "{name}: another file's inode");
        let is_directory = expected.mode >> 12 == 4;
        // What EROFS has no prefix for is left out.
        let known = |name: &[u8]| {
            [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"]
                .iter()
                .any(|start| name.starts_with(start))
        };
        assert!(found.xattrs.iter().all(|(name, value)| expected.xattrs.get(name) == Some(value)), "{name}");
        assert!(found.xattrs.len() <= expected.xattrs.keys().filter(|name| known(name)).count(), "{name}");
        let links = if is_directory { found.links } else { expected.links };
        let expected =
            Found { number: found.number, links, xattrs: found.xattrs.clone(), ..expected.clone() };
        assert!(expected == *found, "{name}: other than what the layers say");
    }
}
