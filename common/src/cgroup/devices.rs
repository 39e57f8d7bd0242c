//! Which device nodes may be used: the list of v1, and v2's program of the cgroup's device hook.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::resources::DeviceRule;
use super::{Controller, Error, files, settings};
use crate::sys::bpf::{self, Instruction};

/// What every container may use, whatever its rules say, as runc has it: mknod of anything (using the
/// node is another matter), null, zero, full, tty, random, urandom, terminals, ptmx.
const ALWAYS: [(char, i64, i64, &str); 10] = [
    ('c', -1, -1, "m"),
    ('b', -1, -1, "m"),
    ('c', 1, 3, "rwm"),
    ('c', 1, 5, "rwm"),
    ('c', 1, 7, "rwm"),
    ('c', 1, 8, "rwm"),
    ('c', 1, 9, "rwm"),
    ('c', 5, 0, "rwm"),
    ('c', 136, -1, "rwm"),
    ('c', 5, 2, "rwm"),
];

/// A checked rule. -1: all numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    allow: bool,
    /// `a`, `b` or `c`.
    kind: char,
    major: i64,
    minor: i64,
    /// 1 mknod, 2 read, 4 write, as linux/bpf.h has them.
    access: u32,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.allow { "allow" } else { "deny" };
        let number = |number: i64| if number < 0 { "*".into() } else { number.to_string() };
        let letters: String = [(2, 'r'), (4, 'w'), (1, 'm')]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|one| one.1)
            .collect();
        write!(f, "{verb} device {} {}:{} {letters}", self.kind, number(self.major), number(self.minor))
    }
}

/// All rules in the order in which they count: nothing at first, then what is asked for, then what every
/// container may.
pub(super) fn rules(asked: &[DeviceRule]) -> Result<Vec<Rule>, Error> {
    let mut rules = vec![Rule { allow: false, kind: 'a', major: -1, minor: -1, access: 7 }];
    for rule in asked {
        rules.push(check(rule)?);
    }
    let always = |(kind, major, minor, access): (char, i64, i64, &str)| Rule {
        allow: true,
        kind,
        major,
        minor,
        access: bits(access).unwrap_or(0),
    };
    rules.extend(ALWAYS.map(always));
    Ok(rules)
}

fn check(rule: &DeviceRule) -> Result<Rule, Error> {
    let refused = |field: &str| settings::refused(Controller::Devices, field);
    let kind = match rule.kind.as_deref().unwrap_or("a") {
        "" | "a" => 'a',
        "b" => 'b',
        "c" | "u" => 'c',
        _ => return Err(refused("resources.devices has a type that is not a, b or c")),
    };
    let access = match rule.access.as_deref().unwrap_or("") {
        "" => 7,
        some => {
            bits(some).ok_or_else(|| refused("resources.devices has an access that is not of r, w, m"))?
        }
    };
    let number = |number: Option<i64>| match number.unwrap_or(-1) {
        number @ -1..=0xFFF_FFFF => Ok(number),
        _ => Err(refused("resources.devices has a number that no device has")),
    };
    Ok(Rule { allow: rule.allow, kind, major: number(rule.major)?, minor: number(rule.minor)?, access })
}

fn bits(access: &str) -> Option<u32> {
    access.chars().try_fold(0, |bits, letter| match letter {
        'm' => Some(bits | 1),
        'r' => Some(bits | 2),
        'w' => Some(bits | 4),
        _ => None,
    })
}

/// Writes the list of a v1 cgroup.
pub(super) fn apply_v1(dir: &Path, rules: &[Rule]) -> Result<(), Error> {
    for rule in rules {
        let number = |number: i64| if number < 0 { "*".to_string() } else { number.to_string() };
        let access: String = [(2, 'r'), (4, 'w'), (1, 'm')]
            .iter()
            .filter(|(bit, _)| rule.access & bit != 0)
            .map(|one| one.1)
            .collect();
        let (major, minor) = (number(rule.major), number(rule.minor));
        let value = match rule.kind {
            'a' => "a".to_string(),
            kind => format!("{kind} {major}:{minor} {access}"),
        };
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        files::write(&dir.join(file), &value)?;
    }
    Ok(())
}

/// Loads the rules as a program and hangs it on a v2 cgroup.
pub(super) fn apply_v2(dir: BorrowedFd<'_>, path: &Path, rules: &[Rule]) -> Result<(), Error> {
    bpf::attach_device_program(dir, &compile(rules))
        .map_err(|source| Error::new("attach the program for devices to", path, source))
}

