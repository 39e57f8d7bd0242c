//! skopeo and umoci read what hv writes, and hv reads what they write.

use std::fs;

use crate::world::{World, busybox, have};

/// A store with one image in it, called `mine:1`.
fn world() -> World {
    let world = World::new();
    fs::write(world.path("root.tar"), busybox()).unwrap();
    world.run("$HV image import root.tar mine:1 --cmd sh --env A=b --workdir /etc").expect(0);
    world
}

/// skopeo without signatures to check, which a machine may not have rules for.
const SKOPEO: &str = "skopeo --insecure-policy copy --quiet";

#[test]
fn skopeo_reads_the_store_itself_and_what_it_copies_comes_back_the_same() {
    if !have(&["skopeo"]) {
        return;
    }
    let world = world();
    let digest = world.text("$HV image ls -q --digests");
    let name = "docker.io/library/mine:1";
    for (to, file) in [("oci:out:mine:1", "out"), ("oci-archive:out.tar:mine:1", "out.tar")] {
        world.run(&format!("{SKOPEO} --preserve-digests oci:$STORE:{name} {to}")).expect(0);
        let other = World::new();
        let from = world.path(file);
        assert_eq!(other.text(&format!("$HV image load {}", from.display())), "mine:1\n");
        assert_eq!(other.text("$HV image ls -q --digests"), digest);
    }
}

#[test]
fn skopeo_converts_to_dockers_archive_and_back() {
    if !have(&["skopeo"]) {
        return;
    }
    let world = world();
    world
        .run(&format!("{SKOPEO} oci:$STORE:docker.io/library/mine:1 docker-archive:d.tar:other:2"))
        .expect(0);
    assert_eq!(world.text("$HV image load d.tar"), "other:2\n");
    let [one, other] = ["mine:1", "other:2"].map(|name| world.json(&format!("$HV image inspect {name}")));
    assert_eq!(one["config"]["process"], other["config"]["process"]);
    assert_eq!(one["layers"][0]["diffId"], other["layers"][0]["diffId"]);
    // What hv saves is docker's archive too, and an OCI layout.
    world.run("$HV image save mine:1 -o s.tar").expect(0);
    world.run(&format!("{SKOPEO} docker-archive:s.tar:docker.io/library/mine:1 oci:back:x")).expect(0);
    world.run(&format!("{SKOPEO} oci-archive:s.tar:docker.io/library/mine:1 oci:back:y")).expect(0);
    assert_eq!(world.text("$HV image load back"), "back:x\nback:y\n");
}

#[test]
fn zstd_and_gzip_layers_are_read() {
    if !have(&["skopeo"]) {
        return;
    }
    let world = world();
    for packing in ["gzip", "zstd"] {
        let script = format!(
            "{SKOPEO} --dest-compress --dest-compress-format {packing} oci:$STORE:docker.io/library/mine:1 \
             dir:{packing} && {SKOPEO} dir:{packing} oci:layout-{packing}:p:{packing} && \
             $HV image load layout-{packing}"
        );
        assert_eq!(world.text(&script), format!("p:{packing}\n"));
        world.run(&format!("$HV ctr p:{packing} --dry-run")).expect(0);
    }
    let kinds = world.json("$HV image inspect p:zstd")["layers"][0]["mediaType"].clone();
    assert!(kinds.as_str().unwrap().ends_with("+zstd"), "{kinds}");
}

#[test]
fn umoci_adds_a_layer_and_hv_starts_from_the_result() {
    if !have(&["umoci"]) {
        return;
    }
    let world = world();
    let script = "$HV image save mine:1 --layout layout && cd layout && \
        umoci unpack --rootless --image .:docker.io/library/mine:1 ../bundle && \
        echo umoci > ../bundle/rootfs/etc/added && rm ../bundle/rootfs/etc/data && \
        umoci repack --image .:new ../bundle && umoci config --image .:new --config.cmd /bin/true && \
        cd .. && $HV image load layout --name x 2>&1; $HV image load layout";
    let text = world.text(script);
    assert!(text.contains("has 2 images") && text.contains("layout:new"), "{text}");
    let shown = world.json("$HV image inspect layout:new");
    assert_eq!(shown["layers"].as_array().unwrap().len(), 2);
    assert_eq!(shown["config"]["process"]["Cmd"][0], "/bin/true");
}
