//! A microVM's network over a tap, in a network namespace of the test's own.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use hv_common::Kind;
use nix::sched::{CloneFlags, unshare};

use support::{Finished, finish, shell};

/// Takes this thread, and what it starts from now on, to a network namespace with a tap for guests:
/// `tap0`, 192.0.2.1/24.
fn enter_namespace(tap_options: &[&str]) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let ip = |words: &[&str]| {
        let done = finish(
            {
                let mut command = Command::new("ip");
                command.args(words);
                command
            },
            b"",
        );
        done.expect(0);
    };
    ip(&[&["tuntap", "add", "tap0", "mode", "tap"], tap_options].concat());
    ip(&["addr", "add", "192.0.2.1/24", "dev", "tap0"]);
    ip(&["link", "set", "tap0", "mtu", "1400", "up"]);
}

/// Sends back all that one client sends, when it has sent all.
fn echo_once(port: u16) {
    // The socket belongs to the namespace of the thread that makes it.
    let listener = TcpListener::bind(("192.0.2.1", port)).unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).unwrap();
        client.write_all(&bytes).unwrap();
    });
}

/// Sends 1 MB through the echo and compares what comes back.
const STREAM: &str = "head -c 1000000 /dev/urandom > /tmp/there; nc 192.0.2.1 7 < /tmp/there > /tmp/back;
    cmp /tmp/there /tmp/back && wc -c < /tmp/back";

fn guest(options: &[&str], script: &str) -> Finished {
    finish(shell(Kind::Vm, options, script), b"")
}

fn in_guest(body: impl FnOnce()) {
    match support::unavailable(Kind::Vm) {
        Some(reason) => println!("skipped: {reason}"),
        None => body(),
    }
}

mod vm {
    use super::*;

    #[test]
    fn a_tap_carries_frames_with_offloads() {
        in_guest(|| {
            enter_namespace(&[]);
            echo_once(7);
            let script = format!(
                "cd /sys/class/net/eth0; cat address mtu; ip -4 addr show eth0 | grep -o 192.0.2.2/24;
                ping -c 1 -W 10 192.0.2.1 | grep -o '0% packet loss'; {STREAM}"
            );
            let net = "tap=tap0,ip=192.0.2.2/24,gw=192.0.2.1,mac=02:00:00:00:00:07";
            let done = guest(&["--net", net], &script).expect(0);
            assert_eq!(done.text(), "02:00:00:00:00:07\n1400\n192.0.2.2/24\n0% packet loss\n1000000\n");
        });
    }

    /// Without checksum offload each side fills in and verifies every checksum. Over PCI each queue has an
    /// interrupt of its own.
    #[test]
    fn several_queues_carry_frames_without_offloads() {
        in_guest(|| {
            enter_namespace(&["multi_queue"]);
            echo_once(7);
            let script = format!("ls -d /sys/class/net/eth0/queues/rx-* | wc -l; {STREAM}");
            let net = "tap=tap0,ip=192.0.2.2/24,queues=2";
            let plain = "virtio_net.csum=0 virtio_net.gso=0";
            let options = ["--cpus", "2", "--transport", "pci", "--cmdline", plain, "--net", net];
            assert_eq!(guest(&options, &script).expect(0).text(), "2\n1000000\n");
        });
    }
}

mod ctr {
    use super::*;

    #[test]
    fn a_tap_that_cannot_be_used_is_explained() {
        let net = |kind, net| finish(shell(kind, &["--net", net], "true"), b"");
        let refused = net(Kind::Ctr, "tap=tap0").expect(125);
        assert!(refused.stderr.contains("only for `hv vm`"), "{}", refused.stderr);
        net(Kind::Ctr, "none").expect(0);
        in_guest(|| {
            let missing = net(Kind::Vm, "tap=hv-missing").expect(125);
            assert!(missing.stderr.contains("ip tuntap add hv-missing"), "{}", missing.stderr);
        });
    }
}
