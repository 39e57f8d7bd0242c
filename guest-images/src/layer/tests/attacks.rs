//! Layers that are made to hurt: attacks 23 to 25 of docs/threat-model.md.

use std::io::Write;

use super::super::merge::MergeError;
use super::super::scan::{Limits, Scanned};
use super::super::tar::TarError;
use super::*;

/// A directory of the host with a file in it, for names and links to lead to.
struct Outside(tempfile::TempDir);

impl Outside {
    const SECRET: &str = "only the host has these words";

    fn new() -> Outside {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("victim"), Outside::SECRET).unwrap();
        Outside(dir)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    /// Nothing came out of the image to it, and nothing of it into the image.
    fn is_untouched(&self, image: Option<&File>) {
        let names: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["victim"]);
        assert_eq!(fs::read_to_string(self.0.path().join("victim")).unwrap(), Outside::SECRET);
        if let Some(image) = image {
            assert_eq!(memchr::memmem::find(&bytes_of(image), Outside::SECRET.as_bytes()), None);
        }
    }
}

fn refused(tars: &[Vec<u8>]) -> MergeError {
    match flat(tars) {
        Err(LayerError::Entry { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// A symbolic link in a lower layer, and in the next one a file, a whiteout and a hard link through it.
#[test]
fn attack_23_an_ancestor_that_is_a_link_leads_to_the_image_and_never_to_the_host() {
    let outside = Outside::new();
    for target in [outside.path().to_owned(), format!("../../../../../..{}", outside.path())] {
        let lower = Tar::new().link("a", &target).end();
        let written = flat(&[lower.clone(), Tar::new().file("a/pwned", "x").end()]).unwrap();
        outside.is_untouched(Some(&written.file));
        if let Some(mounted) = Mounted::new(&written.file) {
            let inside = mounted.0.path().join(outside.path().trim_start_matches('/')).join("pwned");
            assert_eq!(fs::read_to_string(inside).unwrap(), "x", "below the image's own root");
        }
        let hidden = Tar::new().file("a/.wh.victim", "").file("a/.wh..wh..opq", "").end();
        outside.is_untouched(Some(&flat(&[lower.clone(), hidden]).unwrap().file));
        let linked = Tar::new().hard("stolen", "a/victim").end();
        assert!(matches!(refused(&[lower.clone(), linked]), MergeError::Target(_)));
        // The same in one layer, and the link itself replaced by what was to follow it.
        let both = Tar::new().link("a", &target).file("a", "x").file("b", "y").end();
        outside.is_untouched(Some(&flat(&[both]).unwrap().file));
    }
}

#[test]
fn attack_23_names_that_lead_out_of_the_image_are_refused() {
    for name in ["../x", "a/../../x", "a/..", "/../x", "a/../b"] {
        assert_eq!(refused(&[Tar::new().file(name, "").end()]), MergeError::Escape, "{name}");
        assert_eq!(refused(&[Tar::new().dir(name).end()]), MergeError::Escape, "{name}");
        assert_eq!(refused(&[Tar::new().link(name, "x").end()]), MergeError::Escape, "{name}");
        assert_eq!(refused(&[Tar::new().file(&format!("{name}/.wh.x"), "").end()]), MergeError::Escape);
        let link = Tar::new().file("a", "").hard("b", name).end();
        assert_eq!(refused(&[link]), MergeError::Escape, "{name}");
        // A pax header and a GNU one give the name anew, behind the back of whoever looked at the first.
        assert_eq!(refused(&[Tar::new().record("path", name).file("x", "").end()]), MergeError::Escape);
        let long = Tar::new().entry(b'L', b"././@LongLink", "", name.as_bytes()).file("x", "").end();
        assert_eq!(refused(&[long]), MergeError::Escape);
    }
    // Of an absolute name the first slash means the image's root.
    expect(&[Tar::new().file("/x", "1").end()], &[("x", Some("1"))]);
}

#[test]
fn attack_24_whiteouts_of_nothing_of_themselves_and_of_the_root_hide_nothing() {
    let lower = Tar::new().dir("a").file("a/x", "1").end();
    for name in [".wh.", "a/.wh.", ".wh..", "a/.wh..", ".wh...", "a/.wh...", ".wh..wh.x", "no/.wh.x"] {
        let upper = Tar::new().file(name, "").end();
        let found = flat(&[lower.clone(), upper]).unwrap();
        let Some(mounted) = Mounted::new(&found.file) else { continue };
        assert_eq!(fs::read_to_string(mounted.0.path().join("a/x")).unwrap(), "1", "{name}");
        let strange =
            |name: PathBuf| name.as_os_str().as_encoded_bytes().windows(4).any(|part| part == b".wh.");
        assert!(!listing(mounted.0.path()).into_iter().any(|(name, _)| strange(name)), "{name}");
    }
    // Of the root itself: everything below, and nothing else.
    let all = Tar::new().file(".wh..wh..opq", "").file("new", "2").end();
    expect(&[lower, all], &[("new", Some("2"))]);
}

#[test]
fn attack_24_hard_links_lead_to_what_the_image_has() {
    let device = Tar::new().entry(b'3', b"dev", "", b"").hard("same", "dev").end();
    let found = flat(&[device]).unwrap();
    if let Some(mounted) = Mounted::new(&found.file) {
        use std::os::unix::fs::FileTypeExt;
        let kind = fs::symlink_metadata(mounted.0.path().join("same")).unwrap().file_type();
        assert!(kind.is_char_device(), "another name of it; a sandbox opens no device of an image");
    }
    for target in ["/etc/shadow", "etc/shadow", "x", ".", "dir"] {
        let link = Tar::new().dir("dir").hard("x", target).end();
        assert!(matches!(refused(&[link]), MergeError::Target(_)), "{target}");
    }
}

#[test]
fn attack_24_numbers_that_are_too_large_are_refused() {
    let binary = |at: usize, width: usize, value: u64| {
        let mut tar = Tar::new().file("x", "1").end();
        tar[at..at + width].fill(0);
        tar[at + width - 8..at + width].copy_from_slice(&value.to_be_bytes());
        tar[at] |= 0x80;
        tar[148..156].fill(b' ');
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        match flat(&[tar]) {
            Err(LayerError::Tar { source, .. }) => source,
            other => panic!("{other:?}"),
        }
    };
    for value in [u64::MAX, 1 << 63, (1 << 63) - 1, (1 << 63) - 512, (16 << 40) + 1] {
        assert!(matches!(binary(124, 12, value), TarError::Field("size")), "{value:#x}");
    }
    // Within what a file may have, and not there.
    assert!(matches!(binary(124, 12, 1 << 40), TarError::Short));
    for (at, what) in [(108, "owner"), (116, "group")] {
        let found = binary(at, 8, 1 << 32);
        assert!(matches!(found, TarError::Field(_)), "{what}: {found:?}");
    }
    for (key, value) in
        [("size", "-1"), ("size", "18446744073709551616"), ("uid", "4294967296"), ("size", "x")]
    {
        let tar = Tar::new().record(key, value).file("x", "1").end();
        assert!(matches!(flat(&[tar]), Err(LayerError::Tar { .. })), "{key}={value}");
    }
}

/// Of two entries of one name the later one is meant, by whoever looks.
#[test]
fn attack_24_of_two_entries_of_one_name_the_later_one_is_there() {
    let twice = Tar::new().file("x", "first").file("./x", "second").file("/x/", "").end();
    expect(&[twice], &[("x", None)]);
    let twice = Tar::new().file("x", "first").file(".//x", "second").end();
    expect(&[twice], &[("x", Some("second"))]);
}

#[test]
fn attack_24_a_layer_that_is_a_bomb_ends_at_the_stated_limit() {
    let limits = Limits { unpacked: 1 << 20, entries: 1000, names: 10_000 };
    let within = |tars: &[Vec<u8>]| {
        Scanned::within(&tars.iter().map(|tar| layer(tar)).collect::<Vec<_>>(), &std::env::temp_dir(), limits)
            .map(|_| ())
    };
    let most = |limit: &str, found: Result<(), LayerError>| match found {
        Err(LayerError::TooMuch { limit: found }) => assert!(found.contains(limit), "{found}"),
        other => panic!("{other:?}"),
    };
    within(&[Tar::new().file("x", "1").end()]).unwrap();
    // 256 MiB of zeros in some hundred kilobytes: one file, and what follows the archive's end.
    let mut zeros = Tar::new().entry(b'0', b"x", "", &vec![0; 2 << 20]).end();
    most("unpacked", within(std::slice::from_ref(&zeros)));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&Tar::new().end()).unwrap();
    (0..128).for_each(|_| packed.write_all(&zeros).unwrap());
    zeros = packed.finish().unwrap();
    assert!(zeros.len() < 4 << 20);
    most("unpacked", within(&[zeros]));
    // The limits are an image's, not a layer's.
    let half = Tar::new().entry(b'0', b"x", "", &[0; 600 << 10]).end();
    within(std::slice::from_ref(&half)).unwrap();
    most("unpacked", within(&[half.clone(), half]));
    let many = |name: &str, count: usize| {
        (0..count).fold(Tar::new(), |tar, at| tar.file(&format!("{name}{at}"), "")).end()
    };
    most("entries", within(&[many("", 1100)]));
    most("names", within(&[many(&"n".repeat(80), 200)]));
}

/// 16 TiB that are a hole take no place, and neither time nor memory.
#[test]
fn attack_24_a_file_of_sixteen_tebibytes_of_nothing_is_small() {
    let tar = Tar::new()
        .record("GNU.sparse.major", "0")
        .record("GNU.sparse.minor", "1")
        .record("GNU.sparse.size", "17592186044416")
        .record("GNU.sparse.map", "17592186044415,1")
        .file("huge", "x")
        .end();
    let found = flat(&[tar]).unwrap();
    // One chunk of 256 MiB, nearly all of it a hole in the file.
    use std::os::unix::fs::MetadataExt;
    assert!(found.file.metadata().unwrap().blocks() * 512 < 4 << 20);
    if let Some(mounted) = Mounted::new(&found.file) {
        assert_eq!(fs::metadata(mounted.0.path().join("huge")).unwrap().len(), 16 << 40);
    }
}

#[test]
fn attack_24_ten_thousand_layers_are_refused_and_a_thousand_are_not() {
    let tars = vec![Tar::new().end(); 10_000 - MAX_LAYERS];
    assert!(matches!(flat(&tars), Err(LayerError::TooMuch { limit: "1024 layers" })));
    let tars: Vec<_> = (0..1000).map(|at| Tar::new().file("x", &at.to_string()).end()).collect();
    expect(&tars, &[("x", Some("999"))]);
}

#[test]
fn attack_25_a_digest_that_lies_is_found_before_anything_is_made() {
    let tar = Tar::new().file("x", "1").end();
    let truth = flat(std::slice::from_ref(&tar)).unwrap().diff_ids.remove(0);
    let dir = tempfile::tempdir().unwrap();
    let told = |diff_id: String| flatten(&[Layer { diff_id: Some(diff_id), ..layer(&tar) }], dir.path());
    told(truth.clone()).unwrap();
    assert!(matches!(told("0".repeat(64)), Err(LayerError::Digest { .. })));
    // Bytes behind the archive's end count too.
    let mut longer = tar.clone();
    longer.extend_from_slice(b"and more");
    let longer = [Layer { diff_id: Some(truth), ..layer(&longer) }];
    assert!(matches!(flatten(&longer, dir.path()), Err(LayerError::Digest { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
