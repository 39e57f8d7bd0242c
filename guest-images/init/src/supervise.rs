//! The workload from its start to its end.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use hv_common::Program;
use hv_common::exit::Exit;
use hv_common::phase::Phase;
use hv_common::starter::{Failure, Prepared, Privileges, Rights};
use hv_common::sys::mark::mark;
use hv_common::sys::schedule::never_preempt;
use hv_common::sys::signal;
use hv_common::sys::spawn::{Child, spawn};
use hv_common::wire::{FromGuest, GuestConfig, Order, ToGuest};
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::button::{self, Button};
use crate::host::{Connections, Control};
use crate::modules::Later;
use crate::orders::Door;
use crate::streams::Streams;
use crate::{Doing, power};

/// The workload's control group, when its number of processes is limited.
const GROUP: &str = "/sys/fs/cgroup/workload";

/// Looks the workload up in the root, which is `/` by now. Where nobody says otherwise it keeps all that its user may:
/// the machine is the wall.
pub fn prepare(config: &GuestConfig, program: Option<OwnedFd>) -> Result<Prepared, Failure> {
    let root = File::open("/").doing("cannot open the root directory")?;
    Ok(Prepared::new(&config.process, root.as_fd(), privileges(config.rights.as_ref()))?.executing(program))
}

/// Opens the program that is not the root's, as long as the initramfs can be seen, and leaves no name of it there:
/// its memory goes with the last descriptor.
pub fn open_program(config: &GuestConfig) -> Result<Option<OwnedFd>, Failure> {
    let Program::Injected(path) = &config.process.program else { return Ok(None) };
    let open = || -> io::Result<OwnedFd> {
        let file = File::open(path)?;
        fs::remove_file(path)?;
        Ok(file.into())
    };
    open().doing("cannot open the program in the initramfs").map(Some)
}

fn privileges(rights: Option<&Rights>) -> Privileges {
    rights.map_or_else(Privileges::all, Privileges::from)
}

/// Starts the workload, says so, serves it, and returns when it has ended and all that it wrote has
/// been handed on. Every process but this one is gone then.
pub fn run(
    config: &GuestConfig,
    prepared: &Prepared,
    later: Later,
    control: &mut Control,
    connections: Connections,
) -> Result<Exit, Failure> {
    // Now: the workload may mount something else there.
    let vmstat = File::open("/proc/vmstat").doing("cannot open /proc/vmstat")?;
    let mut streams = Streams::new(connections, config.process.terminal)?;
    let ended = watch_signals().doing("cannot watch for children that end")?;
    let group = config.pids.map(limit_processes).transpose()?;
    let _ = mark(Phase::Exec);
    let child = spawn(prepared, streams.stdio(), group.as_ref().map(AsFd::as_fd))
        .doing("cannot make a process for the workload")?
        .map_err(|failure| prepared.explain(failure))?;
    streams.started();
    // A workload that writes little by little would be interrupted at every write; this way as much as
    // the pipe holds crosses at once.
    let _ = never_preempt();
    control.send(&FromGuest::Started).doing("cannot tell the monitor of the start")?;
    later.load();
    let mut wishes = Wishes { signals: ended, button: Button::find(), door: Door::open().ok() };
    let status = serve(control, &mut streams, &mut wishes, &child).doing("cannot wait for the workload")?;
    power::end_other_processes();
    streams.ended();
    drain(&mut streams).doing("cannot drain the workload's streams")?;
    Ok(Exit::from_wait_status(status, out_of_memory(vmstat)))
}

/// The same of a further process, in a process of its own; what it leaves running goes on.
pub fn further(
    order: &Order,
    root: File,
    control: &mut Control,
    connections: Connections,
) -> Result<Exit, Failure> {
    let mut streams = Streams::new(connections, order.process.terminal)?;
    let signals = watch_signals().doing("cannot watch for children that end")?;
    let prepared = Prepared::new(&order.process, root.as_fd(), privileges(order.rights.as_ref()))?;
    // Its processes count among the workload's.
    let group = File::open(GROUP).ok();
    let child = spawn(&prepared, streams.stdio(), group.as_ref().map(AsFd::as_fd))
        .doing("cannot make a process")?
        .map_err(|failure| prepared.explain(failure))?;
    streams.started();
    control.send(&FromGuest::Started).doing("cannot tell of the start")?;
    let mut wishes = Wishes { signals, button: Button::default(), door: None };
    let status = serve(control, &mut streams, &mut wishes, &child).doing("cannot wait for the process")?;
    streams.ended();
    while streams.hand_on_what_is_there().doing("cannot drain the process's streams")? {}
    Ok(Exit::from_wait_status(status, false))
}

