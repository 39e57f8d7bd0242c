//! Sandboxes that run are seen, held, asked and stopped, both kinds by the same words.

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use hv_common::Kind;
use hv_common::state::Store;

use support::{Finished, Running, finish, hv, shell};

/// Starts a sandbox of this name that runs a script, which says `ready`.
fn start(kind: Kind, name: &str, script: &str) -> Running {
    let mut running = Running::start(shell(kind, &["--name", name], script));
    running.wait_for("ready");
    // The command may run a moment before its monitor has said so.
    while listed(name).is_null() {}
    running
}

fn unique(kind: Kind, what: &str) -> String {
    format!("{what}-{kind}-{}", std::process::id())
}

fn ask(args: &[&str]) -> Finished {
    finish(hv(args), b"")
}

/// What `hv ps` says of this sandbox; null if it does not show it.
fn listed(name: &str) -> serde_json::Value {
    let rows = ask(&["ps", "--json"]).expect(0);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&rows.stdout).unwrap();
    rows.into_iter().find(|row| row["id"] == name).unwrap_or_default()
}

/// Why this kind cannot be paused here; None if it can.
fn cannot_pause(done: &Finished) -> bool {
    let cannot = done.status == Some(125) && done.stderr.contains("no control group");
    if cannot {
        println!("skipped: {}", done.stderr.trim());
    }
    cannot
}

/// The socket of a sandbox.
fn socket(name: &str) -> PathBuf {
    Store::open().unwrap().path().join(name).join("control")
}

/// What the monitor answers to these bytes.
fn exchange(name: &str, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket(name)).unwrap();
    let _ = stream.write_all(bytes);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

both_kinds! {
    /// It is listed while it runs, and can be held: then nothing of it runs.
    fn ps_pause_and_resume(kind: Kind) {
        let name = unique(kind, "held");
        let script = "echo ready; while read -r line; do echo got $line; done; exit 5";
        let mut running = start(kind, &name, script);
        let row = listed(&name);
        assert_eq!((row["kind"].as_str(), row["state"].as_str()), (Some(kind.word()), Some("running")));
        assert_eq!(row["monitor"].as_i64(), Some(running.pid().as_raw_pid().into()));
        let paused = ask(&["pause", &name]);
        if !cannot_pause(&paused) {
            paused.expect(0);
            assert_eq!(listed(&name)["state"], "paused");
            // Held twice is held; what comes meanwhile is there afterwards.
            ask(&["pause", &name]).expect(0);
            running.write(b"one\n");
            assert_eq!(listed(&name)["state"], "paused");
            assert!(!running.has_printed("got one"), "it runs while it is paused");
            ask(&["resume", &name]).expect(0);
            assert_eq!(listed(&name)["state"], "running");
            running.wait_for("got one");
        }
        running.write(b"two\n");
        running.wait_for("got two");
        running.finish().expect(5);
        assert_eq!(listed(&name), serde_json::Value::Null);
        let gone = ask(&["pause", &name]).expect(125);
        assert!(gone.stderr.contains(&name) && gone.stderr.contains("hv ps"), "{}", gone.stderr);
    }

    /// The command is asked to end, and does so in its own way.
    fn stop_is_orderly(kind: Kind) {
        let name = unique(kind, "asked");
        let script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do read -t 1 -r line && exit 9; done";
        let running = start(kind, &name, script);
        ask(&["stop", &name]).expect(0);
        assert_eq!(listed(&name), serde_json::Value::Null, "it is gone when `hv stop` returns");
        let done = running.finish().expect(7);
        assert!(done.text().contains("bye"), "{}", done.text());
    }

    /// A command that does not want to end is killed, even a paused one.
    fn stop_is_certain(kind: Kind) {
        let name = unique(kind, "killed");
        let running = start(kind, &name, "trap '' TERM; echo ready; while :; do sleep 1; done");
        let paused = ask(&["pause", &name]);
        if !cannot_pause(&paused) {
            paused.expect(0);
        }
        ask(&["stop", "--time", "1", &name]).expect(0);
        running.finish().expect(137);
        assert!(!socket(&name).exists());
    }

    /// hv's own signal ends it although it is paused: nothing hangs.
    fn a_paused_sandbox_can_be_killed_from_outside(kind: Kind) {
        let name = unique(kind, "outside");
        let running = start(kind, &name, "echo ready; exec sleep 1000");
        let paused = ask(&["pause", &name]);
        if cannot_pause(&paused) {
            return;
        }
        paused.expect(0);
        running.signal(rustix::process::Signal::KILL);
        assert_eq!(running.finish().status, None);
        // The next command cleans up; another test's may be just doing it.
        let dir = socket(&name).parent().unwrap().to_owned();
        assert!((0..100).any(|_| ask(&["ps"]).status == Some(0) && !dir.exists()), "{dir:?} is left");
    }

    /// Counters as JSON; a console where there is one, and a reason where there is none.
    fn metrics_and_console(kind: Kind) {
        let name = unique(kind, "counted");
        let running = start(kind, &name, "echo kernel says hello > /dev/kmsg; echo ready; read -r line");
        let metrics: serde_json::Value = serde_json::from_slice(&ask(&["metrics", &name]).expect(0).stdout).unwrap();
        let console = ask(&["console", &name]);
        if kind == Kind::Vm {
            assert!(metrics["crossings"]["total"].as_u64().unwrap() > 0, "{metrics}");
            let root = &metrics["devices"][r#"block "root""#];
            for counted in ["requests", "bytes_to_guest", "bytes_from_guest", "interrupts"] {
                assert!(root[counted].as_u64().unwrap() > 0, "{metrics}");
            }
            assert_eq!(root["errors"], 0);
            assert!(metrics["usage"]["guest_resident_bytes"].as_u64().unwrap() > 1 << 20, "{metrics}");
            console.expect(0);
        } else {
            assert!(metrics["usage"].is_object(), "{metrics}");
            let why = console.expect(125).stderr;
            assert!(why.contains("a container has no console"), "{why}");
        }
        ask(&["stop", &name]).expect(0);
        running.finish().expect(143);
    }

    /// The interface as docs/control.md describes it, for any HTTP client; and for those who mean harm.
    fn the_interface(kind: Kind) {
        let name = unique(kind, "http");
        let mut running = start(kind, &name, "echo ready; read -r line; exit 4");
        let state = exchange(&name, b"GET /v1/state HTTP/1.1\r\nHost: hv\r\n\r\n");
        assert!(state.starts_with("HTTP/1.1 200 OK\r\n") && state.contains(r#""state":"running""#), "{state}");
        assert!(exchange(&name, b"GET /v1/nothing HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert!(exchange(&name, b"GET /v1/stop HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(exchange(&name, &[b'x'; 1 << 20]).starts_with("HTTP/1.1 4"));
        let long = format!("GET /v1/state HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(10_000));
        assert!(exchange(&name, long.as_bytes()).starts_with("HTTP/1.1 431 "));
        // One that says nothing does not keep the others, nor the sandbox's end.
        let silent = UnixStream::connect(socket(&name)).unwrap();
        assert_eq!(listed(&name)["state"], "running");
        let _another = UnixStream::connect(socket(&name)).unwrap();
        running.write(b"end\n");
        running.finish().expect(4);
        drop(silent);
    }
}
