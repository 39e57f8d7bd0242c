//! The smallest program that starts a container: `start ROOT PROGRAM [ARGUMENT…]`. It gives the
//! container its own streams, and exits with its status. For measuring a start without `hv` around it.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use hv_common::{Backend, Id, Limits, Process, Root, Spec, Stdio, Timeline};
use hv_container::{Bare, Namespaces};
use rustix::fs::{Mode, OFlags};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let path = arguments.next().ok_or("usage: start ROOT PROGRAM [ARGUMENT…]")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = Root::Directory { dir: rustix::fs::open(&path, flags, Mode::empty())?, path: path.into() };
    let process = Process {
        args: arguments.collect(),
        env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
        cwd: "/".into(),
        user: None,
        terminal: None,
        program: hv_common::Program::Image,
        landlock: Vec::new(),
    };
    let spec = Spec { id: Id::random()?, hostname: "box".into(), root, process, limits: Limits::default() };
    let own: [OwnedFd; 3] = [
        std::io::stdin().as_fd().try_clone_to_owned()?,
        std::io::stdout().as_fd().try_clone_to_owned()?,
        std::io::stderr().as_fd().try_clone_to_owned()?,
    ];
    let backend: Box<dyn Backend> =
        if std::env::var_os("BARE").is_some() { Box::new(Bare::new()) } else { Box::new(Namespaces::new()) };
    let mut sandbox = backend.start(spec, Stdio::Streams(own), &Timeline::new()?)?;
    Ok(ExitCode::from(sandbox.wait()?.status()))
}
