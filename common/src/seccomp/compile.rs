//! A profile becomes a classic BPF program (linux/filter.h, seccomp(2)).
//!
//! Calls are looked up by binary search over their number: neighbours with the same verdict make one
//! interval, so the default profile needs about seven comparisons for any call. Short for the calls
//! themselves, and short for the kernel, which on loading runs the program once for every number to
//! find out which are always allowed (Linux 5.11, `seccomp_cache_prepare`).
//!
//! Every block ends in a return and jumps only within itself, so that blocks can be put together in
//! any order.

use libc::sock_filter;

use super::{ARCH_I386, ARCH_X86_64, Comparison, Condition, Profile, Rule, Verdict, X32_BIT};

/// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_NOT_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

type Code = Vec<sock_filter>;

/// Numbers from `first` up to the next interval's `first` that share what happens to them.
struct Interval<'a> {
    first: u32,
    what: What<'a>,
}

#[derive(Clone, Copy, PartialEq)]
enum What<'a> {
    Always(Verdict),
    ByArguments(&'a Rule),
}

pub(super) fn compile(profile: &Profile) -> Code {
    let native = search(&intervals(&profile.rules, profile.default, !profile.x32));
    let mut code = vec![load(ARCH)];
    match &profile.i386 {
        None => code.extend([test(IF_EQUAL, ARCH_X86_64, 1, 0), give(Verdict::Kill)]),
        Some(rules) => {
            let other = search(&intervals(rules, profile.default, false));
            code.extend([test(IF_EQUAL, ARCH_X86_64, 0, 1), jump(other.len() + 3)]);
            code.extend([test(IF_EQUAL, ARCH_I386, 1, 0), give(Verdict::Kill), load(NUMBER)]);
            code.extend(other);
        }
    }
    code.push(load(NUMBER));
    code.extend(native);
    code
}

/// All numbers, in order, without gaps; with `no_x32` the last interval is that of the x32 ABI.
fn intervals(rules: &[Rule], default: Verdict, no_x32: bool) -> Vec<Interval<'_>> {
    let mut intervals: Vec<Interval> = Vec::new();
    let mut add = |first: u32, what| match intervals.last() {
        Some(Interval { what: last, .. }) if *last == what => {}
        _ => intervals.push(Interval { first, what }),
    };
    let mut next = Some(0);
    for rule in rules.iter().filter(|rule| !no_x32 || rule.number < X32_BIT) {
        if let Some(next) = next.filter(|next| rule.number > *next) {
            add(next, What::Always(default));
        }
        let what = if rule.cases.is_empty() { What::Always(rule.otherwise) } else { What::ByArguments(rule) };
        add(rule.number, what);
        next = rule.number.checked_add(1);
    }
    if let Some(next) = next {
        add(next, What::Always(default));
    }
    if no_x32 {
        add(X32_BIT, What::Always(Verdict::Errno(libc::ENOSYS as u16)));
    }
    intervals
}

/// The accumulator holds the number.
fn search(intervals: &[Interval<'_>]) -> Code {
    let [only] = intervals else {
        let (low, high) = intervals.split_at(intervals.len() / 2);
        let middle = high[0].first;
        let (low, high) = (search(low), search(high));
        let mut code = match u8::try_from(low.len()) {
            Ok(distance) => vec![test(IF_NOT_LESS, middle, distance, 0)],
            // A conditional jump reaches 255 instructions, an unconditional one any.
            Err(_) => vec![test(IF_NOT_LESS, middle, 0, 1), jump(low.len())],
        };
        code.extend(low);
        code.extend(high);
        return code;
    };
    match only.what {
        What::Always(verdict) => vec![give(verdict)],
        What::ByArguments(rule) => by_arguments(rule),
    }
}

fn by_arguments(rule: &Rule) -> Code {
    let mut code = Code::new();
    for (conditions, verdict) in &rule.cases {
        code.extend(case(conditions, *verdict));
    }
    code.push(give(rule.otherwise));
    code
}

/// Gives the verdict if all conditions hold, else goes on behind itself. Built from the end: the way
/// out of each condition leads behind all that is there already.
fn case(conditions: &[Condition], verdict: Verdict) -> Code {
    let mut code = vec![give(verdict)];
    for condition in conditions.iter().rev() {
        let mut longer = check(condition, code.len());
        longer.append(&mut code);
        code = longer;
    }
    code
}

/// Falls through if the condition holds, else jumps over the next `rest` instructions too. The
/// argument's upper half is compared first, and decides unless it is equal.
fn check(condition: &Condition, rest: usize) -> Code {
    let (high, low) = ((condition.value >> 32) as u32, condition.value as u32);
    let at = ARGUMENTS + 8 * u32::from(condition.argument);
    let mut lower = vec![load(at), and(condition.mask as u32)];
    // Three comparisons, and their opposites with the ways out exchanged.
    let (comparison, yes, no) = match condition.comparison {
        Comparison::NotEqual => (Comparison::Equal, rest, 0),
        Comparison::LessOrEqual => (Comparison::Greater, rest, 0),
        Comparison::GreaterOrEqual => (Comparison::Less, rest, 0),
        plain => (plain, 0, rest),
    };
    lower.push(match comparison {
        Comparison::Less => test(IF_NOT_LESS, low, near(no), near(yes)),
        Comparison::Greater => test(IF_GREATER, low, near(yes), near(no)),
        _ => test(IF_EQUAL, low, near(yes), near(no)),
    });
    let upper_mask = (condition.mask >> 32) as u32;
    if upper_mask == 0 && high == 0 {
        return lower;
    }
    // x86 is little-endian: the upper half is the second word.
    let mut code = vec![load(at + 4), and(upper_mask)];
    let over = lower.len();
    if let Comparison::Less | Comparison::Greater = comparison {
        // Greater here: decided. Equal: the lower half decides. Less: decided.
        let (if_greater, if_less) = if comparison == Comparison::Greater { (yes, no) } else { (no, yes) };
        code.push(test(IF_GREATER, high, near(over + if_greater + 1), 0));
        code.push(test(IF_EQUAL, high, 0, near(over + if_less)));
    } else {
        code.push(test(IF_EQUAL, high, 0, near(over + no)));
    }
    code.extend(lower);
    code
}

/// A distance within one case. Six conditions of seven instructions are the longest.
fn near(distance: usize) -> u8 {
    u8::try_from(distance).expect("a case has at most six conditions of seven instructions each")
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn and(mask: u32) -> sock_filter {
    sock_filter { code: AND, jt: 0, jf: 0, k: mask }
}

fn jump(distance: usize) -> sock_filter {
    sock_filter { code: JUMP, jt: 0, jf: 0, k: distance as u32 }
}

fn test(code: u16, value: u32, then: u8, otherwise: u8) -> sock_filter {
    sock_filter { code, jt: then, jf: otherwise, k: value }
}

fn give(verdict: Verdict) -> sock_filter {
    let k = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
        Verdict::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Verdict::Trap(number) => libc::SECCOMP_RET_TRAP | u32::from(number),
        Verdict::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
        Verdict::Log => libc::SECCOMP_RET_LOG,
        Verdict::Notify => libc::SECCOMP_RET_USER_NOTIF,
    };
    sock_filter { code: RETURN, jt: 0, jf: 0, k }
}
