//! What stands around a monitor while its guest runs.

use std::io;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::broker::Broker;
use crate::jail::{self, Jail};
use crate::seccomp::{Mode, Role};

/// The walls of one monitor. The default has filters for the machine's own threads, and nothing around the
/// process.
#[derive(Debug, Clone, Default)]
pub struct Walls {
    /// What becomes of system calls that a thread has no use for.
    pub filters: Mode,
    /// The process is this monitor and nothing else, and all that needs a path is done for it through this.
    pub alone: Option<Alone>,
}

/// A process that is a monitor and nothing else.
#[derive(Debug, Clone)]
pub struct Alone {
    /// To whom started it.
    pub broker: Broker,
    /// What it gives up.
    pub jail: Option<Jail>,
}

impl Walls {
    /// Goes into the jail, if there is one: with everything open, before there are threads. From now on the process
    /// ends with the one that started it.
    ///
    /// # Errors
    /// The host does not allow it.
    pub fn enter_jail(&self) -> Result<(), jail::Error> {
        let Some(alone) = &self.alone else { return Ok(()) };
        alone.jail.map_or(Ok(()), Jail::enter)?;
        // After it: a change of the user takes it back.
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(jail::Error::parent)
    }

    /// Whether the calling thread is to be filtered too: all of the process is the monitor's.
    pub fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Puts the calling thread under the monitor's filter, and all that it starts from now on.
    ///
    /// # Errors
    /// The kernel has no filters.
    pub fn enter_filter(&self) -> io::Result<()> {
        if self.is_alone() { self.filters.enter(Role::Monitor) } else { Ok(()) }
    }

    /// Itself, one line a wall.
    pub fn plan(&self) -> Vec<String> {
        let mut plan = Vec::new();
        match self.alone.as_ref().and_then(|alone| alone.jail) {
            Some(jail) => {
                plan.push(
                    "the monitor is the only process of a pid namespace, and has before its guest runs:"
                        .into(),
                );
                plan.extend(jail.steps().iter().map(|step| format!("  {step}")));
            }
            None => plan.push("no jail: the monitor keeps its user's rights and view of the host".into()),
        }
        plan.push(match self.filters {
            Mode::Kill => "a list of system calls for each thread; any other ends the monitor".into(),
            Mode::Log => {
                "a list of system calls for each thread; any other is written to the host's log".into()
            }
            Mode::Off => "no system call filters".into(),
        });
        plan
    }

    /// The way to who does what the monitor cannot.
    pub fn broker(&self) -> Option<&Broker> {
        self.alone.as_ref().map(|alone| &alone.broker)
    }
}
