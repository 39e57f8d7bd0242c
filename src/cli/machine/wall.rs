//! What the monitor puts around itself.

use clap::Args;

use super::MachineOption;

/// Walls around the monitor.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Walls around the monitor")]
pub struct WallArgs {
    /// A system call that the monitor has no use for ends it (kill), is written to the host's log (log: to
    /// find out what is missing), or is made (off: for debuggers) [default: kill]
    #[arg(long, value_name = "WORD")]
    pub seccomp: Option<FilterArg>,
    /// Shut the monitor in before the guest runs: a user, namespaces and an empty root directory of its own (on),
    /// or not (off) [default: on for root, off for others]
    #[arg(long, value_name = "WORD", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    pub jail: Option<JailArg>,
    /// The same as --jail=off
    #[arg(long, conflicts_with = "jail")]
    pub no_jail: bool,
}

impl WallArgs {
    /// Whether there is to be a jail, for root or for another user.
    pub fn jailed(&self, root: bool) -> bool {
        match self.jail {
            Some(JailArg::On) => true,
            Some(JailArg::Off) => false,
            None => root && !self.no_jail,
        }
    }
}

/// Whether there is a jail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum JailArg {
    /// There is
    On,
    /// There is none
    Off,
}

/// What becomes of a system call that is on no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FilterArg {
    /// It is not made and named on standard error; the monitor ends
    Kill,
    /// It is made, and written to the host's log
    Log,
    /// It is made
    Off,
}

/// Why a container refuses each.
pub const OPTIONS: &[MachineOption] = &[
    MachineOption {
        id: "seccomp",
        typed: |machine| machine.wall.seccomp.is_some(),
        why: "a container has no monitor between it and the host's kernel; its own system call filter is always on",
    },
    MachineOption { id: "jail", typed: |machine| machine.wall.jail.is_some(), why: NO_JAIL },
    MachineOption { id: "no_jail", typed: |machine| machine.wall.no_jail, why: NO_JAIL },
];

const NO_JAIL: &str = "a container's processes are shut in by what a container is, and nothing of hv's own touches what they \
     write; `hv ctr --dry-run` shows its walls";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_jail_unless_it_says_no() {
        let of = |jail, no_jail| WallArgs { seccomp: None, jail, no_jail };
        for (args, root, other) in [
            (of(None, false), true, false),
            (of(None, true), false, false),
            (of(Some(JailArg::On), false), true, true),
            (of(Some(JailArg::Off), false), false, false),
        ] {
            assert_eq!((args.jailed(true), args.jailed(false)), (root, other), "{args:?}");
        }
    }
}
