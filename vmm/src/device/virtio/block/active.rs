//! A disk that its driver has brought to life: queues on one side, the engine on the other.

use std::io;
use std::sync::Arc;

use vm_memory::Bytes;

use super::engine::{Engine, Outcome, Owed};
use super::request::{Asked, Refusal, Request, status};
use crate::device::virtio::queue::{BUDGET, CHAIN_COST, Virtqueue};
use crate::device::virtio::rate_limit::RateLimiter;
use crate::device::virtio::{DeviceError, Interrupt, Progress};
use crate::memory::GuestMemory;

/// How much a vCPU does itself for one notification, in bytes: a request of 128 KiB, or some small ones. More is
/// worth another thread.
const AT_ONCE: usize = (128 << 10) + 4 * CHAIN_COST;

/// Queues, engine, and what connects them to the guest.
pub struct Active {
    pub memory: GuestMemory,
    pub interrupt: Arc<Interrupt>,
    /// By index; the driver need not use all.
    pub queues: Vec<Option<Virtqueue>>,
    pub engine: Engine,
    pub serial: Vec<u8>,
    /// A queue was left because the engine was full.
    pub starved: bool,
}

/// Why a turn at a queue is over.
#[derive(PartialEq, Eq)]
enum Stop {
    /// Nothing is left in it.
    Empty,
    /// It was enough for one turn.
    Budget,
    /// A limit was reached: its timer will say when to go on.
    Held,
    /// The engine is full: the end of something says when to go on.
    Full,
}

impl Active {
    /// Takes what the driver made available in one queue, carries it out, and answers what has ended.
    pub fn serve(
        &mut self,
        index: usize,
        disk: &super::Disk,
        limiter: &mut Option<RateLimiter>,
    ) -> Result<Progress, DeviceError> {
        self.engine.quiet(true);
        let progress = loop {
            let stop = self.take_turn(index, disk, limiter)?;
            self.reap()?;
            self.signal()?;
            let Some(queue) = self.queues.get_mut(index).and_then(Option::as_mut) else {
                break Progress::Done;
            };
            match stop {
                Stop::Empty if queue.enable_notification(&self.memory)? => {}
                Stop::Full if self.engine.has_room() => {}
                Stop::Full => {
                    self.starved = true;
                    break Progress::Done;
                }
                Stop::Empty | Stop::Held => break Progress::Done,
                Stop::Budget => break Progress::More,
            }
        };
        self.engine.quiet(false);
        // What ended before the event was switched on again came without one.
        self.answer_ended()?;
        Ok(progress)
    }

    /// Serves one queue as far as a vCPU may wait for it; [`Progress::More`] if something is left.
    pub fn serve_at_once(&mut self, index: usize, disk: &super::Disk) -> Result<Progress, DeviceError> {
        let Active { memory, interrupt, queues, engine, serial, .. } = self;
        let Some(queue) = queues.get_mut(index).and_then(Option::as_mut) else { return Ok(Progress::Done) };
        let mut spent = 0;
        let progress = loop {
            let Some(chain) = queue.pop(memory)? else {
                if queue.enable_notification(memory)? {
                    continue;
                }
                break Progress::Done;
            };
            spent += CHAIN_COST + chain.readable.len() + chain.writable.len();
            let (head, writable) = (chain.head, chain.writable.len());
            let asked = Asked::read(disk, chain);
            let written = written(&asked, writable);
            let Some(status) = asked.status else {
                queue.add_used(memory, head, 0)?;
                continue;
            };
            let result = match asked.request {
                _ if spent > AT_ONCE => None,
                Ok(request) => engine.carry_out_at_once(request, serial),
                Err(refusal) => Some(Err(refusal)),
            };
            let Some(result) = result else {
                queue.undo_pop();
                break Progress::More;
            };
            answer(memory, queue, &Owed { queue: index, head, status, written }, result)?;
        };
        queue.signal(memory, interrupt)?;
        Ok(progress)
    }

    /// Goes through all queues.
    pub fn serve_all(
        &mut self,
        disk: &super::Disk,
        limiter: &mut Option<RateLimiter>,
    ) -> Result<Progress, DeviceError> {
        self.starved = false;
        (0..self.queues.len())
            .try_fold(Progress::Done, |all, index| Ok(all.and(self.serve(index, disk, limiter)?)))
    }

