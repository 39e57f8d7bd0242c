//! A stream of the workload to a descriptor of the caller's, and back.
//!
//! The caller's descriptors are shared with others and stay in the mode they are in, blocking as a rule:
//! so each read and write waits first until it will not block, and writes are small enough for that.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;

use hv_common::{Phase, Timeline};
use rustix::io::{Errno, retry_on_intr};

use super::wait::Cancel;
use crate::threads;

/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// What a pipe that poll(2) calls writable takes without blocking (PIPE_BUF).
const ATOMIC: usize = 4096;

/// Passes on what the caller gives until its end, which the guest then sees; gives up when the guest
/// closes its side.
pub fn input(source: OwnedFd, guest: &UnixStream, cancel: &Cancel) {
    let _ = copy_input(source, guest, cancel);
    let _ = guest.shutdown(Shutdown::Write);
    // Hanging up now would reset the connection, and with it what the guest has not read yet.
    let _ = cancel.hung_up(guest.as_fd());
}

/// Takes the source by value: closed at the end, so that its writer notices.
fn copy_input(source: OwnedFd, guest: &UnixStream, cancel: &Cancel) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while cancel.readable_unless_hung_up(source.as_fd(), guest.as_fd())? {
        let count = retry_on_intr(|| rustix::io::read(&source, &mut buffer))?;
        if count == 0 {
            break;
        }
        write_all(guest.as_fd(), &buffer[..count], cancel)?;
    }
    Ok(())
}

/// One of the workload's outputs.
pub struct Output {
    /// Where it goes.
    pub sink: OwnedFd,
    /// Where its first byte is marked.
    pub timeline: Timeline,
}

impl Output {
    /// Passes on what the guest writes until its end. When nobody reads the sink any more, stops: the
    /// caller then drops the connection, and the guest's next write fails as it would natively.
    pub fn run(self, guest: &UnixStream, cancel: &Cancel) {
        let _ = copy_output(guest, self.sink.as_fd(), cancel, &self.timeline);
    }
}

fn copy_output(
    mut guest: &UnixStream,
    sink: BorrowedFd<'_>,
    cancel: &Cancel,
    timeline: &Timeline,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        cancel.readable(guest.as_fd())?;
        match guest.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                timeline.mark(Phase::FirstByte);
                write_all(sink, &buffer[..count], cancel)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Both directions of a terminal, until the guest's side ends.
pub fn terminal(ours: &UnixStream, guest: &UnixStream, cancel: &Cancel, timeline: Timeline) {
    thread::scope(|scope| {
        let input = threads::spawn_scoped(scope, "terminal-in", || {
            if let Ok(source) = ours.try_clone() {
                let _ = copy_input(source.into(), guest, cancel);
                let _ = guest.shutdown(Shutdown::Write);
            }
        });
        let _ = copy_output(guest, ours.as_fd(), cancel, &timeline);
        // Ends the other direction's wait: both its descriptors hang up.
        let _ = guest.shutdown(Shutdown::Both);
        let _ = ours.shutdown(Shutdown::Both);
        drop(input);
    });
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8], cancel: &Cancel) -> io::Result<()> {
    while !bytes.is_empty() {
        cancel.writable(to)?;
        match rustix::io::write(to, &bytes[..bytes.len().min(ATOMIC)]) {
            Ok(count) => bytes = &bytes[count..],
            // Somebody else filled it meanwhile, or a signal came.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    fn pipe() -> (File, File) {
        let (read, write) = rustix::pipe::pipe().unwrap();
        (read.into(), write.into())
    }

    fn output(sink: File) -> (Output, Timeline) {
        let timeline = Timeline::new().unwrap();
        (Output { sink: sink.into(), timeline: timeline.clone() }, timeline)
    }

    #[test]
    fn output_arrives_whole_through_a_slow_reader() {
        let (mut read, write) = pipe();
        let (guest, mut workload) = UnixStream::pair().unwrap();
        let (output, timeline) = output(write);
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 253) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                workload.write_all(&sent).unwrap();
                drop(workload);
            });
            scope.spawn(|| output.run(&guest, &Cancel::new().unwrap()));
            let mut received = Vec::new();
            let mut piece = [0; 1000];
            loop {
                match read.read(&mut piece).unwrap() {
                    0 => break,
                    count => received.extend_from_slice(&piece[..count]),
                }
            }
            assert_eq!(received, sent);
        });
        assert!(timeline.at(Phase::FirstByte).is_some());
    }

    #[test]
    fn output_nobody_reads_ends_the_connection() {
        let (read, write) = pipe();
        drop(read);
        let (guest, mut workload) = UnixStream::pair().unwrap();
        workload.write_all(b"x").unwrap();
        output(write).0.run(&guest, &Cancel::new().unwrap());
        drop(guest);
        assert!(workload.write_all(b"y").is_err());
    }

    #[test]
    fn input_ends_at_its_end_and_the_guest_still_reads_all() {
        let (read, mut write) = pipe();
        let (guest, mut workload) = UnixStream::pair().unwrap();
        write.write_all(b"all of it").unwrap();
        drop(write);
        let cancel = Cancel::new().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| input(read.into(), &guest, &cancel));
            let mut text = String::new();
            workload.read_to_string(&mut text).unwrap();
            assert_eq!(text, "all of it");
            drop(workload);
        });
    }

    #[test]
    fn input_gives_up_when_the_guest_closes() {
        let (read, mut write) = pipe();
        let (guest, workload) = UnixStream::pair().unwrap();
        drop(workload);
        input(read.into(), &guest, &Cancel::new().unwrap());
        assert!(write.write_all(b"x").is_err(), "the source was closed");
    }

    #[test]
    fn cancelling_ends_every_wait() {
        let cancel = Cancel::new().unwrap();
        let (read, _write) = pipe();
        let (_read, full) = pipe();
        let (guest, mut workload) = UnixStream::pair().unwrap();
        let (other, _workload) = UnixStream::pair().unwrap();
        workload.write_all(&vec![0; 100_000]).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| input(read.into(), &other, &cancel));
            scope.spawn(|| output(full).0.run(&guest, &cancel));
            cancel.cancel();
        });
    }

    #[test]
    fn a_terminal_passes_both_ways_and_ends_with_the_guest() {
        let (ours, mut callers) = UnixStream::pair().unwrap();
        let (guest, mut workload) = UnixStream::pair().unwrap();
        let cancel = Cancel::new().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| terminal(&ours, &guest, &cancel, Timeline::new().unwrap()));
            callers.write_all(b"in").unwrap();
            let mut two = [0; 2];
            workload.read_exact(&mut two).unwrap();
            assert_eq!(&two, b"in");
            workload.write_all(b"out").unwrap();
            drop(workload);
            let mut text = String::new();
            callers.read_to_string(&mut text).unwrap();
            assert_eq!(text, "out");
        });
    }
}
