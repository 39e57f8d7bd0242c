//! A filter that asks somebody else: the listener of SCMP_ACT_NOTIFY.

use std::io::{IoSliceMut, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::bundle::root_bundle;

/// The descriptor, and the state that comes with it.
fn receive(socket: &UnixStream) -> (OwnedFd, Value) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0u8; 64 << 10];
    let message =
        recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty());
    let length = message.unwrap().bytes;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    (fd.expect("a descriptor comes with the message"), serde_json::from_slice(&bytes[..length]).unwrap())
}

#[test]
fn a_call_waits_for_the_listener_and_fails_without_it() {
    let Some(mut bundle) = root_bundle("mkdir /dev/shm/made 2>&1; echo end; test -d /dev/shm/made; echo $?")
    else {
        return;
    };
    let listener = UnixListener::bind(bundle.file("agent")).unwrap();
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": bundle.file("agent"),
        "listenerMetadata": "of the test", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]});
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bundle.run());
        let (socket, _) = listener.accept().unwrap();
        let (notify, state) = receive(&socket);
        assert_eq!(state["metadata"], "of the test", "{state}");
        assert_eq!(state["fds"], json!(["seccompFd"]), "{state}");
        assert_eq!(state["state"]["id"], bundle.id.as_str(), "{state}");
        let pid = state["pid"].as_i64().unwrap();
        assert!(std::fs::exists(format!("/proc/{pid}")).unwrap(), "the process that waits: {state}");
        // The call has come, and nothing goes on until somebody answers.
        let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
        let mut calls = [PollFd::new(&notify, PollFlags::IN)];
        assert_eq!(poll(&mut calls, Some(&limit)).unwrap(), 1, "a call waits");
        assert!(!running.is_finished());
        // Nobody listens any more: the kernel answers ENOSYS.
        drop(notify);
        let done = running.join().unwrap();
        assert!(done.text().contains("Function not implemented"), "{} {}", done.text(), done.stderr);
        assert!(done.text().ends_with("end\n1\n"), "{}", done.text());
        let _ = (&socket).write_all(b"");
    });
}

#[test]
fn a_listener_that_is_not_there_is_an_error() {
    let Some(mut bundle) = root_bundle("true") else { return };
    bundle.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": bundle.file("nobody"),
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let done = bundle.run();
    assert!(done.code() != 0 && done.stderr.contains("listenerPath"), "{}", done.stderr);
    assert!(!bundle.has_cgroups());
}
