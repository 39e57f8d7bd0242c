//! `state`: what is known of a container, as JSON.

use super::store::Store;
use super::{Fault, Result};

/// Prints it.
pub fn run(store: &Store, id: &str) -> Result<u8> {
    let (path, record) = store.record(id)?;
    print(&record.state(record.status(&path)))
}

/// Prints a value for programs to read.
pub fn print(value: &serde_json::Value) -> Result<u8> {
    use std::io::Write;
    let text =
        serde_json::to_string_pretty(value).map_err(|source| Fault::because("cannot write JSON", source))?;
    writeln!(std::io::stdout().lock(), "{text}").map_err(|source| Fault::because("cannot print", source))?;
    Ok(0)
}
