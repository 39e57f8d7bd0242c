//! The store as a whole: what lies is refused, and several writers do each other no harm.

use std::io::{self, Read, Write};
use std::sync::Barrier;

use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images"));
    (dir, store)
}

/// One ustar entry and the end of the archive.
pub(super) fn tar(name: &str, data: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", data.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

pub(super) fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Descriptor {
    let (digest, size) = store.put(bytes, None).unwrap();
    Descriptor::new(media_type, digest, size)
}

pub(super) fn put_json(store: &Store, media_type: &str, document: &impl serde::Serialize) -> Descriptor {
    put(store, media_type, &serde_json::to_vec(document).unwrap())
}

/// An image with one layer that holds one file.
pub(super) fn image(store: &Store, platform: &str, data: &[u8]) -> Descriptor {
    let platform: Platform = platform.parse().unwrap();
    let layer = tar("file", data);
    let mut config =
        Config { architecture: platform.architecture.clone(), os: platform.os.clone(), ..Config::default() };
    config.rootfs.diff_ids = vec![Digest::of(&layer)];
    let layer = put(store, media::LAYER, &layer);
    let config = put_json(store, media::CONFIG, &config);
    let mut image = put_json(store, media::MANIFEST, &Manifest::new(config, vec![layer]));
    image.platform = Some(platform);
    image
}

#[test]
fn attack_25_a_blob_is_what_its_name_says_or_it_is_not_stored() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello");
    let refused = |bytes: &[u8], digest: &Digest, size| store.put(bytes, Some((digest, size))).unwrap_err();
    assert!(matches!(refused(b"hellO", &digest, 5), ContentError::Digest { .. }));
    assert!(matches!(refused(b"hell", &digest, 5), ContentError::Size { found: Some(4), .. }));
    // An endless source is not read to its end.
    let endless = store.put(io::repeat(0), Some((&digest, 5))).unwrap_err();
    assert!(matches!(endless, ContentError::Size { found: None, .. }));
    assert!(!store.has(&digest));
    assert_eq!(std::fs::read_dir(store.blobs()).unwrap().count(), 0);
    store.put(&b"hello"[..], Some((&digest, 5))).unwrap();
    assert_eq!(store.read(&digest, 5).unwrap(), b"hello");
    assert!(matches!(store.read(&digest, 4), Err(ContentError::TooLarge { .. })));
    assert!(matches!(store.read(&Digest::of(b""), 9), Err(ContentError::Absent(_))));
    std::fs::write(store.path(&digest), "hellO").unwrap();
    assert!(matches!(store.read(&digest, 5), Err(ContentError::Digest { .. })));
}

#[test]
fn a_source_that_breaks_leaves_nothing() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let (_dir, store) = store();
    let broken = store.put((&b"abc"[..]).chain(Broken), None).unwrap_err();
    assert!(matches!(broken, ContentError::Source(_)));
    assert_eq!(std::fs::read_dir(store.blobs()).unwrap().count(), 0);
}

#[test]
fn a_partial_blob_goes_on_where_it_was_and_a_wrong_one_begins_anew() {
    let (_dir, store) = store();
    let digest = Digest::of(b"hello world");
    store.partial(&digest).unwrap().write_all(b"hello").unwrap();
    let mut again = store.partial(&digest).unwrap();
    assert_eq!(again.len(), 5);
    again.write_all(b" worlD").unwrap();
    assert!(matches!(again.finish(11), Err(ContentError::Digest { .. })));
    let mut third = store.partial(&digest).unwrap();
    assert!(third.is_empty() && !third.is_complete());
    third.write_all(b"junk").unwrap();
    third.restart().unwrap();
    third.write_all(b"hello world").unwrap();
    third.finish(11).unwrap();
    assert_eq!(store.read(&digest, 11).unwrap(), b"hello world");
    let late = store.partial(&digest).unwrap();
    assert!(late.is_complete());
    late.finish(11).unwrap();
    assert_eq!(std::fs::read_dir(store.partials()).unwrap().count(), 0);
}

#[test]
fn of_two_writers_of_one_blob_the_second_waits_and_finds_it_done() {
    let (_dir, store) = store();
    let digest = Digest::of(&[7; 100_000]);
    let begin = Barrier::new(2);
    let write = || {
        begin.wait();
        let mut partial = store.partial(&digest).unwrap();
        let found = partial.is_complete();
        if !found {
            assert!(partial.is_empty());
            partial.write_all(&[7; 100_000]).unwrap();
        }
        partial.finish(100_000).unwrap();
        found
    };
    let complete = std::thread::scope(|scope| {
        let other = scope.spawn(write);
        [write(), other.join().unwrap()]
    });
    assert_eq!(complete.iter().filter(|found| **found).count(), 1);
    assert!(store.has(&digest));
}

#[test]
fn names_given_by_many_at_once_are_all_kept() {
    let (_dir, store) = store();
    let image = image(&store, "linux/amd64", b"x");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, image) = (&store, &image);
            scope.spawn(move || {
                for number in 0..10 {
                    store.put(&b"the same"[..], None).unwrap();
                    store.tag(&format!("host/{thread}/{number}:latest"), image).unwrap();
                }
            });
        }
    });
    assert_eq!(store.names().unwrap().len(), 40);
    assert!(store.untag("host/0/0:latest").unwrap());
    assert!(!store.untag("host/0/0:latest").unwrap());
    assert_eq!(store.resolve("host/0/0:latest").unwrap(), None);
    assert_eq!(store.resolve("host/3/9:latest").unwrap().unwrap(), image);
    assert!(store.tag("a b", &image).is_err() && store.tag("", &image).is_err());
    let absent = Descriptor::new(media::MANIFEST, Digest::of(b"no"), 2);
    assert!(matches!(store.tag("x", &absent), Err(ContentError::Absent(_))));
}

