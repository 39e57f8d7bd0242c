//! Attacks 5, 7, 8 and 21: what the process is, and what it can become.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::hostile::{Door, Hostile};
use crate::support::terminal::InTerminal;

#[test]
fn attack_05_cve_2022_29162_no_capability_can_be_inherited() {
    let script = "grep -E 'CapInh|CapAmb|NoNewPrivs' /proc/self/status | tr -s '\\t' ' '";
    let words = "CapInh: 0000000000000000\nCapAmb: 0000000000000000\nNoNewPrivs: 1\n";
    Hostile::new().each_way_prints(script, words);
}

/// A file that keeps a group out: whoever is in it by mistake can be kept out no more, or comes in.
#[test]
fn attack_07_cve_2022_2989_supplementary_groups_are_those_asked_for() {
    let hostile = Hostile::new().options(&["--user", "1000:1000"]).config(|config| {
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    if rustix::process::geteuid().is_root() {
        // The caller is in others: this thread, and what it starts.
        rustix::thread::set_thread_groups(&[5, 6].map(rustix::process::Gid::from_raw)).unwrap();
    }
    for way in hostile.ways().into_iter().filter(|way| way.rooted) {
        assert_eq!(hostile.run(way, "id -G").text(), "1000\n", "{way:?}");
        if way.door == Door::Exec {
            let bundle = hostile.bundle(way, &["sleep", "1000"]);
            bundle.start().expect(0);
            let verb = ["exec", "--user", "1000:1000"];
            let done = crate::support::finish(bundle.command(&verb, &["id", "-G"]), b"");
            assert_eq!(done.expect(0).text(), "1000\n");
        }
    }
    // A user's own groups come with a map of one id and mean nobody inside; no further ones can be taken.
    let hostile = Hostile::new();
    for way in hostile.ways().into_iter().filter(|way| !way.rooted) {
        let done = hostile.run(way, "cat /proc/self/setgroups; setpriv --groups 5 true && echo taken; id -G");
        assert_eq!(done.text(), "deny\n0\n", "{way:?}: {}", done.stderr);
    }
}

/// hv is called in a person's terminal: what is typed into it by ioctl(2) would be that person's words.
#[test]
fn attack_08_cve_2017_5226_the_callers_terminal_is_not_the_containers() {
    let script = "cut -d' ' -f7 /proc/self/stat; (echo x > /dev/tty) 2> /dev/null && echo typed; \
        ls -l /proc/1/fd /proc/$$/fd 2> /dev/null | grep -c ptmx; echo end";
    let hostile = Hostile::new();
    for way in hostile.ways() {
        let bundle = hostile.bundle(way, &["sh", "-c", script]);
        let command = match way.door {
            Door::Ctr => {
                let mut command = hostile.hv(way, &["ctr", "--no-tty"]);
                command.arg(hostile.image()).args(["--", "sh", "-c", script]);
                command
            }
            Door::Run => bundle.command(&["run"], &[]),
            Door::Exec => continue,
        };
        // The field is the number of the controlling terminal: none.
        let mut terminal = InTerminal::start(command, 24, 80);
        terminal.wait_for("0\r\n0\r\nend");
        assert_eq!(terminal.status(), Some(0), "{way:?}");
    }
    // A terminal that is asked for is one of the container's own devpts.
    let mut command = hostile.hv(hostile.ways()[0], &["ctr", "-t"]);
    let script = "stat -L -c 'instance %d' /dev/fd/0; tty; (echo x > /dev/pts/1) 2> /dev/null && echo another; echo end";
    command.arg(hostile.image()).args(["--", "sh", "-c", script]);
    let mut terminal = InTerminal::start(command, 24, 80);
    terminal.wait_for("/dev/pts/0\r\nend");
    let host = fs::metadata("/dev/pts").unwrap().dev();
    assert!(!terminal.has_shown(&format!("instance {host}\r\n")));
    assert_eq!(terminal.status(), Some(0));
}

#[test]
fn attack_21_root_inside_is_not_root_of_the_host_and_ids_stay_mapped() {
    let hostile = Hostile::new();
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups; \
        (echo 0 0 1 > /proc/self/uid_map) 2> /dev/null && echo mapped; \
        (echo allow > /proc/self/setgroups) 2> /dev/null && echo allowed; echo done";
    for way in hostile.ways().into_iter().filter(|way| !way.rooted) {
        let text = hostile.run(way, script).text();
        let user = rustix::process::geteuid();
        let user = if user.is_root() { 65534 } else { user.as_raw() };
        assert_eq!(text, format!("0\n 0 {user} 1\ndeny\ndone\n"), "{way:?}");
    }
    // Root's, with a map: what root inside makes is not root's on the host.
    let shared = Hostile::new();
    let volume = shared.outside();
    let hostile = Hostile::new().doors(&[Door::Run, Door::Exec]).config(move |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        for field in ["uidMappings", "gidMappings"] {
            config["linux"][field] = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        }
        let mount = json!({"destination": "/mnt", "source": volume, "options": ["rbind", "rw"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    for way in hostile.ways().into_iter().filter(|way| way.rooted) {
        let made = format!("made-{:?}", way.door);
        let script =
            format!("id -u; touch /mnt/{made}; chown 0:0 /mnt/victim 2> /dev/null && echo taken; echo end");
        let done = hostile.run(way, &script);
        assert_eq!(done.text(), "0\nend\n", "{way:?}: {}", done.stderr);
        assert_eq!(fs::metadata(shared.outside().join(made)).unwrap().uid(), 100_000, "{way:?}");
    }
}
