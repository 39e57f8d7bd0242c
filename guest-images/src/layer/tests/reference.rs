//! Random layers, against what `umoci` unpacks, and bytes that are no tar.

use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::{Tar, check_image, flat};
use crate::erofs::tests::{Mounted, difference, is_root, seen};

/// One entry of a random layer, in one of few directories, so that layers meet.
#[derive(Debug, Clone)]
struct Made {
    directory: usize,
    name: u8,
    what: u8,
    size: usize,
    mode: u32,
    owner: u32,
    time: u64,
    attribute: Option<Vec<u8>>,
}

const DIRECTORIES: [&str; 4] = ["", "p/", "p/q/", "r/"];

prop_compose! {
    fn made()(
        directory in 0..DIRECTORIES.len(),
        name in b'a'..=b'e',
        what in 0u8..9,
        size in prop_oneof![0usize..50, 4000usize..4200, 0usize..20_000, 65_000usize..270_000],
        mode in 0u32..0o1000,
        owner in 0u32..70_000,
        time in 1_000_000_000u64..2_000_000_000,
        attribute in proptest::option::of(proptest::collection::vec(any::<u8>(), 1..100)),
    ) -> Made {
        Made { directory, name, what, size, mode, owner, time, attribute }
    }
}

/// A layer as an engine would write one: every directory has an entry, a name is there once, whiteouts first.
fn tar(layer: &[Made], index: usize) -> Vec<u8> {
    let mut tar = Tar::new();
    let mut used = std::collections::BTreeSet::new();
    for name in ["p", "p/q", "r"] {
        tar = tar.dir(name);
    }
    let mut last: Option<String> = None;
    for one in layer {
        let (directory, name) = (DIRECTORIES[one.directory], one.name as char);
        let path = format!("{directory}{name}");
        if !used.insert(path.clone()) {
            continue;
        }
        (tar.mode, tar.owner, tar.time) = (one.mode, one.owner, one.time);
        let contents: Vec<u8> = (0..one.size).map(|i| (i / 3 + index) as u8).collect();
        // The kernel gives attributes of users to files and directories only.
        if let (Some(value), 0 | 4..) = (&one.attribute, one.what) {
            tar = tar.xattr("user.made", value);
        }
        tar = match (one.what, &last) {
            (0, _) => tar.dir(&path),
            (1, _) => tar.entry(b'6', path.as_bytes(), "", b""),
            (2, _) => tar.link(&path, "some/target"),
            (3, Some(last)) => tar.hard(&path, last),
            _ => {
                last = Some(path.clone());
                tar.entry(b'0', path.as_bytes(), "", &contents)
            }
        };
    }
    (tar.mode, tar.owner, tar.time) = (0o755, 0, 1_600_000_000);
    tar.end()
}

/// Whiteouts of everything in the lower layers that has an even letter, or of a directory's whole contents.
fn whiteouts(names: &[(usize, u8)], opaque: bool) -> Vec<u8> {
    let mut tar = Tar::new();
    for name in ["p", "p/q", "r"] {
        tar = tar.dir(name);
    }
    for (directory, name) in names.iter().collect::<std::collections::BTreeSet<_>>() {
        tar = tar.file(&format!("{}.wh.{}", DIRECTORIES[*directory], *name as char), "");
    }
    if opaque { tar.file("r/.wh..wh..opq", "").file("r/only", "this").end() } else { tar.end() }
}

/// An OCI layout of these layers, and what umoci makes of it.
fn unpacked_by_umoci(tars: &[Vec<u8>], at: &Path) -> bool {
    let blobs = at.join("image/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8], media: &str| {
        let digest = crate::hex(&Sha256::digest(bytes));
        fs::write(blobs.join(&digest), bytes).unwrap();
        serde_json::json!({"mediaType": media, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let layers: Vec<_> = tars.iter().map(|tar| blob(tar, "application/vnd.oci.image.layer.v1.tar")).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}
    });
    let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = serde_json::json!({"schemaVersion": 2, "config": config, "layers": layers});
    let mut manifest = blob(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "x"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(at.join("image/index.json"), index.to_string()).unwrap();
    fs::write(at.join("image/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--image"]).arg(format!("{}:x", at.join("image").display())).arg(at.join("bundle"));
    match umoci.output() {
        Err(_) => false,
        Ok(done) => {
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            true
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_layers_are_what_umoci_unpacks(
        lower in proptest::collection::vec(made(), 1..20),
        middle in proptest::collection::vec(made(), 1..20),
        hidden in proptest::collection::vec((0..DIRECTORIES.len(), b'a'..=b'e'), 0..6),
        opaque in any::<bool>(),
        upper in proptest::collection::vec(made(), 0..20),
    ) {
        let tars = [tar(&lower, 0), tar(&middle, 1), whiteouts(&hidden, opaque), tar(&upper, 2)];
        let dir = tempfile::tempdir().unwrap();
        if !is_root() || !unpacked_by_umoci(&tars, dir.path()) {
            eprintln!("not compared: needs root and umoci");
            return Ok(());
        }
        let found = flat(&tars).unwrap();
        check_image(&found.file);
        let Some(mounted) = Mounted::new(&found.file) else { return Ok(()) };
        let (mut expected, mut found) = (seen(&dir.path().join("bundle/rootfs")), seen(mounted.0.path()));
        // No layer says anything of the root.
        expected.remove(Path::new(""));
        found.remove(Path::new(""));
        prop_assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
        for (name, expected) in &expected {
            prop_assert!(*expected == found[name], "{}: {}", name.display(), difference(expected, &found[name]));
        }
    }

    #[test]
    fn damaged_streams_are_survived(
        layer in proptest::collection::vec(made(), 1..10),
        hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = tar(&layer, 1);
        for (place, byte) in hits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Ok(flat) = flat(&[bytes]) {
            check_image(&flat.file);
        }
    }
}
