//! `hv image`: what is done with images, a verb a file.

mod history;
mod inspect;
mod load;
mod login;
mod logout;
mod ls;
mod names;
mod progress;
mod prune;
mod pull;
mod push;
mod registries;
mod save;
mod search;
mod tags;

use std::io::{self, Write};

use hv_image::content::{Found, Store};
use hv_image::dirs::Dirs;
use hv_image::reference::Reference;
use hv_image::registry::Settings;
use serde::Serialize;

use crate::cli::image::{ImageVerb, LsArgs};
use crate::error::{Failure, Result};

/// Does what was typed.
///
/// # Errors
/// As the verb.
pub fn run(verb: ImageVerb) -> Result<u8> {
    match verb {
        ImageVerb::Ls(args) => ls::run(&args).map(|()| 0),
        ImageVerb::Load(args) => load::load(&args).map(|()| 0),
        ImageVerb::Import(args) => load::import(args).map(|()| 0),
        ImageVerb::Save(args) => save::save(&args).map(|()| 0),
        ImageVerb::Export { image, output } => save::export(&image, output.as_deref()).map(|()| 0),
        ImageVerb::Tag { image, name } => names::tag(&image, &name).map(|()| 0),
        ImageVerb::Rm { images } => names::remove(&images).map(|()| 0),
        ImageVerb::Inspect(args) => inspect::run(&args).map(|()| 0),
        ImageVerb::History(args) => history::run(&args).map(|()| 0),
        ImageVerb::Prune(args) => prune::prune(&args).map(|()| 0),
        ImageVerb::Fsck(args) => prune::fsck(&args),
        ImageVerb::Pull(args) => pull::run(&args),
        ImageVerb::Push(args) => push::run(&args),
        ImageVerb::Tags(args) => tags::run(&args),
        ImageVerb::Search(args) => search::run(&args),
        ImageVerb::Login(args) => login::run(args),
        ImageVerb::Logout(args) => logout::run(&args),
    }
}

/// `hv images`.
///
/// # Errors
/// The store cannot be read.
pub fn list(args: &LsArgs) -> Result<u8> {
    ls::run(args).map(|()| 0)
}

/// This user's store.
///
/// # Errors
/// The environment does not say where it is.
pub fn store() -> Result<Store> {
    Ok(Store::of(&Dirs::of_this_user()?))
}

/// The image that `text` means; one that is not there is an error that says what to do.
///
/// # Errors
/// There is none, or the store cannot be read.
pub fn find(store: &Store, text: &str) -> Result<Found> {
    let registry = default_registry()?;
    store.find(text, &registry)?.ok_or_else(|| {
        let whole = Reference::parse(text, &registry).map(|name| name.to_string());
        let also = whole.ok().filter(|whole| whole != text).map(|whole| format!(" ({whole})"));
        Failure::refused(format!("no image `{text}`{} is in the store", also.unwrap_or_default()))
            .hint(format!("`hv pull {text}` gets it from its registry; `hv images` shows those there are"))
    })
}

/// A name for an image that is to be stored: whole, and without a digest.
///
/// # Errors
/// It is no name.
pub fn new_name(text: &str) -> Result<Reference> {
    let name = Reference::parse(text, &default_registry()?)?;
    match name.digest() {
        None => Ok(name),
        Some(_) => Err(Failure::refused(format!(
            "`{text}` has a digest, which an image has by itself; give it a tag"
        ))),
    }
}

/// Where names lead that have no registry: docker's, unless the settings say another.
///
/// # Errors
/// The settings cannot be read.
pub fn default_registry() -> Result<String> {
    Ok(Settings::of_this_user()?.default_registry)
}

/// A whole name as people write it.
fn short(name: &str) -> String {
    name.parse().map_or_else(|_| name.to_owned(), |name: Reference| name.short())
}

/// Prints a document.
pub(crate) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    let written = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    written.map_err(|source| Failure::new("cannot print", source))
}

/// Lines of columns, each as wide as its widest word. What comes from images is printed without control characters.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let clean: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| cell.escape_debug().collect()).collect()).collect();
    let width = |column: usize| {
        clean.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    clean.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_words_and_control_characters_are_shown() {
        let rows = [vec!["NAME".to_owned(), "X".to_owned()], vec!["a\x1b[2J".to_owned(), "long".to_owned()]];
        assert_eq!(table(&rows), "NAME        X\na\\u{1b}[2J  long\n");
    }

    #[test]
    fn new_names_have_no_digest() {
        assert_eq!(new_name("alpine").unwrap().to_string(), "docker.io/library/alpine:latest");
        let digest = format!("alpine@sha256:{}", "0".repeat(64));
        assert!(new_name(&digest).unwrap_err().message().contains("give it a tag"));
    }
}
