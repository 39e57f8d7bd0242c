//! The thread that talks to clients: one after the other, each in a limited time, so that a client that says
//! nothing, or reads nothing, costs the others no more than that.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{PipeFlags, pipe_with};

use super::request::{self, MAX_BODY, MAX_HEAD, Progress, Refusal, Request};
use super::{Answer, Command, SOCKET, response, route};
use crate::error::{Failure, Result};

/// How long a client may take to send its request, and again to take the response.
const PATIENCE: Duration = Duration::from_secs(2);

/// A command, and where its answer is awaited.
#[derive(Debug)]
pub struct Order {
    /// What to do.
    pub command: Command,
    reply: SyncSender<Answer>,
}

impl Order {
    /// Tells the client.
    pub fn answer(self, answer: Answer) {
        // A server that has ended has no client.
        let _ = self.reply.send(answer);
    }
}

/// The socket and its thread, which is made for the first client: most sandboxes never have one. Dropping ends
/// it, whatever a client is doing.
#[derive(Debug)]
pub struct Server {
    orders: Option<Receiver<Order>>,
    /// What the thread will have, until the first client comes.
    asleep: Option<(UnixListener, Desk)>,
    /// Readable when there may be orders.
    event: OwnedFd,
    /// Closed when it is over.
    over: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds the socket in the sandbox's directory `dir`, for this user (and root) alone. It goes with the
    /// directory.
    ///
    /// # Errors
    /// As bind(2).
    pub fn bind(dir: &Path) -> Result<UnixListener> {
        bind(dir).map_err(|source| {
            Failure::new(format!("cannot listen on {}", dir.join(SOCKET).display()), source)
        })
    }

