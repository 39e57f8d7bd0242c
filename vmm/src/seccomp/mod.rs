//! System call filters for the monitor's threads: each may make the calls of its work, and no others.
//!
//! A thread takes its filter on just before it begins ([`Mode::enter`]), and the monitor's first thread when
//! all that needs more is done: before the guest's first instruction. Threads that it starts afterwards are under
//! its filter. A call that is not on its thread's list is not made: it is named on standard error and the whole
//! process ends ([`hv_common::sys::denied`]). The lists are `common` with `vcpu`, `devices` or `monitor`.

mod common;
mod devices;
mod monitor;
#[cfg(test)]
mod tests;
mod vcpu;

use std::io;
use std::sync::OnceLock;

use hv_common::seccomp::{Comparison, Condition, Profile, Rule, Verdict};
use hv_common::sys::{denied, exec};
use libc::{c_long, sock_filter};

/// What becomes of a system call that is not on its thread's list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// It is not made, and named on standard error; the monitor ends.
    #[default]
    Kill,
    /// It is made, and the host's kernel writes it down (its log has the lines `type=1326`).
    Log,
    /// It is made: there are no filters.
    Off,
}

/// No system call of x86-64 has so high a number.
const MOST_CALLS: u32 = 1024;

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs a virtual processor and serves its exits.
    Vcpu,
    /// Serves devices.
    Devices,
    /// The first thread, and what carries streams and messages.
    Monitor,
}

/// One system call on a list.
struct Allowed {
    number: c_long,
    only: Only,
}

/// With which arguments it is allowed.
enum Only {
    /// Any.
    Any,
    /// This argument, as an `int`, is one of these.
    OneOf(u8, &'static [u32]),
    /// This argument has none of these bits.
    Without(u8, u32),
}

const fn any(number: c_long) -> Allowed {
    Allowed { number, only: Only::Any }
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Vcpu, Role::Devices, Role::Monitor];

    /// A word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Vcpu => "vcpu",
            Role::Devices => "devices",
            Role::Monitor => "monitor",
        }
    }

    /// The numbers of the system calls that its threads may make, whatever the arguments have to be.
    pub fn allowed(self) -> Vec<u32> {
        let profile = self.profile(Verdict::Trap(0));
        (0..MOST_CALLS).filter(|number| profile.allowed(*number)).collect()
    }

    const fn name(self) -> &'static str {
        match self {
            Role::Vcpu => "a vCPU's",
            Role::Devices => "a device",
            Role::Monitor => "a monitor",
        }
    }

    fn calls(self) -> impl Iterator<Item = &'static Allowed> {
        let own = match self {
            Role::Vcpu => vcpu::CALLS,
            Role::Devices => devices::CALLS,
            Role::Monitor => monitor::CALLS,
        };
        common::CALLS.iter().chain(own)
    }

    fn profile(self, otherwise: Verdict) -> Profile {
        let check = cfg!(debug_assertions).then_some(&common::CHECK);
        let check = check.filter(|check| self.calls().all(|call| call.number != check.number));
        let refused = common::REFUSED
            .iter()
            .map(|(number, errno)| Rule::plain(*number as u32, Verdict::Errno(*errno as u16)));
        let allowed = self.calls().chain(check).map(|call| call.rule(otherwise));
        Profile::new(allowed.chain(refused).collect(), otherwise)
    }
}

impl Mode {
    /// The verdict on what is not listed; None: no filter at all.
    fn verdict(self) -> Option<Verdict> {
        match self {
            Mode::Kill => Some(Verdict::Trap(0)),
            Mode::Log => Some(Verdict::Log),
            Mode::Off => None,
        }
    }

    /// The program for a role, compiled once for all its threads; the mode is the same all the time.
    fn program(otherwise: Verdict, role: Role) -> &'static [sock_filter] {
        static PROGRAMS: [OnceLock<Vec<sock_filter>>; 6] = [const { OnceLock::new() }; 6];
        let at = role as usize + if otherwise == Verdict::Log { 3 } else { 0 };
        PROGRAMS[at].get_or_init(|| role.profile(otherwise).compile())
    }

    /// Puts this thread, for good, under the filter of its role; threads that it starts are under it too.
    ///
    /// # Errors
    /// The kernel has no seccomp filters.
    pub fn enter(self, role: Role) -> io::Result<()> {
        let Some(otherwise) = self.verdict() else { return Ok(()) };
        denied::report_as(role.name())?;
        // rustix finds the vDSO when the clock is first read, with a call that is on no list.
        let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        rustix::thread::set_no_new_privs(true)?;
        exec::set_seccomp(Mode::program(otherwise, role), 0)?;
        Ok(())
    }
}

impl Allowed {
    fn rule(&self, otherwise: Verdict) -> Rule {
        let case = |condition| (vec![condition], Verdict::Allow);
        let cases = match self.only {
            Only::Any => return Rule::plain(self.number as u32, Verdict::Allow),
            Only::OneOf(argument, values) => {
                values.iter().map(|value| case(Condition::int(argument, Comparison::Equal, *value))).collect()
            }
            Only::Without(argument, bits) => {
                vec![case(Condition { argument, mask: bits.into(), comparison: Comparison::Equal, value: 0 })]
            }
        };
        Rule { number: self.number as u32, cases, otherwise }
    }
}
