//! A file tree as it will be in an image, without its data.
//!
//! Who fills it does not matter to the writer: a directory's walker, or a merge of layers.

use std::collections::BTreeMap;

use super::data::Data;
use super::disk;

/// The longest name in a directory, in bytes.
pub const MAX_NAME: usize = 255;

/// Owner, permissions, time and extended attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Permission bits, with set-user-id and its kin: 07777.
    pub permissions: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of contents, in seconds since 1970; may be negative.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
    /// Full names and values. What EROFS has no prefix for is left out of the image.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Metadata {
    /// Bytes of a file's tail for which there is room behind its inode.
    pub(crate) fn room(&self) -> usize {
        let header = disk::Inode::length(true) + self.xattr_size();
        // Behind attributes that fill blocks of their own there is always half a block.
        if header <= disk::BLOCK / 2 { disk::BLOCK - header } else { disk::BLOCK / 2 }
    }

    pub(super) fn xattr_size(&self) -> usize {
        self.encoded_xattrs().len()
    }

    pub(super) fn encoded_xattrs(&self) -> Vec<u8> {
        disk::xattrs(self.xattrs.iter().map(|(name, value)| (&name[..], &value[..])))
    }

    /// Whether an inode can hold the attributes.
    pub(crate) fn fits(&self) -> bool {
        self.xattrs.values().all(|value| value.len() <= usize::from(u16::MAX))
            && self.xattr_size() <= disk::MAX_XATTR_SIZE
    }
}

/// What a node is.
#[derive(Debug)]
pub enum Kind {
    /// Sorted names.
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    /// A regular file.
    File(Data),
    /// A symbolic link; its data are its target.
    Link(Data),
    /// A character device.
    Character {
        /// Which driver.
        major: u32,
        /// Which device of it.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Which driver.
        major: u32,
        /// Which device of it.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Kind {
    /// The type bits of st_mode.
    pub(super) fn mode(&self) -> u16 {
        match self {
            Kind::Directory(_) => 0o040_000,
            Kind::File(_) => 0o100_000,
            Kind::Link(_) => 0o120_000,
            Kind::Character { .. } => 0o020_000,
            Kind::Block { .. } => 0o060_000,
            Kind::Fifo => 0o010_000,
            Kind::Socket => 0o140_000,
        }
    }

    /// The type in a directory entry.
    pub(super) fn entry_type(&self) -> u8 {
        match self {
            Kind::File(_) => 1,
            Kind::Directory(_) => 2,
            Kind::Character { .. } => 3,
            Kind::Block { .. } => 4,
            Kind::Fifo => 5,
            Kind::Socket => 6,
            Kind::Link(_) => 7,
        }
    }
}

/// An inode to be.
#[derive(Debug)]
pub struct Node {
    /// Whose it is, and so on.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// A node of one [`Tree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub(super) u32);

/// A file tree.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
}

/// A name cannot be given to a node.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadEntry {
    /// It is empty, `.`, `..`, too long, or has a slash or zero byte in it.
    #[error("a file cannot be named `{0}`")]
    Name(String),
    /// What should hold the name is no directory.
    #[error("it is not in a directory")]
    NotADirectory,
    /// Directories have one name only.
    #[error("a directory cannot have a second name")]
    LinkedDirectory,
    /// The tree has 2^32 nodes.
    #[error("there are too many files")]
    TooMany,
}

impl Tree {
    /// An empty root directory.
    pub fn new(root: Metadata) -> Tree {
        Tree { nodes: vec![Node { metadata: root, kind: Kind::Directory(BTreeMap::new()) }] }
    }

    /// The root directory.
    pub const ROOT: NodeId = NodeId(0);

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// A node, to change it.
    pub fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// How many nodes there are, those without a name included.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a node under a name in a directory; what had the name before loses it.
    ///
    /// # Errors
    /// [`BadEntry`]
    pub fn add(&mut self, directory: NodeId, name: &[u8], node: Node) -> Result<NodeId, BadEntry> {
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| BadEntry::TooMany)?);
        self.name(directory, name, id)?;
        self.nodes.push(node);
        Ok(id)
    }

    /// Gives a node another name: a hard link.
    ///
    /// # Errors
    /// [`BadEntry`]
    pub fn link(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<(), BadEntry> {
        match self.node(node).kind {
            Kind::Directory(_) => Err(BadEntry::LinkedDirectory),
            _ => self.name(directory, name, node),
        }
    }

    fn name(&mut self, directory: NodeId, name: &[u8], node: NodeId) -> Result<(), BadEntry> {
        let bad = name.is_empty() || name.len() > MAX_NAME || name == b"." || name == b"..";
        if bad || name.contains(&b'/') || name.contains(&0) {
            return Err(BadEntry::Name(String::from_utf8_lossy(name).into_owned()));
        }
        match &mut self.node_mut(directory).kind {
            Kind::Directory(names) => {
                names.insert(name.into(), node);
                Ok(())
            }
            _ => Err(BadEntry::NotADirectory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fifo() -> Node {
        Node { metadata: Metadata::default(), kind: Kind::Fifo }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let mut tree = Tree::new(Metadata::default());
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
            assert!(matches!(tree.add(Tree::ROOT, bad, fifo()), Err(BadEntry::Name(_))));
        }
        let file = tree.add(Tree::ROOT, b"\xff...", fifo()).unwrap();
        assert_eq!(tree.add(file, b"x", fifo()), Err(BadEntry::NotADirectory));
        assert_eq!(tree.link(Tree::ROOT, b"x", Tree::ROOT), Err(BadEntry::LinkedDirectory));
    }
}
