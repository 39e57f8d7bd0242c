//! One port: what its driver has been told, and how bytes pass through.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::epoll;

use super::super::Progress;
use super::super::chain::Buffers;
use super::super::queue::BUDGET;
use super::control::{CONSOLE_PORT, Message, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY};
use super::end::End;

/// The longest name of a port, in bytes.
pub const MAX_NAME: usize = 32;
/// How much passes at once.
const PIECE: usize = 16 << 10;

/// A port.
pub(super) struct Port {
    /// None: the console.
    name: Option<String>,
    end: End,
    /// The end is there: it has not hung up, and has taken all that it was given.
    connected: bool,
    /// The driver's side is open: somebody there reads.
    open: bool,
    owed: Owed,
    /// How much of the first chain of output the end has taken.
    taken: usize,
    /// What may still pass in this turn.
    budget: usize,
    /// More can pass without a further event.
    pub unfinished: bool,
}

/// What the driver has to be told.
#[derive(Debug, Default)]
struct Owed {
    add: bool,
    console: bool,
    name: bool,
    open: bool,
}

impl Port {
    pub fn new(name: Option<String>, end: End) -> Port {
        Port {
            name,
            end,
            connected: true,
            open: false,
            owed: Owed::default(),
            taken: 0,
            budget: 0,
            unfinished: false,
        }
    }

    /// Has `epoll` tell when the end takes or gives again.
    pub fn watch(&self, epoll: &OwnedFd, token: epoll::EventData) -> io::Result<()> {
        use epoll::EventFlags as E;
        let Some(end) = self.end.watched() else { return Ok(()) };
        match epoll::add(epoll, end, token, E::IN | E::OUT | E::RDHUP | E::ET) {
            // Regular files always take: there is nothing to wait for.
            Err(rustix::io::Errno::PERM) => Ok(()),
            other => Ok(other?),
        }
    }

    /// The driver has gone.
    pub fn reset(&mut self) {
        self.open = false;
        self.owed = Owed::default();
        self.taken = 0;
        self.unfinished = false;
    }

    /// The driver is there and knows of no port.
    pub fn announce(&mut self) {
        self.owed.add = true;
    }

    /// The driver says something about this port.
    pub fn hear(&mut self, event: u16, yes: bool) {
        match event {
            PORT_READY if yes => {
                self.owed.console = self.name.is_none();
                self.owed.name = self.name.is_some();
                self.owed.open = self.connected;
            }
            PORT_OPEN => self.open = yes,
            _ => {}
        }
    }

    /// Whether the driver has to be told something.
    pub fn owes(&self) -> bool {
        let Owed { add, console, name, open } = self.owed;
        add || console || name || open
    }

    /// The next thing to tell the driver of this port, which has this number.
    pub fn next_message(&mut self, number: u32) -> Option<Vec<u8>> {
        let message = |event, value| Some(Message { port: number, event, value }.to_bytes());
        let Owed { add, console, name, open } = &mut self.owed;
        if std::mem::take(add) {
            message(PORT_ADD, 1)
        } else if std::mem::take(console) {
            message(CONSOLE_PORT, 1)
        } else if std::mem::take(name) {
            let mut bytes = message(PORT_NAME, 1)?;
            bytes.extend_from_slice(self.name.as_deref().unwrap_or_default().as_bytes());
            Some(bytes)
        } else if std::mem::take(open) {
            message(PORT_OPEN, self.connected.into())
        } else {
            None
        }
    }

    /// Before output passes: other ports want their turn too.
    pub fn begin_turn(&mut self) {
        self.budget = BUDGET;
    }

    /// Whether more could have passed.
    pub fn end_turn(&self) -> Progress {
        if self.budget == 0 { Progress::More } else { Progress::Done }
    }

    /// Gives the end what the driver wrote. None: it does not take all of it now; the same buffers come
    /// again. Without an end, output goes nowhere.
    pub fn take_output(&mut self, mut buffers: Buffers<'_>) -> Option<u32> {
        buffers.advance(self.taken);
        let mut piece = [0; PIECE];
        while self.connected && !buffers.is_empty() {
            if self.budget == 0 {
                return None;
            }
            let size = PIECE.min(self.budget);
            let count = buffers.copy_to(&mut piece[..size]);
            match self.end.write(&piece[..count]) {
                Ok(0) => self.hang_up(),
                Ok(count) => {
                    buffers.advance(count);
                    self.taken += count;
                    self.budget -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.hang_up(),
            }
        }
        self.taken = 0;
        Some(0)
    }

    /// Whether what comes from the end has somewhere to go.
    pub fn wants_input(&self) -> bool {
        self.open && self.connected && self.end.gives_input()
    }

    /// Fills a buffer of the driver's; how much. None: there is nothing to fill it with.
    pub fn give_input(&mut self, buffers: &Buffers<'_>) -> Option<u32> {
        let mut piece = [0; PIECE];
        let room = buffers.len().min(PIECE);
        if room == 0 {
            // Nothing fits: it goes back as it came.
            return Some(0);
        }
        if !self.connected {
            return None;
        }
        loop {
            match self.end.read(&mut piece[..room]) {
                Ok(0) => {
                    self.hang_up();
                    return None;
                }
                Ok(count) => return Some(buffers.copy_from(&piece[..count]) as u32),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {
                    self.hang_up();
                    return None;
                }
            }
        }
    }

    /// The end has gone, for good.
    fn hang_up(&mut self) {
        self.connected = false;
        self.owed.open = true;
    }
}
