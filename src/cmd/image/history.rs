//! `hv image history`: how an image came to be.

use serde_json::{Value, json};

use super::{find, print, print_json, store, table};
use crate::cli::image::HistoryArgs;
use crate::error::Result;
use crate::size::Bytes;

pub(super) fn run(args: &HistoryArgs) -> Result<()> {
    let store = store()?;
    let found = find(&store, &args.image)?;
    let chosen = store.choose(&found.image, None)?;
    // The steps that made a layer are in the order of the layers; a history may be short, or not there.
    let mut layers = chosen.manifest.layers.iter();
    let mut steps: Vec<(Option<&hv_image::content::Descriptor>, _)> = Vec::new();
    for step in &chosen.config.history {
        steps.push((if step.empty_layer { None } else { layers.next() }, step.clone()));
    }
    for layer in layers {
        steps.push((Some(layer), Default::default()));
    }
    steps.reverse();
    if args.json {
        let all = steps.iter().map(|(layer, step)| {
            json!({"created": step.created, "createdBy": step.created_by, "comment": step.comment,
                "layer": layer.map(|layer| layer.digest), "size": layer.map_or(0, |layer| layer.size)})
        });
        return print_json(&all.collect::<Vec<Value>>());
    }
    let mut rows = vec![["LAYER", "CREATED", "SIZE", "CREATED BY"].map(str::to_owned).to_vec()];
    for (layer, step) in &steps {
        rows.push(vec![
            layer.map_or_else(|| "-".into(), |layer| layer.digest.short()),
            step.created.iter().flat_map(|text| text.chars()).take(10).collect(),
            layer.map_or_else(|| "-".into(), |layer| Bytes(layer.size).to_string()),
            step.created_by.clone().or_else(|| step.comment.clone()).unwrap_or_default(),
        ]);
    }
    print(&table(&rows))
}
