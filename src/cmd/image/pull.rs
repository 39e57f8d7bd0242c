//! `hv pull`: from a registry to the store.

use hv_image::content::Descriptor;
use hv_image::registry::pull::{self, Wish};
use serde::Serialize;

use super::progress::Bars;
use super::registries::{failed, named, store};
use super::{print, print_json};
use crate::cli::image::PullArgs;
use crate::error::Result;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Row {
    /// In full.
    name: String,
    /// The manifest for the platform.
    image: Descriptor,
    /// What the registry has under the name: the same, or an index.
    named: Descriptor,
}

/// Pulls, and prints each name with the digest that it had.
///
/// # Errors
/// A name is none, or its image cannot be got; those before it are in the store.
pub fn run(args: &PullArgs) -> Result<u8> {
    let store = store()?;
    let mut rows = Vec::new();
    for name in &args.names {
        let (registries, name) = named(&args.connection, args.parallel, name)?;
        let bars = Bars::new(&name.short(), args.quiet);
        let wish = Wish { name: name.clone(), platform: args.platform.clone() };
        let pulled = pull::pull(&registries, &store, &wish, &bars);
        bars.finish();
        let pulled = pulled.map_err(|error| failed(error, name.registry()))?;
        if !args.json {
            print(&format!("{}\n", name.pinned(&pulled.named.digest)))?;
        }
        rows.push(Row { name: name.to_string(), image: pulled.image, named: pulled.named });
    }
    if args.json {
        print_json(&rows)?;
    }
    Ok(0)
}
