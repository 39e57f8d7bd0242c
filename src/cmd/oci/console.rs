//! The socket that gets a terminal's other end.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::{Fault, Result};

/// Connects to it.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let stream = UnixStream::connect(path).map_err(|source| {
        Fault::because(format_args!("cannot connect to the console socket {}", path.display()), source)
    })?;
    Ok(stream.into())
}
