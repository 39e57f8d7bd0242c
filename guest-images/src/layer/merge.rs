//! Entries of layers become one tree. Pure: it knows names and metadata, not bytes.
//!
//! The rules are those of the OCI image specification (layer.md, "Applying Changesets"):
//! - a later entry replaces an earlier one of the same name; a directory over a directory keeps what is in it
//!   and gets the later metadata;
//! - `.wh.NAME` removes NAME, and `.wh..wh..opq` everything in its directory, but only what *lower* layers
//!   have, wherever in the layer they stand; other names of that prefix are aufs' own and mean nothing;
//! - a hard link is another name of what its target's name means at that point, in whatever layer that is;
//! - symbolic links on the way to a name are followed, inside of the image, as engines do that unpack. Not on
//!   the way to a whiteout: one made from a real change never needs it.

use std::collections::BTreeMap;

use super::tar::{Contents, Entry, What};
use crate::erofs::Metadata;

/// The longest name with its directories: the kernel's PATH_MAX.
pub const MAX_PATH: usize = 4096;
/// Symbolic links that one name may lead over: the kernel's own limit.
const MAX_LINKS: u32 = 40;
/// Parents that no layer has an entry for.
const IMPLIED: u16 = 0o755;

/// An entry cannot be in a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MergeError {
    /// `..` in its name: it would lead out of its directory.
    #[error("its name leads elsewhere with `..`")]
    Escape,
    /// A name is too long, or has a zero byte in it.
    #[error("its name has more than 255 bytes between two slashes, more than 4096 in all, or a zero byte")]
    Name,
    /// What should be a directory is something else.
    #[error("what should be its directory is a file")]
    NotADirectory,
    /// Symbolic links that lead in a circle.
    #[error("too many symbolic links are on the way to it")]
    Links,
    /// A hard link without a target.
    #[error("it is a hard link to `{0}`, which is not there or is a directory")]
    Target(String),
    /// The root is not a directory.
    #[error("the root of an image is a directory")]
    Root,
    /// Extended attributes are too large.
    #[error("its extended attributes are larger than EROFS can hold (64 KiB one, 256 KiB all of a file)")]
    Attributes,
}

/// A node of a [`Merged`].
pub type Node = usize;

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Sorted names.
    Directory(BTreeMap<Box<[u8]>, Node>),
    /// A regular file, and the layer that has its data.
    File(usize, Contents),
    /// A symbolic link's target.
    Link(Vec<u8>),
    /// A character device: major, minor.
    Character(u32, u32),
    /// A block device: major, minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// The tree of all layers so far.
#[derive(Debug)]
pub struct Merged {
    nodes: Vec<(Metadata, Body)>,
    layers: usize,
}

impl Default for Merged {
    fn default() -> Merged {
        Merged { nodes: vec![(implied(), Body::Directory(BTreeMap::new()))], layers: 0 }
    }
}

/// An entry that cannot be, by its place in the layer.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The entry's name.
    pub path: Vec<u8>,
    /// Why.
    pub error: MergeError,
}

impl Merged {
    /// The root directory.
    pub const ROOT: Node = 0;

    /// A node's metadata and body.
    pub fn node(&self, node: Node) -> &(Metadata, Body) {
        &self.nodes[node]
    }

    /// Puts a layer over those before it.
    ///
    /// # Errors
    /// The first entry that cannot be; the tree is then of no use.
    pub fn apply(&mut self, layer: Vec<Entry>) -> Result<(), Refused> {
        for entry in &layer {
            if let Some(hidden) = whiteout(&entry.path) {
                self.hide(&hidden).map_err(|error| Refused { path: entry.path.clone(), error })?;
            }
        }
        for entry in layer {
            if !is_special(&entry.path) {
                let path = entry.path.clone();
                self.put(entry).map_err(|error| Refused { path, error })?;
            }
        }
        self.layers += 1;
        Ok(())
    }

    /// Every node that has a name, once, each directory before what is in it.
    pub fn reachable(&self) -> Vec<Node> {
        let mut seen = vec![false; self.nodes.len()];
        let (mut all, mut todo) = (Vec::new(), vec![Self::ROOT]);
        while let Some(node) = todo.pop() {
            if std::mem::replace(&mut seen[node], true) {
                continue;
            }
            all.push(node);
            if let Body::Directory(names) = &self.nodes[node].1 {
                todo.extend(names.values().rev());
            }
        }
        all
    }

