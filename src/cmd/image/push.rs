//! `hv push`: from the store to a registry.

use hv_image::content::Store;
use hv_image::reference::Reference;
use hv_image::registry::push::{self, How};
use serde::Serialize;

use super::progress::Bars;
use super::registries::{failed, named, store};
use super::{print, print_json};
use crate::cli::image::PushArgs;
use crate::error::{Failure, Result};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Row {
    /// In full, as the registry has it.
    name: String,
    /// Its digest.
    digest: String,
}

/// Pushes, and prints the name with the digest that it has there.
///
/// # Errors
/// The image is not in the store, or the registry does not take it.
pub fn run(args: &PushArgs) -> Result<u8> {
    let store = store()?;
    let typed = args.target.as_deref().unwrap_or(&args.name);
    let (registries, target) = named(&args.connection, args.parallel, typed)?;
    let source = Reference::parse(&args.name, &registries.settings().default_registry)?;
    let Some(image) = store.resolve(&source.to_string())? else {
        let why = format!("there is no image {source} in the store");
        return Err(Failure::refused(why).hint("`hv images` shows what there is"));
    };
    let how = How { chunk: args.chunk, mount_from: neighbours(&store, &source, &target)? };
    let bars = Bars::new(&target.short(), args.quiet);
    let pushed = push::push(&registries, &store, &image, &target, &how, &bars);
    bars.finish();
    let digest = pushed.map_err(|error| failed(error, target.registry()))?;
    match args.json {
        true => print_json(&Row { name: target.to_string(), digest: digest.to_string() })?,
        false => print(&format!("{}\n", target.pinned(&digest)))?,
    }
    Ok(0)
}

/// Other repositories of the target's registry that have the image, as far as its names tell: the registry may take
/// the blobs from there.
fn neighbours(store: &Store, source: &Reference, target: &Reference) -> Result<Vec<String>> {
    let Some(image) = store.resolve(&source.to_string())? else { return Ok(Vec::new()) };
    let same = store.names()?.into_iter().filter(|(_, other)| other.digest == image.digest);
    let names = same.filter_map(|(name, _)| name.parse::<Reference>().ok());
    let there = names.filter(|name| name.registry() == target.registry());
    let other = there.map(|name| name.repository().to_owned()).filter(|name| name != target.repository());
    Ok(other.take(1).collect())
}
