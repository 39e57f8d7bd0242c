//! `hv image save` and `hv image export`: images leave the store.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use hv_image::content::Descriptor;
use hv_image::dirs::Dirs;
use hv_image::layer;

use super::{find, store};
use crate::cli::image::SaveArgs;
use crate::error::{Failure, Result};

pub(super) fn save(args: &SaveArgs) -> Result<()> {
    let store = store()?;
    let _session = store.session()?;
    let found = args.images.iter().map(|image| find(&store, image)).collect::<Result<Vec<_>>>()?;
    let images: Vec<(Option<String>, Descriptor)> =
        found.into_iter().map(|found| (found.name, found.image)).collect();
    match &args.layout {
        Some(dir) => store.save_layout(&images, dir)?,
        None => write(args.output.as_deref(), |to| Ok(store.save(&images, to)?))?,
    }
    Ok(())
}

pub(super) fn export(image: &str, output: Option<&Path>) -> Result<()> {
    let store = store()?;
    let _session = store.session()?;
    let found = find(&store, image)?;
    let chosen = store.choose(&found.image, None)?;
    let layers = store.layers(&chosen.descriptor, &chosen.manifest, &chosen.config)?;
    let scratch = Dirs::of_this_user()?.scratch();
    write(output, |to| Ok(layer::export(&layers, &scratch, to)?))?;
    Ok(())
}

/// Writes to a file, or to standard output.
fn write(output: Option<&Path>, give: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    match output {
        Some(path) => write_file(path, give),
        None if io::stdout().is_terminal() => Err(Failure::refused("an archive is nothing for a terminal")
            .hint("give a file with -o, or redirect standard output")),
        None => {
            let mut to = BufWriter::with_capacity(1 << 20, io::stdout().lock());
            give(&mut to)?;
            to.flush().map_err(|source| Failure::new("cannot write to standard output", source))
        }
    }
}

/// Writes `path` beside its name first: a file that is there stays until the new one is whole.
fn write_file(path: &Path, give: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let cannot = |source: io::Error| Failure::new(format!("cannot write {}", path.display()), source);
    let there = path.symlink_metadata().ok();
    if there.is_some_and(|there| !there.is_file()) {
        // A pipe or a device is written to as it is.
        let mut to = BufWriter::new(File::options().write(true).open(path).map_err(cannot)?);
        give(&mut to)?;
        return to.flush().map_err(cannot);
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let draft = tempfile::Builder::new().prefix(".hv-save-").tempfile_in(dir).map_err(cannot)?;
    let mut to = BufWriter::with_capacity(1 << 20, draft);
    give(&mut to)?;
    let draft = to.into_inner().map_err(|error| cannot(error.into_error()))?;
    draft.as_file().sync_all().map_err(cannot)?;
    draft.persist(path).map_err(|error| cannot(error.error))?;
    Ok(())
}
