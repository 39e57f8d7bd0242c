//! All connections between the guest and sockets on the host, and whose turn it is.
//!
//! Knows packets but no queues. Everything in it is bounded: connections by [`MOST`], what waits for a
//! socket by the credit given to the guest, resets by [`RESETS`] (beyond which [`Bridge::backlogged`]
//! asks for no more packets), and messages to the guest by being made only when there is a buffer.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::unix::net::UnixStream;

use rustix::event::epoll;

use super::connection::{Connection, Message};
use super::host::{Host, LISTENER, read_connect_line};
use super::packet::{HOST_CID, Header, Op, Ports, STREAM};
use crate::broker::Broker;
use crate::device::virtio::Progress;
use crate::device::virtio::chain::Buffers;

/// Connections and attempts at once; one more is reset.
pub const MOST: usize = 1024;
/// The first connections get this many bytes of credit each...
const LARGE: u32 = 256 << 10;
/// ...as long as there are no more than this,
const LARGE_ONES: usize = 64;
/// and the others this, so that a guest whose peers do not read leaves 31 MiB of payload here at most.
const SMALL: u32 = 16 << 10;
/// Resets that wait for the guest to have room.
const RESETS: usize = 256;
/// Events of sockets that are taken at a time.
const EVENTS: usize = 64;
/// Ports of the host for connections to the guest start here, above those that services use.
const FIRST_PORT: u32 = 1 << 30;

enum Entry {
    /// Somebody on the host who has not said yet which port is meant.
    Greeting(UnixStream),
    /// A connection, asked for or established.
    Open(Ports, Connection),
    /// The guest has closed it, the host has not read everything yet.
    Draining(Connection),
}

/// See the module.
pub struct Bridge {
    host: Host,
    guest_cid: u64,
    /// By token: what epoll knows a socket by. Never used twice.
    entries: HashMap<u64, Entry>,
    tokens: HashMap<Ports, u64>,
    next_token: u64,
    next_port: u32,
    /// Connections that may have a message for the guest, each once, in turn.
    ready: VecDeque<u64>,
    resets: VecDeque<Ports>,
    /// There may be somebody to accept who was not when the event came.
    accept_later: bool,
}

impl Bridge {
    /// Nothing is connected yet.
    pub fn new(host: Host, guest_cid: u64) -> Self {
        Bridge {
            host,
            guest_cid,
            entries: HashMap::new(),
            tokens: HashMap::new(),
            next_token: LISTENER + 1,
            next_port: FIRST_PORT,
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            accept_later: false,
        }
    }

    /// Who makes connections to sockets on the host; None: the device itself.
    pub fn connect_through(&mut self, broker: Option<Broker>) {
        self.host.broker = broker;
    }

    /// The host's side.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The guest starts over: all its connections are gone. What it has sent before is still delivered.
    pub fn reset(&mut self) {
        let open = std::mem::take(&mut self.tokens);
        open.into_values().for_each(|token| self.drain(token));
        self.ready.clear();
        self.resets.clear();
    }

    /// Too much waits for the guest to make room; it is to send no more before.
    pub fn backlogged(&self) -> bool {
        self.resets.len() >= RESETS
    }

    /// Whether [`Bridge::next`] may have something.
    pub fn has_next(&self) -> bool {
        !self.resets.is_empty() || !self.ready.is_empty()
    }

    /// Takes what has happened at sockets.
    pub fn poll(&mut self) -> Progress {
        let empty = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [empty; EVENTS];
        let count = self.host.events(&mut events);
        for event in &events[..count] {
            // By value: the structure is packed.
            let (token, flags) = ({ event.data }.u64(), { event.flags });
            if token == LISTENER { self.accept() } else { self.socket_event(token, flags) }
        }
        if count < EVENTS { Progress::Done } else { Progress::More }
    }

