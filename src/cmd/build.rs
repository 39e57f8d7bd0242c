//! `hv build`: a Dockerfile becomes an image in the store.

use hv_image::content::{Descriptor, Store, media};
use hv_image::dirs::Dirs;

use crate::build::{self, Request};
use crate::cli::build::BuildArgs;
use crate::error::Result;

/// Builds, names the image, and prints its digest.
///
/// # Errors
/// A step failed; the words start with the Dockerfile's line.
pub fn run(typed: BuildArgs) -> Result<u8> {
    let dirs = Dirs::of_this_user()?;
    let store = Store::of(&dirs);
    let args = typed.build_arg.into_iter().filter_map(|one| match one.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(&one).ok().map(|value| (one, value)),
    });
    let request = Request {
        file: typed.file.unwrap_or_else(|| typed.dir.join("Dockerfile")),
        args: args.collect(),
        context: typed.dir,
        target: typed.target,
        no_cache: typed.no_cache,
        offline: typed.network == "none",
    };
    let (digest, size) = build::build(&request, &store, &dirs)?;
    let image = Descriptor::new(media::MANIFEST, digest, size);
    for name in &typed.tag {
        store.tag(&build::full_name(name), &image)?;
    }
    println!("{digest}");
    Ok(0)
}
