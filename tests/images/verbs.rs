//! The verbs of `hv image`, one after the other as people type them.

use std::fs;

use serde_json::json;

use crate::world::{Layout, World, busybox, tar};

#[test]
fn an_image_is_imported_listed_tagged_shown_and_removed() {
    let world = World::new();
    fs::write(world.path("root.tar"), busybox()).unwrap();
    assert_eq!(world.text("$HV image import root.tar mine:1 --cmd sh --env A=b"), "mine:1\n");
    world.run("$HV image tag mine:1 ghcr.io/other/name").expect(0);
    let list = world.json("$HV images --json");
    let names: Vec<_> = list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["docker.io/library/mine:1", "ghcr.io/other/name:latest"]);
    assert_eq!(list[0]["digest"], list[1]["digest"]);
    let table = world.text("$HV image ls");
    assert!(table.starts_with("NAME") && table.contains("\nmine:1 "), "{table}");

    let shown = world.json("$HV image inspect mine:1");
    assert_eq!(shown["config"]["process"], json!({"Cmd": ["sh"], "Env": ["A=b"]}));
    assert!(shown["file"]["digest"].as_str().unwrap().starts_with("sha256:"), "{shown}");
    let by_digest = world.json("$HV image inspect $($HV images -q | head -n 1)");
    assert_eq!(by_digest, shown);
    let history = world.json("$HV image history mine:1 --json");
    assert_eq!(history[0]["layer"], shown["layers"][0]["digest"]);

    assert_eq!(world.text("$HV image rm mine:1"), "mine:1\n");
    assert_eq!(world.json("$HV image fsck --json")["blobs"], 3);
    world.run("$HV image rm ghcr.io/other/name").expect(0);
    assert_eq!(fs::read_dir(world.store().join("blobs/sha256")).unwrap().count(), 0);
    let absent = world.run("$HV image rm mine:1").expect(125).stderr;
    assert!(absent.contains("no image `mine:1` (docker.io/library/mine:1)") && absent.contains("hv pull"));
}

#[test]
fn the_same_tar_gives_the_same_image_and_file() {
    let (one, other) = (World::new(), World::new());
    let shown = [&one, &other].map(|world| {
        fs::write(world.path("root.tar"), busybox()).unwrap();
        world.run("$HV image import root.tar mine").expect(0);
        let shown = world.json("$HV image inspect mine");
        (shown["digest"].clone(), shown["file"]["digest"].clone())
    });
    assert_eq!(shown[0], shown[1]);
}

#[test]
fn what_was_saved_loads_as_the_same_and_twice_as_the_same_bytes() {
    let world = World::new();
    fs::write(world.path("root.tar"), busybox()).unwrap();
    world
        .run("$HV image import root.tar mine && $HV image save mine -o a.tar && $HV image save mine > b.tar")
        .expect(0);
    assert_eq!(fs::read(world.path("a.tar")).unwrap(), fs::read(world.path("b.tar")).unwrap());
    let other = World::new();
    fs::copy(world.path("a.tar"), other.path("a.tar")).unwrap();
    assert_eq!(other.text("gzip a.tar && $HV image load a.tar.gz"), "mine:latest\n");
    assert_eq!(other.text("$HV image ls -q --digests"), world.text("$HV image ls -q --digests"));
    // Through a pipe, under another name.
    assert_eq!(other.text("gzip -dc a.tar.gz | $HV image load --name x:2"), "x:2\n");
    let layout = other.text("$HV image save mine --layout ./dir && $HV image load ./dir --name y && ls dir");
    assert_eq!(layout, "y:latest\nblobs\nindex.json\noci-layout\n");
}

#[test]
fn what_is_exported_is_what_was_imported() {
    let world = World::new();
    fs::write(world.path("root.tar"), busybox()).unwrap();
    world.run("$HV image import root.tar mine && $HV image export mine -o out.tar").expect(0);
    let script = "mkdir a b && tar -C a -xf root.tar && $HV image export mine | tar -C b -xf - && diff -r a b && \
        tar -tvf root.tar --numeric-owner | sort -k 6 > a.txt && tar -tvf out.tar --numeric-owner | sort -k 6 > b.txt && \
        wc -l < a.txt && wc -l < b.txt";
    let text = world.text(script);
    let counts: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(counts[0], counts[1], "{text}");
}

#[test]
fn of_an_index_this_machines_image_is_chosen_and_attestations_are_not() {
    let world = World::new();
    let dir = world.path("file");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("hello"), "x").unwrap();
    let mut layout = Layout::new(world.path("layout"));
    let mut ours = layout.image(&[&tar(&dir)], json!({"Labels": {"which": "ours"}}));
    let mut about = layout.image(&[&tar(&dir)], json!({"Labels": {"which": "about"}}));
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    ours["platform"] = json!({"os": "linux", "architecture": architecture});
    about["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let gone = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 7,
        "digest": format!("sha256:{}", "0".repeat(64)), "platform": {"os": "linux", "architecture": "s390x"}});
    let index = json!({"schemaVersion": 2, "manifests": [about, gone, ours]});
    let index = layout.blob("application/vnd.oci.image.index.v1+json", index.to_string().as_bytes());
    layout.name("many:1", index);
    layout.finish();
    assert_eq!(world.text("$HV image load layout"), "many:1\n");
    let shown = world.json("$HV image inspect many:1");
    assert_eq!(shown["config"]["process"]["Labels"]["which"], "ours");
    let refused = world.run("$HV image inspect many:1 --platform linux/s390x").expect(125).stderr;
    assert!(refused.contains("is not in the store"), "{refused}");
    let refused = world.run("$HV image inspect many:1 --platform linux/riscv64").expect(125).stderr;
    assert!(refused.contains("nothing for linux/riscv64; it has linux/s390x"), "{refused}");
    world.run("$HV image fsck").expect(0);
}

#[test]
fn attack_25_images_that_lie_are_refused_and_leave_no_name() {
    let refused = |change: &dyn Fn(&mut serde_json::Value), words: &str| {
        let world = World::new();
        let mut layout = Layout::new(world.path("layout"));
        let mut image = layout.image(&[&busybox()], json!({}));
        change(&mut image);
        layout.name("bad:1", image);
        layout.finish();
        let told = world.run("$HV image load layout").expect(125).stderr;
        assert!(told.contains(words), "{told}");
        assert_eq!(world.text("$HV images --json"), "[]\n");
    };
    refused(&|image| image["size"] = json!(5), "should have 5 bytes");
    refused(&|image| image["digest"] = json!(format!("sha256:{}", "1".repeat(64))), "is missing in it");
    refused(&|image| image["digest"] = json!("sha512:00"), "`sha512` is not supported");
    refused(&|image| image["digest"] = json!("../../etc/passwd"), "is not a digest");
    refused(&|image| image["mediaType"] = json!("application/vnd.oci.image.index.v1+json"), "CVE-2021-41190");
}

#[test]
fn what_cannot_be_loaded_says_what_to_do() {
    let world = World::new();
    fs::write(world.path("root.tar"), busybox()).unwrap();
    let told = |script: &str| world.run(script).expect(125).stderr;
    assert!(told("$HV image load root.tar").contains("hv image import"));
    assert!(told("$HV image load /dev/null").contains("neither an OCI layout"));
    assert!(told("mkdir d; $HV image import d x").contains("tar -C d -c ."));
    assert!(told("echo hello > t; $HV image import t x").contains("is damaged: it ends in the middle"));
    assert!(told("$HV image load nowhere").contains("cannot open nowhere"));
    assert!(told("$HV image tag a b").contains("no image `a`"));
}
