//! Decides where every inode goes. Inodes with their attributes and tails fill blocks; none of them
//! crosses from one block into the next unless it is larger than a block.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::data::Place;
use super::disk::{self, BLOCK, Inode, SLOT};
use super::tree::{Kind, Metadata, NodeId, Tree};

/// Where a node is, and what only the whole tree tells about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Bytes from the start of the first block of inodes.
    pub position: u64,
    pub extended: bool,
    /// From 1, in the order of positions in the tree.
    pub number: u32,
    /// Names that it has; for directories as stat(2) has it.
    pub links: u32,
    /// Of a directory.
    pub parent: NodeId,
    /// Of a directory: whether the last of its blocks follows the inode.
    pub inline: bool,
    /// Of a directory: bytes, and blocks that do not follow the inode.
    pub size: u64,
    pub blocks: u64,
}

/// Where everything is.
#[derive(Debug)]
pub(super) struct Plan {
    /// Every node that has a name, siblings together, the root first.
    pub order: Vec<NodeId>,
    pub placed: HashMap<NodeId, Placed>,
    /// Bytes of all inodes with what follows them: a multiple of the block size.
    pub inode_bytes: u64,
    /// The time that most nodes have: they need no time of their own.
    pub time: (i64, u32),
}

impl Plan {
    /// Places every node of the tree.
    pub(super) fn of(tree: &Tree) -> Plan {
        let mut plan = Plan {
            order: Vec::new(),
            placed: HashMap::with_capacity(tree.len()),
            inode_bytes: 0,
            time: (0, 0),
        };
        plan.number(tree);
        plan.time = commonest_time(plan.order.iter().map(|id| &tree.node(*id).metadata));
        let mut space = Space::default();
        for id in plan.order.clone() {
            if let Some(placed) = plan.placed.get_mut(&id) {
                place(tree, id, placed, plan.time, &mut space);
            }
        }
        plan.inode_bytes = space.end.next_multiple_of(BLOCK as u64);
        plan
    }

    /// Numbers the nodes, and counts their names.
    fn number(&mut self, tree: &Tree) {
        self.meet(Tree::ROOT, Tree::ROOT);
        let mut todo = vec![Tree::ROOT];
        while let Some(directory) = todo.pop() {
            let Kind::Directory(names) = &tree.node(directory).kind else { continue };
            let mut below = Vec::new();
            for id in names.values() {
                self.meet(*id, directory);
                if matches!(tree.node(*id).kind, Kind::Directory(_)) {
                    below.push(*id);
                }
            }
            if let Some(placed) = self.placed.get_mut(&directory) {
                // Its own `.`, its name, and the `..` of those below.
                placed.links = 2 + below.len() as u32;
            }
            todo.extend(below.into_iter().rev());
        }
    }

    fn meet(&mut self, id: NodeId, parent: NodeId) {
        let number = self.order.len() as u32 + 1;
        let placed = self.placed.entry(id).or_insert(Placed {
            position: 0,
            extended: false,
            number,
            links: 0,
            parent,
            inline: false,
            size: 0,
            blocks: 0,
        });
        placed.links += 1;
        if placed.number == number {
            self.order.push(id);
        }
    }
}

fn commonest_time<'a>(all: impl Iterator<Item = &'a Metadata>) -> (i64, u32) {
    let mut counts = BTreeMap::new();
    for metadata in all {
        *counts.entry((metadata.seconds, metadata.nanoseconds)).or_insert(0usize) += 1;
    }
    // Of equals the earliest, so that the choice depends on nothing else.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or((0, 0), |(time, _)| time)
}

/// The names in a directory as they are sorted on disk, `.` and `..` among them.
pub(super) fn sorted_names(
    names: &BTreeMap<Box<[u8]>, NodeId>,
    own: NodeId,
    parent: NodeId,
) -> Vec<(&[u8], NodeId)> {
    let mut all: Vec<_> = names.iter().map(|(name, id)| (&name[..], *id)).collect();
    all.extend([(&b"."[..], own), (&b".."[..], parent)]);
    all.sort_unstable();
    all
}

