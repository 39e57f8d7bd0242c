//! `--landlock`: files that the command's user may use and the command may not.

use crate::hostile::{Door, Hostile};
use crate::support::finish;

fn rules(of: &[&str]) -> Hostile {
    let options: Vec<&str> = of.iter().flat_map(|rule| ["--landlock", rule]).collect();
    Hostile::new().doors(&[Door::Ctr]).options(&options)
}

/// Not on this kernel: says so, and true.
fn skipped() -> bool {
    let hostile = rules(&["/:rwx"]);
    let done = hostile.run(hostile.ways()[0], "true");
    if done.status != Some(0) {
        assert!(done.stderr.contains("has no Landlock"), "{}", done.stderr);
        println!("skipped: this kernel has no Landlock");
    }
    done.status != Some(0)
}

#[test]
fn what_no_rule_allows_is_denied_to_root_inside_too() {
    if skipped() {
        return;
    }
    let script = "cat /etc/data; echo x > /etc/new; ls /home; echo y > /dev/shm/new && cat /dev/shm/new && rm /dev/shm/new; \
        /sbin/init && echo ran; mknod /dev/shm/node c 1 3 && echo made; mount -t tmpfs none /mnt && echo mounted; id -u";
    let hostile = rules(&["/bin:rx", "/etc/data:r", "/dev:rw", "/proc:r"]);
    for way in hostile.ways() {
        let done = hostile.run(way, script);
        assert_eq!(done.text(), "from the image\ny\n0\n", "{way:?}: {}", done.stderr);
        for denied in ["/etc/new", "/home", "/sbin/init", "/dev/shm/node"] {
            let line = done.stderr.lines().find(|line| line.contains(denied));
            let line = line.unwrap_or_else(|| panic!("{way:?}: {denied}: {}", done.stderr));
            assert!(line.contains("denied") || line.contains("not permitted"), "{way:?}: {line}");
        }
    }
}

#[test]
fn children_and_other_users_are_under_the_rules_too() {
    if skipped() {
        return;
    }
    let hostile = rules(&["/bin:rx", "/proc:r"]);
    for way in hostile.ways() {
        let script = "sh -c 'sh -c \"cat /etc/data\"'; grep NoNewPrivs /proc/self/status | tr -s '\\t' ' '";
        let done = hostile.run(way, script);
        assert_eq!(done.text(), "NoNewPrivs: 1\n", "{way:?}: {}", done.stderr);
    }
}

#[test]
fn rules_that_cannot_be_are_refused() {
    for (rule, words) in [("/tmp", "PATH:ACCESS"), ("tmp:r", "absolute"), ("/tmp:q", "`r`, `w` and `x`")] {
        let hostile = rules(&[rule]);
        let done = hostile.run(hostile.ways()[0], "true").expect(125);
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    if skipped() {
        return;
    }
    let hostile = rules(&["/no/such/place:r"]);
    let done = hostile.run(hostile.ways()[0], "true").expect(125);
    assert!(done.stderr.contains("Landlock"), "{}", done.stderr);
    let row = finish(crate::support::hv(&["check"]), b"").text();
    assert!(row.lines().any(|line| line.contains("Landlock") && line.contains("version")), "{row}");
}
