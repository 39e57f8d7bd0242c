//! Who waits in front of a container: its terminal without a console socket, and the word that a service is ready.

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;

use serde_json::json;

use crate::bundle::{root_bundle, wait_for};
use crate::support::finish;
use crate::support::terminal::InTerminal;

#[test]
fn run_carries_the_users_terminal() {
    let script =
        "tty; stty size; read line; echo <$line>; until stty size | grep -q '41 111'; do :; done; exit 3";
    let Some(mut bundle) = root_bundle(&script.replace("<$line>", "\"got $line\"")) else { return };
    bundle.config["process"]["terminal"] = json!(true);
    let mut terminal = InTerminal::start(bundle.command("run", &[&bundle.id]), 31, 91);
    let before = terminal.mode();
    terminal.wait_for("/dev/pts/0");
    terminal.wait_for("31 91");
    terminal.type_in("typed\r");
    terminal.wait_for("got typed");
    terminal.resize(41, 111);
    assert_eq!(terminal.status(), Some(3));
    assert_eq!(terminal.mode().local_modes, before.local_modes, "the terminal is as it was");
}

#[test]
fn exec_carries_the_users_terminal() {
    let Some(bundle) = root_bundle("sleep 1000") else { return };
    bundle.start();
    let words = ["--tty", &bundle.id, "sh", "-c", "stty size; tty; exit 4"];
    let mut terminal = InTerminal::start(bundle.command("exec", &words), 31, 91);
    terminal.wait_for("31 91");
    terminal.wait_for("/dev/pts/0");
    assert_eq!(terminal.status(), Some(4));
    let nowhere = bundle.call("exec", &["--tty", "--detach", &bundle.id, "true"]);
    assert!(nowhere.stderr.contains("--console-socket"), "{}", nowhere.stderr);
}

/// containerd's shim and docker read what `create` prints to its end before they start the container.
#[test]
fn a_created_process_with_a_terminal_holds_no_stream_of_its_creator() {
    let Some(mut bundle) = root_bundle("sleep 1000") else { return };
    bundle.config["process"]["terminal"] = json!(true);
    let _listener = UnixListener::bind(bundle.file("console")).unwrap();
    let done = finish(bundle.command("create", &["--console-socket", "console", &bundle.id]), b"");
    assert_eq!((done.code(), done.text().as_str()), (0, ""), "{}", done.stderr);
    assert_eq!(bundle.status(), "created");
}

/// What the test below is in its container: this very program runs there.
const SOCKET: &str = "/run/notify/notify.sock";

fn be_a_service() -> ! {
    let own = UnixDatagram::unbound().unwrap();
    for message in ["MAINPID=1", "STATUS=busy", "READY=1"] {
        own.send_to(message.as_bytes(), SOCKET).unwrap();
    }
    assert!(std::fs::write("/run/notify/other", "").is_err(), "nothing can be put in the socket's place");
    loop {
        std::thread::park();
    }
}

#[test]
fn start_returns_when_the_service_is_ready_and_its_manager_is_told() {
    if std::env::var("NOTIFY_SOCKET").is_ok_and(|socket| socket == SOCKET) {
        be_a_service();
    }
    let Some(mut bundle) = root_bundle("") else { return };
    let program = std::env::current_exe().unwrap();
    bundle.config["process"]["args"] = json!([
        "/tmp/service",
        "--exact",
        concat!("ctr::front::", "start_returns_when_the_service_is_ready_and_its_manager_is_told")
    ]);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.push(json!({"destination": "/tmp", "type": "tmpfs"}));
    mounts.push(json!({"destination": "/tmp/service", "source": program, "options": ["bind", "ro"]}));
    let host = UnixDatagram::bind(bundle.file("host.sock")).unwrap();
    let command = |verb: &str| {
        let mut command = bundle.command(verb, &[&bundle.id]);
        command.env("NOTIFY_SOCKET", bundle.file("host.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(command("create").status().unwrap().success());
    let pid = bundle.state()["pid"].as_i64().unwrap();
    assert!(command("start").status().unwrap().success());
    // It was all sent before `start` returned.
    host.set_nonblocking(true).unwrap();
    let mut bytes = [0; 256];
    let mut next = || {
        let length = host.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!([next(), next()], ["STATUS=busy\n".to_owned(), format!("READY=1\nMAINPID={pid}\n")]);
    bundle.call("kill", &[&bundle.id, "KILL"]).expect(0);
    wait_for(pid as i32);
}
