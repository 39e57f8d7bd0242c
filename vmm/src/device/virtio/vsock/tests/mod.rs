//! A guest's driver and its host, for the tests of this device.

mod hostile;
mod streams;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use tempfile::TempDir;

use super::super::testing::{Buffer, Rig};
use super::packet::{Op, STREAM};
use super::*;

const GUEST: u64 = 3;
const PORT: u32 = 1024;
const EPHEMERAL: u32 = 50_000;
/// What the guest of these tests has room for.
const GUEST_ROOM: u32 = 128 << 10;
const GUEST_BUFFER: usize = 4096;

/// A guest with the vsock driver, and the directory of the host's sockets.
struct Guest {
    rig: Rig,
    dir: TempDir,
    buffers: usize,
}

impl Guest {
    /// One that has given the device room for this many packets.
    fn new(buffers: usize) -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let device = Vsock::new(GUEST as u32, &dir.path().join("vsock")).unwrap();
        let mut guest = Guest { rig: Rig::new(Box::new(device)), dir, buffers: 0 };
        guest.make_room(buffers);
        guest
    }

    fn make_room(&mut self, buffers: usize) {
        (0..buffers).for_each(|_| {
            self.rig.submit(TO_GUEST, &[Buffer::In(GUEST_BUFFER)]);
        });
        self.buffers += buffers;
        self.rig.kick(TO_GUEST);
    }

    fn header(&self, op: Op) -> Header {
        Header {
            src_cid: GUEST,
            dst_cid: HOST_CID,
            src_port: EPHEMERAL,
            dst_port: PORT,
            kind: STREAM,
            op: op as u16,
            buf_alloc: GUEST_ROOM,
            ..Header::default()
        }
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let header = Header { len: payload.len() as u32, ..header };
        self.rig.request(FROM_GUEST, &[Buffer::Out(header.bytes().to_vec()), Buffer::Out(payload.to_vec())]);
    }

    fn say(&mut self, op: Op) {
        self.send(self.header(op), &[]);
    }

    /// The next packet that the device sent; the buffer goes back to it.
    fn hear(&mut self) -> Option<(Header, Vec<u8>)> {
        self.rig.run();
        let used = self.rig.used(TO_GUEST)?;
        self.buffers -= 1;
        self.make_room(1);
        let header = Header::parse(used.bytes[..Header::BYTES].try_into().unwrap());
        assert_eq!(used.written, 44 + header.len);
        assert_eq!((header.src_cid, header.dst_cid, header.kind), (HOST_CID, GUEST, STREAM));
        let payload = used.bytes[Header::BYTES..used.written as usize].to_vec();
        Some((header, payload))
    }

    fn hear_op(&mut self) -> Option<(Op, u32)> {
        self.hear().map(|(header, _)| (Op::from_number(header.op).unwrap(), header.flags))
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.dir.path().join(format!("vsock_{port}"))).unwrap()
    }

    /// A connection of the guest's to the host, established.
    fn connect(&mut self) -> UnixStream {
        let listener = self.listen(PORT);
        self.say(Op::Request);
        let (socket, _) = listener.accept().unwrap();
        assert_eq!(self.hear_op(), Some((Op::Response, 0)));
        socket.set_nonblocking(true).unwrap();
        socket
    }

    /// Asks from the host for a port of the guest.
    fn connect_from_host(&self, line: &str) -> UnixStream {
        let mut socket = UnixStream::connect(self.dir.path().join("vsock")).unwrap();
        socket.write_all(line.as_bytes()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }
}

fn read(mut socket: &UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    match socket.read(&mut bytes) {
        Ok(count) => bytes.truncate(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => bytes.clear(),
        Err(error) => panic!("{error}"),
    }
    bytes
}

/// The other end has closed, or shut down for writing.
fn at_end(mut socket: &UnixStream) -> bool {
    matches!(socket.read(&mut [0]), Ok(0))
}
