//! Event loops: threads that wait on devices' events. One serves all devices but those that have their own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::{EventManager, RemoteEndpoint, SubscriberOps};

use crate::device::Subscriber;
use crate::gate::Gate;
use crate::seccomp::{Mode, Role};
use crate::threads;

/// The thread and the way to end it. Dropping ends the thread and waits for it.
pub struct EventLoop {
    remote: RemoteEndpoint<Subscriber>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The event loop could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// epoll or eventfd.
    #[error("cannot set up the event loop")]
    Epoll(#[source] event_manager::Error),
    /// No thread.
    #[error("cannot start the event loop's thread")]
    Thread(#[source] io::Error),
}

impl EventLoop {
    /// Starts a thread of this name with these subscribers; under these filters; it passes `gate` between
    /// two events.
    ///
    /// # Errors
    /// The host gives no epoll instance, eventfd or thread.
    pub fn start(
        name: &str,
        subscribers: Vec<Subscriber>,
        gate: Gate,
        filters: Mode,
    ) -> Result<EventLoop, Error> {
        // Few descriptors are ever ready at once; the default of 256 costs pages for nothing.
        let mut manager = EventManager::<Subscriber>::new_with_capacity(32).map_err(Error::Epoll)?;
        for subscriber in subscribers {
            manager.add_subscriber(subscriber);
        }
        let remote = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let run = move || {
            // Where there are no filters, the vCPUs end the machine and say why.
            if filters.enter(Role::Devices).is_err() {
                return;
            }
            while !stopped.load(Ordering::Acquire) && survives(manager.run()) {
                gate.pass();
            }
        };
        let thread = threads::spawn(name, run).map_err(Error::Thread)?;
        Ok(EventLoop { remote, stop, thread: Some(thread) })
    }
}

impl EventLoop {
    /// Wakes the thread, to look at what has changed.
    pub fn kick(&self) {
        // Fails only when the counter is full, and then it is awake.
        let _ = self.remote.kick();
    }
}

/// An interrupted wait is not an end; any other error of epoll is one, and would only repeat.
fn survives(result: event_manager::Result<usize>) -> bool {
    match result {
        Ok(_) => true,
        Err(event_manager::Error::Epoll(errno)) => errno.errno() == libc::EINTR,
        Err(_) => false,
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let woken = self.remote.kick().is_ok();
        if let (true, Some(thread)) = (woken, self.thread.take()) {
            // A panic of a device has been reported by the panic hook already.
            let _ = thread.join();
        }
    }
}
