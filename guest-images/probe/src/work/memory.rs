//! Memory: how long one load takes that nothing foresees, how fast much is read, what a first touch costs.

use std::hint::black_box;
use std::time::Instant;

use super::{Doing, Done, Timed, next};

const PAGE: usize = 4096;
const LINE: usize = 64;
/// Larger than most caches, and than what the first level of a TLB reaches.
const SIZE: usize = 32 << 20;
/// Above the C library's largest threshold (32 MiB), so that each is mapped anew and given back.
const FRESH: usize = 40 << 20;
/// Slots of a line.
const SLOTS: usize = LINE / size_of::<usize>();

/// An operation: one load whose address the load before gave, through a random cycle over all cache lines of 32 MiB.
pub fn latency(operations: u64) -> Done {
    let lines = SIZE / LINE;
    let mut order: Vec<usize> = (0..lines).collect();
    // Sattolo's shuffle: one cycle through all.
    let mut random = 1;
    for last in (1..lines).rev() {
        random = next(random);
        order.swap(last, random as usize % last);
    }
    let mut memory = vec![0usize; lines * SLOTS];
    for (line, follower) in order.into_iter().enumerate() {
        memory[line * SLOTS] = follower * SLOTS;
    }
    let mut at = 0;
    let timed = Timed::repeat(operations, |_| {
        at = memory[at];
        Ok(())
    });
    black_box(at);
    timed
}

/// An operation: 4 KiB read and added up, forwards through 32 MiB again and again.
pub fn bandwidth(operations: u64) -> Done {
    let memory = vec![1u64; SIZE / size_of::<u64>()];
    let mut sum = 0u64;
    let began = Instant::now();
    for page in memory.chunks_exact(PAGE / size_of::<u64>()).cycle().take(operations as usize) {
        sum = page.iter().fold(sum, |sum, word| sum.wrapping_add(*word));
    }
    let timed = Timed::since(began, operations);
    black_box(sum);
    Ok(timed)
}

/// An operation: the first write to a page of 4 KiB; mapping and giving back 40 MiB is part of 10,240 of them.
pub fn faults(operations: u64) -> Done {
    rustix::thread::disable_transparent_huge_pages(true).doing("cannot do without huge pages")?;
    let began = Instant::now();
    let mut left = operations as usize;
    while left > 0 {
        // The kernel gives zeros: nothing is written here.
        let mut memory = vec![0u8; FRESH];
        let pages = left.min(FRESH / PAGE);
        for page in memory.chunks_exact_mut(PAGE).take(pages) {
            page[0] = 1;
        }
        black_box(&mut memory);
        left -= pages;
    }
    let timed = Timed::since(began, operations);
    rustix::thread::disable_transparent_huge_pages(false).doing("cannot allow huge pages again")?;
    Ok(timed)
}
