//! From the link to the guest.
//!
//! Buffers that the driver has made available are taken from the ring ahead of the frames, as many as the
//! longest frame needs, and kept: each frame is then one readv(2) straight into guest memory, whatever its
//! length turns out to be, and gives back the buffers that it filled.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};

use virtio_bindings::virtio_net as spec;

use super::counters::Counters;
use super::header;
use crate::device::virtio::queue::Virtqueue;
use crate::device::virtio::rate_limit::RateLimiter;
use crate::device::virtio::{DeviceError, Interrupt, Progress};
use crate::memory::GuestMemory;
use crate::memory::ranges::Ranges;

/// The longest frame that a driver must have room for, with its header: Virtio 1.2, section 5.1.6.3.1.
const LONGEST: usize = 65562;
/// How many frames may be handed over before the driver is told.
const TOLD_EVERY: usize = 64;
/// How many frames one event may bring before other devices have their turn.
const TURN: usize = 256;

/// One receive queue.
pub struct Receiver {
    queue: Virtqueue,
    /// Chains that are taken and not filled: head and room in bytes. Their ranges are in `room`, in order.
    held: VecDeque<(u16, usize)>,
    room: Ranges,
    /// The most chains that the driver has left with the device at a time.
    most: u16,
    /// The room that any frame fits in.
    enough: usize,
    mergeable: bool,
    /// Checksums may be left to the driver to believe.
    checksums: bool,
    filled: Vec<(u16, u32)>,
    /// For a frame that may not fit; made when it is first needed.
    aside: Vec<u8>,
}

/// How much room the driver has given.
enum Room {
    /// Any frame fits.
    Enough,
    /// Less, and a driver that has got back less than half of what it gave cannot be expected to add some.
    Tight,
    /// Less, and the driver has enough to add some.
    Awaited,
}

impl Receiver {
    /// Over a queue, for a driver with these features, of a link with this MTU.
    pub fn new(queue: Virtqueue, memory: &GuestMemory, features: u64, mtu: u16) -> Receiver {
        let has = |bit: u32| features & 1 << bit != 0;
        let segments = [
            spec::VIRTIO_NET_F_GUEST_TSO4,
            spec::VIRTIO_NET_F_GUEST_TSO6,
            spec::VIRTIO_NET_F_GUEST_UFO,
            spec::VIRTIO_NET_F_GUEST_USO4,
            spec::VIRTIO_NET_F_GUEST_USO6,
        ];
        let plain = header::LEN + header::LONGEST_ETHERNET + usize::from(mtu.max(1500));
        Receiver {
            queue,
            held: VecDeque::new(),
            most: 0,
            room: Ranges::new(memory.clone()),
            enough: if segments.into_iter().any(has) { LONGEST } else { plain },
            mergeable: has(spec::VIRTIO_NET_F_MRG_RXBUF),
            checksums: has(spec::VIRTIO_NET_F_GUEST_CSUM),
            filled: Vec::new(),
            aside: Vec::new(),
        }
    }

    /// Hands over the frames that are there, as long as there is room and the limit allows.
    ///
    /// # Errors
    /// The driver broke the queue.
    pub fn run(
        &mut self,
        from: &File,
        memory: &GuestMemory,
        interrupt: &Interrupt,
        counters: &Counters,
        limit: &mut Option<RateLimiter>,
    ) -> Result<Progress, DeviceError> {
        self.queue.disable_notification(memory)?;
        self.most = self.most.max(self.queue.outstanding(memory)?);
        for count in 1..=TURN {
            if !limit.as_mut().is_none_or(RateLimiter::may_begin) {
                self.queue.signal(memory, interrupt)?;
                return Ok(Progress::Done);
            }
            let read = match self.make_room(memory)? {
                Room::Enough => self.room.read_from(from),
                Room::Tight => self.read_aside(from),
                Room::Awaited => {
                    // Nothing is read until the driver adds buffers, and says so: CVE-2020-16843.
                    self.queue.signal(memory, interrupt)?;
                    if self.queue.enable_notification(memory)? {
                        continue;
                    }
                    return Ok(Progress::Done);
                }
            };
            match read {
                Ok(len) => {
                    if let Some(limit) = limit {
                        limit.charge(len.saturating_sub(header::LEN) as u64);
                    }
                    self.hand_over(len, memory, counters)?;
                }
                // Nothing there; or the tap is gone, which ends frames but not the device.
                Err(_) => {
                    self.queue.signal(memory, interrupt)?;
                    return Ok(Progress::Done);
                }
            }
            if count % TOLD_EVERY == 0 {
                self.queue.signal(memory, interrupt)?;
            }
        }
        self.queue.signal(memory, interrupt)?;
        Ok(Progress::More)
    }

    /// Takes chains until any frame fits: all that are needed if frames may be spread over several, else one.
    fn make_room(&mut self, memory: &GuestMemory) -> Result<Room, DeviceError> {
        self.room.compact();
        while self.room.len() < self.enough && (self.mergeable || self.held.is_empty()) {
            let Some(chain) = self.queue.pop(memory)? else { break };
            if !chain.readable.is_empty()
                || !chain.writable.slices().iter().all(|slice| self.room.push(slice))
            {
                return Err(self.queue.malformed(chain.head));
            }
            self.held.push_back((chain.head, chain.writable.len()));
        }
        let driver_has_half = self.held.len() * 2 <= usize::from(self.most);
        Ok(match () {
            () if self.room.len() >= self.enough && self.room.fit_one_call() => Room::Enough,
            () if self.held.is_empty() || self.mergeable && driver_has_half => Room::Awaited,
            () => Room::Tight,
        })
    }

    /// Reads a frame that may be longer than the room there is: into the monitor's own memory, and then as
    /// much as fits into the guest's.
    fn read_aside(&mut self, mut from: &File) -> io::Result<usize> {
        self.aside.resize(LONGEST, 0);
        let len = from.read(&mut self.aside)?;
        self.room.write(0, &self.aside[..len]);
        Ok(len)
    }

    /// Gives the driver a frame of `len` bytes that was read into the room's start. One that does not fit,
    /// or is none, is dropped, and the room used for the next.
    fn hand_over(
        &mut self,
        len: usize,
        memory: &GuestMemory,
        counters: &Counters,
    ) -> Result<(), DeviceError> {
        let room = self.room.len();
        // A read returns no more than there was room for: all of it, and more than any frame needed when
        // the driver was started, may be a part of a frame (the link's MTU was raised).
        let cut = len > room || len == room && len > self.enough;
        if len < header::LEN || cut {
            counters.rx_dropped.add(1);
            return Ok(());
        }
        counters.received(len - header::LEN);
        let (mut left, mut taken) = (len, 0);
        while left > 0 {
            // The room is the held chains' sum, and `len` no more than it.
            let Some((head, room)) = self.held.pop_front() else { break };
            let written = left.min(room);
            self.filled.push((head, written as u32));
            left -= written;
            taken += room;
        }
        self.room.write(header::NUM_BUFFERS, &(self.filled.len() as u16).to_le_bytes());
        if !self.checksums {
            // The flags mean nothing to a driver that did not ask for them.
            self.room.write(0, &[0]);
        }
        self.room.advance(taken);
        self.queue.add_used_together(memory, &self.filled)?;
        self.filled.clear();
        Ok(())
    }
}