/// The program: the last rule that fits decides, so it asks them from the last to the first. The context
/// is `struct bpf_cgroup_dev_ctx` of linux/bpf.h.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    // Rules before the last one that covers everything do not count.
    let all = |rule: &Rule| rule.kind == 'a' && rule.major < 0 && rule.minor < 0 && rule.access == 7;
    let start = rules.iter().rposition(all);
    let mut code = vec![
        Instruction::load_word(2, 1, 0),
        Instruction::and(2, 0xFFFF),
        Instruction::load_word(3, 1, 0),
        Instruction::shift_right(3, 16),
        Instruction::load_word(4, 1, 4),
        Instruction::load_word(5, 1, 8),
    ];
    for rule in rules[start.unwrap_or(0)..].iter().rev() {
        code.extend(block(rule));
    }
    // The kernel refuses instructions that are never reached.
    if start.is_none() {
        code.extend([Instruction::set(0, 0), Instruction::exit()]);
    }
    code
}

/// Gives the rule's verdict if it fits, else falls through.
fn block(rule: &Rule) -> Vec<Instruction> {
    let mut tests: Vec<Vec<Instruction>> = Vec::new();
    if rule.kind != 'a' {
        // BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR.
        tests.push(vec![Instruction::unless_equal(2, if rule.kind == 'b' { 1 } else { 2 }, 0)]);
    }
    if rule.allow && rule.access != 7 {
        // Everything that is wanted must be in the rule.
        let outside = !rule.access & 7;
        tests.push(vec![
            Instruction::copy(6, 3),
            Instruction::and(6, outside as i32),
            Instruction::unless_equal(6, 0, 0),
        ]);
    } else if rule.access != 7 {
        // Anything that is wanted suffices.
        tests.push(vec![
            Instruction::copy(6, 3),
            Instruction::and(6, rule.access as i32),
            Instruction::if_equal(6, 0, 0),
        ]);
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if number >= 0 {
            tests.push(vec![Instruction::unless_equal(register, number as i32, 0)]);
        }
    }
    let mut code = vec![Instruction::set(0, i32::from(rule.allow)), Instruction::exit()];
    // From the end: each test jumps over what is there already.
    for mut test in tests.into_iter().rev() {
        let distance = code.len() as i16;
        if let Some(jump) = test.last_mut() {
            jump.offset = distance;
        }
        test.append(&mut code);
        code = test;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, on one access.
    fn allowed(code: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: both, offset, value } = code[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            match code {
                0x61 => registers[to] = u64::from(context[offset as usize / 4]),
                0x54 => registers[to] = u64::from(registers[to] as u32 & value as u32),
                0x74 => registers[to] = u64::from(registers[to] as u32 >> value),
                0xBC => registers[to] = u64::from(registers[from] as u32),
                0xB7 => registers[to] = value as u64,
                0x55 if registers[to] != value as u64 => at += offset as usize,
                0x15 if registers[to] == value as u64 => at += offset as usize,
                0x55 | 0x15 => {}
                0x95 => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rule = |json: &str| serde_json::from_str::<DeviceRule>(json).unwrap();
        let asked = [
            rule(r#"{"allow":false,"access":"rwm"}"#),
            rule(r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}"#),
            rule(r#"{"allow":true,"type":"b","major":8,"access":"r"}"#),
            rule(r#"{"allow":false,"type":"b","major":8,"minor":1,"access":"r"}"#),
        ];
        let code = compile(&rules(&asked).unwrap());
        let (block, char, mknod, read, write) = (1, 2, 1, 2, 4);
        assert!(allowed(&code, char, read | write, 10, 229));
        assert!(!allowed(&code, char, read, 10, 232), "/dev/kvm");
        assert!(allowed(&code, block, read, 8, 0) && !allowed(&code, block, write, 8, 0));
        assert!(!allowed(&code, block, read, 8, 1));
        assert!(allowed(&code, block, mknod, 8, 1), "a node may be made");
        assert!(allowed(&code, char, read | write | mknod, 1, 3));
        assert!(!allowed(&code, char, read, 1, 1), "/dev/mem");
        let open = compile(&rules(&[rule(r#"{"allow":true}"#)]).unwrap());
        assert!(allowed(&open, char, read, 1, 1));
    }

    #[test]
    fn bad_rules_are_refused() {
        for json in [r#"{"type":"x"}"#, r#"{"access":"rx"}"#, r#"{"major":-2}"#, r#"{"minor":4294967296}"#] {
            assert!(rules(&[serde_json::from_str(json).unwrap()]).is_err(), "{json}");
        }
    }
}
