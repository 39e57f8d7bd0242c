//! `hv image`: what is done with images, a verb a file.

mod login;
mod logout;
mod progress;
mod pull;
mod push;
mod registries;
mod search;
mod tags;

use std::io::Write;

use crate::cli::image::ImageVerb;
use crate::error::{Failure, Result};

/// Does what was typed.
///
/// # Errors
/// As the verb.
pub fn run(verb: ImageVerb) -> Result<u8> {
    match verb {
        ImageVerb::Pull(args) => pull::run(&args),
        ImageVerb::Push(args) => push::run(&args),
        ImageVerb::Tags(args) => tags::run(&args),
        ImageVerb::Search(args) => search::run(&args),
        ImageVerb::Login(args) => login::run(args),
        ImageVerb::Logout(args) => logout::run(&args),
    }
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let printed = std::io::stdout().lock().write_all(text.as_bytes());
    printed.map_err(|source| Failure::new("cannot print", source))
}

/// Prints as JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}
