//! `linux.seccomp` becomes a [`Profile`], with the meaning that libseccomp and runc give it.

use hv_common::seccomp::{Comparison, Condition, Profile, Rule, Verdict, names};

use super::linux::{Argument, Seccomp, Syscall};
use super::refuse;
use crate::error::Error;

/// A program and how it is loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// For the kernel.
    pub program: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_` bits.
    pub flags: u32,
}

/// `SECCOMP_FILTER_FLAG_` of linux/seccomp.h.
pub const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5),
];
const TSYNC: u32 = 1;
const NEW_LISTENER: u32 = 1 << 3;

/// The actions, for `features`.
pub const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
/// The comparisons, for `features`.
pub const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
/// The architectures of this machine, for `features`.
pub const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32"];

/// The most instructions that the kernel takes (BPF_MAXINSNS).
const LONGEST: usize = 4096;

/// One ABI's rules being collected.
type Rules = Vec<Rule>;

/// Checks and compiles.
pub(crate) fn compile(seccomp: &Seccomp) -> Result<Filter, Error> {
    let default = verdict(&seccomp.default_action, seccomp.default_errno_ret)?;
    if default == Verdict::Notify {
        return Err(refuse("linux.seccomp.defaultAction", "not every call can wait for a listener"));
    }
    let (mut native, mut i386): (Rules, Rules) = (Vec::new(), Vec::new());
    let mut notifies = false;
    for call in &seccomp.syscalls {
        let verdict = verdict(&call.action, call.errno_ret)?;
        notifies |= verdict == Verdict::Notify;
        if verdict == default {
            continue;
        }
        let cases = cases(call)?;
        // Names of other architectures or newer kernels: such calls cannot be made here, or have the default.
        for numbers in call.names.iter().filter_map(|name| names::find(name)) {
            for number in [numbers.x86_64, numbers.x32].into_iter().flatten() {
                add(&mut native, number, &cases, verdict, default);
            }
            if let Some(number) = numbers.i386 {
                add(&mut i386, number, &cases, verdict, default);
            }
        }
    }
    let (has_x32, has_i386) = architectures(&seccomp.architectures)?;
    let profile = Profile::new(native, default);
    let profile = if has_x32 { profile.with_x32() } else { profile };
    let profile = if has_i386 { profile.with_i386(i386) } else { profile };
    let program = profile.compile();
    if program.len() > LONGEST {
        return Err(refuse(
            "linux.seccomp",
            "it makes a program of more than 4096 instructions, which no kernel takes",
        ));
    }
    Ok(Filter { program, flags: flags(seccomp, notifies)? })
}

fn flags(seccomp: &Seccomp, notifies: bool) -> Result<u32, Error> {
    let mut flags = 0;
    for name in &seccomp.flags {
        let found = FLAGS.iter().find(|(known, _)| known == name);
        // The process has one thread: all are in step.
        flags |= found.ok_or_else(|| refuse("linux.seccomp.flags", &format!("`{name}` is none")))?.1 & !TSYNC;
    }
    match (&seccomp.listener_path, notifies) {
        (Some(path), true) if !path.is_empty() => Ok(flags | NEW_LISTENER),
        (_, true) => Err(refuse("linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY needs it")),
        _ => Ok(flags),
    }
}

/// Which ABIs beside the native one count.
fn architectures(list: &[String]) -> Result<(bool, bool), Error> {
    let has = |name: &str| list.iter().any(|one| one == name);
    if let Some(unknown) = list.iter().find(|one| !one.starts_with("SCMP_ARCH_")) {
        return Err(refuse("linux.seccomp.architectures", &format!("`{unknown}` is none")));
    }
    Ok((has("SCMP_ARCH_X32"), has("SCMP_ARCH_X86")))
}

fn verdict(action: &str, number: Option<u32>) -> Result<Verdict, Error> {
    let data = |fallback: i32| {
        let number = number.unwrap_or(fallback as u32);
        u16::try_from(number).map_err(|_| refuse("linux.seccomp", &format!("errnoRet {number} is too large")))
    };
    let plain = |verdict| match number {
        None => Ok(verdict),
        Some(_) => Err(refuse("linux.seccomp", &format!("{action} takes no errnoRet"))),
    };
    match action {
        "SCMP_ACT_ALLOW" => plain(Verdict::Allow),
        "SCMP_ACT_ERRNO" => Ok(Verdict::Errno(data(libc::EPERM)?)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => plain(Verdict::KillThread),
        "SCMP_ACT_KILL_PROCESS" => plain(Verdict::Kill),
        "SCMP_ACT_TRAP" => plain(Verdict::Trap(0)),
        "SCMP_ACT_TRACE" => Ok(Verdict::Trace(data(libc::EPERM)?)),
        "SCMP_ACT_LOG" => plain(Verdict::Log),
        "SCMP_ACT_NOTIFY" => plain(Verdict::Notify),
        _ => Err(refuse("linux.seccomp", &format!("`{action}` is no action"))),
    }
}

/// The conditions under which the call has its verdict; none: always. All arguments of an entry must fit,
/// but two entries about the same argument are alternatives (as runc has it).
fn cases(call: &Syscall) -> Result<Vec<Vec<Condition>>, Error> {
    let conditions = call.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    let twice = (1..conditions.len())
        .any(|end| conditions[..end].iter().any(|one| one.argument == conditions[end].argument));
    Ok(match (conditions.is_empty(), twice) {
        (true, _) => Vec::new(),
        (false, true) => conditions.into_iter().map(|one| vec![one]).collect(),
        (false, false) => vec![conditions],
    })
}

fn condition(argument: &Argument) -> Result<Condition, Error> {
    let index = u8::try_from(argument.index).ok().filter(|index| *index < 6);
    let index =
        index.ok_or_else(|| refuse("linux.seccomp", "a call has the arguments 0 to 5 and no others"))?;
    let (mask, value) = (u64::MAX, argument.value);
    let (mask, comparison, value) = match argument.op.as_str() {
        "SCMP_CMP_NE" => (mask, Comparison::NotEqual, value),
        "SCMP_CMP_LT" => (mask, Comparison::Less, value),
        "SCMP_CMP_LE" => (mask, Comparison::LessOrEqual, value),
        "SCMP_CMP_EQ" => (mask, Comparison::Equal, value),
        "SCMP_CMP_GE" => (mask, Comparison::GreaterOrEqual, value),
        "SCMP_CMP_GT" => (mask, Comparison::Greater, value),
        "SCMP_CMP_MASKED_EQ" => (value, Comparison::Equal, argument.value_two),
        other => return Err(refuse("linux.seccomp", &format!("`{other}` is no comparison"))),
    };
    Ok(Condition { argument: index, mask, comparison, value })
}

/// Adds to the rule of this number: cases in the order of the list; a verdict without conditions counts
/// where no case fits.
fn add(rules: &mut Rules, number: u32, cases: &[Vec<Condition>], verdict: Verdict, default: Verdict) {
    let rule = match rules.iter().position(|rule| rule.number == number) {
        Some(index) => &mut rules[index],
        None => {
            rules.push(Rule { number, cases: Vec::new(), otherwise: default });
            rules.last_mut().expect("one was just pushed")
        }
    };
    if cases.is_empty() {
        if rule.otherwise == default {
            rule.otherwise = verdict;
        }
    } else {
        rule.cases.extend(cases.iter().map(|conditions| (conditions.clone(), verdict)));
    }
}

#[cfg(test)]
mod tests {
    use hv_common::seccomp::evaluate::evaluate;
    use hv_common::seccomp::{ARCH_I386, Call};

    use super::*;

    fn of(json: &str) -> Result<Filter, Error> {
        compile(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_profile_as_docker_writes_it() {
        let filter = of(r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
            "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"flags":["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[{"names":["read","nonsense"],"action":"SCMP_ACT_ALLOW"},
            {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"},{"index":0,"value":0,"op":"SCMP_CMP_EQ"}]},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["kill"],"action":"SCMP_ACT_TRAP"}]}"#).unwrap();
        let verdict = |number: i64, first: u64| {
            evaluate(&filter.program, &Call::new(number as u32, [first, 0, 0, 0, 0, 0])).unwrap()
        };
        assert_eq!(verdict(libc::SYS_read, 0), Verdict::Allow);
        assert_eq!(verdict(libc::SYS_write, 0), Verdict::Errno(38));
        assert_eq!(verdict(libc::SYS_personality, 8), Verdict::Allow);
        assert_eq!(verdict(libc::SYS_personality, 9), Verdict::Errno(38));
        assert_eq!(verdict(libc::SYS_clone, libc::CLONE_NEWUSER as u64), Verdict::Errno(38));
        assert_eq!(verdict(libc::SYS_clone, 17), Verdict::Allow);
        assert_eq!(verdict(libc::SYS_kill, 0), Verdict::Trap(0));
        let i386_read = Call { arch: ARCH_I386, ..Call::new(3, [0; 6]) };
        assert_eq!(evaluate(&filter.program, &i386_read), Some(Verdict::Allow));
        assert_eq!(filter.flags, 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#,
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
        ] {
            assert!(of(bad).unwrap_err().to_string().contains("linux.seccomp"), "{bad}");
        }
    }
}
