//! The virtio devices with Linux's own drivers: a guest that is this same program, as PID 1.
//!
//! The guest's half is the ignored test `guest::role`: the initramfs holds this executable as `/init`,
//! and the kernel's command line names that test behind `--`.

use std::fs::File;
use std::io::{Read, Write};

const DISK: usize = 24 << 20;
const STREAM: usize = 10 << 20;

/// Bytes that differ from page to page.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32 / 4).flat_map(|i| i.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect()
}

fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

mod vm {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::thread;
    use std::time::Instant;

    use hv_common::{Limits, Timeline};
    use hv_vmm::boot::cmdline::command_line;
    use hv_vmm::device::serial::Console;
    use hv_vmm::device::virtio::block::{self, Block, Disk};
    use hv_vmm::device::virtio::rng::Rng;
    use hv_vmm::device::virtio::vsock::Vsock;
    use hv_vmm::device::virtio::{TransportKind, VirtioDevice};
    use hv_vmm::guest::{Description, Guest, Initramfs};
    use hv_vmm::hardware::Hardware;
    use hv_vmm::recipe::Progress;
    use hv_vmm::seccomp::Mode;
    use hv_vmm::settings::Settings;
    use hv_vmm::walls::Walls;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn linux_drives_block_rng_and_vsock() {
        let Some(kernel) = kernel() else {
            println!("skipped: HV_TEST_VM is not set, so Linux guests cannot run here");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let (read_only, writable) = (disk(&pattern(DISK)), disk(&[0; DISK]));
        let listeners = [1024, 1025, 1026].map(|port| listen(dir.path(), port));
        let console = Console::new(false);
        let virtio: Vec<Box<dyn VirtioDevice>> = vec![
            block(Disk::new(read_only, true).unwrap(), "root"),
            block(Disk::new(writable.try_clone().unwrap(), false).unwrap(), "data"),
            Box::new(Rng::new()),
            Box::new(Vsock::new(3, &dir.path().join("vsock")).unwrap()),
        ];
        let limits = Limits { millicpus: Some(1000), memory: Some(512 << 20), pids: None };
        let description = Description {
            kernel: &File::open(&kernel).unwrap(),
            kernel_path: Path::new(&kernel),
            initramfs: Initramfs::Bytes(&initramfs()),
            command_line: &command_line(TransportKind::Mmio, "-- guest::role --exact --ignored --nocapture")
                .unwrap(),
            settings: Settings::new(&limits).unwrap(),
            hardware: &Hardware::default(),
            console: console.clone(),
            virtio,
            transport: TransportKind::Mmio,
            // Its vsock connects by itself: there is nobody to ask.
            walls: Walls { filters: Mode::Off, ..Walls::default() },
        };
        let host = dir.path().to_owned();
        let host = thread::spawn(move || talk(listeners, &host));
        let guest = Guest::start(description, &Timeline::new().unwrap(), &mut Progress::default()).unwrap();
        let mut end = [PollFd::from_borrowed_fd(guest.ending().event(), PollFlags::IN)];
        poll(&mut end, Some(&Timespec { tv_sec: 120, tv_nsec: 0 })).unwrap();
        let output = String::from_utf8_lossy(&console.bytes()).into_owned();
        println!("{output}\n{:?}; exits {:?}", guest.ending().get(), guest.crossings());
        assert!(output.contains("guest is content"), "see above");
        drop(guest);
        host.join().unwrap();
        assert!(read_all(rewound(writable)) == pattern(DISK), "what the guest wrote");
    }

    fn block(disk: Disk, serial: &str) -> Box<Block> {
        let settings = block::Settings { serial: serial.into(), ..block::Settings::default() };
        Box::new(Block::new(disk, settings).unwrap())
    }

    /// The host's end of the streams.
    fn talk([control, down, up]: [UnixListener; 3], dir: &Path) {
        let (mut stream, _) = up.accept().unwrap();
        let start = Instant::now();
        assert!(read_all(&stream) == pattern(STREAM));
        println!("10 MiB from the guest in {:?}", start.elapsed());
        stream.write_all(b"all of it").unwrap();
        drop(stream);
        let (mut stream, _) = down.accept().unwrap();
        stream.write_all(&pattern(STREAM)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_all(stream), b"all of it too");
        let (mut control, _) = control.accept().unwrap();
        let mut ready = [0; 5];
        control.read_exact(&mut ready).unwrap();
        let mut client = UnixStream::connect(dir.join("vsock")).unwrap();
        client.write_all(b"CONNECT 52\nhello").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = String::from_utf8(read_all(client)).unwrap();
        assert!(answer.starts_with("OK ") && answer.ends_with("\nhello"), "{answer}");
        assert_eq!(read_all(control), b"", "the guest closes last");
    }

    fn kernel() -> Option<String> {
        std::env::var("HV_TEST_VM").ok().and(std::env::var("HV_TEST_KERNEL").ok())
    }

    fn listen(dir: &Path, port: u32) -> UnixListener {
        UnixListener::bind(dir.join(format!("vsock_{port}"))).unwrap()
    }

    fn disk(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn rewound(mut file: File) -> File {
        std::io::Seek::rewind(&mut file).unwrap();
        file
    }

    /// This program as `/init`, and a console for it (cpio "newc", Documentation/driver-api/early-userspace).
    fn initramfs() -> Vec<u8> {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut archive = Vec::new();
        let entries: [(&str, u32, u32, &[u8]); 6] = [
            ("dev", 0o040755, 0, &[]),
            ("proc", 0o040755, 0, &[]),
            ("sys", 0o040755, 0, &[]),
            ("dev/console", 0o020600, 5 << 8 | 1, &[]),
            ("init", 0o100755, 0, &program),
            ("TRAILER!!!", 0, 0, &[]),
        ];
        for (name, mode, device, bytes) in entries {
            let (major, minor) = (device >> 8, device & 0xff);
            let header =
                [0, mode, 0, 0, 1, 0, bytes.len() as u32, 0, 0, major, minor, name.len() as u32 + 1, 0];
            archive.extend_from_slice(b"070701");
            header.iter().for_each(|field| archive.extend_from_slice(format!("{field:08x}").as_bytes()));
            archive.extend_from_slice(name.as_bytes());
            archive.push(0);
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend_from_slice(bytes);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
        archive
    }
}

mod guest {
    use std::fs::{self, OpenOptions};
    use std::os::fd::{AsRawFd, OwnedFd};

    use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, VsockAddr};
    use rustix::mount::{MountFlags, mount};
    use rustix::net::Shutdown;

    use super::*;

    #[test]
    #[ignore = "runs as PID 1 of a guest"]
    fn role() {
        assert_eq!(std::process::id(), 1, "runs as PID 1 of a guest only");
        for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
            mount(kind, at, kind, MountFlags::empty(), None).unwrap();
        }
        disks();
        let mut random = [0; 64];
        File::open("/dev/hwrng").unwrap().read_exact(&mut random).unwrap();
        assert_ne!(random, [0; 64]);
        streams();
        println!("guest is content");
        rustix::system::reboot(rustix::system::RebootCommand::Restart).unwrap();
    }

    fn disks() {
        assert_eq!(fs::read("/sys/block/vda/serial").unwrap(), b"root");
        assert_eq!(fs::read("/sys/block/vda/ro").unwrap(), b"1\n");
        assert!(read_all(File::open("/dev/vda").unwrap()) == pattern(DISK));
        let written =
            OpenOptions::new().write(true).open("/dev/vda").and_then(|mut disk| disk.write(&[1; 4096]));
        assert!(written.is_err(), "a read-only disk");
        let mut disk = OpenOptions::new().write(true).open("/dev/vdb").unwrap();
        disk.write_all(&pattern(DISK)).unwrap();
        disk.sync_all().unwrap();
        fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
        assert!(read_all(File::open("/dev/vdb").unwrap()) == pattern(DISK));
    }

    fn streams() {
        let listener = vsock();
        socket::bind(listener.as_raw_fd(), &VsockAddr::new(u32::MAX, 52)).unwrap();
        socket::listen(&listener, Backlog::new(4).unwrap()).unwrap();
        let refused = socket::connect(vsock().as_raw_fd(), &VsockAddr::new(2, 9999));
        assert_eq!(refused, Err(nix::errno::Errno::ECONNRESET));
        let mut up = connect(1026);
        up.write_all(&pattern(STREAM)).unwrap();
        rustix::net::shutdown(&up, Shutdown::Write).unwrap();
        assert_eq!(read_all(&up), b"all of it");
        let mut down = connect(1025);
        assert!(read_all(&down) == pattern(STREAM));
        down.write_all(b"all of it too").unwrap();
        drop(down);
        let mut control = connect(1024);
        control.write_all(b"ready").unwrap();
        let (client, _) = rustix::net::acceptfrom(&listener).unwrap();
        let mut client = File::from(client);
        let hello = read_all(&client);
        client.write_all(&hello).unwrap();
    }

    fn vsock() -> OwnedFd {
        socket::socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
    }

    fn connect(port: u32) -> File {
        let socket = vsock();
        socket::connect(socket.as_raw_fd(), &VsockAddr::new(2, port)).unwrap();
        File::from(socket)
    }
}
