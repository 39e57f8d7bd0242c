//! Containers of a user who is not root, with and without ranges of further ids.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::{Finished, finish, image};

/// Any user who is not root and owns nothing.
const USER: &str = "65534";
/// A range of ids that nobody else has.
const RANGE: &str = "65534:1700000000:65536\n";

/// Runs a shell script in a container that this user starts, with these lines in /etc/subuid and /etc/subgid.
/// None, and the reason printed, where that cannot be tried.
fn started_by_user(ranges: &str, options: &[&str], script: &str) -> Option<Finished> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to become another user");
        return None;
    }
    if !["newuidmap", "newgidmap"].iter().all(|helper| fs::exists(format!("/usr/bin/{helper}")).unwrap()) {
        println!("skipped: the package uidmap is not installed");
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o777)).unwrap();
    fs::write(home.path().join("ranges"), ranges).unwrap();
    // A copy: the user may not be able to reach the program where it was built.
    fs::copy(support::program(), home.path().join("hv")).unwrap();
    let start = "for file in /etc/subuid /etc/subgid; do [ -e $file ] || : > $file; mount --bind ranges $file; done; \
                 image=$1; shift; \
                 exec setpriv --reuid $ID --regid $ID --clear-groups ./hv ctr \"$image\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", start, "sh"]).arg(image::directory());
    command.args(options).args(["--", "sh", "-c", script]);
    command.current_dir(home.path()).env("ID", USER).env("HOME", home.path()).env_remove("XDG_RUNTIME_DIR");
    Some(finish(command, b""))
}

mod ctr {
    use super::*;

    #[test]
    fn ranges_give_a_user_the_images_other_users() {
        let script = "id -u; touch /dev/shm/mine; stat -c %u /dev/shm/mine; cat /proc/self/uid_map";
        let Some(done) = started_by_user(RANGE, &["--user", "user"], script) else { return };
        let text = done.expect(0).text();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[..2], ["1000", "1000"], "{text}");
        assert_eq!(words[2..], ["0", USER, "1", "1", "1700000000", "65536"], "{text}");
    }

    #[test]
    fn a_user_without_ranges_is_root_inside_and_nobody_else() {
        let Some(done) = started_by_user("", &[], "id -u; wc -l < /proc/self/uid_map") else { return };
        assert_eq!(done.expect(0).text(), "0\n1\n");
        let Some(done) = started_by_user("", &["--user", "user"], "true") else { return };
        assert!(done.expect(125).stderr.contains("/etc/subuid"));
    }
}
