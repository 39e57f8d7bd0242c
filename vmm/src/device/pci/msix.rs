//! A function's interrupts: MSI-X. PCI Local Bus 3.0, section 6.8.2.
//!
//! The guest writes into a table what message each vector sends, and may mask a vector or the whole
//! function; what is raised meanwhile is pending, and is sent when the mask goes. The host is told of a
//! message only when the vector could send it, so a driver's usual way (write all, then unmask) costs one
//! change of routes.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::device::message::{Message, Messages, Router};

/// The capability's number.
pub const CAPABILITY: u8 = 0x11;
/// The most vectors that fit the page that [`Msix::read_table`] stands for.
pub const MAX_VECTORS: usize = 256;
/// Bits of message control that are the guest's: enable, and mask the function.
pub const CONTROL_WRITABLE: u16 = ENABLE | FUNCTION_MASK;

const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
/// Bytes of a table entry: message address (8), data (4), vector control (4).
const ENTRY: u64 = 16;
/// Vector control: masked.
const MASKED: u32 = 1;

/// The vectors of one function.
pub struct Msix {
    events: Vec<EventFd>,
    state: Mutex<State>,
}

struct State {
    enabled: bool,
    masked: bool,
    vectors: Vec<Vector>,
    router: Option<Arc<dyn Router>>,
}

#[derive(Clone)]
struct Vector {
    /// As the guest sees it.
    entry: [u32; 4],
    pending: bool,
    /// What the host was told to send.
    routed: Option<Message>,
}

impl Msix {
    /// `count` vectors, 1 to [`MAX_VECTORS`], all masked.
    ///
    /// # Errors
    /// Event descriptors could not be made.
    pub fn new(count: usize) -> io::Result<Msix> {
        let count = count.clamp(1, MAX_VECTORS);
        let events = (0..count).map(|_| EventFd::new(EFD_NONBLOCK)).collect::<io::Result<_>>()?;
        let vector = Vector { entry: [0, 0, 0, MASKED], pending: false, routed: None };
        let state = State { enabled: false, masked: false, vectors: vec![vector; count], router: None };
        Ok(Msix { events, state: Mutex::new(state) })
    }

    /// How many vectors there are.
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// Message control as it is at first: nothing enabled, and the number of vectors less one.
    pub fn control(&self) -> u16 {
        (self.count() - 1) as u16
    }

    /// The guest has changed message control.
    pub fn set_control(&self, control: u16) {
        let mut state = self.lock();
        state.enabled = control & ENABLE != 0;
        state.masked = control & FUNCTION_MASK != 0;
        state.settle(&self.events);
    }

    /// Sends a vector's message, now or when it is unmasked. A vector that is not there, or a function
    /// whose guest has not enabled MSI-X, sends nothing.
    pub fn raise(&self, vector: u16) {
        let mut state = self.lock();
        let (enabled, open) = (state.enabled, state.open());
        if let (Some(vector), Some(event), true) =
            (state.vectors.get_mut(usize::from(vector)), self.events.get(usize::from(vector)), enabled)
        {
            vector.pending = true;
            vector.deliver(open, event);
        }
    }

