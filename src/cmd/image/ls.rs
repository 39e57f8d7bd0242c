//! `hv image ls`: the images there are.

use hv_image::content::{Descriptor, Document, Store};
use serde::Serialize;

use super::{print, print_json, short, store, table};
use crate::cli::image::LsArgs;
use crate::error::{self, Result};
use crate::size::Bytes;

/// An image in the list.
#[derive(Serialize)]
struct Row {
    /// None: it has none.
    name: Option<String>,
    digest: String,
    platforms: Vec<String>,
    created: Option<String>,
    /// Bytes on disk.
    size: u64,
    /// What is the matter with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(super) fn run(args: &LsArgs) -> Result<()> {
    let store = store()?;
    let mut entries = store.index()?.manifests;
    entries.sort_by(|one, other| one.ref_name().cmp(&other.ref_name()));
    let rows: Vec<Row> = entries.iter().map(|entry| row(&store, entry)).collect();
    if args.json {
        return print_json(&rows);
    }
    let digest = |row: &Row| match args.digests {
        true => row.digest.clone(),
        false => row.digest.trim_start_matches("sha256:").chars().take(12).collect(),
    };
    if args.quiet {
        return print(&rows.iter().map(|row| digest(row) + "\n").collect::<String>());
    }
    if rows.is_empty() {
        error::say(format_args!("no image is in the store; `hv pull` or `hv image load` put one there"));
    }
    let mut lines = vec![["NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"].map(str::to_owned).to_vec()];
    for row in &rows {
        let name = row.name.as_deref().map_or_else(|| "<none>".into(), short);
        let platforms = match &row.problem {
            Some(problem) => format!("({problem})"),
            None => row.platforms.join(","),
        };
        // The day is enough.
        let created: String = row.created.iter().flat_map(|text| text.chars()).take(10).collect();
        lines.push(vec![name, digest(row), platforms, created, Bytes(row.size).to_string()]);
    }
    print(&table(&lines))
}

fn row(store: &Store, entry: &Descriptor) -> Row {
    let (platforms, created, problem) = match describe(store, entry) {
        Ok((platforms, created)) => (platforms, created, None),
        Err(failure) => (Vec::new(), None, Some(failure.message())),
    };
    let size = store.blobs_of(entry).iter().map(|(_, size)| size).sum();
    let name = entry.ref_name().map(str::to_owned);
    Row { name, digest: entry.digest.to_string(), platforms, created, size, problem }
}

/// The platforms that are here, and when the (first) image was made.
fn describe(store: &Store, entry: &Descriptor) -> Result<(Vec<String>, Option<String>)> {
    match store.document(entry)? {
        Document::Manifest(_) => {
            let chosen = store.choose(entry, None)?;
            Ok((vec![chosen.config.platform().to_string()], chosen.config.created))
        }
        Document::Index(index) => {
            let here =
                index.manifests.iter().filter(|child| !child.is_attestation() && store.has(&child.digest));
            let platforms =
                here.filter_map(|child| child.platform.as_ref()).map(ToString::to_string).collect();
            // Another machine's image is listed all the same.
            let created = store.choose(entry, None).ok().and_then(|chosen| chosen.config.created);
            Ok((platforms, created))
        }
    }
}
