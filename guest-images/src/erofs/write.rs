//! Writes inodes, directories and the superblock behind the data.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

use super::WriteError;
use super::data::{DataArea, Place, block_number};
use super::disk::{self, BLOCK, Inode, Layout, Name, SLOT, Superblock};
use super::layout::{self, Placed, Plan};
use super::tree::{Kind, NodeId, Tree};

impl DataArea {
    /// Completes the image: everything that `tree` has, and whose data were stored here.
    ///
    /// Equal trees with equal data, stored in the same order, give equal bytes. The image's UUID is made
    /// from the digest of everything but whole blocks of file data.
    ///
    /// # Errors
    /// The image cannot be written, or has more than 2^32 blocks.
    pub fn complete(mut self, tree: &Tree) -> Result<File, WriteError> {
        let plan = Plan::of(tree);
        let (file, inodes_at) = self.finish()?;
        let directories_at = u64::from(inodes_at) + plan.inode_bytes / BLOCK as u64;
        let mut writer =
            Writer { area: &self, tree, plan: &plan, next: directories_at, directories: Vec::new() };
        let mut out = Out {
            file: &file,
            at: u64::from(inodes_at) * BLOCK as u64,
            pending: Vec::new(),
            hash: Sha256::new(),
        };
        let start = out.at;
        for id in writer.by_position() {
            let placed = plan.placed[&id];
            out.pad_to(start + placed.position)?;
            let inode = writer.inode(id, &placed)?;
            out.append(&inode)?;
        }
        out.pad_to(start + plan.inode_bytes)?;
        for id in std::mem::take(&mut writer.directories) {
            writer.directory_blocks(id, &mut out)?;
        }
        let blocks = block_number(writer.next)?;
        let digest = out.finish()?;
        file.write_all_at(&superblock(tree, &plan, inodes_at, blocks, &digest).block(), 0)?;
        file.set_len(u64::from(blocks) * BLOCK as u64)?;
        Ok(file)
    }
}

/// An inode number counts slots from one block before the inodes, so that none is 0 (readdir(3) takes
/// that for a removed file).
const FIRST_NID: u64 = (BLOCK / SLOT) as u64;

fn nid(placed: &Placed) -> u64 {
    FIRST_NID + placed.position / SLOT as u64
}

fn superblock(tree: &Tree, plan: &Plan, inodes_at: u32, blocks: u32, digest: &[u8; 16]) -> Superblock {
    let chunked = plan.order.iter().any(
        |id| matches!(&tree.node(*id).kind, Kind::File(data) if matches!(data.place, Place::Chunks { .. })),
    );
    // As RFC 9562 has it for UUIDs made of something of one's own: version 8.
    let mut uuid = *digest;
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Superblock {
        // The root is the first inode of all.
        root: FIRST_NID as u16,
        inodes: plan.order.len() as u64,
        seconds: plan.time.0,
        nanoseconds: plan.time.1,
        blocks,
        meta_block: inodes_at - 1,
        uuid,
        chunked,
    }
}

struct Writer<'a> {
    area: &'a DataArea,
    tree: &'a Tree,
    plan: &'a Plan,
    /// The next free block for directories.
    next: u64,
    /// Those that have blocks, in the order of these.
    directories: Vec<NodeId>,
}

