//! The 27 classes of bug that other monitors have had: each has its tests, `bug_NN_*`, in the table of
//! `vmm/src/device/virtio/mod.rs` and in docs/threat-model.md. The classes that are about dependencies stand here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CLASSES: u32 = 27;

/// The source tree; None where only the test program is, as in the testbed.
fn root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join("Cargo.lock").exists() {
        println!("skipped: the source tree is not here");
        return None;
    }
    Some(root.to_owned())
}

/// Every Rust file below.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            if name != "target" && !name.starts_with('.') {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// The numbers behind each `mark` in a text.
fn numbers(text: &str, mark: &str) -> BTreeSet<u32> {
    text.match_indices(mark)
        .filter_map(|(at, _)| text.get(at + mark.len()..)?.get(..2)?.parse().ok())
        .collect()
}

#[test]
fn every_class_has_its_tests_and_its_line_in_the_tables() {
    let Some(root) = root() else { return };
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut named = BTreeSet::new();
    for file in files {
        named.extend(numbers(&fs::read_to_string(&file).unwrap(), concat!("fn ", "bug_")));
    }
    let all: BTreeSet<u32> = (1..=CLASSES).collect();
    let missing: Vec<_> = all.difference(&named).collect();
    assert!(missing.is_empty(), "classes without a test named bug_NN_*: {missing:?}");
    assert_eq!(named, all, "a test is named after a class that there is not");
    for table in ["vmm/src/device/virtio/mod.rs", "docs/threat-model.md"] {
        let text = fs::read_to_string(root.join(table)).unwrap();
        assert_eq!(numbers(&text, "| `bug_"), all, "the lines of the table in {table}");
    }
}

/// Versions from which on a known hole is closed, with the advisory.
const SOUND: [(&str, [u32; 3], &str); 4] = [
    ("kvm-ioctls", [0, 19, 1], "undefined behaviour in create_device, RustSec advisory-db 2174"),
    ("linux-loader", [0, 8, 1], "endless and outside reads of crafted kernels, CVE-2022-23523"),
    ("vm-memory", [0, 12, 2], "volatile accesses out of bounds, CVE-2023-41051"),
    ("vmm-sys-util", [0, 12, 0], "flexible arrays deserialised with a false length, CVE-2023-50711"),
];

#[test]
fn bug_21_no_dependency_has_a_known_hole() {
    let Some(root) = root() else { return };
    let lock = fs::read_to_string(root.join("Cargo.lock")).unwrap();
    let value = |line: Option<&str>, key: &str| {
        line?.strip_prefix(key)?.strip_prefix(" = \"")?.strip_suffix('"').map(str::to_owned)
    };
    for (name, sound, why) in SOUND {
        let mut seen = 0;
        for package in lock.split("[[package]]\n") {
            let mut lines = package.lines();
            if value(lines.next(), "name").as_deref() != Some(name) {
                continue;
            }
            let version = value(lines.next(), "version").unwrap();
            let parts: Vec<u32> = version.split('.').map(|part| part.parse().unwrap()).collect();
            assert!(parts[..] >= sound[..], "{name} {version}: {why}");
            seen += 1;
        }
        assert!(seen > 0, "{name} is not used any more: take it out of this list");
    }
}

/// KVM's structures end in arrays whose length is a field: what reads them from a file can be lied to.
/// There are no snapshots, so nothing may be able to.
#[test]
fn bug_18_structures_of_kvm_cannot_be_read_from_files() {
    let Some(root) = root() else { return };
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo
        .args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--filter-platform=x86_64-unknown-linux-gnu",
            "--manifest-path",
        ])
        .arg(root.join("Cargo.toml"));
    let output = match cargo.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: cargo is not here: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    for name in ["kvm-bindings", "vmm-sys-util"] {
        let of_this = nodes.iter().filter(|node| node["id"].as_str().unwrap().contains(&format!("#{name}@")));
        let features: Vec<_> = of_this.flat_map(|node| node["features"].as_array().unwrap()).collect();
        assert!(
            !features.iter().any(|feature| *feature == "with-serde" || *feature == "serde"),
            "{name}: {features:?}"
        );
    }
}
