//! A user without root's rights: one id, no cgroup.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{self, finish, image};

#[test]
fn a_user_runs_a_bundle_with_one_id() {
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: needs root to become another user");
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
    // A copy: the user may not be able to reach the program where it was built.
    fs::copy(support::program(), home.path().join("hv-oci")).unwrap();
    let script = "set -e; ./hv-oci spec --rootless; \
        sed -i \"s|\\\"rootfs\\\"|\\\"$1\\\"|; s|\\\"sh\\\"|\\\"sh\\\",\\\"-c\\\",\\\"id -u; echo > /dev/null; cat /proc/self/uid_map; hostname\\\"|\" config.json; \
        exec ./hv-oci --root \"$PWD/state\" run mine";
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c", script, "sh"]);
    command.arg(image::directory()).current_dir(home.path()).env("HOME", home.path());
    let done = finish(command, b"");
    let words: Vec<String> = done.text().split_whitespace().map(str::to_owned).collect();
    assert_eq!(words, ["0", "0", "65534", "1", "hv"], "{}", done.stderr);
}
