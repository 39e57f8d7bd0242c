//! Both kinds start the same image by its name, and do what it says.

use std::fs;
use std::os::unix::fs::MetadataExt;

use hv_common::Kind;
use serde_json::json;

use crate::both_kinds;
use crate::support::Finished;
use crate::world::{Layout, World, busybox, tar};

/// What both kinds print for the image below.
const SCRIPT: &str = "echo $A $B; pwd; id -u; id -g; id -G; echo $0 $@; cat /etc/data /etc/more";

/// A store with `app:1`: two layers, and a configuration that uses everything.
fn world() -> World {
    let world = World::new();
    let second = world.path("second");
    fs::create_dir_all(second.join("etc")).unwrap();
    fs::write(second.join("etc/more"), "second layer\n").unwrap();
    let mut layout = Layout::new(world.path("layout"));
    let image = layout.image(
        &[&busybox(), &tar(&second)],
        json!({
            "Entrypoint": ["/bin/sh", "-c", SCRIPT], "Cmd": ["zero", "one"], "Env": ["A=image", "B=image"],
            "WorkingDir": "/etc", "User": "user", "StopSignal": "SIGUSR1",
        }),
    );
    layout.name("app:1", image);
    layout.finish();
    world.run("$HV image load layout").expect(0);
    world
}

/// Starts `app:1` with these words.
#[track_caller]
fn start(world: &World, kind: Kind, words: &str) -> Finished {
    let kernel = if kind == Kind::Vm { "--kernel $KERNEL" } else { "" };
    world.run(&format!("$HV {} app:1 {kernel} {words}", kind.word()))
}

both_kinds! {
    fn the_images_configuration_is_honoured(kind: Kind) {
        let world = world();
        let told = start(&world, kind, "").expect(0).text();
        assert_eq!(told, "image image\n/etc\n1000\n1000\n1000 2000\nzero one\nfrom the image\nsecond layer\n");
    }

    fn what_was_typed_goes_before_it(kind: Kind) {
        let world = world();
        fs::write(world.path("env"), "A=file\nB=file\n").unwrap();
        let options = "--env-file env --env B=typed --workdir /tmp --user 0:0 -- zero two";
        let told = start(&world, kind, options).expect(0).text();
        assert_eq!(told, "file typed\n/tmp\n0\n0\n0\nzero two\nfrom the image\nsecond layer\n");
        let told = start(&world, kind, "--entrypoint /bin/echo -- three").expect(0).text();
        assert_eq!(told, "three\n");
    }

    fn the_images_stop_signal_ends_it(kind: Kind) {
        let world = world();
        let kernel = if kind == Kind::Vm { "--kernel $KERNEL" } else { "" };
        let script = format!(
            "mkfifo ready; $HV {} app:1 {kernel} --name stop$$ --entrypoint /bin/sh -- -c \
             'trap \"echo usr1; exit 3\" USR1; echo ready; while :; do sleep 0.1; done' > ready & \
             exec 3< ready; read word <&3; $HV stop stop$$ --time 60; cat <&3; wait $!",
            kind.word()
        );
        assert_eq!(world.run(&script).expect(3).text(), "usr1\n");
    }
}

/// The same inode on the host is what a container mounts and a microVM has as its disk.
#[test]
fn both_kinds_start_the_very_same_file() {
    let world = world();
    let plan = |kind: &str| world.text(&format!("$HV {kind} app:1 --dry-run"));
    let file = |plan: String| {
        let line =
            plan.lines().find(|line| line.contains(".erofs")).unwrap_or_else(|| panic!("{plan}")).to_owned();
        let end = line.find(".erofs").unwrap() + 6;
        let start = line[..end].rfind(|c: char| c.is_whitespace() || c == '`').map_or(0, |at| at + 1);
        line[start..end].to_owned()
    };
    let container = file(plan("ctr"));
    assert!(container.contains("/images/"), "{container}");
    let name = container.rsplit('/').next().unwrap().to_owned();
    let cache = match rustix::process::geteuid().is_root() {
        true => world.path("cache/images"),
        false => world.path("cache/hv/images"),
    };
    let inode = fs::metadata(cache.join(&name)).unwrap().ino();
    let shown = world.json("$HV image inspect app:1");
    assert!(shown["file"]["path"].as_str().unwrap().ends_with(&name), "{shown}");
    if crate::support::unavailable(Kind::Ctr).is_none() {
        start(&world, Kind::Ctr, "").expect(0);
    }
    if std::env::var_os("HV_TEST_KERNEL").is_some() && std::path::Path::new("/dev/kvm").exists() {
        assert_eq!(file(plan("vm --kernel $KERNEL")), container);
    }
    // Neither start has made another.
    assert_eq!(fs::metadata(cache.join(&name)).unwrap().ino(), inode);
    assert_eq!(fs::read_dir(&cache).unwrap().count(), 1);
}

#[test]
fn an_image_that_is_not_there_says_what_to_do() {
    let world = World::new();
    let told = world.run("$HV ctr surely/not:here").expect(125).stderr;
    assert!(told.contains("no image `surely/not:here` (docker.io/surely/not:here)"), "{told}");
    assert!(told.contains("hv pull surely/not:here"), "{told}");
    let told = world.run("$HV ctr 'No Name'").expect(125).stderr;
    assert!(told.contains("there is no file No Name"), "{told}");
    let told = world.run("$HV ctr ./nowhere").expect(125).stderr;
    assert!(told.contains("cannot open image ./nowhere"), "{told}");
}

#[test]
fn an_image_with_nothing_in_it_never_becomes_the_hosts_root() {
    let world = World::new();
    let mut layout = Layout::new(world.path("layout"));
    let image = layout.image(&[], json!({"Cmd": ["/bin/sh"]}));
    layout.name("empty:1", image);
    layout.finish();
    world.run("$HV image load layout").expect(0);
    let told = world.run("$HV ctr empty:1").expect(125).stderr;
    assert!(told.contains("it has no layers"), "{told}");
}

#[test]
fn a_configuration_that_attacks_is_refused_or_harmless() {
    let told = |config: serde_json::Value, status| {
        let world = World::new();
        let mut layout = Layout::new(world.path("layout"));
        let image = layout.image(&[&busybox()], config);
        layout.name("bad:1", image);
        layout.finish();
        world.run("$HV image load layout && $HV ctr bad:1 -- true").expect(status).stderr
    };
    assert!(told(json!({"StopSignal": "SIGNONSENSE"}), 125).contains("is no signal"));
    let many: Vec<String> = (0..5000).map(|n| format!("A{n}=x")).collect();
    assert!(told(json!({"Env": many}), 125).contains("5000 items"));
    assert!(told(json!({"User": "x".repeat(5000)}), 125).contains("longer than any can be"));
    if crate::support::unavailable(Kind::Ctr).is_none() {
        // CVE-2024-21626: a working directory that is a descriptor of the host's.
        assert!(told(json!({"WorkingDir": "/proc/self/fd/7"}), 125).contains("working directory"));
        assert!(told(json!({"User": "nobody-here"}), 125).contains("not in the image's /etc/passwd"));
        told(json!({"Volumes": {"/../../../../etc": {}}, "Env": ["=x", "NOVALUE"]}), 0);
    }
}
