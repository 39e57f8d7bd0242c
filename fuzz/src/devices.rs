//! Each virtio device's queues, and what its host's side sends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hv_vmm::device::virtio::VirtioDevice;
use hv_vmm::device::virtio::balloon::Balloon;
use hv_vmm::device::virtio::block::{self, Block, Choice, Disk};
use hv_vmm::device::virtio::console::{End, VirtioConsole};
use hv_vmm::device::virtio::net::{Link, Mac, Net, Settings};
use hv_vmm::device::virtio::rate_limit::Limits;
use hv_vmm::device::virtio::rng::Rng;
use hv_vmm::device::virtio::vsock::Vsock;
use rustix::fs::{MemfdFlags, memfd_create};

use crate::input::Input;
use crate::rig::Rig;

/// Bytes of the disk.
const DISK: u64 = 1 << 20;

/// A file in memory.
pub(crate) fn memory_file(name: &str, contents: &[u8]) -> File {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC).expect("a file in memory can be made"));
    file.write_all(contents).expect("memory can be written to");
    file
}

/// Runs one device; the first byte chooses the transport.
fn drive(device: Box<dyn VirtioDevice>, input: &mut Input, beside: impl FnMut(&[u8])) {
    let mut rig = if input.u8() & 1 == 0 { Rig::mmio(device) } else { Rig::pci(device) };
    rig.start(u64::MAX);
    rig.obey(input, beside);
    rig.settle();
    rig.must_come_up();
}

/// A disk.
pub fn block(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.u8();
    let file = memory_file("disk", &[]);
    file.set_len(DISK).expect("a file in memory can grow");
    let shrunken = file.try_clone().expect("a descriptor can be duplicated");
    let disk = Disk::new(file, kind & 1 != 0).expect("it is a disk");
    let engine = if kind & 2 == 0 { Choice::Positioned } else { Choice::Ring };
    let settings = block::Settings { engine, queues: 1 + (kind >> 2 & 1), ..block::Settings::default() };
    let device = Block::new(disk, settings).expect("it can be made");
    drive(Box::new(device), &mut input, |bytes| {
        // The file is cut short, or made longer, while it is in use.
        let len = bytes.iter().fold(0, |len, byte| len << 8 | u64::from(*byte)) % (2 * DISK);
        shrunken.set_len(len).expect("a file in memory has any length");
    });
}

/// A link that is a pair of sockets for each queue pair.
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

/// A network device.
pub fn net(data: &[u8]) {
    let mut input = Input(data);
    let pairs = 1 + input.u8() % 3;
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..pairs)
        .map(|_| {
            let pair = UnixDatagram::pair().expect("sockets can be made");
            for end in [&pair.0, &pair.1] {
                end.set_nonblocking(true).expect("a socket need not block");
            }
            pair
        })
        .unzip();
    let link = Sockets(ours.into_iter().map(|end| File::from(OwnedFd::from(end))).collect());
    let limits = Limits::default();
    let settings = Settings { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1500, rx: limits, tx: limits };
    let device = Net::new("fuzz", Box::new(link), &settings).expect("it can be made");
    drive(Box::new(device), &mut input, |bytes| {
        for end in &theirs {
            // The frame is there or the link is full.
            let _ = end.send(bytes);
            while end.recv(&mut [0; 0x1_1000]).is_ok() {}
        }
    });
}

/// Entropy.
pub fn rng(data: &[u8]) {
    drive(Box::new(Rng::new()), &mut Input(data), |_| {});
}

/// The balloon.
pub fn balloon(data: &[u8]) {
    let device = Balloon::new(0).expect("it can be made");
    let handle = device.handle();
    drive(Box::new(device), &mut Input(data), |bytes| handle.set_target(Input(bytes).u64()));
}

/// The console, with a named port whose end is a file.
pub fn console(data: &[u8]) {
    let (ours, mut terminal) = UnixStream::pair().expect("sockets can be made");
    terminal.set_nonblocking(true).expect("a socket need not block");
    let ports = vec![("log".to_owned(), End::file(memory_file("log", &[])))];
    let console = End::stream(ours).expect("a socket need not block");
    let device = VirtioConsole::new(console, ports).expect("it can be made");
    drive(Box::new(device), &mut Input(data), |bytes| {
        let _ = terminal.write(bytes);
        let _ = terminal.read(&mut [0; 0x1_0000]);
    });
}

/// Sockets: packets, with programs of the host at both kinds of ends.
pub fn vsock(data: &[u8]) {
    let place = Place::new();
    let listener = UnixListener::bind(place.path("_1024")).expect("a socket can be made");
    listener.set_nonblocking(true).expect("a socket need not block");
    let device = Vsock::new(3, &place.path("")).expect("it can be made");
    let mut streams: Vec<UnixStream> = Vec::new();
    drive(Box::new(device), &mut Input(data), |bytes| {
        streams.extend(listener.accept().ok().map(|(stream, _)| stream));
        if let [0, rest @ ..] = bytes {
            // The line by which a program connects to the guest, right or wrong.
            streams.extend(UnixStream::connect(place.path("")).ok());
            if let Some(stream) = streams.last_mut() {
                let _ = stream.write_all(rest);
            }
        }
        streams.truncate(16);
        for stream in &mut streams {
            let _ = stream.set_nonblocking(true);
            let _ = stream.write(bytes);
            let _ = stream.read(&mut [0; 0x1_0000]);
        }
        if bytes.first() == Some(&1) {
            streams.pop();
        }
    });
}

/// Names for the sockets of one run, which are removed with it.
struct Place {
    base: PathBuf,
}

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let shared = Path::new("/dev/shm");
        let dir = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        Place { base: dir.join(format!("hv-fuzz-{}-{number}", std::process::id())) }
    }

    fn path(&self, suffix: &str) -> PathBuf {
        let mut name = self.base.clone().into_os_string();
        name.push(suffix);
        name.into()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for suffix in ["", "_1024"] {
            // The device removes its own.
            let _ = std::fs::remove_file(self.path(suffix));
        }
    }
}
