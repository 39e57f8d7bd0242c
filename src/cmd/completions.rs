//! `hv completions`: a script for a shell.

use std::io::{self, Write};

use clap_complete::Shell;

use crate::cli;
use crate::error::{Failure, Result};

/// Prints the script.
///
/// # Errors
/// Standard output is closed.
pub fn run(shell: Shell) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "hv", &mut script);
    io::stdout().write_all(&script).map_err(|source| Failure::new("cannot print the script", source))?;
    Ok(0)
}