    fn accept(&mut self) {
        self.accept_later = false;
        loop {
            match self.host.accept() {
                // One too many is closed at once.
                Ok(socket) if self.entries.len() < MOST => {
                    let token = self.new_token();
                    if self.host.watch(&socket, token).is_ok() {
                        self.entries.insert(token, Entry::Greeting(socket));
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.accept_later = error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    fn socket_event(&mut self, token: u64, events: epoll::EventFlags) {
        match self.entries.get_mut(&token) {
            Some(Entry::Greeting(socket)) => match read_connect_line(socket) {
                Ok(None) => {}
                Ok(Some(port)) => self.connect_guest(token, port),
                Err(_) => self.remove(token),
            },
            Some(Entry::Open(_, connection)) => {
                connection.socket_event(events);
                self.enqueue(token);
            }
            Some(Entry::Draining(connection)) => {
                connection.socket_event(events);
                if connection.flushed() {
                    self.remove(token);
                }
            }
            // Closed by an earlier event of the same batch.
            None => {}
        }
    }

    /// Somebody on the host has said to which port of the guest.
    fn connect_guest(&mut self, token: u64, guest: u32) {
        let ports = self.free_port(guest);
        let limit = self.credit();
        if let Some(Entry::Greeting(socket)) = self.entries.remove(&token) {
            self.entries.insert(token, Entry::Open(ports, Connection::requested(socket, limit)));
            self.tokens.insert(ports, token);
            self.enqueue(token);
        }
    }

    /// A port of the host that has no connection to this port of the guest; there is one, since there are
    /// more ports than connections.
    fn free_port(&mut self, guest: u32) -> Ports {
        loop {
            let ports = Ports { host: self.next_port, guest };
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.tokens.contains_key(&ports) {
                return ports;
            }
        }
    }

    /// Takes a packet of the guest.
    pub fn receive(&mut self, header: &Header, payload: Buffers) {
        // Not from there, or not for here: nobody to tell.
        if header.src_cid != self.guest_cid || header.dst_cid != HOST_CID {
            return;
        }
        let ports = header.ports();
        let op = Op::from_number(header.op).filter(|_| header.kind == STREAM);
        let token = self.tokens.get(&ports).copied();
        match (op, token) {
            (Some(Op::Reset), None) => {}
            (Some(Op::Reset), Some(token)) => self.close(token),
            (Some(Op::Request), None) => self.connect_host(ports, header),
            (Some(op), Some(token)) => {
                if self.message(token, op, header, payload) {
                    self.enqueue(token);
                } else {
                    self.close(token);
                    self.resets.push_back(ports);
                }
            }
            (None, token) => {
                token.into_iter().for_each(|token| self.close(token));
                self.resets.push_back(ports);
            }
            (_, None) => self.resets.push_back(ports),
        }
    }

    /// A packet for a connection; false if the connection is over, by the guest's wish or its fault.
    fn message(&mut self, token: u64, op: Op, header: &Header, payload: Buffers) -> bool {
        let Some(Entry::Open(ports, connection)) = self.entries.get_mut(&token) else { return false };
        connection.credit(header);
        match op {
            Op::Response => connection.respond(&format!("OK {}\n", ports.host)),
            Op::Data => connection.deliver(payload).is_ok(),
            Op::Shutdown => !connection.guest_shutdown(header.flags),
            Op::CreditUpdate => true,
            Op::CreditRequest => {
                connection.ask_credit();
                true
            }
            Op::Request | Op::Reset => false,
        }
    }

    /// The guest asks for a connection to a port of the host.
    fn connect_host(&mut self, ports: Ports, header: &Header) {
        let token = self.new_token();
        let room = self.entries.len() < MOST;
        let socket = room.then(|| self.host.connect(ports.host)).and_then(Result::ok);
        match socket.filter(|socket| self.host.watch(socket, token).is_ok()) {
            Some(socket) => {
                let mut connection = Connection::accepted(socket, self.credit());
                connection.credit(header);
                self.entries.insert(token, Entry::Open(ports, connection));
                self.tokens.insert(ports, token);
                self.enqueue(token);
            }
            None => self.resets.push_back(ports),
        }
    }

    /// The next packet for the guest, payload put into `room`, which is what follows the header. None if
    /// nobody has anything to say.
    pub fn next(&mut self, room: &Buffers) -> Option<Header> {
        if let Some(ports) = self.resets.pop_front() {
            return Some(self.header(ports, Message::RESET));
        }
        while let Some(token) = self.ready.pop_front() {
            let Some(Entry::Open(ports, connection)) = self.entries.get_mut(&token) else { continue };
            let (ports, message) = (*ports, connection.next(room));
            connection.queued = false;
            self.enqueue(token);
            if let Some(message) = message {
                return Some(self.header(ports, message));
            }
        }
        None
    }

    fn header(&self, ports: Ports, message: Message) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            len: message.len,
            kind: STREAM,
            op: message.op as u16,
            flags: message.flags,
            buf_alloc: message.buf_alloc,
            fwd_cnt: message.fwd_cnt,
        }
    }

    /// Puts a connection in line if it has something to say and is not there yet.
    fn enqueue(&mut self, token: u64) {
        if let Some(Entry::Open(_, connection)) = self.entries.get_mut(&token)
            && !connection.queued
            && connection.has_next()
        {
            connection.queued = true;
            self.ready.push_back(token);
        }
    }

    /// The guest's end of a connection is gone.
    fn close(&mut self, token: u64) {
        if let Some(Entry::Open(ports, _)) = self.entries.get(&token) {
            self.tokens.remove(ports);
        }
        self.drain(token);
    }

    /// Keeps a connection only until its socket has taken what waits for it.
    fn drain(&mut self, token: u64) {
        match self.entries.remove(&token) {
            Some(Entry::Open(_, connection)) if !connection.flushed() => {
                self.entries.insert(token, Entry::Draining(connection));
            }
            _ => self.remove(token),
        }
    }

    fn remove(&mut self, token: u64) {
        self.entries.remove(&token);
        if self.accept_later {
            self.accept();
        }
    }

    fn credit(&self) -> u32 {
        if self.entries.len() <= LARGE_ONES { LARGE } else { SMALL }
    }

    fn new_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }
}
