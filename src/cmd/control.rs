//! `hv pause`, `hv resume`, `hv metrics`, `hv console`: asked of a running sandbox's monitor.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use hv_common::{Id, Metrics};

use crate::cli::NameArgs;
use crate::cmd;
use crate::control::{View, client};
use crate::error::{Failure, Result};

/// Holds a sandbox.
///
/// # Errors
/// There is none of this name, or it cannot be held.
pub fn pause(args: NameArgs) -> Result<u8> {
    client::ask_json::<View>(&directory(args.name)?, "PUT", "/v1/pause", "")?;
    Ok(0)
}

/// Lets it go on.
///
/// # Errors
/// There is none of this name.
pub fn resume(args: NameArgs) -> Result<u8> {
    client::ask_json::<View>(&directory(args.name)?, "PUT", "/v1/resume", "")?;
    Ok(0)
}

/// Prints its counters.
///
/// # Errors
/// There is none of this name, or nothing can be printed.
pub fn metrics(args: NameArgs) -> Result<u8> {
    let metrics: Metrics = client::ask_json(&directory(args.name)?, "GET", "/v1/metrics", "")?;
    print((serde_json::to_string_pretty(&metrics)? + "\n").as_bytes())
}

/// Prints the last output of its console: to a terminal without what could control it.
///
/// # Errors
/// There is none of this name, it has no console, or nothing can be printed.
pub fn console(args: NameArgs) -> Result<u8> {
    let bytes = client::ask(&directory(args.name)?, "GET", "/v1/console", "")?;
    if io::stdout().is_terminal() { print(harmless(&bytes).as_bytes()) } else { print(&bytes) }
}

/// The directory of the running sandbox of this name.
///
/// # Errors
/// It is no name, or nobody has it.
pub fn directory(name: String) -> Result<PathBuf> {
    let id = Id::try_from(name)?;
    let store = cmd::tidy_store()?;
    match store.state(&id) {
        Some(_) => Ok(store.path().join(id.as_str())),
        None => {
            Err(Failure::refused(format!("no sandbox named `{id}` runs here"))
                .hint("`hv ps` shows what runs"))
        }
    }
}

fn harmless(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

fn print(bytes: &[u8]) -> Result<u8> {
    io::stdout().lock().write_all(bytes).map_err(|source| Failure::new("cannot print it", source))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_control_the_terminal() {
        assert_eq!(harmless(b"a\x1b[2J\r\n\tb\xff\x07"), "a[2J\n\tb\u{fffd}");
    }
}
