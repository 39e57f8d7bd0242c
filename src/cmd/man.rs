//! `hv man`: manual pages, from the same texts as the help.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap_mangen::Man;

use crate::cli;
use crate::error::{Failure, Result};

/// Prints the page of hv, or writes the pages of hv and all its verbs to `dir`.
///
/// # Errors
/// A page cannot be written.
pub fn run(dir: Option<&Path>) -> Result<u8> {
    let command = cli::command();
    let Some(dir) = dir else {
        let page = render(command).map_err(|source| Failure::new("cannot make the page", source))?;
        io::stdout().write_all(&page).map_err(|source| Failure::new("cannot print the page", source))?;
        return Ok(0);
    };
    let failed = |source| Failure::new(format!("cannot write manual pages to {}", dir.display()), source);
    fs::create_dir_all(dir).map_err(failed)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let name: &'static str = format!("hv-{}", verb.get_name()).leak();
        let page = render(verb.clone().name(name).bin_name(name)).map_err(failed)?;
        fs::write(dir.join(format!("{name}.1")), page).map_err(failed)?;
    }
    fs::write(dir.join("hv.1"), render(command).map_err(failed)?).map_err(failed)?;
    Ok(0)
}

fn render(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}
