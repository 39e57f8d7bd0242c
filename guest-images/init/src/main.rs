//! The static PID 1 of the guest: mounts, starts the workload through the starter, passes its streams
//! to the host and its fate on to the monitor, and switches the machine off.
//!
//! # Layout
//! - [`modules`], [`root`], [`mounts`], [`network`], [`given`]: the machine from a bare kernel to the workload's root.
//! - [`host`]: connections to the monitor; [`streams`]: the workload's streams through them.
//! - [`supervise`]: from the workload's start to its end; [`orders`]: further processes; [`button`]: who asks for that; [`power`]: what is left to
//!   do then.
//!
//! Each step is a few system calls: every instruction here is part of every boot.

#![deny(unsafe_code)]
// The language's own start-up is not for PID 1: it sets up what hv-init does not use, and brings 140 KB
// that each guest would have to unpack. Together that was 1 % of a whole run.
#![cfg_attr(not(test), no_main)]

mod button;
mod given;
mod host;
mod modules;
mod mounts;
mod network;
mod orders;
mod power;
mod root;
mod streams;
mod supervise;

use std::fs;
use std::io;
use std::os::fd::IntoRawFd;

use hv_common::exit::Exit;
use hv_common::phase::Phase;
use hv_common::starter::Failure;
use hv_common::sys::mark::mark;
use hv_common::wire::{self, FromGuest, GuestConfig};

use host::Control;

/// Where the C library starts the program.
#[cfg(not(test))]
#[allow(unsafe_code)] // The attribute alone: no other function of this program or its libraries is called `main`.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    be_init()
}

#[cfg_attr(test, expect(dead_code))]
fn be_init() -> ! {
    // A kernel without port access leaves the phase unmarked: nothing a guest could do about it.
    let _ = mark(Phase::Init);
    open_standard_streams();
    let mut control = None;
    let last_word = match run(&mut control) {
        Ok(exit) => FromGuest::Exited(exit),
        Err(failure) => tell_console(failure),
    };
    // Early failures come before the connection: the monitor is told all the same if it can be reached.
    if let Ok(control) = control.map_or_else(Control::dial, Ok) {
        control.finish(&last_word);
    }
    power::power_off()
}

/// A kernel without a console starts PID 1 without standard streams: then the first files that it opens
/// would be taken for them.
fn open_standard_streams() {
    if rustix::io::fcntl_getfd(rustix::stdio::stdin()).is_err() {
        for _ in 0..3 {
            let _ =
                fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(IntoRawFd::into_raw_fd);
        }
    }
}

/// From the kernel's hand-over to the workload's end.
fn run(control: &mut Option<Control>) -> Result<Exit, Failure> {
    let config = read_config()?;
    mounts::devices_of_initramfs()?;
    modules::load(&config.modules)?;
    let later = modules::Later::open(&config.later);
    // The host answers while this goes on with the mounts.
    let connections = host::dial_all(control, config.process.terminal.is_some())?;
    let program = supervise::open_program(&config)?;
    root::switch(&config.root)?;
    mounts::of_workload()?;
    machine_settings(&config)?;
    given::put(&config.given)?;
    let prepared = supervise::prepare(&config, program)?;
    let control = control.as_mut().expect("dial_all returned without an error, so it has set it");
    host::establish_all(control, &connections)?;
    let exit = supervise::run(&config, &prepared, later, control, connections)?;
    if config.root.writable {
        power::make_root_read_only()?;
    }
    Ok(exit)
}

fn read_config() -> Result<GuestConfig, Failure> {
    let failed = |error| Failure::new(format!("cannot read {}", wire::CONFIG_PATH), error);
    let bytes = fs::read(wire::CONFIG_PATH).map_err(failed)?;
    let config: GuestConfig = wire::decode(&bytes).map_err(failed)?;
    if config.version != wire::VERSION {
        let what = format!(
            "hv-init speaks version {} and its configuration version {}: use the hv-init that came with this hv",
            wire::VERSION,
            config.version
        );
        return Err(Failure::plain(what));
    }
    Ok(config)
}

fn machine_settings(config: &GuestConfig) -> Result<(), Failure> {
    rustix::system::sethostname(config.hostname.as_bytes())
        .map_err(|error| Failure::new(format!("cannot set the host name to `{}`", config.hostname), error))?;
    network::set_up(&config.network)
}

/// Says on the console why the guest gives up: standard error is the console that the kernel opened.
fn tell_console(failure: Failure) -> FromGuest {
    let reason = failure.source.as_ref().map(|source| format!(": {source}")).unwrap_or_default();
    let line = format!("hv-init: {}{reason}\n", failure.what);
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
    // Without an error number the reason travels in the words.
    let errno = failure.errno();
    let what = if errno == 0 { failure.what + &reason } else { failure.what };
    FromGuest::Failed { what, errno, status: failure.status }
}

/// Adds to an error what was being done.
trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(what, error))
    }
}
