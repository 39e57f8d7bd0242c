//! One connection: a stream of the guest's on one side, a unix socket on the other.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;
use rustix::net::{RecvFlags, SendFlags};

use super::credit::{Backlog, Excess, Inbound, Outbound};
use super::packet::{BOTH, Header, NO_MORE_RECEIVE, NO_MORE_SEND, Op};
use crate::device::virtio::chain::Buffers;
use crate::memory::scatter;

/// The longest payload of a packet to the guest, in bytes.
const LONGEST: u32 = 64 << 10;

/// What a connection has to say to the guest: an operation, its flags, and how much payload was put
/// behind the header already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub op: Op,
    pub flags: u32,
    pub len: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

impl Message {
    /// For no connection, or not any more.
    pub const RESET: Message = Message { op: Op::Reset, flags: 0, len: 0, buf_alloc: 0, fwd_cnt: 0 };
}

/// A connection's state. Directions are named by where bytes go.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    /// The guest has agreed to a connection of the host's; one of its own is agreed from the start.
    established: bool,
    /// Request or response that is to be sent first.
    opening: Option<Op>,
    inbound: Inbound,
    outbound: Outbound,
    backlog: Backlog,
    /// The socket had something when last looked at, and had room. Events come once a change only.
    readable: bool,
    writable: bool,
    /// A credit request is on its way for the present lack of credit.
    asked: bool,
    /// What the guest will not do any more, as it said.
    guest_done: u32,
    /// What the host's end of the socket will not do any more, and how much of it the guest was told.
    host_done: u32,
    told_done: u32,
    /// The socket has been shut down for writing.
    write_closed: bool,
    /// The guest has asked how much it may send.
    asked_by_guest: bool,
    /// Waits in line to send; the line's business.
    pub queued: bool,
}

impl Connection {
    /// A connection that the guest asked for and that has reached a socket on the host.
    pub fn accepted(socket: UnixStream, limit: u32) -> Self {
        Self::new(socket, limit, Op::Response)
    }

    /// A connection that somebody on the host asked for.
    pub fn requested(socket: UnixStream, limit: u32) -> Self {
        Self::new(socket, limit, Op::Request)
    }

    fn new(socket: UnixStream, limit: u32, opening: Op) -> Self {
        Connection {
            socket,
            established: opening == Op::Response,
            opening: Some(opening),
            inbound: Inbound::new(limit),
            outbound: Outbound::default(),
            backlog: Backlog::default(),
            readable: true,
            writable: true,
            asked: false,
            guest_done: 0,
            host_done: 0,
            told_done: 0,
            write_closed: false,
            asked_by_guest: false,
            queued: false,
        }
    }

    /// Takes the credit fields that every packet of the guest has.
    pub fn credit(&mut self, header: &Header) {
        self.outbound.update(header.buf_alloc, header.fwd_cnt);
        if self.outbound.credit() > 0 {
            self.asked = false;
        }
    }

    /// The guest answers a request: the stream begins, with a first line for whoever asked. False if it
    /// was not asked.
    pub fn respond(&mut self, line: &str) -> bool {
        if self.established || self.opening.is_some() {
            return false;
        }
        self.established = true;
        // The first bytes on a fresh socket: there is room, or nobody is there.
        if rustix::net::send(&self.socket, line.as_bytes(), SEND).is_err() {
            self.host_gone();
        }
        true
    }

    /// The guest sends payload.
    ///
    /// # Errors
    /// More than it has credit for, or after it said that it would not.
    pub fn deliver(&mut self, mut payload: Buffers) -> Result<(), Excess> {
        if !self.established || self.guest_done & NO_MORE_SEND != 0 {
            return Err(Excess);
        }
        self.inbound.receive(payload.len())?;
        while !payload.is_empty() && self.backlog.is_empty() && self.writable {
            match scatter::send(&self.socket, payload.slices()) {
                Ok(count) => {
                    self.inbound.forward(count);
                    payload.advance(count);
                }
                Err(error) => self.send_failed(&error),
            }
        }
        if self.host_done & NO_MORE_RECEIVE != 0 {
            self.inbound.forward(payload.len());
        } else if !payload.is_empty() {
            self.backlog.push(&payload);
        }
        Ok(())
    }

    /// The guest is done in these directions. True when that is both, and the guest is to be forgotten.
    pub fn guest_shutdown(&mut self, flags: u32) -> bool {
        self.guest_done |= flags & BOTH;
        if self.guest_done & NO_MORE_RECEIVE != 0 {
            // Fails only if the other end is gone, which is what it is to bring about.
            let _ = self.socket.shutdown(Shutdown::Read);
        }
        self.flush();
        self.guest_done == BOTH
    }

