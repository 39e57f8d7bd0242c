//! What the child tells the monitor when a start fails: small and plain, to go through a pipe.

use hv_common::starter::ExecFailure;

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Applying this step of the plan, with this error number.
    Step(u16, i32),
    /// Before the plan or after it.
    Stage(Stage, i32),
    /// Becoming the workload.
    Start(ExecFailure),
}

/// What PID 1 does besides the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    Signals,
    User,
    Dumpable,
    DeathSignal,
    Descriptors,
    Fork,
    Root,
    Uncover,
    Hook,
}

impl Stage {
    const ALL: [Stage; 9] = [
        Stage::Signals,
        Stage::User,
        Stage::Dumpable,
        Stage::DeathSignal,
        Stage::Descriptors,
        Stage::Fork,
        Stage::Root,
        Stage::Uncover,
        Stage::Hook,
    ];

    /// In words: what cannot be done.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Stage::Signals => "block signals",
            Stage::User => "become user 0 of the new user namespace",
            Stage::Dumpable => "make PID 1 undumpable",
            Stage::DeathSignal => "tie PID 1's life to the monitor's",
            Stage::Descriptors => "arrange descriptors",
            Stage::Uncover => "uncover /proc for the workload",
            Stage::Hook => "run a startContainer hook",
            Stage::Root => "change the root directory",
            Stage::Fork => "fork the workload (is the limit on processes at least 2?)",
        }
    }
}

impl Report {
    /// Bytes of a report.
    pub(crate) const SIZE: usize = 8;

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        match self {
            Report::Step(index, errno) => {
                bytes[0] = 1;
                bytes[1..3].copy_from_slice(&index.to_le_bytes());
                bytes[3..7].copy_from_slice(&errno.to_le_bytes());
            }
            Report::Stage(stage, errno) => {
                bytes[0] = 2;
                bytes[1] = stage as u8;
                bytes[3..7].copy_from_slice(&errno.to_le_bytes());
            }
            Report::Start(failure) => {
                bytes[0] = 3;
                bytes[1..1 + ExecFailure::SIZE].copy_from_slice(&failure.to_bytes());
            }
        }
        bytes
    }

    /// None if these bytes are no report.
    pub(crate) fn from_bytes(bytes: [u8; Self::SIZE]) -> Option<Report> {
        let [kind, a, b, c, d, e, f, _] = bytes;
        let errno = i32::from_le_bytes([c, d, e, f]);
        match kind {
            1 => Some(Report::Step(u16::from_le_bytes([a, b]), errno)),
            2 => Some(Report::Stage(*Stage::ALL.get(usize::from(a))?, errno)),
            3 => Some(Report::Start(ExecFailure::from_bytes([a, b, c, d, e]))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_round_trip() {
        for report in [
            Report::Step(0, libc::EPERM),
            Report::Step(300, libc::ENOENT),
            Report::Stage(Stage::Fork, libc::EAGAIN),
            Report::Start(ExecFailure { step: hv_common::starter::Step::Cwd, errno: libc::ENOENT }),
        ] {
            assert_eq!(Report::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes([0; 8]), None);
        assert_eq!(Report::from_bytes([2, 200, 0, 0, 0, 0, 0, 0]), None);
    }
}