    /// The guest reads the table. Accesses are 4 or 8 bytes wide and aligned; others, and what is behind
    /// the last vector, read as 0.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !is_regular(offset, data.len()) {
            return;
        }
        let state = self.lock();
        for (at, word) in (offset..).step_by(4).zip(data.chunks_exact_mut(4)) {
            if let Some(vector) = state.vectors.get((at / ENTRY) as usize) {
                word.copy_from_slice(&vector.entry[(at % ENTRY / 4) as usize].to_le_bytes());
            }
        }
    }

    /// The guest writes the table.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        if !is_regular(offset, data.len()) {
            return;
        }
        let mut state = self.lock();
        let words = data.chunks_exact(4).filter_map(|word| word.try_into().ok()).map(u32::from_le_bytes);
        for (at, word) in (offset..).step_by(4).zip(words) {
            let field = (at % ENTRY / 4) as usize;
            if let Some(vector) = state.vectors.get_mut((at / ENTRY) as usize) {
                vector.entry[field] = match field {
                    0 => word & !0b11,
                    3 => word & MASKED,
                    _ => word,
                };
            }
        }
        state.settle(&self.events);
    }

    /// The guest reads which vectors are pending, a bit each.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if !is_regular(offset, data.len()) {
            return;
        }
        let state = self.lock();
        for (at, byte) in (offset..).zip(data) {
            let first = usize::try_from(at.saturating_mul(8)).unwrap_or(usize::MAX);
            let eight = state.vectors.iter().skip(first).take(8);
            *byte = eight.enumerate().fold(0, |byte, (bit, vector)| byte | u8::from(vector.pending) << bit);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an access is one that these structures take, and starts in their page.
fn is_regular(offset: u64, len: usize) -> bool {
    matches!(len, 4 | 8) && offset.is_multiple_of(len as u64) && offset < ENTRY * MAX_VECTORS as u64
}

impl State {
    /// Whether vectors send that are not masked themselves.
    fn open(&self) -> bool {
        self.enabled && !self.masked
    }

    /// Tells the host of messages that could be sent from now on, and sends what was pending.
    fn settle(&mut self, events: &[EventFd]) {
        let Some(router) = self.router.as_ref().filter(|_| self.open()) else { return };
        let unmasked = |vector: &Vector| vector.entry[3] & MASKED == 0;
        let news: Vec<_> = self
            .vectors
            .iter()
            .enumerate()
            .filter(|(_, vector)| unmasked(vector) && vector.routed != Some(vector.message()))
            .map(|(index, vector)| (index, vector.message()))
            .collect();
        // A message that the host refuses cannot be sent: the guest's interrupt stays pending.
        if !news.is_empty() {
            let routed = router.route(&news).is_ok();
            for (index, message) in news {
                self.vectors[index].routed = routed.then_some(message);
            }
        }
        for (vector, event) in self.vectors.iter_mut().zip(events) {
            vector.deliver(true, event);
        }
    }
}

impl Vector {
    fn message(&self) -> Message {
        let [low, high, data, _] = self.entry;
        Message { address: u64::from(high) << 32 | u64::from(low), data }
    }

    fn deliver(&mut self, open: bool, event: &EventFd) {
        let ready = open && self.entry[3] & MASKED == 0 && self.routed == Some(self.message());
        if ready && std::mem::take(&mut self.pending) {
            // Only a full counter can fail this, and then an interrupt is on its way anyway.
            let _ = event.write(1);
        }
    }
}

impl Messages for Msix {
    fn events(&self) -> &[EventFd] {
        &self.events
    }

    fn attach(&self, router: Arc<dyn Router>) {
        self.lock().router = Some(router);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Keeps what it was told; refuses addresses whose upper half is odd, as KVM may.
    #[derive(Default)]
    struct Recorder(Mutex<Vec<Vec<(usize, Message)>>>);

    impl Router for Recorder {
        fn route(&self, messages: &[(usize, Message)]) -> io::Result<()> {
            if messages.iter().any(|(_, message)| message.address >> 32 & 1 != 0) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            self.0.lock().unwrap().push(messages.to_vec());
            Ok(())
        }
    }

    fn msix(count: usize) -> (Msix, Arc<Recorder>) {
        let msix = Msix::new(count).unwrap();
        let recorder = Arc::new(Recorder::default());
        msix.attach(recorder.clone());
        (msix, recorder)
    }

    fn raised(msix: &Msix, vector: usize) -> u64 {
        msix.events[vector].read().unwrap_or(0)
    }

    /// As Linux sets up a vector.
    fn set_up(msix: &Msix, vector: u64, data: u32) {
        for (at, word) in [(0, 0xfee0_0000), (4, 0), (8, data), (12, 0u32)] {
            msix.write_table(ENTRY * vector + at, &word.to_le_bytes());
        }
    }

    fn pending(msix: &Msix) -> u64 {
        let mut bytes = [0; 8];
        msix.read_pending(0, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn a_vector_is_routed_once_and_sends() {
        let (msix, recorder) = msix(3);
        set_up(&msix, 1, 0x21);
        assert!(recorder.0.lock().unwrap().is_empty(), "not before MSI-X is enabled");
        msix.set_control(ENABLE);
        msix.set_control(ENABLE);
        let message = Message { address: 0xfee0_0000, data: 0x21 };
        assert_eq!(*recorder.0.lock().unwrap(), [vec![(1, message)]]);
        msix.raise(1);
        msix.raise(1);
        assert_eq!((raised(&msix, 1), raised(&msix, 0)), (2, 0));
        assert_eq!(pending(&msix), 0);
    }

    #[test]
    fn masked_vectors_are_pending_until_unmasked() {
        let (msix, recorder) = msix(2);
        msix.set_control(ENABLE | FUNCTION_MASK);
        set_up(&msix, 0, 5);
        set_up(&msix, 1, 6);
        msix.write_table(ENTRY + 12, &1u32.to_le_bytes());
        [0, 1, 1].into_iter().for_each(|vector| msix.raise(vector));
        assert_eq!((pending(&msix), raised(&msix, 0), raised(&msix, 1)), (0b11, 0, 0));
        msix.set_control(ENABLE);
        assert_eq!((pending(&msix), raised(&msix, 0), raised(&msix, 1)), (0b10, 1, 0));
        msix.write_table(ENTRY + 12, &0u32.to_le_bytes());
        assert_eq!((pending(&msix), raised(&msix, 1)), (0, 1), "once, however often raised");
        assert_eq!(recorder.0.lock().unwrap().len(), 2);
        msix.set_control(0);
        msix.raise(0);
        assert_eq!((pending(&msix), raised(&msix, 0)), (0, 0), "not enabled");
    }

    #[test]
    fn a_message_that_the_host_refuses_is_not_sent() {
        let (msix, _) = msix(1);
        msix.set_control(ENABLE);
        set_up(&msix, 0, 5);
        msix.write_table(4, &1u32.to_le_bytes());
        msix.raise(0);
        assert_eq!((pending(&msix), raised(&msix, 0)), (1, 0));
        msix.write_table(4, &0u32.to_le_bytes());
        assert_eq!((pending(&msix), raised(&msix, 0)), (0, 1));
    }

    #[test]
    fn bug_03_vectors_and_entries_out_of_range_are_harmless() {
        let (msix, recorder) = msix(2);
        msix.set_control(ENABLE);
        for offset in [2 * ENTRY, 4080, 4096, u64::MAX - 7, u64::MAX - 3] {
            msix.write_table(offset & !7, &[0; 8]);
            let mut data = [0xaa; 8];
            msix.read_table(offset & !7, &mut data);
            assert_eq!(data, [0; 8]);
            msix.read_pending(offset & !7, &mut data);
            assert_eq!(data, [0; 8]);
        }
        for vector in [2, 255, 256, u16::MAX] {
            msix.raise(vector);
        }
        assert_eq!(pending(&msix), 0);
        assert!(recorder.0.lock().unwrap().is_empty());
        assert_eq!(Msix::new(0).unwrap().count(), 1);
        assert_eq!(Msix::new(100_000).unwrap().control(), 255);
    }

    #[test]
    fn bug_03_accesses_of_odd_size_change_nothing() {
        let (msix, _) = msix(1);
        set_up(&msix, 0, 5);
        for len in [0, 1, 2, 3, 5, 6, 7, 16] {
            let mut data = vec![0xaa; len];
            msix.read_table(0, &mut data);
            assert_eq!(data, vec![0; len]);
            data.fill(0xaa);
            msix.read_pending(0, &mut data);
            assert_eq!(data, vec![0; len]);
            msix.write_table(8, &vec![0xff; len]);
        }
        msix.write_table(2, &[0xff; 4]);
        msix.write_table(4, &[0xff; 8]);
        let mut entry = [0; 8];
        msix.read_table(8, &mut entry);
        assert_eq!(entry, [5, 0, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_order_of_accesses_is_survived(
            accesses in proptest::collection::vec(
                (0..5u8, 0..80u64, proptest::collection::vec(any::<u8>(), 0..9), any::<u16>()), 0..60)
        ) {
            let (msix, recorder) = msix(4);
            for (what, offset, data, number) in accesses {
                match what {
                    0 => msix.write_table(offset, &data),
                    1 => msix.read_table(offset, &mut vec![0; data.len()]),
                    2 => msix.read_pending(offset, &mut vec![0; data.len()]),
                    3 => msix.set_control(number),
                    _ => msix.raise(number % 6),
                }
            }
            let told = recorder.0.lock().unwrap();
            prop_assert!(told.iter().flatten().all(|(index, _)| *index < 4));
        }
    }
}