impl Writer<'_> {
    fn by_position(&self) -> Vec<NodeId> {
        let mut all = self.plan.order.clone();
        all.sort_unstable_by_key(|id| self.plan.placed[id].position);
        all
    }

    /// An inode with everything that follows it.
    fn inode(&mut self, id: NodeId, placed: &Placed) -> Result<Vec<u8>, WriteError> {
        let node = self.tree.node(id);
        if !node.metadata.fits() {
            return Err(WriteError::Attributes);
        }
        let (layout, size, place, tail) = self.contents(id, placed)?;
        let xattrs = node.metadata.encoded_xattrs();
        let inode = Inode {
            extended: placed.extended,
            layout,
            xattr_size: xattrs.len(),
            mode: node.kind.mode() | node.metadata.permissions & 0o7777,
            links: placed.links,
            size,
            place,
            number: placed.number,
            uid: node.metadata.uid,
            gid: node.metadata.gid,
            seconds: node.metadata.seconds,
            nanoseconds: node.metadata.nanoseconds,
        };
        let mut bytes = inode.bytes();
        bytes.extend_from_slice(&xattrs);
        bytes.extend_from_slice(&tail);
        Ok(bytes)
    }

    /// Layout, size, place, and the bytes behind the inode.
    fn contents(&mut self, id: NodeId, placed: &Placed) -> Result<(Layout, u64, u32, Vec<u8>), WriteError> {
        match &self.tree.node(id).kind {
            Kind::Directory(_) => self.directory(id, placed),
            Kind::File(data) | Kind::Link(data) => match &data.place {
                Place::Flat { first, tail: None } => Ok((Layout::FlatPlain, data.size, *first, Vec::new())),
                Place::Flat { first, tail: Some(waiting) } => {
                    let mut tail = vec![0; (data.size % BLOCK as u64) as usize];
                    self.area.read_tail(*waiting, &mut tail)?;
                    Ok((Layout::FlatInline, data.size, *first, tail))
                }
                Place::Chunks { bits, first } => {
                    let map = first.iter().flat_map(|block| block.to_le_bytes()).collect();
                    Ok((Layout::Chunked, data.size, (*bits).into(), map))
                }
            },
            Kind::Character { major, minor } | Kind::Block { major, minor } => {
                Ok((Layout::FlatPlain, 0, disk::device(*major, *minor), Vec::new()))
            }
            Kind::Fifo | Kind::Socket => Ok((Layout::FlatPlain, 0, 0, Vec::new())),
        }
    }

    fn directory(&mut self, id: NodeId, placed: &Placed) -> Result<(Layout, u64, u32, Vec<u8>), WriteError> {
        let first = block_number(self.next)?;
        if placed.blocks > 0 {
            self.next += placed.blocks;
            self.directories.push(id);
        }
        let tail = if placed.inline { self.blocks_of(id).pop().unwrap_or_default() } else { Vec::new() };
        let layout = if placed.inline { Layout::FlatInline } else { Layout::FlatPlain };
        Ok((layout, placed.size, first, tail))
    }

    fn directory_blocks(&self, id: NodeId, out: &mut Out<'_>) -> io::Result<()> {
        let mut blocks = self.blocks_of(id);
        blocks.truncate(self.plan.placed[&id].blocks as usize);
        for mut block in blocks {
            block.resize(BLOCK, 0);
            out.append(&block)?;
        }
        Ok(())
    }

    fn blocks_of(&self, id: NodeId) -> Vec<Vec<u8>> {
        let Kind::Directory(names) = &self.tree.node(id).kind else { return Vec::new() };
        let sorted = layout::sorted_names(names, id, self.plan.placed[&id].parent);
        let (counts, _) = disk::directory_shape(sorted.iter().map(|(name, _)| *name));
        let names: Vec<_> = sorted
            .iter()
            .map(|(name, id)| Name {
                name,
                nid: nid(&self.plan.placed[id]),
                kind: self.tree.node(*id).kind.entry_type(),
            })
            .collect();
        let mut rest = &names[..];
        let cut = |count| {
            let (block, after) = rest.split_at(count);
            rest = after;
            disk::directory_block(block)
        };
        counts.into_iter().map(cut).collect()
    }
}

/// Consecutive bytes of the image, hashed on their way.
struct Out<'a> {
    file: &'a File,
    at: u64,
    pending: Vec<u8>,
    hash: Sha256,
}

impl Out<'_> {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= 1 << 20 { self.flush() } else { Ok(()) }
    }

    fn pad_to(&mut self, position: u64) -> io::Result<()> {
        let gap = position.saturating_sub(self.at + self.pending.len() as u64);
        self.append(&vec![0; gap as usize])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.pending, self.at)?;
        self.hash.update(&self.pending);
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// The first half of the digest.
    fn finish(mut self) -> io::Result<[u8; 16]> {
        self.flush()?;
        let digest = self.hash.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Ok(half)
    }
}
