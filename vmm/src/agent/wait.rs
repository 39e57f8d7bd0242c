//! Waiting for a descriptor, given up when the run is over.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::retry_on_intr;

/// Tells all who wait through it to give up. Clones share it.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<OwnedFd>);

impl Cancel {
    /// Not cancelled.
    ///
    /// # Errors
    /// No eventfd.
    pub fn new() -> io::Result<Cancel> {
        Ok(Cancel(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Everyone gives up, now and later.
    pub fn cancel(&self) {
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Waits until `fd` can be read, is at its end or broken.
    ///
    /// # Errors
    /// Cancelled, or as poll(2).
    pub fn readable<'a>(&'a self, fd: BorrowedFd<'a>) -> io::Result<()> {
        self.wait(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)])
    }

    /// Waits until `fd` can be written or is broken.
    ///
    /// # Errors
    /// Cancelled, or as poll(2).
    pub fn writable<'a>(&'a self, fd: BorrowedFd<'a>) -> io::Result<()> {
        self.wait(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)])
    }

    /// Waits until `fd` can be read, or nobody is left at the other end of `peer`: true for `fd`.
    ///
    /// # Errors
    /// Cancelled, or as poll(2).
    pub fn readable_unless_hung_up<'a>(
        &'a self,
        fd: BorrowedFd<'a>,
        peer: BorrowedFd<'a>,
    ) -> io::Result<bool> {
        let mut fds =
            [PollFd::from_borrowed_fd(fd, PollFlags::IN), PollFd::from_borrowed_fd(peer, PollFlags::empty())];
        self.wait(&mut fds)?;
        Ok(fds[1].revents().is_empty())
    }

    /// Waits until nobody is left at the other end of `peer`.
    ///
    /// # Errors
    /// Cancelled, or as poll(2).
    pub fn hung_up<'a>(&'a self, peer: BorrowedFd<'a>) -> io::Result<()> {
        self.wait(&mut [PollFd::from_borrowed_fd(peer, PollFlags::empty())])
    }

    /// Reads `from` with waits that can be cancelled.
    pub fn reader<F>(&self, from: F) -> Reader<'_, F> {
        Reader { from, cancel: self }
    }

    /// Waits until one of `fds` has something (noted there) or the run is over.
    fn wait<'a>(&'a self, fds: &mut [PollFd<'a>]) -> io::Result<()> {
        let mut all: Vec<PollFd<'a>> = fds.to_vec();
        all.push(PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN));
        retry_on_intr(|| poll(&mut all, None))?;
        if all.pop().is_some_and(|cancel| !cancel.revents().is_empty()) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        fds.clone_from_slice(&all);
        Ok(())
    }
}

/// See [`Cancel::reader`].
pub struct Reader<'a, F> {
    from: F,
    cancel: &'a Cancel,
}

impl<F: Read + AsFd> Read for Reader<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Not `Interrupted`, which callers take as "try again".
        self.cancel.readable(self.from.as_fd()).map_err(|_| io::Error::other("the run is over"))?;
        self.from.read(buffer)
    }
}