/// Becomes readable when a child ends or the power button is pressed.
fn watch_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    signals.add(nix::sys::signal::SIGCHLD);
    signals.add(button::SIGNAL);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Makes the workload's control group with this many processes at most.
fn limit_processes(most: u32) -> Result<File, Failure> {
    let what = "cannot limit the number of processes: this kernel lacks cgroup v2 or its pids controller";
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+pids").doing(what)?;
    fs::create_dir(GROUP).doing(what)?;
    fs::write(format!("{GROUP}/pids.max"), most.to_string()).doing(what)?;
    File::open(GROUP).doing(what)
}

/// Who has a word in it, beside the monitor.
struct Wishes {
    /// Children that end, and the power button as a signal.
    signals: SignalFd,
    /// The power button as a key.
    button: Button,
    /// Those who want further processes.
    door: Option<Door>,
}

/// Serves streams and monitor until the workload has ended; its wait status.
fn serve(
    control: &mut Control,
    streams: &mut Streams,
    wishes: &mut Wishes,
    child: &Child,
) -> io::Result<i32> {
    let mut monitor_is_there = true;
    loop {
        let mut fds = vec![PollFd::new(&wishes.signals, PollFlags::IN)];
        fds.extend(streams.interests());
        if monitor_is_there {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        let button = wishes.button.fd();
        fds.extend(button.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        fds.extend(wishes.door.as_ref().map(|door| PollFd::new(door, PollFlags::IN)));
        wait_for(&mut fds)?;
        let mut ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if let Some(door) = wishes.door.as_ref().filter(|_| ready.pop().unwrap_or(false)) {
            door.answer();
        }
        let button = button.is_some() && ready.pop().unwrap_or(false);
        let message = monitor_is_there && ready.pop().unwrap_or(false);
        streams.advance(&ready[1..]);
        if message {
            monitor_is_there = obey(control.receive(), streams, child);
        }
        let mut press = button && wishes.button.was_pressed();
        if ready[0] {
            while let Ok(Some(signal)) = wishes.signals.read_signal() {
                press |= signal.ssi_signo == button::SIGNAL as u32;
            }
            if let Some(status) = reap(child) {
                return Ok(status);
            }
        }
        if press {
            // It may have just ended: then that is known in a moment.
            let _ = signal::send(child.pid, libc::SIGTERM as u8);
        }
    }
}

/// Hands on what is left of the workload's output.
fn drain(streams: &mut Streams) -> io::Result<()> {
    while !streams.are_done() {
        let mut fds: Vec<_> = streams.interests().collect();
        wait_for(&mut fds)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        streams.advance(&ready);
    }
    Ok(())
}

fn wait_for(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    match poll(fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Does what the monitor says. False when it has gone: nobody is left to run for.
fn obey(order: Option<ToGuest>, streams: &Streams, child: &Child) -> bool {
    match order {
        // It may have just ended: then its status is on its way.
        Some(ToGuest::Signal(number)) => drop(signal::send(child.pid, number)),
        Some(ToGuest::Resize(size)) => streams.resize(size),
        None => {
            drop(signal::send(child.pid, libc::SIGKILL as u8));
            return false;
        }
    }
    true
}

/// Takes every child that has ended, adopted ones too; the wait status of the workload if it is among them.
fn reap(child: &Child) -> Option<i32> {
    let mut status = None;
    while let Ok(Some((pid, found))) = wait(WaitOptions::NOHANG) {
        if pid.as_raw_nonzero().get() == child.pid {
            status = Some(found.as_raw());
        }
    }
    status
}

/// Whether the kernel has killed a process since boot because memory ran out (Linux 4.13, `oom_kill` in
/// /proc/vmstat).
fn out_of_memory(mut vmstat: File) -> bool {
    let mut text = String::new();
    let _ = vmstat.read_to_string(&mut text);
    text.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count.trim() != "0")
}

#[cfg(test)]
mod tests;
