//! `hv image inspect`: all that is known of an image.

use std::fs::File;

use hv_image::content::{Digest, Document};
use serde_json::{Value, json};

use super::{find, print_json, store};
use crate::cli::image::InspectArgs;
use crate::error::{Failure, Result};

pub(super) fn run(args: &InspectArgs) -> Result<()> {
    let store = store()?;
    let found = find(&store, &args.image)?;
    let chosen = store.choose(&found.image, args.platform.as_ref())?;
    let names: Vec<String> = store
        .names()?
        .into_iter()
        .filter(|(_, image)| image.digest == found.image.digest)
        .map(|(name, _)| name)
        .collect();
    let platforms = match store.document(&found.image)? {
        Document::Manifest(_) => vec![chosen.config.platform().to_string()],
        Document::Index(index) => {
            let images = index.manifests.iter().filter(|child| !child.is_attestation());
            images.filter_map(|child| child.platform.as_ref()).map(ToString::to_string).collect()
        }
    };
    // The file appears with the first start.
    let path = store.startable_path(&chosen.manifest);
    let file = match File::open(&path) {
        Ok(file) => {
            let size = file.metadata().map(|metadata| metadata.len()).ok();
            let digest = Digest::of_stream(file)
                .map_err(|source| Failure::new(format!("cannot read {}", path.display()), source))?;
            json!({"path": path.to_string_lossy(), "size": size, "digest": digest})
        }
        Err(_) => Value::Null,
    };
    let on_disk: u64 = store.blobs_of(&found.image).iter().map(|(_, size)| size).sum();
    print_json(&json!({
        "names": names,
        "digest": found.image.digest,
        "mediaType": found.image.media_type,
        "platforms": platforms,
        "size": on_disk,
        "manifest": {"digest": chosen.descriptor.digest, "annotations": chosen.manifest.annotations},
        "config": {"digest": chosen.manifest.config.digest, "platform": chosen.config.platform(),
            "created": chosen.config.created, "author": chosen.config.author, "process": chosen.config.config},
        "layers": layers(&chosen),
        "file": file,
    }))
}

fn layers(chosen: &hv_image::content::Chosen) -> Vec<Value> {
    let mut diff_ids = chosen.config.rootfs.diff_ids.iter();
    let layer = |layer: &hv_image::content::Descriptor| {
        json!({"digest": layer.digest, "mediaType": layer.media_type, "size": layer.size,
            "diffId": diff_ids.next()})
    };
    chosen.manifest.layers.iter().map(layer).collect()
}
