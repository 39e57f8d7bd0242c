//! The direction of dependency, from `cargo metadata`: hv -> {hv-vmm, hv-container, hv-image} -> hv-common,
//! and the guest's init knows hv-common alone.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every package of the workspace and those of it that it may depend on, outside of tests.
const ALLOWED: [(&str, &[&str]); 9] = [
    ("hv", &["hv-common", "hv-container", "hv-image", "hv-vmm"]),
    ("hv-common", &[]),
    ("hv-container", &["hv-common"]),
    ("hv-fuzz", &["hv", "hv-common", "hv-image", "hv-vmm"]),
    ("hv-image", &["hv-common"]),
    ("hv-init", &["hv-common"]),
    ("hv-probe", &["hv-common"]),
    ("hv-vmm", &["hv-common"]),
    ("xtask", &[]),
];

#[test]
fn dependencies_point_one_way() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.args(["metadata", "--format-version=1", "--no-deps", "--offline", "--manifest-path", manifest]);
    let output = match cargo.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: cargo is not here: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let found: BTreeMap<String, BTreeSet<String>> = packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap();
            let shipped = dependencies.iter().filter(|one| one["kind"] != "dev");
            (name(package), shipped.map(name).filter(|one| members.contains(one)).collect())
        })
        .collect();

    let known: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(members, known, "a new package: say in this test what it may depend on");
    for (name, allowed) in ALLOWED {
        for dependency in &found[name] {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
}
