//! `hv image tags`: what a registry has of an image.

use hv_image::registry::list;

use super::registries::{failed, named};
use super::{print, print_json};
use crate::cli::image::TagsArgs;
use crate::error::Result;

/// Prints a tag a line.
///
/// # Errors
/// The registry does not say.
pub fn run(args: &TagsArgs) -> Result<u8> {
    let (registries, name) = named(&args.connection, None, &args.name)?;
    let client = registries.client(name.registry());
    let tags = list::tags(&client, &name).map_err(|error| failed(error, name.registry()))?;
    match args.json {
        true => print_json(&tags)?,
        false => print(&tags.iter().map(|tag| format!("{tag}\n")).collect::<String>())?,
    }
    Ok(0)
}