fn place(tree: &Tree, id: NodeId, placed: &mut Placed, time: (i64, u32), space: &mut Space) {
    let node = tree.node(id);
    let metadata = &node.metadata;
    // Bytes behind the inode and its attributes, and whether they must lie in one block.
    let (size, follows, in_one_block) = match &node.kind {
        Kind::Directory(names) => {
            let sorted = sorted_names(names, id, placed.parent);
            let (counts, last) = disk::directory_shape(sorted.iter().map(|(name, _)| *name));
            let whole = counts.len() as u64 - 1;
            placed.size = whole * BLOCK as u64 + last as u64;
            placed.inline = last <= metadata.room();
            placed.blocks = whole + u64::from(!placed.inline);
            (placed.size, if placed.inline { last } else { 0 }, true)
        }
        Kind::File(data) | Kind::Link(data) => match &data.place {
            Place::Flat { tail: Some(_), .. } => (data.size, (data.size % BLOCK as u64) as usize, true),
            Place::Flat { tail: None, .. } => (data.size, 0, true),
            Place::Chunks { first, .. } => (data.size, 4 * first.len(), false),
        },
        _ => (0, 0, true),
    };
    placed.extended = (metadata.seconds, metadata.nanoseconds) != time
        || size > u64::from(u32::MAX)
        || metadata.uid.max(metadata.gid).max(placed.links) > u32::from(u16::MAX);
    let header = Inode::length(placed.extended) + metadata.xattr_size();
    placed.position = space.take(header, follows, in_one_block);
}

/// Bytes given out in slots, with what was left over in blocks.
#[derive(Debug, Default)]
struct Space {
    end: u64,
    /// Length and position of free slots at the ends of blocks.
    gaps: BTreeSet<(usize, u64)>,
}

impl Space {
    /// A position for `header` bytes with `follows` bytes behind them.
    fn take(&mut self, header: usize, follows: usize, in_one_block: bool) -> u64 {
        let total = header + follows;
        if total <= BLOCK {
            return self.take_within_block(total.next_multiple_of(SLOT));
        }
        // The inode itself never crosses into another block: it starts one, or leaves room for itself.
        let fits = |start: u64| {
            let within = (start % BLOCK as u64) as usize;
            let tail = (within + header) % BLOCK;
            within + Inode::length(true) <= BLOCK && (!in_one_block || tail + follows <= BLOCK)
        };
        let mut start = self.end;
        while !fits(start) {
            start += SLOT as u64;
        }
        self.free(self.end, start);
        self.end = (start + total as u64).next_multiple_of(SLOT as u64);
        start
    }

    fn take_within_block(&mut self, length: usize) -> u64 {
        let gap = self.gaps.range((length, 0)..).next().copied();
        if let Some((gap_length, position)) = gap {
            self.gaps.remove(&(gap_length, position));
            self.free(position + length as u64, position + gap_length as u64);
            return position;
        }
        let block_end = (self.end + 1).next_multiple_of(BLOCK as u64);
        if self.end + length as u64 > block_end {
            self.free(self.end, block_end);
            self.end = block_end;
        }
        let position = self.end;
        self.end += length as u64;
        position
    }

    /// Remembers that these bytes, a multiple of a slot, are free. They are cut at blocks.
    fn free(&mut self, mut start: u64, end: u64) {
        while start < end {
            let stop = end.min((start + 1).next_multiple_of(BLOCK as u64));
            self.gaps.insert(((stop - start) as usize, start));
            start = stop;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_overlaps_and_nothing_crosses(
            wanted in proptest::collection::vec((0usize..3000, 0usize..4000, any::<bool>()), 1..200),
        ) {
            let mut space = Space::default();
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (xattrs, follows, in_one_block) in wanted {
                let header = 64 + xattrs.next_multiple_of(4);
                // As Metadata::room has it.
                let room = if header <= BLOCK / 2 { BLOCK - header } else { BLOCK / 2 };
                let follows = if in_one_block { follows.min(room) } else { follows * 5 };
                let start = space.take(header, follows, in_one_block);
                prop_assert_eq!(start % SLOT as u64, 0);
                prop_assert!(start % BLOCK as u64 + 64 <= BLOCK as u64);
                let tail = (start as usize + header) % BLOCK;
                prop_assert!(!in_one_block || tail + follows <= BLOCK);
                taken.push((start, start + (header + follows) as u64));
            }
            taken.sort_unstable();
            prop_assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            prop_assert!(taken.last().unwrap().1 <= space.end);
        }
    }
}
