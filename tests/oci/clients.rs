//! podman, containerd's ctr and docker's daemon with hv as their runtime: the scripts of `tests/clients`, each in a
//! Debian system of its own that `cargo xtask test` and `cargo xtask clients` make.

use std::fs;
use std::process::Command;

use crate::support;

fn goes_through(script: &str, text: &str) {
    let Some(root) = std::env::var_os("HV_TEST_CLIENTS") else {
        println!(
            "skipped: HV_TEST_CLIENTS names no Debian system with the clients; `cargo xtask clients` makes one"
        );
        return;
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let shared =
        [("enter.sh", include_str!("../clients/enter.sh")), ("lib.sh", include_str!("../clients/lib.sh"))];
    for (name, text) in shared.into_iter().chain([(script, text)]) {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut command = Command::new("sh");
    command.arg(dir.path().join("enter.sh")).arg(root).arg(support::program().parent().unwrap()).arg(script);
    let done = support::finish(command, b"");
    assert_eq!(done.status, Some(0), "{}{}", done.text(), done.stderr);
    assert!(done.text().ends_with(": 0 failed\n"), "{}", done.text());
}

#[test]
fn podman() {
    goes_through("podman.sh", include_str!("../clients/podman.sh"));
}

#[test]
fn containerd() {
    goes_through("containerd.sh", include_str!("../clients/containerd.sh"));
}

#[test]
fn docker() {
    goes_through("docker.sh", include_str!("../clients/docker.sh"));
}
