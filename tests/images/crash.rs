//! Whatever happens in the middle: the store is whole afterwards, and what was asked for can be asked for again.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::finish;
use crate::world::{World, busybox};

/// How often hv is killed; each time a little later.
const KILLS: u32 = 40;

/// A layout whose layer is larger than what is written at once.
fn archive(world: &World) {
    let data: Vec<u8> = (0..8u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::create_dir(world.path("root")).unwrap();
    fs::write(world.path("root/data"), data).unwrap();
    fs::write(world.path("root.tar"), crate::world::tar(&world.path("root"))).unwrap();
}

#[test]
fn killed_at_any_point_of_an_import_the_store_is_whole() {
    let world = World::new();
    archive(&world);
    // How long one takes that is not killed.
    let begin = Instant::now();
    world.run("$HV image import root.tar big:0 && $HV image rm big:0").expect(0);
    let whole = begin.elapsed();
    for kill in 0..KILLS {
        // The shell is replaced, so that the signal meets hv.
        let mut command = world.script("exec $HV image import root.tar big:1");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * kill / KILLS.max(1));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    world.run("$HV image fsck").expect(0);
    world.run("$HV image prune").expect(0);
    world.run("$HV image import root.tar big:1 && $HV image inspect big:1 && $HV image fsck").expect(0);
    world.run("$HV image rm big:1").expect(0);
    for dir in ["blobs/sha256", ".partial"] {
        let left: Vec<_> = fs::read_dir(world.store().join(dir)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn two_loads_of_the_same_and_of_another_at_once() {
    let world = World::new();
    archive(&world);
    fs::write(world.path("other.tar"), busybox()).unwrap();
    let jobs: Vec<_> = (0..6)
        .map(|job| {
            let file = if job % 2 == 0 { "root.tar" } else { "other.tar" };
            let mut command = world.script(&format!("$HV image import {file} job:{job}"));
            command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for job in jobs {
        let done = job.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
    let list = world.json("$HV images --json");
    assert_eq!(list.as_array().unwrap().len(), 6);
    assert_eq!(world.json("$HV image fsck --json")["problems"].as_array().unwrap().len(), 0);
}

#[test]
fn what_is_being_added_is_not_pruned() {
    let world = World::new();
    archive(&world);
    // The import waits for its input while prune is asked.
    let script = "mkfifo pipe; $HV image import - slow:1 < pipe & exec 3> pipe; head -c 1000000 root.tar >&3; \
        until [ -e $STORE/.session ]; do :; done; $HV image prune; echo prune $?; \
        tail -c +1000001 root.tar >&3; exec 3>&-; wait $!; echo import $?";
    let done = world.run(script).expect(0);
    assert_eq!(done.text(), "prune 125\nslow:1\nimport 0\n", "{}", done.stderr);
    assert!(done.stderr.contains("being added"), "{}", done.stderr);
    world.run("$HV image prune && $HV image inspect slow:1").expect(0);
}

#[test]
fn a_full_disk_in_the_middle_leaves_the_store_as_it_was() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root to mount a small file system");
        return;
    }
    let world = World::new();
    archive(&world);
    fs::write(world.path("small.tar"), busybox()).unwrap();
    let script = "mount -t tmpfs -o size=6m none /var/lib/hv; $HV image import small.tar small || exit 1; \
        $HV image import root.tar big; echo $?; $HV image fsck || exit 2; $HV image inspect small > shown || exit 3; \
        $HV image ls --json > list; find /var/lib/hv -name '.new-*'; cat list";
    let done = world.run(script).expect(0);
    assert!(done.stderr.contains("No space left"), "{}", done.stderr);
    let text = done.text();
    let (start, list) = text.split_once("[\n").unwrap();
    assert!(start.contains("small:latest\n125\n") && start.ends_with("all is well\n"), "{text}");
    assert_eq!(list.matches("\"name\"").count(), 1, "{text}");
}

#[test]
fn fsck_finds_a_damaged_blob_and_mends_what_can_be() {
    let world = World::new();
    fs::write(world.path("root.tar"), busybox()).unwrap();
    world.run("$HV image import root.tar a && $HV image import root.tar b --env X=y").expect(0);
    let config = world.json("$HV image inspect b")["config"]["digest"].as_str().unwrap().to_owned();
    let blob = world.store().join("blobs/sha256").join(&config[7..]);
    let mut bytes = fs::read(&blob).unwrap();
    bytes[10] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let told = world.run("$HV image fsck").expect(1).stderr;
    assert!(told.contains("is damaged") && told.contains("library/b:latest is not whole"), "{told}");
    world.run("$HV image fsck && $HV image inspect a").expect(0);
    world.run("$HV image inspect b").expect(125);
    // Names that are gone for good.
    fs::write(world.store().join("index.json"), "{").unwrap();
    let told = world.run("$HV image fsck").expect(1).stderr;
    assert!(told.contains("index.json.damaged"), "{told}");
    let list = world.json("$HV images --json");
    assert_eq!(list[0]["name"], serde_json::Value::Null);
    world
        .run("$HV image fsck && $HV image tag $($HV images -q | head -n 1) again && $HV image inspect again")
        .expect(0);
}

#[test]
fn a_start_of_a_name_that_is_removed_meanwhile_goes_on() {
    let world = World::new();
    fs::write(world.path("root.tar"), busybox()).unwrap();
    world.run("$HV image import root.tar mine").expect(0);
    if let Some(reason) = crate::support::unavailable(hv_common::Kind::Ctr) {
        println!("skipped: {reason}");
        return;
    }
    let script = "mkfifo go; $HV ctr mine -- sh -c 'read word; cat /etc/data' < go & exec 3> go; \
        $HV image rm mine; echo x >&3; exec 3>&-; wait $!";
    let begin = Instant::now();
    let done = finish(world.script(script), b"").expect(0);
    assert!(done.text().ends_with("from the image\n"), "{}", done.text());
    assert!(begin.elapsed() < Duration::from_secs(60));
}
