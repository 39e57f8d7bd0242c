//! Attacks 31 to 33: what a guest can do to the image that it was started from.

use std::fs;
use std::os::unix::fs::symlink;

use hv_common::Kind;

use crate::hostile::Hostile;
use crate::support::{finish, image, sandbox, unavailable};

/// One guest for all three: each takes seconds.
#[test]
fn attack_31_32_33_an_image_is_neither_written_nor_a_way_to_the_host() {
    if let Some(reason) = unavailable(Kind::Vm) {
        return println!("skipped: {reason}");
    }
    // CVE-2025-24965: names that a runtime might write its own files to; CVE-2020-2026: links to the host.
    let hostile = Hostile::arranged(|image, outside| {
        for name in [".krun_config.json", "init.krun", "hv", "etc/hosts", "etc/resolv.conf", "etc/hostname"] {
            let _ = fs::remove_file(image.join(name));
            symlink(outside.join("victim"), image.join(name)).unwrap();
        }
        symlink(outside, image.join("mnt/link")).unwrap();
    });
    let before = image::digest(hostile.image());
    // CVE-2026-24834: root of the guest writes to the disk itself, through a node of its own too.
    let script = "cat /mnt/link/victim /etc/hosts; ls -l /mnt/link | head -n 1; \
        mknod /tmp/disk b $(stat -c '%t %T' /dev/vda | (read a b; echo $((0x$a)) $((0x$b)))); \
        for disk in /dev/vda /tmp/disk; do (dd if=/dev/zero of=$disk bs=4096 count=4 conv=fsync) 2> /dev/null && echo written $disk; done; \
        mount -t virtiofs hv /mnt 2> /dev/null && echo shared; mount -t 9p hv /mnt 2> /dev/null && echo shared; \
        rm -rf /etc /home; echo evil > /evil; echo done";
    let done = finish(sandbox(Kind::Vm, hostile.image(), &[], &["sh", "-c", script]), b"").expect(0);
    assert!(!done.text().contains("of the host"), "{}", done.text());
    assert!(done.text().ends_with("done\n") && !done.text().contains("written") && !done.text().contains("shared"), "{}", done.text());
    assert_eq!(image::digest(hostile.image()), before);
    let way = hostile.ways()[0];
    hostile.outside_is_untouched(way);
}
