//! `hv image tag` and `hv image rm`.

use hv_image::content::{ContentError, Descriptor, Store};

use super::{find, new_name, print, short, store};
use crate::error::{self, Result};
use crate::size::Bytes;

pub(super) fn tag(image: &str, name: &str) -> Result<()> {
    let store = store()?;
    let name = new_name(name)?;
    let _session = store.session()?;
    let found = find(&store, image)?;
    store.tag(&name.to_string(), &found.image)?;
    Ok(())
}

/// Takes the names away, then what nothing leads to any more. All are found before the first goes.
pub(super) fn remove(images: &[String]) -> Result<()> {
    let store = store()?;
    let found = images.iter().map(|image| find(&store, image)).collect::<Result<Vec<_>>>()?;
    let mut gone = String::new();
    for found in found {
        let names = match found.name {
            Some(name) => vec![name],
            None => names_of(&store, &found.image)?,
        };
        for name in &names {
            store.untag(name)?;
            gone += &format!("{}\n", short(name));
        }
        if names.is_empty() {
            gone += &format!("{}\n", found.image.digest);
        }
    }
    print(&gone)?;
    match store.prune() {
        Ok(pruned) if pruned.bytes > 0 => error::say(format_args!("{} were freed", Bytes(pruned.bytes))),
        Ok(_) => {}
        Err(ContentError::Busy(_)) => error::say(format_args!(
            "another hv command adds an image just now: `hv image prune` frees the room afterwards"
        )),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn names_of(store: &Store, image: &Descriptor) -> Result<Vec<String>> {
    let names = store.names()?.into_iter().filter(|(_, other)| other.digest == image.digest);
    Ok(names.map(|(name, _)| name).collect())
}
