//! Attacks 31 to 33: what a guest can do to the image that it was started from.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::OnceLock;

use hv_common::Kind;

use crate::hostile::Hostile;
use crate::support::{finish, image, sandbox, unavailable};

/// What one guest did that tried all three: each start takes seconds.
struct Tried {
    words: String,
    image_is_unchanged: bool,
    outside: Vec<(String, String)>,
}

fn tried() -> Option<&'static Tried> {
    static TRIED: OnceLock<Option<Tried>> = OnceLock::new();
    TRIED
        .get_or_init(|| match unavailable(Kind::Vm) {
            None => Some(attempt()),
            Some(reason) => {
                println!("skipped: {reason}");
                None
            }
        })
        .as_ref()
}

fn attempt() -> Tried {
    let hostile = Hostile::arranged(|image, outside| {
        for name in [".krun_config.json", "init.krun", "hv", "etc/hosts", "etc/resolv.conf", "etc/hostname"] {
            let _ = fs::remove_file(image.join(name));
            symlink(outside.join("victim"), image.join(name)).unwrap();
        }
        symlink(outside, image.join("mnt/link")).unwrap();
    });
    let before = image::digest(hostile.image());
    let script = "cat /mnt/link/victim /etc/hosts /mnt/link/* 2> /dev/null; \
        set -- $(stat -c '%t %T' /dev/vda); mknod /tmp/disk b $((0x$1)) $((0x$2)) && echo node; \
        for disk in /dev/vda /tmp/disk; do test -b $disk || echo no $disk; \
        dd if=/dev/zero of=$disk bs=4096 count=4 conv=fsync 2> /dev/null && echo written $disk; done; \
        mount -t virtiofs hv /mnt 2> /dev/null && echo shared; mount -t 9p hv /mnt 2> /dev/null && echo shared; \
        rm -rf /home; echo evil > /evil; echo done";
    let done = finish(sandbox(Kind::Vm, hostile.image(), &[], &["sh", "-c", script]), b"").expect(0);
    let entries = fs::read_dir(hostile.outside()).unwrap().flatten();
    let outside = entries.map(|entry| {
        (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap_or_default())
    });
    Tried {
        words: done.text(),
        image_is_unchanged: image::digest(hostile.image()) == before,
        outside: outside.collect(),
    }
}

/// Names to which a runtime might write its own files, as links to the host.
#[test]
fn attack_31_cve_2025_24965_nothing_is_written_into_the_image_or_through_its_links() {
    let Some(tried) = tried() else { return };
    assert!(tried.words.ends_with("done\n"), "{}", tried.words);
    assert!(tried.image_is_unchanged);
    assert_eq!(tried.outside, [("victim".to_owned(), "of the host\n".to_owned())]);
}

/// Root of the guest writes to the disk itself, through a node of its own too.
#[test]
fn attack_32_cve_2026_24834_a_read_only_disk_is_read_only_for_the_guests_root() {
    let Some(tried) = tried() else { return };
    assert!(
        tried.words.contains("node\n") && !tried.words.contains("written") && !tried.words.contains("no /"),
        "{}",
        tried.words
    );
    assert!(tried.image_is_unchanged);
}

/// There is no file server: a directory becomes a disk, in which a link to the host is a link.
#[test]
fn attack_33_cve_2026_47243_no_file_of_the_host_is_served() {
    let Some(tried) = tried() else { return };
    assert!(!tried.words.contains("of the host") && !tried.words.contains("shared"), "{}", tried.words);
}

/// The starter is the same in a guest, if its kernel can: else it says that it cannot.
#[test]
fn landlock_holds_in_a_guest_or_is_refused() {
    if let Some(reason) = unavailable(Kind::Vm) {
        return println!("skipped: {reason}");
    }
    let options = ["--landlock", "/bin:rx"];
    let done = finish(
        sandbox(Kind::Vm, &image::directory(), &options, &["sh", "-c", "cat /etc/data; echo end"]),
        b"",
    );
    match done.status {
        Some(0) => assert_eq!(done.text(), "end\n"),
        other => assert!(other == Some(125) && done.stderr.contains("has no Landlock"), "{}", done.stderr),
    }
}
