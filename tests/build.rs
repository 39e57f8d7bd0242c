//! `hv build`, with a store of the test's own: a mount namespace in which root's directories are others.

mod support;

mod ctr {
    use std::path::Path;
    use std::process::Command;

    use super::support::{self, run::Finished};

    fn build(world: &Path, epoch: &str, arguments: &[&str]) -> Finished {
        let script = "mkdir -p \"$0/lib\" \"$0/cache\" /var/lib/hv /var/cache/hv && mount --bind \"$0/lib\" /var/lib/hv && \
            mount --bind \"$0/cache\" /var/cache/hv && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", script])
            .arg(world)
            .arg(support::hv(&[]).get_program())
            .arg("build")
            .args(arguments);
        command.env("SOURCE_DATE_EPOCH", epoch);
        support::run::finish(command, b"")
    }

    #[test]
    fn stages_commands_and_copies_become_one_image_with_the_same_digest_each_time() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let world = tempfile::tempdir().unwrap();
        let context = world.path().join("context");
        std::fs::create_dir_all(context.join("sub")).unwrap();
        std::fs::copy(support::image::directory().join("bin/busybox"), context.join("busybox")).unwrap();
        std::fs::write(context.join("sub/kept"), "kept\n").unwrap();
        std::fs::write(context.join("sub/x.log"), "left out\n").unwrap();
        std::fs::write(context.join(".dockerignore"), "**/*.log\n").unwrap();
        let file = context.join("Dockerfile");
        let text = "FROM scratch AS base\nCOPY busybox /bin/sh\nFROM base AS unneeded\nRUN exit 9\nFROM base AS made\n\
            RUN echo words > /out\nFROM base\nCOPY --from=made /out /w/\nCOPY sub /w/sub/\n\
            RUN test -f /w/sub/kept && test ! -e /w/sub/x.log && read a < /w/out && test \"$a\" = words\nCMD [\"/bin/sh\"]\n";
        std::fs::write(&file, text).unwrap();
        let context = context.to_str().unwrap();
        let first = build(world.path(), "1000", &["-t", "demo", context]).expect(0);
        let again = build(world.path(), "1000", &[context]).expect(0);
        assert_eq!((first.text(), again.stderr.contains("CACHED")), (again.text(), true));
        let anew = build(world.path(), "1000", &["--no-cache", context]).expect(0);
        assert_eq!((first.text(), anew.stderr.contains("CACHED")), (anew.text(), false));
        std::fs::write(&file, format!("{text}\nRUN exit 3\n")).unwrap();
        let failed = build(world.path(), "1000", &[context]).expect(125);
        assert!(
            failed.stderr.contains("Dockerfile:13: the command `exit 3` ended with status 3"),
            "{}",
            failed.stderr
        );
        std::os::unix::fs::symlink("/etc", format!("{context}/leak")).unwrap();
        std::fs::write(&file, "FROM scratch\nCOPY leak/passwd /x\n").unwrap();
        let failed = build(world.path(), "1000", &[context]).expect(125);
        assert!(failed.stderr.contains("Dockerfile:2: cannot take `leak/passwd`"), "{}", failed.stderr);
    }
    #[test]
    fn attack_27_mounts_of_builds_are_refused() {
        if !rustix::process::geteuid().is_root() {
            return println!("skipped: builds need root");
        }
        let world = tempfile::tempdir().unwrap();
        let context = world.path().join("context");
        std::fs::create_dir(&context).unwrap();
        for mount in [
            "type=bind,source=/,target=/x",
            "type=cache,target=/../x",
            "type=bind,from=scratch,source=..,target=/x",
        ] {
            let text = format!("FROM scratch\nRUN --mount={mount} [\"/x/bin/sh\"]\n");
            std::fs::write(context.join("Dockerfile"), text).unwrap();
            let refused = build(world.path(), "0", &[context.to_str().unwrap()]).expect(125);
            assert!(refused.stderr.contains("Dockerfile:2: RUN --mount"), "{}", refused.stderr);
        }
    }
}