    /// Serves who connects.
    ///
    /// # Errors
    /// The host gives no thread or descriptor.
    pub fn start(listener: UnixListener) -> Result<Server> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Failure::new("cannot make an eventfd", errno))?;
        let bell = event.try_clone().map_err(|source| Failure::new("cannot duplicate an eventfd", source))?;
        let (waiting, over) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Failure::new("cannot make a pipe", errno))?;
        let (sender, orders) = channel();
        let desk = Desk { orders: sender, bell, over: waiting };
        let asleep = Some((listener, desk));
        Ok(Server { orders: Some(orders), asleep, event, over: Some(over), thread: None })
    }

    /// Readable when [`Server::orders`] has something to do.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.asleep.as_ref().map_or(self.event.as_fd(), |(listener, _)| listener.as_fd())
    }

    /// The orders that have come.
    pub fn orders(&mut self) -> impl Iterator<Item = Order> {
        if let Some((listener, desk)) = self.asleep.take() {
            let thread = thread::Builder::new().name("control".into()).stack_size(128 * 1024);
            match thread.spawn(move || desk.serve(&listener)) {
                Ok(thread) => self.thread = Some(thread),
                Err(error) => {
                    crate::error::say(format_args!("nobody can reach the monitor: no thread: {error}"))
                }
            }
        }
        // Nothing to read is fine: it does not block.
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.orders.iter().flat_map(Receiver::try_iter)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // First: who waits for an answer to an order stops waiting.
        drop(self.orders.take());
        drop(self.over.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// Binds the socket by way of the directory's descriptor: a path may be longer than a socket's address.
fn bind(dir: &Path) -> io::Result<UnixListener> {
    let opened = File::open(dir)?;
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()))?;
    fs::set_permissions(dir.join(SOCKET), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A client that is given up, and what it is told.
enum GivenUp {
    /// Nothing: it has gone, or the server ends.
    Gone,
    /// This.
    Refused(Refusal),
}

impl From<Refusal> for GivenUp {
    fn from(refusal: Refusal) -> GivenUp {
        GivenUp::Refused(refusal)
    }
}

/// What the thread has.
#[derive(Debug)]
struct Desk {
    orders: Sender<Order>,
    bell: OwnedFd,
    over: OwnedFd,
}

impl Desk {
    fn serve(&self, listener: &UnixListener) {
        while self.wait(listener.as_fd(), PollFlags::IN, None) {
            match listener.accept() {
                Ok((client, _)) => self.attend(&client),
                // It has gone again; or too many descriptors are open, which passes.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn attend(&self, client: &UnixStream) {
        if client.set_nonblocking(true).is_err() {
            return;
        }
        let bytes = match self.request(client).and_then(|request| self.order(&request)) {
            Ok(answer) => response::answer(&answer),
            Err(GivenUp::Refused(refusal)) => response::refusal(&refusal),
            Err(GivenUp::Gone) => return,
        };
        self.send(client, &bytes);
    }

    /// The client's one request.
    fn request(&self, client: &UnixStream) -> std::result::Result<Request, GivenUp> {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match recv(client, &mut chunk, RecvFlags::empty()) {
                Ok((0, _)) => return Err(GivenUp::Gone),
                Ok((length, _)) => bytes.extend_from_slice(&chunk[..length]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {
                    if self.wait(client.as_fd(), PollFlags::IN, Some(deadline)) {
                        continue;
                    }
                    let why = format!("no whole request came within {} seconds", PATIENCE.as_secs());
                    return Err(Refusal::new(408, why).into());
                }
                Err(_) => return Err(GivenUp::Gone),
            }
            if let Progress::Whole(request) = request::parse(&bytes)? {
                return Ok(request);
            }
            // The parser refuses what is longer; this holds even if it did not.
            if bytes.len() > MAX_HEAD + MAX_BODY {
                return Err(Refusal::new(413, "the request is too long").into());
            }
            if Instant::now() > deadline {
                return Err(Refusal::new(408, "the request came too slowly").into());
            }
        }
    }

    /// Has the monitor do it.
    fn order(&self, request: &Request) -> std::result::Result<Answer, GivenUp> {
        let command = route::route(request)?;
        let (reply, answer) = sync_channel(1);
        let ends = || GivenUp::from(Refusal::new(503, "the sandbox has just ended"));
        self.orders.send(Order { command, reply }).map_err(|_| ends())?;
        // Fails only when the counter is full, and then it is readable anyway.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        answer.recv().map_err(|_| ends())
    }

    fn send(&self, client: &UnixStream, mut bytes: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        while !bytes.is_empty() && Instant::now() < deadline {
            match send(client, bytes, SendFlags::NOSIGNAL) {
                Ok(length) => bytes = &bytes[length..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.wait(client.as_fd(), PollFlags::OUT, Some(deadline)) => {}
                Err(_) => return,
            }
        }
    }

    /// Waits for `fd`; false if the deadline passes or the server ends.
    fn wait(&self, fd: BorrowedFd<'_>, events: PollFlags, deadline: Option<Instant>) -> bool {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            let mut fds = [PollFd::from_borrowed_fd(fd, events), PollFd::new(&self.over, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Err(Errno::INTR) => {}
                Ok(1..) => return fds[1].revents().is_empty(),
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// A server whose orders are answered by a thread until `work` is done.
    fn with_server(work: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(Server::bind(dir.path()).unwrap()).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            let done = &done;
            scope.spawn(move || {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let limit = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
                    let event = server.event();
                    poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&limit)).unwrap();
                    server.orders().for_each(|order| order.answer(Answer::Console(b"hello".to_vec())));
                }
            });
            work(dir.path());
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }

    fn connect(dir: &Path) -> UnixStream {
        UnixStream::connect(dir.join(SOCKET)).unwrap()
    }

    /// All that comes for these bytes.
    fn ask(dir: &Path, bytes: &[u8]) -> String {
        let mut client = connect(dir);
        let _ = client.write_all(bytes);
        let mut text = Vec::new();
        // A reset after the response is what a client gets that has sent more than was read.
        let _ = client.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    const GOOD: &[u8] = b"GET /v1/console HTTP/1.1\r\n\r\n";

    #[test]
    fn the_socket_is_the_users_own() {
        with_server(|dir| {
            let mode = fs::metadata(dir.join(SOCKET)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        });
    }

    #[test]
    fn requests_are_served_one_after_the_other_whoever_came_before() {
        with_server(|dir| {
            assert!(ask(dir, GOOD).ends_with("\r\n\r\nhello"));
            // One that goes away at once, one that sends nonsense, one that sends too much.
            drop(connect(dir));
            assert!(ask(dir, b"\0\0\0\0\r\n\r\n").starts_with("HTTP/1.1 400 "));
            assert!(ask(dir, &[b'A'; 100_000]).starts_with("HTTP/1.1 4"));
            assert!(ask(dir, &[GOOD, b"more"].concat()).ends_with("hello"));
            assert!(ask(dir, GOOD).ends_with("hello"));
        });
    }

    #[test]
    fn a_silent_client_is_given_up_and_the_next_is_served() {
        with_server(|dir| {
            let begun = Instant::now();
            let mut silent = connect(dir);
            silent.write_all(b"GET /v1/").unwrap();
            assert!(ask(dir, GOOD).ends_with("hello"));
            assert!(begun.elapsed() < 5 * PATIENCE, "{:?}", begun.elapsed());
            let mut told = String::new();
            silent.read_to_string(&mut told).unwrap();
            assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
        });
    }

    #[test]
    fn any_bytes_are_survived() {
        with_server(|dir| {
            let mut random = fastrand::Rng::with_seed(7);
            for _ in 0..200 {
                let mut bytes: Vec<u8> = (0..random.usize(..2000)).map(|_| random.u8(..)).collect();
                if random.bool() {
                    bytes = [b"PUT /v1/stop HTTP/1.1\r\nContent-Length: ", &bytes[..]].concat();
                }
                // The end of the request: whoever waits for more would wait for the time-out.
                bytes.extend(b"\r\n\r\n");
                let mut client = connect(dir);
                let _ = client.write_all(&bytes);
                let _ = client.shutdown(std::net::Shutdown::Write);
                let _ = client.read_to_end(&mut Vec::new());
            }
            assert!(ask(dir, GOOD).ends_with("hello"));
        });
    }

    #[test]
    fn the_end_does_not_wait_for_clients() {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(Server::bind(dir.path()).unwrap()).unwrap();
        // One in the middle of a request, and, behind it, one whose order nobody carries out.
        let _silent = connect(dir.path());
        let begun = Instant::now();
        drop(server);
        assert!(begun.elapsed() < PATIENCE);

        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(Server::bind(dir.path()).unwrap()).unwrap();
        let mut waiting = connect(dir.path());
        waiting.write_all(GOOD).unwrap();
        assert_eq!(server.orders().count(), 0, "the thread has only just been made");
        let event = server.event();
        poll(&mut [PollFd::new(&event, PollFlags::IN)], None).unwrap();
        let begun = Instant::now();
        drop(server);
        assert!(begun.elapsed() < PATIENCE);
        let mut told = String::new();
        waiting.read_to_string(&mut told).unwrap();
        assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    }
}
