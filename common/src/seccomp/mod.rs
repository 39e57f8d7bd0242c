//! Seccomp: which system calls a process may make, as data, and as the program the kernel runs.
//!
//! # Layout
//! - [`Profile`], [`Rule`], [`Condition`]: the model: a table of system calls, each with a verdict that
//!   may depend on arguments. [`Profile::verdict`] says what it means.
//! - `compile`: a profile becomes a classic BPF program, a binary search over the call's number.
//! - [`evaluate`]: runs such a program on one call, as the kernel does: for tests, and for reports.
//! - [`names`]: the names of system calls, with their numbers.
//! - `container`: the default profile of containers, as a readable table.
//!
//! A program that is in force cannot be taken off, and covers every child.

#![forbid(unsafe_code)]

mod compile;
mod container;
pub mod evaluate;
pub mod names;

use std::sync::OnceLock;

pub use evaluate::Call;

/// `AUDIT_ARCH_X86_64` of linux/audit.h: a 64-bit call of this architecture.
pub const ARCH_X86_64: u32 = 0xC000_003E;
/// `AUDIT_ARCH_I386`: a 32-bit call.
pub const ARCH_I386: u32 = 0x4000_0003;
/// `__X32_SYSCALL_BIT`: numbers from here on are calls of the x32 ABI.
pub const X32_BIT: u32 = 0x4000_0000;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It fails with this error number, without being made.
    Errno(u16),
    /// The whole process ends with SIGSYS.
    Kill,
    /// The thread ends as by SIGSYS; the others of its process go on.
    KillThread,
    /// It is not made; the thread gets SIGSYS, with this number in `si_errno`.
    Trap(u16),
    /// A tracer decides, and gets this number; without one the call fails with ENOSYS.
    Trace(u16),
    /// It is made, and the kernel writes it down.
    Log,
    /// The holder of the filter's listener decides.
    Notify,
}

/// A test of one argument: `(argument & mask) compared with value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// The bits that count. An `int` argument has 32: the kernel ignores the others, so a test of them
    /// could be fooled.
    pub mask: u64,
    /// How to compare.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal.
    Equal,
    /// Less than, unsigned.
    Less,
    /// Greater than, unsigned.
    Greater,
    /// Not equal.
    NotEqual,
    /// Less than or equal, unsigned.
    LessOrEqual,
    /// Greater than or equal, unsigned.
    GreaterOrEqual,
}

/// What happens to one system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its number.
    pub number: u32,
    /// The first of these whose conditions all hold decides.
    pub cases: Vec<(Vec<Condition>, Verdict)>,
    /// If none does.
    pub otherwise: Verdict,
}

/// A whole filter. A call of another architecture ends the process (its numbers mean something else),
/// one of the x32 ABI fails with ENOSYS, unless the profile says otherwise of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The calls that are named, each once, by number.
    rules: Vec<Rule>,
    /// What happens to all others.
    default: Verdict,
    /// Rules with numbers of the x32 ABI count, and its other calls have the default.
    x32: bool,
    /// The same for the 32-bit architecture, whose numbers mean something else.
    i386: Option<Vec<Rule>>,
}

impl Condition {
    /// The argument as the kernel's C code sees an `int` or `unsigned int`.
    pub const fn int(argument: u8, comparison: Comparison, value: u32) -> Condition {
        Condition { argument, mask: u32::MAX as u64, comparison, value: value as u64 }
    }

    /// Whether it holds for these arguments.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let argument = arguments[usize::from(self.argument)] & self.mask;
        match self.comparison {
            Comparison::Equal => argument == self.value,
            Comparison::Less => argument < self.value,
            Comparison::Greater => argument > self.value,
            Comparison::NotEqual => argument != self.value,
            Comparison::LessOrEqual => argument <= self.value,
            Comparison::GreaterOrEqual => argument >= self.value,
        }
    }
}

impl Rule {
    /// A verdict that no argument changes.
    pub fn plain(number: u32, verdict: Verdict) -> Rule {
        Rule { number, cases: Vec::new(), otherwise: verdict }
    }

    fn verdict(&self, arguments: &[u64; 6]) -> Verdict {
        let case =
            self.cases.iter().find(|(conditions, _)| conditions.iter().all(|one| one.holds(arguments)));
        case.map_or(self.otherwise, |(_, verdict)| *verdict)
    }
}

impl Profile {
    /// A profile of these rules. Of two for one number the first counts.
    pub fn new(rules: Vec<Rule>, default: Verdict) -> Profile {
        Profile { rules: ordered(rules), default, x32: false, i386: None }
    }

    /// Lets calls of the x32 ABI count: rules with numbers from [`X32_BIT`] on are for them.
    #[must_use]
    pub fn with_x32(self) -> Profile {
        Profile { x32: true, ..self }
    }

    /// Lets calls of the 32-bit architecture count, with rules of their own.
    #[must_use]
    pub fn with_i386(self, rules: Vec<Rule>) -> Profile {
        Profile { i386: Some(ordered(rules)), ..self }
    }

    /// The default of containers: what docker's profile allows to a container with the 14 default
    /// capabilities.
    pub fn container() -> &'static Profile {
        static PROFILE: OnceLock<Profile> = OnceLock::new();
        PROFILE.get_or_init(container::profile)
    }

    /// What happens to this call.
    pub fn verdict(&self, call: &Call) -> Verdict {
        let rules = match (call.arch, &self.i386) {
            (ARCH_X86_64, _) => &self.rules,
            (ARCH_I386, Some(rules)) => rules,
            _ => return Verdict::Kill,
        };
        if call.arch == ARCH_X86_64 && call.number >= X32_BIT && !self.x32 {
            return Verdict::Errno(libc::ENOSYS as u16);
        }
        let found = rules.binary_search_by_key(&call.number, |rule| rule.number);
        found.map_or(self.default, |index| rules[index].verdict(&call.arguments))
    }

    /// Whether the call of this number is ever made, whatever its arguments.
    pub fn allowed(&self, number: u32) -> bool {
        let found = self.rules.binary_search_by_key(&number, |rule| rule.number);
        let Ok(index) = found else { return self.default == Verdict::Allow };
        let rule = &self.rules[index];
        rule.otherwise == Verdict::Allow || rule.cases.iter().any(|(_, verdict)| *verdict == Verdict::Allow)
    }

    /// How many calls are ever made.
    pub fn count_allowed(&self) -> usize {
        self.rules.iter().filter(|rule| self.allowed(rule.number)).count()
    }

    /// The program for the kernel.
    pub fn compile(&self) -> Vec<libc::sock_filter> {
        compile::compile(self)
    }
}

fn ordered(mut rules: Vec<Rule>) -> Vec<Rule> {
    rules.sort_by_key(|rule| rule.number);
    rules.dedup_by_key(|rule| rule.number);
    rules
}

/// The program of [`Profile::container`], compiled once.
pub fn container_program() -> Vec<libc::sock_filter> {
    static PROGRAM: OnceLock<Vec<libc::sock_filter>> = OnceLock::new();
    PROGRAM.get_or_init(|| Profile::container().compile()).clone()
}