#[test]
fn a_name_moves_to_another_image_in_one_step() {
    let (_dir, store) = store();
    let (one, other) = (image(&store, "linux/amd64", b"1"), image(&store, "linux/amd64", b"2"));
    store.tag("x", &one).unwrap();
    store.tag("x", &other).unwrap();
    assert_eq!(store.names().unwrap(), [("x".to_owned(), other)]);
}

#[test]
fn the_platform_is_chosen_and_attestations_are_not() {
    let (_dir, store) = store();
    let (amd, arm) = (image(&store, "linux/amd64", b"amd"), image(&store, "linux/arm64", b"arm"));
    let about = image(&store, "unknown/unknown", b"about");
    let index = put_json(&store, media::INDEX, &Index::new(vec![about.clone(), arm.clone(), amd.clone()]));
    let choose = |platform: &str| store.choose(&index, Some(&platform.parse().unwrap()));
    assert_eq!(choose("linux/amd64").unwrap().descriptor.digest, amd.digest);
    assert_eq!(choose("linux/arm64/v8").unwrap().descriptor.digest, arm.digest);
    let refused = choose("linux/s390x").unwrap_err().to_string();
    assert_eq!(refused, "the image has nothing for linux/s390x; it has linux/arm64, linux/amd64");
    let only = put_json(&store, media::INDEX, &Index::new(vec![about]));
    assert!(store.choose(&only, None).unwrap_err().to_string().contains("no platform at all"));
    // The index says amd64, the image itself does not.
    let mut lying = arm;
    lying.platform = amd.platform;
    let lying = put_json(&store, media::INDEX, &Index::new(vec![lying]));
    assert!(matches!(store.choose(&lying, Some(&Platform::default())), Err(ContentError::NoPlatform { .. })));
}

#[test]
fn attack_25_cve_2021_41190_indexes_in_indexes_end_and_a_manifest_is_no_index() {
    let (_dir, store) = store();
    let mut image = image(&store, "linux/amd64", b"x");
    let as_index = Descriptor { media_type: media::INDEX.into(), ..image.clone() };
    assert!(store.choose(&as_index, None).unwrap_err().to_string().contains("CVE-2021-41190"));
    let wrong_size = Descriptor { size: 1, ..image.clone() };
    assert!(matches!(store.choose(&wrong_size, None), Err(ContentError::Size { .. })));
    for _ in 0..3 {
        image = put_json(&store, media::INDEX, &Index::new(vec![image]));
        store.choose(&image, None).unwrap();
    }
    image = put_json(&store, media::INDEX, &Index::new(vec![image]));
    assert!(store.choose(&image, None).unwrap_err().to_string().contains("4 deep"));
}

#[test]
fn an_image_becomes_the_same_file_once() {
    let (_dir, store) = store();
    let image = image(&store, "linux/amd64", b"content");
    let paths: Vec<_> = std::thread::scope(|scope| {
        let make = || (0..2).map(|_| store.startable(&image, None).unwrap().path).collect::<Vec<_>>();
        let other = scope.spawn(make);
        [make(), other.join().unwrap()].concat()
    });
    assert!(paths.iter().all(|path| *path == paths[0]));
    let first = std::fs::read(&paths[0]).unwrap();
    std::fs::remove_file(&paths[0]).unwrap();
    store.startable(&image, None).unwrap();
    assert_eq!(std::fs::read(&paths[0]).unwrap(), first);
    let left: Vec<_> = std::fs::read_dir(store.cache()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn attack_25_layers_that_are_not_what_the_image_says_are_refused() {
    let (_dir, store) = store();
    let layer = put(&store, media::LAYER, &tar("file", b"x"));
    let make = |diff_ids: Vec<Digest>, layers: Vec<Descriptor>| {
        let mut config = Config { architecture: "amd64".into(), os: "linux".into(), ..Config::default() };
        config.rootfs.diff_ids = diff_ids;
        let config = put_json(&store, media::CONFIG, &config);
        let image = put_json(&store, media::MANIFEST, &Manifest::new(config, layers));
        store.startable(&image, None).unwrap_err().to_string()
    };
    let other = Digest::of(b"other");
    assert!(make(vec![other], vec![layer.clone()]).contains("but the image says"));
    assert!(make(vec![], vec![layer.clone()]).contains("has 1 layers, its configuration 0"));
    assert!(make(vec![], vec![]).contains("no layers"));
    let size = Descriptor { size: 7, ..layer.clone() };
    assert!(make(vec![other], vec![size]).contains("should have 7 bytes"));
    let kind = Descriptor { media_type: "application/wasm".into(), ..layer };
    assert!(make(vec![other], vec![kind]).contains("cannot unpack its layer of the kind `application/wasm`"));
    let gone = Descriptor::new(media::LAYER, other, 3);
    assert!(make(vec![other], vec![gone]).contains("is not in the store"));
}
