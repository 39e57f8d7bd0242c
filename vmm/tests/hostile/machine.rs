//! A machine with every device, and a host's side of each that is alive.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use hv_vmm::broker::{self, Broker};
use hv_vmm::device::virtio::VirtioDevice;
use hv_vmm::device::virtio::balloon::{Balloon, Handle};
use hv_vmm::device::virtio::block::{self, Block, Disk};
use hv_vmm::device::virtio::console::{End, VirtioConsole};
use hv_vmm::device::virtio::net::{self, Link, Mac, Net};
use hv_vmm::device::virtio::rate_limit::Limits;
use hv_vmm::device::virtio::rng::Rng;
use hv_vmm::device::virtio::vsock::Vsock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::script::Known;

const DISK: u64 = 4 << 20;

/// A network link that is a pair of sockets for each queue pair.
struct Sockets(Vec<File>);

impl Link for Sockets {
    fn queues(&self) -> &[File] {
        &self.0
    }

    fn offloads(&self) -> u32 {
        0x7f
    }

    fn set_offloads(&self, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn use_pairs(&mut self, _: u16) -> io::Result<()> {
        Ok(())
    }
}

/// The devices, in a machine's order, and what is left of them outside.
pub struct Devices {
    pub virtio: Vec<Box<dyn VirtioDevice>>,
    pub balloon: Handle,
    _peers: Peers,
    /// After the device that asks it.
    _office: Serving,
}

impl Devices {
    /// Makes them; files and sockets are in `dir`.
    pub fn new(dir: &Path) -> Devices {
        let disk = |read_only| {
            let file = tempfile::tempfile_in(dir).unwrap();
            file.set_len(DISK).unwrap();
            Disk::new(file, read_only).unwrap()
        };
        let block = |disk, settings| Box::new(Block::new(disk, settings).unwrap());
        let limits = Limits { operations: NonZeroU64::new(20_000), bytes: NonZeroU64::new(1 << 30) };
        let limited =
            block::Settings { id: "limited".into(), queues: 2, limits, ..block::Settings::default() };
        let (ours, frames): (Vec<_>, Vec<_>) = (0..2).map(|_| UnixDatagram::pair().unwrap()).unzip();
        for end in ours.iter().chain(&frames) {
            end.set_nonblocking(true).unwrap();
        }
        let link = Sockets(ours.into_iter().map(|end| File::from(OwnedFd::from(end))).collect());
        let settings = net::Settings {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            rx: Limits::default(),
            tx: Limits::default(),
        };
        let (console, terminal) = UnixStream::pair().unwrap();
        let log = File::options().append(true).create(true).open(dir.join("port")).unwrap();
        let named = vec![("log".to_owned(), End::file(log))];
        let vsock = dir.join("vsock");
        let listener = UnixListener::bind(dir.join("vsock_1024")).unwrap();
        let balloon = Balloon::new(0).unwrap();
        let handle = balloon.handle();
        let (broker, office) = serve_broker(&vsock);
        let virtio: Vec<Box<dyn VirtioDevice>> = vec![
            block(disk(false), block::Settings { id: "whole".into(), ..block::Settings::default() }),
            block(disk(true), limited),
            Box::new(Net::new("sockets", Box::new(link), &settings).unwrap()),
            Box::new(Vsock::new(3, &vsock).unwrap().through(Some(broker))),
            Box::new(Rng::new()),
            Box::new(balloon),
            Box::new(VirtioConsole::new(End::stream(console).unwrap(), named).unwrap()),
        ];
        let callers: Vec<_> = (0..3).map(|port| call(&vsock, 50 + port)).collect();
        Devices {
            virtio,
            balloon: handle,
            _peers: Peers::start(frames, listener, terminal, callers),
            _office: office,
        }
    }

    /// What the guest is told of them.
    pub fn known(&self) -> Vec<Known> {
        let devices = self.virtio.iter();
        devices
            .map(|device| Known { queues: device.queue_sizes().len(), kind: device.device_type() })
            .collect()
    }
}

/// Connects for the device, whose threads may not; ends with it.
fn serve_broker(path: &Path) -> (Broker, Serving) {
    let (asking, mut office) = broker::pair(path).unwrap();
    let thread = std::thread::spawn(move || {
        loop {
            let event = office.event();
            poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
            if !office.serve() {
                return;
            }
        }
    });
    (asking, Serving(Some(thread)))
}

/// The thread that connects. Dropping waits for it, which ends with the device.
pub struct Serving(Option<JoinHandle<()>>);

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            thread.join().unwrap();
        }
    }
}

/// A connection from the host to a port of the guest.
fn call(path: &Path, port: u32) -> UnixStream {
    let mut stream = UnixStream::connect(path).unwrap();
    writeln!(stream, "CONNECT {port}").unwrap();
    stream
}

/// A thread that sends back what comes, whoever it comes from.
pub struct Peers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peers {
    fn start(
        frames: Vec<UnixDatagram>,
        listener: UnixListener,
        terminal: UnixStream,
        callers: Vec<UnixStream>,
    ) -> Peers {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        listener.set_nonblocking(true).unwrap();
        let mut streams = callers;
        streams.push(terminal);
        streams.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                wait(&frames, &listener, &streams);
                for end in &frames {
                    let mut frame = [0; 2048];
                    // A link that is full drops frames.
                    while let Ok(len) = end.recv(&mut frame) {
                        let _ = end.send(&frame[..len]);
                    }
                }
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    streams.push(stream);
                }
                streams.retain_mut(echo);
            }
        });
        Peers { stop, thread: Some(thread) }
    }
}

fn wait(frames: &[UnixDatagram], listener: &UnixListener, streams: &[UnixStream]) {
    let mut fds: Vec<_> = frames.iter().map(|end| PollFd::new(end, PollFlags::IN)).collect();
    fds.push(PollFd::new(listener, PollFlags::IN));
    fds.extend(streams.iter().map(|stream| PollFd::new(stream, PollFlags::IN)));
    let limit = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let _ = poll(&mut fds, Some(&limit));
}

/// False when the other end is gone.
fn echo(stream: &mut UnixStream) -> bool {
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes) {
        Ok(0) => false,
        // What the other end does not take is lost.
        Ok(len) => {
            let _ = stream.write(&bytes[..len]);
            true
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