    /// Something changed at the socket.
    pub fn socket_event(&mut self, events: EventFlags) {
        self.readable |= events.intersects(EventFlags::IN | EventFlags::RDHUP | END);
        if events.intersects(EventFlags::OUT | END) {
            self.writable = true;
            self.flush();
        }
        if events.intersects(END) {
            self.host_gone();
        }
    }

    /// Nothing is left to be written to the socket.
    pub fn flushed(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Writes what waits, as far as there is room, and passes the guest's end of stream on behind it.
    fn flush(&mut self) {
        while !self.backlog.is_empty() && self.writable {
            match rustix::net::send(&self.socket, self.backlog.bytes(), SEND) {
                Ok(count) => {
                    self.inbound.forward(count);
                    self.backlog.consume(count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => self.send_failed(&errno.into()),
            }
        }
        if self.backlog.is_empty() && self.guest_done & NO_MORE_SEND != 0 && !self.write_closed {
            self.write_closed = true;
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    fn send_failed(&mut self, error: &io::Error) {
        self.writable = false;
        if error.kind() != io::ErrorKind::WouldBlock {
            self.host_gone();
        }
    }

    /// Nobody reads the socket any more: the guest learns that, and what it has sent is dropped.
    fn host_gone(&mut self) {
        self.host_done |= NO_MORE_RECEIVE;
        self.inbound.forward(self.backlog.bytes().len());
        self.backlog = Backlog::default();
    }

    /// Bytes from the socket are wanted: by the guest, and not at their end.
    fn reading(&self) -> bool {
        self.readable && self.guest_done & NO_MORE_RECEIVE == 0 && self.host_done & NO_MORE_SEND == 0
    }

    /// Whether [`Connection::next`] may have something.
    pub fn has_next(&self) -> bool {
        let news = || {
            self.reading() && (self.outbound.credit() > 0 || !self.asked)
                || self.host_done != self.told_done
                || self.credit_news()
        };
        self.opening.is_some() || self.established && news()
    }

    /// The next message for the guest, payload put into `room`, which is what follows the header.
    pub fn next(&mut self, room: &Buffers) -> Option<Message> {
        if let Some(op) = self.opening.take() {
            return Some(self.message(op, 0, 0));
        }
        if !self.established {
            return None;
        }
        if self.reading() {
            let credit = self.outbound.credit();
            if credit > 0 {
                let mut room = room.clone();
                room.truncate(room.len().min(credit.min(LONGEST) as usize));
                if let Some(len) = self.receive(&room) {
                    return Some(self.message(Op::Data, 0, len));
                }
            } else if !self.asked {
                self.asked = true;
                return Some(self.message(Op::CreditRequest, 0, 0));
            }
        }
        if self.host_done != self.told_done {
            self.told_done = self.host_done;
            return Some(self.message(Op::Shutdown, self.host_done, 0));
        }
        self.credit_news().then(|| self.message(Op::CreditUpdate, 0, 0))
    }

    fn credit_news(&self) -> bool {
        self.asked_by_guest || self.inbound.news()
    }

    /// The guest asks how much it may send.
    pub fn ask_credit(&mut self) {
        self.asked_by_guest = true;
    }

    fn receive(&mut self, room: &Buffers) -> Option<u32> {
        match scatter::receive(&self.socket, room.slices()) {
            Ok(0) => self.host_done |= NO_MORE_SEND,
            Ok(count) => {
                self.outbound.send(count);
                return Some(count as u32);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => {
                self.host_done |= NO_MORE_SEND;
                self.host_gone();
            }
        }
        None
    }

    /// Every message carries what the guest may send.
    fn message(&mut self, op: Op, flags: u32, len: u32) -> Message {
        self.asked_by_guest = false;
        Message { op, flags, len, buf_alloc: self.inbound.limit(), fwd_cnt: self.inbound.tell() }
    }
}

impl Drop for Connection {
    /// Closes so that the other end reads an end of stream: a unix socket that is closed with bytes
    /// unread gives its peer ECONNRESET instead.
    fn drop(&mut self) {
        if self.socket.shutdown(Shutdown::Both).is_ok() {
            let mut unread = [0u8; 4096];
            // Nobody can send any more, so this comes to an end, with 0.
            while rustix::net::recv(&self.socket, &mut unread, RecvFlags::DONTWAIT).is_ok_and(|(n, _)| n > 0)
            {
            }
        }
    }
}

const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
/// The socket has come to its end in both directions, or failed.
const END: EventFlags = EventFlags::HUP.union(EventFlags::ERR);