    /// Whether a queue was left because the engine was full, which it is no more.
    pub fn can_go_on(&self) -> bool {
        self.starved && self.engine.has_room()
    }

    /// Answers what has ended in the background.
    pub fn answer_ended(&mut self) -> Result<(), DeviceError> {
        self.reap()?;
        self.signal()
    }

    /// Waits until nothing is under way, and answers all of it.
    pub fn settle(&mut self) -> Result<(), DeviceError> {
        while !self.engine.is_idle() {
            self.engine.wait().map_err(cannot_begin)?;
            self.reap()?;
        }
        self.signal()
    }

    fn take_turn(
        &mut self,
        index: usize,
        disk: &super::Disk,
        limiter: &mut Option<RateLimiter>,
    ) -> Result<Stop, DeviceError> {
        let Active { memory, queues, engine, serial, .. } = self;
        let Some(queue) = queues.get_mut(index).and_then(Option::as_mut) else { return Ok(Stop::Empty) };
        queue.disable_notification(memory)?;
        let mut spent = 0;
        while let Some(chain) = queue.pop(memory)? {
            spent += CHAIN_COST + chain.readable.len() + chain.writable.len();
            let (head, writable) = (chain.head, chain.writable.len());
            if !engine.has_room() {
                queue.undo_pop();
                return Ok(Stop::Full);
            }
            let asked = Asked::read(disk, chain);
            if !limiter.as_mut().is_none_or(|limiter| limiter.allow(asked.bytes() as u64)) {
                queue.undo_pop();
                return Ok(Stop::Held);
            }
            // Bounded by the size of a request, or else it is refused.
            let owed = |status| Owed { queue: index, head, status, written: written(&asked, writable) };
            let Some(owed) = asked.status.map(owed) else {
                queue.add_used(memory, head, 0)?;
                continue;
            };
            let waiting = queue.waiting(memory);
            let outcome = match asked.request {
                Ok(request) => engine.carry_out(request, serial, owed, waiting),
                Err(refusal) => Outcome::Done(Err(refusal)),
            };
            if let Outcome::Done(result) = outcome {
                answer(memory, queue, &owed, result)?;
            }
            if spent >= BUDGET {
                return Ok(Stop::Budget);
            }
        }
        Ok(Stop::Empty)
    }

    /// Submits what is queued and hands back what has ended.
    fn reap(&mut self) -> Result<(), DeviceError> {
        let Active { memory, queues, engine, .. } = self;
        loop {
            engine.submit().map_err(cannot_begin)?;
            let mut some = false;
            while let Some((owed, result)) = engine.take() {
                some = true;
                if let Some(queue) = queues.get_mut(owed.queue).and_then(Option::as_mut) {
                    answer(memory, queue, &owed, result)?;
                }
            }
            // What was cut short was queued again.
            if !some {
                return engine.submit().map_err(cannot_begin);
            }
        }
    }

    /// One interrupt a queue, for all that was handed back.
    fn signal(&mut self) -> Result<(), DeviceError> {
        let Active { memory, interrupt, queues, .. } = self;
        queues.iter_mut().flatten().try_for_each(|queue| queue.signal(memory, interrupt))
    }
}

/// How many bytes of its chain a request writes if it succeeds, with the status.
fn written(asked: &Asked, writable: usize) -> u32 {
    match &asked.request {
        Ok(Request::Read(..)) => writable as u32,
        Ok(Request::Identify(to)) => to.len().min(super::SERIAL_BYTES) as u32 + 1,
        _ => 1,
    }
}

fn answer(
    memory: &GuestMemory,
    queue: &mut Virtqueue,
    owed: &Owed,
    result: Result<(), Refusal>,
) -> Result<(), DeviceError> {
    let written = if result.is_ok() { owed.written } else { 0 };
    // The address was found in guest memory when the chain was taken, and memory does not go away.
    let _ = memory.write_obj(status(result), owed.status);
    queue.add_used(memory, owed.head, written)
}

fn cannot_begin(source: io::Error) -> DeviceError {
    DeviceError::Host { operation: "begin I/O on the disk", source }
}
