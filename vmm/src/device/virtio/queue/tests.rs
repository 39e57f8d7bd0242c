use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;

use super::super::testing::guest_memory;
use super::*;

const SIZE: u16 = 256;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x6000;

/// A queue in empty guest memory, as a transport makes it.
fn queue(memory: &GuestMemory) -> Virtqueue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.try_set_desc_table_address(GuestAddress(DESCRIPTORS)).unwrap();
    queue.try_set_avail_ring_address(GuestAddress(AVAILABLE)).unwrap();
    queue.try_set_used_ring_address(GuestAddress(USED)).unwrap();
    queue.set_ready(true);
    assert!(queue.is_valid(memory));
    Virtqueue::new(0, queue, Arc::default())
}

/// A read of two single bytes would sometimes find 0 or 0x1ff.
#[test]
fn bug_16_the_available_index_is_read_whole() {
    let memory = guest_memory();
    let queue = queue(&memory);
    let index = GuestAddress(AVAILABLE + 2);
    memory.store(0xffu16.to_le(), index, Ordering::Release).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                memory.store(0x100u16.to_le(), index, Ordering::Release).unwrap();
                memory.store(0xffu16.to_le(), index, Ordering::Release).unwrap();
            }
        });
        let torn = (0..1_000_000).map(|_| queue.waiting(&memory)).find(|seen| !matches!(seen, 0xff | 0x100));
        stop.store(true, Ordering::Relaxed);
        assert_eq!(torn, None);
    });
}

/// A write of two single bytes would sometimes show an index that was passed long ago.
#[test]
fn bug_16_the_used_index_is_written_whole() {
    const ROUNDS: u32 = 100_000;
    /// How far the device runs ahead of what the driver has seen: less than half a turn, so that forth and back
    /// are told apart.
    const AHEAD: u32 = 0x200;
    let memory = guest_memory();
    let mut queue = queue(&memory);
    let index = GuestAddress(USED + 2);
    let seen = AtomicU32::new(0);
    thread::scope(|scope| {
        let driver = scope.spawn(|| {
            let mut last = 0u32;
            while last < ROUNDS {
                let now = u16::from_le(memory.load(index, Ordering::Acquire).unwrap());
                let step = now.wrapping_sub(last as u16);
                if u32::from(step) > AHEAD {
                    seen.store(ROUNDS, Ordering::Release);
                    return Some((last as u16, now));
                }
                last += u32::from(step);
                seen.store(last, Ordering::Release);
            }
            None
        });
        for round in 0..ROUNDS {
            while round.saturating_sub(seen.load(Ordering::Acquire)) >= AHEAD {
                thread::yield_now();
            }
            queue.add_used(&memory, 0, 0).unwrap();
        }
        assert_eq!(driver.join().unwrap(), None, "went back");
    });
}