    fn put(&mut self, entry: Entry) -> Result<(), MergeError> {
        let mut metadata = entry.metadata;
        metadata.xattrs.retain(|name, _| belongs_in_an_image(name));
        if !metadata.fits() {
            return Err(MergeError::Attributes);
        }
        let names = split(&entry.path)?;
        let Some((name, directories)) = names.split_last() else {
            return match entry.what {
                What::Directory => {
                    self.nodes[Self::ROOT].0 = metadata;
                    Ok(())
                }
                _ => Err(MergeError::Root),
            };
        };
        let directory = self.directory(directories)?;
        let old = self.child(directory, name);
        let body = match entry.what {
            What::Directory => {
                if let Some(old) = old
                    && matches!(self.nodes[old].1, Body::Directory(_))
                {
                    self.nodes[old].0 = metadata;
                    return Ok(());
                }
                Body::Directory(BTreeMap::new())
            }
            What::HardLink(target) => {
                let node = self.target(&target)?;
                return self.name(directory, name, node);
            }
            What::File(contents) => Body::File(self.layers, contents),
            What::Link(target) if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) => {
                return Err(MergeError::Name);
            }
            What::Link(target) => {
                // Linux knows no other, whatever the archive says.
                metadata.permissions = 0o777;
                Body::Link(target)
            }
            What::Character(major, minor) => Body::Character(major, minor),
            What::Block(major, minor) => Body::Block(major, minor),
            What::Fifo => Body::Fifo,
        };
        let node = self.add(metadata, body);
        self.name(directory, name, node)
    }

    fn add(&mut self, metadata: Metadata, body: Body) -> Node {
        self.nodes.push((metadata, body));
        self.nodes.len() - 1
    }

    fn name(&mut self, directory: Node, name: &[u8], node: Node) -> Result<(), MergeError> {
        match &mut self.nodes[directory].1 {
            Body::Directory(names) => {
                names.insert(name.into(), node);
                Ok(())
            }
            _ => Err(MergeError::NotADirectory),
        }
    }

    fn child(&self, directory: Node, name: &[u8]) -> Option<Node> {
        match &self.nodes[directory].1 {
            Body::Directory(names) => names.get(name).copied(),
            _ => None,
        }
    }

    /// What a hard link's target means.
    fn target(&mut self, target: &[u8]) -> Result<Node, MergeError> {
        let missing = || MergeError::Target(String::from_utf8_lossy(target).into_owned());
        let names = split(target)?;
        let (name, directories) = names.split_last().ok_or_else(missing)?;
        let node = self.walk(directories, false)?.and_then(|directory| self.child(directory, name));
        node.filter(|node| !matches!(self.nodes[*node].1, Body::Directory(_))).ok_or_else(missing)
    }

    fn directory(&mut self, names: &[&[u8]]) -> Result<Node, MergeError> {
        self.walk(names, true)?.ok_or(MergeError::NotADirectory)
    }

    /// The directory that `names` lead to from the root, over symbolic links; what is missing is made if
    /// asked for.
    fn walk(&mut self, names: &[&[u8]], make: bool) -> Result<Option<Node>, MergeError> {
        let mut todo: Vec<Box<[u8]>> = names.iter().rev().map(|name| Box::from(*name)).collect();
        let (mut way, mut links) = (vec![Self::ROOT], 0);
        while let Some(name) = todo.pop() {
            let here = way.last().copied().unwrap_or(Self::ROOT);
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    // Above the root is the root.
                    if way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                name if name.len() > crate::erofs::MAX_NAME => return Err(MergeError::Name),
                _ => {}
            }
            let next = match self.child(here, &name) {
                Some(next) => next,
                None if make => {
                    let new = self.add(implied(), Body::Directory(BTreeMap::new()));
                    self.name(here, &name, new)?;
                    new
                }
                None => return Ok(None),
            };
            match &self.nodes[next].1 {
                Body::Directory(_) => way.push(next),
                Body::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(MergeError::Links);
                    }
                    if target.starts_with(b"/") {
                        way.truncate(1);
                    }
                    todo.extend(target.split(|byte| *byte == b'/').rev().map(Box::from));
                }
                _ => return Err(MergeError::NotADirectory),
            }
        }
        Ok(way.last().copied())
    }

    /// Takes names away that lower layers have.
    fn hide(&mut self, hidden: &Hidden) -> Result<(), MergeError> {
        let names = split(&hidden.directory)?;
        let mut here = Self::ROOT;
        for name in names {
            match self.child(here, name) {
                Some(next) => here = next,
                None => return Ok(()),
            }
        }
        if let Body::Directory(names) = &mut self.nodes[here].1 {
            match &hidden.name {
                Some(name) => drop(names.remove(&name[..])),
                None => names.clear(),
            }
        }
        Ok(())
    }
}

struct Hidden {
    directory: Vec<u8>,
    /// None: all.
    name: Option<Vec<u8>>,
}

const WHITEOUT: &[u8] = b".wh.";
/// A whiteout's prefix twice: not a whiteout, but something of aufs.
const SPECIAL: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

fn last_name(path: &[u8]) -> (&[u8], &[u8]) {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn whiteout(path: &[u8]) -> Option<Hidden> {
    let (directory, name) = last_name(path);
    let directory = directory.to_vec();
    if name == OPAQUE {
        return Some(Hidden { directory, name: None });
    }
    if name.starts_with(SPECIAL) {
        return None;
    }
    let name = name.strip_prefix(WHITEOUT).filter(|name| !name.is_empty())?;
    Some(Hidden { directory, name: Some(name.into()) })
}

/// Neither whiteouts nor anything in a directory of aufs is in the tree.
fn is_special(path: &[u8]) -> bool {
    let mut names = path.split(|byte| *byte == b'/');
    names.any(|name| name.starts_with(SPECIAL)) || last_name(path).1.starts_with(WHITEOUT)
}

/// The names of a path from the root. Slashes and dots that mean nothing are left out.
fn split(path: &[u8]) -> Result<Vec<&[u8]>, MergeError> {
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(MergeError::Name);
    }
    let names: Vec<&[u8]> =
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    if names.contains(&&b".."[..]) {
        return Err(MergeError::Escape);
    }
    match names.iter().any(|name| name.len() > crate::erofs::MAX_NAME) {
        true => Err(MergeError::Name),
        false => Ok(names),
    }
}

/// Overlayfs' own attributes in an image would make the kernel see other files than the image has.
fn belongs_in_an_image(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}

fn implied() -> Metadata {
    Metadata { permissions: IMPLIED, ..Metadata::default() }
}
