//! Runs a compiled program on one call, as the kernel does. For tests of the compiler, and for reports
//! about programs in force.

use libc::sock_filter;

use super::Verdict;

/// One system call: `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Its number.
    pub number: u32,
    /// Its architecture, an `AUDIT_ARCH_` constant.
    pub arch: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Call {
    /// A native call.
    pub fn new(number: u32, arguments: [u64; 6]) -> Call {
        Call { number, arch: super::ARCH_X86_64, arguments }
    }

    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            8 | 12 => Some(0),
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                Some(if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 })
            }
            _ => None,
        }
    }
}

/// What the program says about the call. None if it is no valid program: it runs over its end, uses an
/// instruction that the compiler does not emit, or returns an action that [`Verdict`] does not have.
pub fn evaluate(program: &[sock_filter], call: &Call) -> Option<Verdict> {
    let mut accumulator = 0u32;
    let mut at = 0usize;
    loop {
        let instruction = program.get(at)?;
        at += 1;
        let k = instruction.k;
        match u32::from(instruction.code) {
            code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => accumulator = call.word(k)?,
            code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => accumulator &= k,
            code if code == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
            code if code == libc::BPF_RET | libc::BPF_K => return verdict(k),
            code => {
                let holds = match code {
                    _ if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => accumulator == k,
                    _ if code == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K => accumulator > k,
                    _ if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => accumulator >= k,
                    _ => return None,
                };
                at += usize::from(if holds { instruction.jt } else { instruction.jf });
            }
        }
    }
}

fn verdict(value: u32) -> Option<Verdict> {
    match value & !libc::SECCOMP_RET_DATA {
        libc::SECCOMP_RET_ALLOW => Some(Verdict::Allow),
        libc::SECCOMP_RET_ERRNO => Some(Verdict::Errno((value & libc::SECCOMP_RET_DATA) as u16)),
        libc::SECCOMP_RET_KILL_PROCESS => Some(Verdict::Kill),
        libc::SECCOMP_RET_KILL_THREAD => Some(Verdict::KillThread),
        libc::SECCOMP_RET_TRAP => Some(Verdict::Trap(value as u16)),
        libc::SECCOMP_RET_TRACE => Some(Verdict::Trace(value as u16)),
        libc::SECCOMP_RET_LOG => Some(Verdict::Log),
        libc::SECCOMP_RET_USER_NOTIF => Some(Verdict::Notify),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{ARCH_I386, ARCH_X86_64, Comparison, Condition, Profile, Rule, X32_BIT};
    use super::*;

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(Verdict::Allow),
            (0u16..200).prop_map(Verdict::Errno),
            Just(Verdict::Kill),
            Just(Verdict::KillThread),
            any::<u16>().prop_map(Verdict::Trap),
            any::<u16>().prop_map(Verdict::Trace),
            Just(Verdict::Log),
            Just(Verdict::Notify),
        ]
    }

    /// Values near which comparisons change.
    fn edge() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..4,
            Just(u64::from(u32::MAX)),
            (1u64 << 32)..(1 << 32) + 3,
            Just(0x1_0000_0026),
            Just(u64::MAX),
            any::<u64>()
        ]
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let mask =
            prop_oneof![Just(u64::MAX), Just(u64::from(u32::MAX)), Just(0xFFFF_FFFF_0000_0000), any::<u64>()];
        let comparison = prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::Less),
            Just(Comparison::Greater),
            Just(Comparison::NotEqual),
            Just(Comparison::LessOrEqual),
            Just(Comparison::GreaterOrEqual),
        ];
        (0u8..6, mask, comparison, edge()).prop_map(|(argument, mask, comparison, value)| Condition {
            argument,
            mask,
            comparison,
            value,
        })
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let case = (prop::collection::vec(condition(), 0..=6), any_verdict());
        let number = prop_oneof![4 => 0u32..60, 1 => 300u32..900, 1 => any::<u32>()];
        let rule = (number, prop::collection::vec(case, 0..4), any_verdict())
            .prop_map(|(number, cases, otherwise)| Rule { number, cases, otherwise });
        prop::collection::vec(rule, 0..80)
    }

    fn profile() -> impl Strategy<Value = Profile> {
        (rules(), any_verdict(), any::<bool>(), prop::option::of(rules())).prop_map(
            |(rules, default, x32, i386)| {
                let profile = Profile::new(rules, default);
                let profile = if x32 { profile.with_x32() } else { profile };
                i386.map_or(profile.clone(), |rules| profile.with_i386(rules))
            },
        )
    }

    proptest! {
        #[test]
        fn compiled_programs_say_what_the_model_says(
            profile in profile(),
            numbers in prop::collection::vec(prop_oneof![4 => 0u32..62, 1 => any::<u32>()], 20),
            arguments in prop::array::uniform6(edge()),
        ) {
            let program = profile.compile();
            for number in numbers {
                let call = Call::new(number, arguments);
                prop_assert_eq!(evaluate(&program, &call), Some(profile.verdict(&call)), "{:?}", call);
                let call = Call { arch: ARCH_I386, ..call };
                prop_assert_eq!(evaluate(&program, &call), Some(profile.verdict(&call)), "{:?}", call);
            }
        }
    }

    #[test]
    fn programs_with_far_jumps_are_right() {
        let verdict = |number: u32| Verdict::Errno((number % 133) as u16);
        let profile = Profile::new((0..1000).map(|n| Rule::plain(n, verdict(n))).collect(), Verdict::Kill);
        let program = profile.compile();
        assert!(program.len() < 4096, "the kernel's limit");
        for number in 0..1000 {
            assert_eq!(evaluate(&program, &Call::new(number, [0; 6])), Some(verdict(number)));
        }
        assert_eq!(evaluate(&program, &Call::new(1000, [0; 6])), Some(Verdict::Kill));
    }

    #[test]
    fn other_architectures_and_abis_are_refused() {
        let program = Profile::new(vec![], Verdict::Allow).compile();
        let i386 = Call { arch: 0x4000_0003, ..Call::new(20, [0; 6]) };
        assert_eq!(evaluate(&program, &i386), Some(Verdict::Kill));
        let x32 = Call { arch: ARCH_X86_64, ..Call::new(X32_BIT | 39, [0; 6]) };
        assert_eq!(evaluate(&program, &x32), Some(Verdict::Errno(libc::ENOSYS as u16)));
    }
}
