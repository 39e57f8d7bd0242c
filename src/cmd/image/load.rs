//! `hv image load` and `hv image import`: images come into the store.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use hv_image::content::archive::Source;
use hv_image::content::{Platform, ProcessConfig};
use hv_image::dirs::Dirs;
use hv_image::superblock;
use serde_json::json;

use super::{default_registry, new_name, print, print_json, short, store};
use crate::cli::image::{ImportArgs, LoadArgs};
use crate::error::{Failure, Result};

pub(super) fn load(args: &LoadArgs) -> Result<()> {
    let name = args.name.as_deref().map(new_name).transpose()?;
    let scratch = Dirs::of_this_user()?.scratch();
    let source = Source::open(&args.file, &scratch)?;
    let loaded = store()?.load(&source, name.as_ref(), &default_registry()?)?;
    if args.json {
        let all = loaded.iter().map(|one| json!({"names": one.names, "digest": one.image.digest}));
        return print_json(&all.collect::<Vec<_>>());
    }
    let line = |one: &hv_image::content::Loaded| match one.names.as_slice() {
        [] => format!("{}\n", one.image.digest),
        names => names.iter().map(|name| short(name) + "\n").collect(),
    };
    print(&loaded.iter().map(line).collect::<String>())
}

pub(super) fn import(args: ImportArgs) -> Result<()> {
    let name = args.name.as_deref().map(new_name).transpose()?;
    let platform: Platform = args.platform.unwrap_or_default();
    let process = ProcessConfig {
        cmd: args.cmd,
        env: args.env,
        working_dir: args.workdir.unwrap_or_default(),
        user: args.user.unwrap_or_default(),
        ..ProcessConfig::default()
    };
    let source: Box<dyn Read> = match args.file == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(open(&args.file)?),
    };
    let image = store()?.import(source, process, &platform, name.as_ref())?;
    let name = name.map(|name| name.to_string());
    if args.json {
        return print_json(&json!({"names": name.iter().collect::<Vec<_>>(), "digest": image.digest}));
    }
    print(&format!("{}\n", name.map_or_else(|| image.digest.to_string(), |name| short(&name))))
}

/// What is no tar is told apart here, because the words for a damaged tar would not help.
fn open(path: &Path) -> Result<File> {
    let cannot = |source: io::Error| Failure::new(format!("cannot read {}", path.display()), source);
    if path.is_dir() {
        return Err(Failure::refused(format!("{} is a directory", path.display()))
            .hint(format!("tar -C {} -c . | hv image import - NAME", path.display())));
    }
    let mut file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_file() {
        let mut start = vec![0; superblock::HEAD];
        let count = file.read(&mut start).map_err(cannot)?;
        if let Ok(found) = superblock::recognise(&start[..count]) {
            // Parsing a foreign file system is what the wall of a microVM is for.
            return Err(Failure::refused(format!(
                "{0} is a raw {1} image, which `hv vm {0}` and `hv ctr {0}` start as it is",
                path.display(),
                found.format.name()
            ))
            .hint(format!(
                "hv vm {} -- tar -C / -c --one-file-system . | hv image import - NAME",
                path.display()
            )));
        }
        io::Seek::rewind(&mut file).map_err(cannot)?;
    }
    Ok(file)
}
