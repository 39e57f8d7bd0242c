//! Threads of the monitor: named, and with small stacks.

use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// The least that leaves room for a panic's message and backtrace. The usual 2 MiB would be one large page
/// on hosts that give those to everyone: cleared at the first touch, and resident for the thread's life.
const STACK: usize = 256 * 1024;

/// Starts a thread. The kernel shows the first 15 bytes of its name.
///
/// # Errors
/// The host gives no thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    builder(name).spawn(body)
}

/// Starts a thread that may borrow what outlives the scope.
///
/// # Errors
/// The host gives no thread.
pub fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    builder(name).spawn_scoped(scope, body)
}

fn builder(name: &str) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK)
}
