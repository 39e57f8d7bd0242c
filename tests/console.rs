//! The virtio console and its ports, with Linux's own driver.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::thread;

use hv_common::Kind;

use support::{finish, hv, image, shell};

/// Ports appear a moment after their driver does.
const SCRIPT: &str = r#"
port() {
    while :; do
        for p in /sys/class/virtio-ports/vport*; do
            [ "$(cat $p/name 2>/dev/null)" = $1 ] && { echo /dev/${p##*/}; return; }
        done
        sleep 0.1
    done
}
exec 3<>$(port agent) && read -r line <&3 && echo "got $line" >&3
head -c 300000 /dev/zero >&3
echo kept > $(port log)
echo shown > /dev/hvc0
"#;

mod vm {
    use super::*;

    #[test]
    fn ports_carry_bytes_both_ways_and_the_console_is_shown() {
        if let Some(reason) = support::unavailable(Kind::Vm) {
            return println!("skipped: {reason}");
        }
        let dir = tempfile::tempdir().unwrap();
        let (socket, log) = (dir.path().join("socket"), dir.path().join("log"));
        let listener = UnixListener::bind(&socket).unwrap();
        let host = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            (&stream).write_all(b"hello\n").unwrap();
            let mut stream = BufReader::new(stream);
            let (mut line, mut rest) = (String::new(), Vec::new());
            stream.read_line(&mut line).unwrap();
            stream.read_to_end(&mut rest).unwrap();
            (line, rest)
        });
        let [agent, log_port] = [format!("agent={}", socket.display()), format!("log={}", log.display())];
        let options = ["--port", &agent, "--port", &log_port, "--console=virtio", "--transport", "pci"];
        let done = finish(shell(Kind::Vm, &options, SCRIPT), b"").expect(0);
        let (line, rest) = host.join().unwrap();
        assert_eq!((line.as_str(), rest), ("got hello\n", vec![0; 300_000]));
        assert_eq!(std::fs::read(&log).unwrap(), b"kept\n");
        assert!(done.stderr.contains("shown"), "{}", done.stderr);
    }
}

#[test]
fn ports_are_refused_where_they_make_no_sense() {
    let refused = |args: &[&str], why: &str| {
        let done = finish(hv(&[args, &[image::directory().to_str().unwrap()]].concat()), b"");
        assert!(done.status != Some(0) && done.stderr.contains(why), "{args:?}: {}", done.stderr);
    };
    refused(&["ctr", "--port", "a=/tmp/x"], "only for `hv vm`");
    refused(&["vm", "--port", "a"], "NAME=PATH");
    refused(&["vm", "--port", "a b=/tmp/x"], "letters");
}
