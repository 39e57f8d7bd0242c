//! What others ask of a running sandbox ([`crate::control`]), done by the thread that it belongs to.

use std::time::{Duration, Instant};

use hv_common::{Id, Kind, Pause, Sandbox, SandboxError};
use nix::sys::signal::Signal;

use crate::control::{Answer, Command, Condition, View};
use crate::error;

/// How long a workload may take to end after it was killed; then its sandbox is taken from it.
const LAST: Duration = Duration::from_secs(2);

/// A sandbox, and what it was told to do.
pub struct Conduct<'a> {
    sandbox: &'a dyn Sandbox,
    id: Id,
    kind: Kind,
    monitor: i32,
    /// What asks the workload to end.
    stop_signal: i32,
    paused: bool,
    stop: Option<Stop>,
}

/// It was told to end.
#[derive(Debug, Clone, Copy)]
struct Stop {
    /// When patience is over.
    deadline: Instant,
    /// The workload was killed already.
    killed: bool,
}

impl<'a> Conduct<'a> {
    /// A sandbox that has just been started, and belongs to the process `monitor`.
    pub fn new(sandbox: &'a dyn Sandbox, id: Id, kind: Kind, monitor: i32, stop_signal: i32) -> Conduct<'a> {
        Conduct { sandbox, id, kind, monitor, stop_signal, paused: false, stop: None }
    }

    /// Does what is asked.
    pub fn obey(&mut self, command: Command) -> Answer {
        let done = match command {
            Command::State => Ok(()),
            Command::Pause => return self.pause(),
            Command::Resume => self.resume(),
            Command::Stop(grace) => self.stop(grace),
            Command::PowerButton => match self.sandbox.as_power_button() {
                Some(button) => {
                    button.press();
                    Ok(())
                }
                None => return Answer::Absent(format!("a {} has no power button; stop it", self.noun())),
            },
            Command::Balloon(bytes) => match self.sandbox.as_balloon() {
                Some(balloon) => balloon.set_target(bytes),
                None if self.kind == Kind::Vm => return Answer::Absent("this microVM has no balloon".into()),
                None => {
                    return Answer::Absent(format!(
                        "a {} has no balloon: its memory is the host's",
                        self.noun()
                    ));
                }
            },
            Command::Metrics => return Answer::Metrics(self.sandbox.metrics()),
            Command::Console => {
                return match self.sandbox.console() {
                    Some(bytes) => Answer::Console(bytes),
                    None => Answer::Absent(format!(
                        "a {} has no console: no kernel of its own that could write to one; its output goes to the \
                         terminal where it was started",
                        self.noun()
                    )),
                };
            }
        };
        self.tell(done)
    }

    /// When to call [`Conduct::lose_patience`], if the sandbox has not ended by then.
    pub fn deadline(&self) -> Option<Instant> {
        self.stop.map(|stop| stop.deadline)
    }

    /// The time to end by itself is over. True if the sandbox shall be taken from the workload.
    pub fn lose_patience(&mut self) -> bool {
        match &mut self.stop {
            Some(stop) if stop.killed => true,
            Some(stop) => {
                *stop = Stop { deadline: Instant::now() + LAST, killed: true };
                // What cannot be reached is taken away then.
                let _ = self.sandbox.signal(Signal::SIGKILL as i32);
                false
            }
            None => false,
        }
    }

    fn pause(&mut self) -> Answer {
        let Some(sandbox) = self.sandbox.as_pause() else {
            return Answer::Absent(format!(
                "a {} cannot be paused: nothing is around it that holds it",
                self.noun()
            ));
        };
        if self.stop.is_some() {
            return Answer::Failed("it was told to stop, and would not end while it is paused".into());
        }
        let done = sandbox.pause();
        self.paused |= done.is_ok();
        self.tell(done)
    }

    fn resume(&mut self) -> Result<(), SandboxError> {
        self.sandbox.as_pause().map_or(Ok(()), Pause::resume)?;
        self.paused = false;
        Ok(())
    }

    /// Asks the workload to end; whoever is held could not.
    fn stop(&mut self, grace: Duration) -> Result<(), SandboxError> {
        self.resume()?;
        let deadline = Instant::now() + grace;
        let earlier = self.stop.filter(|stop| stop.killed || stop.deadline < deadline);
        self.stop = Some(earlier.unwrap_or(Stop { deadline, killed: false }));
        if grace.is_zero() {
            return Ok(());
        }
        let asked = self.sandbox.signal(self.stop_signal);
        match self.sandbox.as_power_button() {
            // hv-init does not answer: perhaps something else in there listens.
            Some(button) if asked.is_err() => button.press(),
            _ => {}
        }
        // Who cannot be asked is killed when its time is over.
        Ok(())
    }

    fn tell(&self, done: Result<(), SandboxError>) -> Answer {
        match done {
            Ok(()) => Answer::State(View {
                id: self.id.clone(),
                kind: self.kind,
                state: self.condition(),
                monitor: self.monitor,
            }),
            Err(error) => Answer::Failed(error::chain(&error)),
        }
    }

    fn condition(&self) -> Condition {
        match (self.stop, self.paused) {
            (Some(_), _) => Condition::Stopping,
            (None, true) => Condition::Paused,
            (None, false) => Condition::Running,
        }
    }

    fn noun(&self) -> &'static str {
        match self.kind {
            Kind::Vm => "microVM",
            Kind::Ctr => "container",
            Kind::Process => "bare process",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::os::fd::{AsFd, BorrowedFd};

    use hv_common::spec::TerminalSize;
    use hv_common::{Crossings, Exit};

    use super::*;

    /// A sandbox that writes down what is done to it.
    struct Noting {
        notes: RefCell<Vec<String>>,
        event: std::fs::File,
    }

    impl Noting {
        fn new() -> Noting {
            Noting { notes: RefCell::default(), event: std::fs::File::open("/dev/null").unwrap() }
        }
        fn note(&self, what: impl Into<String>) {
            self.notes.borrow_mut().push(what.into());
        }
        fn take(&self) -> String {
            self.notes.take().join(" ")
        }
    }

    impl Sandbox for Noting {
        fn pids(&self) -> Vec<i32> {
            Vec::new()
        }
        fn terminal(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn resize(&self, _: TerminalSize) -> Result<(), SandboxError> {
            Ok(())
        }
        fn signal(&self, signal: i32) -> Result<(), SandboxError> {
            self.note(format!("signal{signal}"));
            Ok(())
        }
        fn exit_fd(&self) -> BorrowedFd<'_> {
            self.event.as_fd()
        }
        fn wait(&mut self) -> Result<Exit, SandboxError> {
            unreachable!("nobody waits here")
        }
        fn crossings(&self) -> Crossings {
            Crossings::from([("io".into(), 3)])
        }
        fn as_pause(&self) -> Option<&dyn Pause> {
            Some(self)
        }
    }

    impl Pause for Noting {
        fn pause(&self) -> Result<(), SandboxError> {
            self.note("pause");
            Ok(())
        }
        fn resume(&self) -> Result<(), SandboxError> {
            self.note("resume");
            Ok(())
        }
    }

    fn conduct(sandbox: &Noting) -> Conduct<'_> {
        Conduct::new(sandbox, Id::try_from("web".to_string()).unwrap(), Kind::Ctr, 1, Signal::SIGTERM as i32)
    }

    #[track_caller]
    fn state(answer: Answer) -> Condition {
        let Answer::State(view) = answer else { panic!("{answer:?}") };
        view.state
    }

    #[test]
    fn paused_and_resumed() {
        let sandbox = Noting::new();
        let mut conduct = conduct(&sandbox);
        assert_eq!(state(conduct.obey(Command::State)), Condition::Running);
        assert_eq!(state(conduct.obey(Command::Pause)), Condition::Paused);
        assert_eq!(state(conduct.obey(Command::State)), Condition::Paused);
        assert_eq!(state(conduct.obey(Command::Resume)), Condition::Running);
        assert_eq!(sandbox.take(), "pause resume");
    }

    #[test]
    fn a_stop_asks_then_kills_then_takes_it_away() {
        let sandbox = Noting::new();
        let mut conduct = conduct(&sandbox);
        assert_eq!(conduct.deadline(), None);
        conduct.obey(Command::Pause);
        assert_eq!(state(conduct.obey(Command::Stop(Duration::from_secs(5)))), Condition::Stopping);
        assert_eq!(sandbox.take(), "pause resume signal15");
        assert!(matches!(conduct.obey(Command::Pause), Answer::Failed(_)));
        let first = conduct.deadline().unwrap();
        conduct.obey(Command::Stop(Duration::from_secs(3600)));
        assert_eq!(conduct.deadline(), Some(first), "nobody can lengthen it");
        sandbox.take();
        assert!(!conduct.lose_patience());
        assert_eq!(sandbox.take(), "signal9");
        assert!(conduct.lose_patience());
    }

    #[test]
    fn without_grace_nobody_is_asked() {
        let sandbox = Noting::new();
        let mut conduct = conduct(&sandbox);
        conduct.obey(Command::Stop(Duration::ZERO));
        assert!(conduct.deadline().unwrap() <= Instant::now());
        assert_eq!(sandbox.take(), "resume");
    }

    #[test]
    fn what_it_has_not_is_said() {
        let sandbox = Noting::new();
        let mut conduct = conduct(&sandbox);
        for command in [Command::Console, Command::Balloon(1), Command::PowerButton] {
            let Answer::Absent(why) = conduct.obey(command) else { panic!("{command:?}") };
            assert!(why.contains("a container has no"), "{why}");
        }
        let Answer::Metrics(metrics) = conduct.obey(Command::Metrics) else { panic!() };
        assert_eq!(metrics.crossings["io"], 3);
    }
}
