//! The container's terminal: its own, its size, its signals.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use crate::support::*;
use hv_common::exit::How;
use hv_common::spec::TerminalSize;
use hv_common::{Backend, Sandbox, Stdio, Timeline};
use hv_container::{Bare, Namespaces};

fn terminal(backend: &dyn Backend, args: &[&str]) -> (Box<dyn Sandbox>, std::fs::File) {
    let mut spec = spec(image(), args);
    spec.process.terminal = Some(TerminalSize { rows: 33, cols: 101 });
    let sandbox = backend.start(spec, Stdio::Terminal, &Timeline::new().unwrap());
    let sandbox = sandbox.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let file = sandbox.terminal().unwrap().as_fd().try_clone_to_owned().unwrap().into();
    (sandbox, file)
}

/// Reads until `wanted` has come.
fn expect(from: &mut std::fs::File, wanted: &str) -> String {
    let mut text = String::new();
    let mut piece = [0u8; 256];
    while !text.contains(wanted) {
        match from.read(&mut piece) {
            Ok(length @ 1..) => text.push_str(&String::from_utf8_lossy(&piece[..length])),
            other => panic!("{other:?} after {text:?}, wanted {wanted:?}"),
        }
    }
    text
}

both_ways! {
    fn the_workload_has_a_terminal_of_its_own() {
        let script = "test -t 0 && test -t 1 && test -t 2 && tty && ls /dev/pts && echo > /dev/console && echo > /dev/tty && echo end";
        let (mut sandbox, mut file) = terminal(&Namespaces::new(), &["sh", "-c", script]);
        let text = expect(&mut file, "end");
        assert!(text.contains("/dev/pts/0") || text.contains("/dev/console"), "{text}");
        assert_eq!(sandbox.wait().unwrap().status(), 0);
    }

    fn the_terminal_has_the_size_that_it_is_told() {
        let script = "read line; stty size; trap 'stty size; exit 4' WINCH; echo ready; while :; do sleep 0.05; done";
        let (mut sandbox, mut file) = terminal(&Namespaces::new(), &["sh", "-c", script]);
        file.write_all(b"go\n").unwrap();
        assert!(expect(&mut file, "ready").contains("33 101"));
        sandbox.resize(TerminalSize { rows: 24, cols: 80 }).unwrap();
        expect(&mut file, "24 80");
        assert_eq!(sandbox.wait().unwrap().status(), 4);
    }

    fn keys_become_signals() {
        let (mut sandbox, mut file) = terminal(&Namespaces::new(), &["sh", "-c", "echo ready; exec cat"]);
        expect(&mut file, "ready");
        file.write_all(b"\x03").unwrap();
        assert_eq!(sandbox.wait().unwrap().how, How::Signal(2));
    }

    fn the_other_end_reads_the_end() {
        let (mut sandbox, mut file) = terminal(&Namespaces::new(), &["cat"]);
        file.write_all(b"\x04").unwrap();
        assert_eq!(sandbox.wait().unwrap().status(), 0);
        // A terminal whose last user is gone gives EIO.
        let mut rest = Vec::new();
        let end = file.read_to_end(&mut rest);
        assert_eq!(end.unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}

#[test]
fn a_bare_process_can_have_one_too() {
    if !is_root() && !skipped("a bare process needs root") {
        return;
    }
    let (mut sandbox, mut file) = terminal(&Bare::new(), &["sh", "-c", "test -t 0 && stty size"]);
    expect(&mut file, "33 101");
    assert_eq!(sandbox.wait().unwrap().status(), 0);
}
