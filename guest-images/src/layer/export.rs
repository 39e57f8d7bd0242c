//! Layers become one tar: what an unpacked image would be, without unpacking it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::path::Path;

use super::LayerError;
use super::merge::{Body, Merged, Node, Refused};
use super::scan::{Scanned, damaged};
use super::stream::Layer;
use super::tar::{Archive, Contents};
use crate::erofs::Metadata;

const BLOCK: u64 = 512;

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
    let mut out = Out { to };
    out.directories(&merged, &paths).map_err(LayerError::Output)?;
    files(layers, &merged, &paths, &mut out)?;
    out.others(&merged, &paths).map_err(LayerError::Output)
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
    out: &mut Out<impl Write>,
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
            out.file(path, metadata, contents, data).map_err(LayerError::Output)?;
        }
    }
    Ok(())
}

/// The archive.
struct Out<W> {
    to: W,
}

/// What a header says beside the name and the metadata.
struct Said<'a> {
    kind: u8,
    size: u64,
    link: &'a [u8],
    device: (u32, u32),
}

impl Said<'_> {
    fn of(kind: u8) -> Said<'static> {
        Said { kind, size: 0, link: b"", device: (0, 0) }
    }
}

impl<W: Write> Out<W> {
    fn directories(&mut self, merged: &Merged, paths: &[(Vec<u8>, Node)]) -> io::Result<()> {
        for (path, node) in paths {
            if let (metadata, Body::Directory(_)) = merged.node(*node) {
                let name = if path.is_empty() { b"./".to_vec() } else { [path, &b"/"[..]].concat() };
                self.header(&name, metadata, &Said::of(b'5'))?;
            }
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        contents: &Contents,
        mut data: impl Read,
    ) -> io::Result<()> {
        self.header(path, metadata, &Said { size: contents.size, ..Said::of(b'0') })?;
        let mut at = 0;
        let whole = [super::tar::Segment { offset: 0, length: contents.size }];
        for segment in contents.sparse.as_deref().unwrap_or(&whole) {
            self.zeros(segment.offset - at)?;
            if io::copy(&mut data.by_ref().take(segment.length), &mut self.to)? != segment.length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at = segment.offset + segment.length;
        }
        self.zeros(contents.size - at)?;
        self.zeros(contents.size.next_multiple_of(BLOCK) - contents.size)
    }

    /// Links, devices and pipes, further names of files, and the end.
    fn others(mut self, merged: &Merged, paths: &[(Vec<u8>, Node)]) -> io::Result<()> {
        let mut known: HashMap<Node, &[u8]> = HashMap::new();
        for (path, node) in paths {
            let (metadata, body) = merged.node(*node);
            if let Some(target) = known.get(node) {
                self.header(path, metadata, &Said { link: target, ..Said::of(b'1') })?;
                continue;
            }
            match body {
                Body::Directory(_) => continue,
                Body::File(..) => {}
                Body::Link(target) => {
                    self.header(path, metadata, &Said { link: target, ..Said::of(b'2') })?;
                }
                Body::Character(major, minor) => {
                    self.header(path, metadata, &Said { device: (*major, *minor), ..Said::of(b'3') })?;
                }
                Body::Block(major, minor) => {
                    self.header(path, metadata, &Said { device: (*major, *minor), ..Said::of(b'4') })?;
                }
                Body::Fifo => self.header(path, metadata, &Said::of(b'6'))?,
            }
            known.insert(*node, path);
        }
        self.zeros(2 * BLOCK)?;
        self.to.flush()
    }

    fn header(&mut self, path: &[u8], metadata: &Metadata, said: &Said<'_>) -> io::Result<()> {
        let mut pax = Vec::new();
        let fits = |name: &[u8]| name.len() <= 100 && name.is_ascii();
        if !fits(path) {
            record(&mut pax, b"path", path);
        }
        if !fits(said.link) {
            record(&mut pax, b"linkpath", said.link);
        }
        for (key, value, most) in [
            (&b"size"[..], said.size, 1 << 33),
            (b"uid", metadata.uid.into(), 1 << 21),
            (b"gid", metadata.gid.into(), 1 << 21),
        ] {
            if value >= most {
                record(&mut pax, key, value.to_string().as_bytes());
            }
        }
        if metadata.nanoseconds != 0 || !(0..1 << 33).contains(&metadata.seconds) {
            record(&mut pax, b"mtime", time(metadata).as_bytes());
        }
        for (name, value) in &metadata.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !pax.is_empty() {
            let size = pax.len() as u64;
            let plain = Metadata { permissions: 0o644, ..Metadata::default() };
            self.block(b"pax", &plain, &Said { size, ..Said::of(b'x') })?;
            self.to.write_all(&pax)?;
            self.zeros(size.next_multiple_of(BLOCK) - size)?;
        }
        self.block(path, metadata, said)
    }

    /// One block; what does not fit into a field is in the extended header before it.
    fn block(&mut self, path: &[u8], metadata: &Metadata, said: &Said<'_>) -> io::Result<()> {
        let mut block = [0u8; BLOCK as usize];
        let mut text = |at: usize, room: usize, bytes: &[u8]| {
            let count = bytes.len().min(room);
            block[at..at + count].copy_from_slice(&bytes[..count]);
        };
        let octal = |value: u64, digits: usize| {
            let most = (1u64 << (3 * digits as u32)) - 1;
            let value = if value > most { 0 } else { value };
            format!("{value:0digits$o}\0")
        };
        text(0, 100, path);
        text(100, 8, octal(metadata.permissions.into(), 7).as_bytes());
        text(108, 8, octal(metadata.uid.into(), 7).as_bytes());
        text(116, 8, octal(metadata.gid.into(), 7).as_bytes());
        text(124, 12, octal(said.size, 11).as_bytes());
        text(136, 12, octal(u64::try_from(metadata.seconds).unwrap_or(0), 11).as_bytes());
        text(148, 8, b"        ");
        text(156, 1, &[said.kind]);
        text(157, 100, said.link);
        text(257, 8, b"ustar\x0000");
        text(329, 8, octal(said.device.0.into(), 7).as_bytes());
        text(337, 8, octal(said.device.1.into(), 7).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.to.write_all(&block)
    }

    fn zeros(&mut self, count: u64) -> io::Result<()> {
        io::copy(&mut io::repeat(0).take(count), &mut self.to).map(drop)
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself (POSIX.1-2001, pax Extended Header).
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

/// Seconds with nine decimals: nanoseconds count upwards from the second before.
fn time(metadata: &Metadata) -> String {
    match (metadata.seconds, metadata.nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds @ 0.., nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => {
            let (whole, part) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
            format!("-{whole}.{part:09}")
        }
    }
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
        let mut out = Out { to: Vec::new() };
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
        out.file(&long, &odd, &data, &b"abc"[..]).unwrap();
        out.header(b"link", &odd, &Said { link: &long, ..Said::of(b'2') }).unwrap();
        let found = read(&out.to);
        assert_eq!((&found[0].0[..], &found[0].1), (&long[..], &odd));
        assert_eq!(found[1].2, What::Link(long.to_vec()));
    }

    #[test]
    fn layers_come_out_as_one_and_come_out_of_that_the_same() {
        let mut lower = Out { to: Vec::new() };
        let plain = Metadata { permissions: 0o644, ..Metadata::default() };
        let dir = Metadata { permissions: 0o755, ..Metadata::default() };
        let data = |size| Contents { size, at: 0, sparse: None };
        lower.header(b"d/", &dir, &Said::of(b'5')).unwrap();
        lower.file(b"d/old", &plain, &data(3), &b"old"[..]).unwrap();
        lower.file(b"d/kept", &plain, &data(4), &b"kept"[..]).unwrap();
        lower.header(b"null", &plain, &Said { device: (1, 3), ..Said::of(b'3') }).unwrap();
        let mut upper = Out { to: Vec::new() };
        upper.file(b"d/.wh.old", &plain, &data(0), &b""[..]).unwrap();
        upper.header(b"again", &plain, &Said { link: b"d/kept", ..Said::of(b'1') }).unwrap();
        let layers = [layer(&lower.to), layer(&upper.to)];
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
