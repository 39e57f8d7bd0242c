//! CPU templates: which processor a guest sees.
//!
//! - [`CpuTemplate::Host`]: all that the host's has and KVM can give: the fastest, and another one on each host.
//! - [`portable`]: the same on every host of a vendor.
//! - [`mod@file`]: the user's own, from a JSON file (docs/cpu-templates.md).
//!
//! Whatever the template says, topology and identities of the vCPUs are the machine's own: see
//! [`super::cpuid`], which applies templates.

pub mod file;
pub mod portable;

use std::fmt;

use kvm_bindings::kvm_cpuid_entry2;

/// Which processor the guest sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CpuTemplate {
    /// The host's, as far as KVM can give it.
    #[default]
    Host,
    /// A fixed one that every host of the last ten years can give.
    Portable,
    /// One of these two, changed.
    Custom(Custom),
}

impl CpuTemplate {
    /// What it starts from: whether the processor is the portable one.
    pub fn is_portable(&self) -> bool {
        matches!(self, CpuTemplate::Portable | CpuTemplate::Custom(Custom { portable: true, .. }))
    }

    /// The changes to what it starts from.
    pub fn changes(&self) -> &[Change] {
        if let CpuTemplate::Custom(custom) = self { &custom.cpuid } else { &[] }
    }

    /// Model-specific registers to set, after CPUID: KVM looks there which of them a guest has.
    pub fn msrs(&self) -> &[Msr] {
        if let CpuTemplate::Custom(custom) = self { &custom.msrs } else { &[] }
    }
}

/// A template of the user's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Custom {
    /// It starts from the portable processor, not the host's.
    pub portable: bool,
    /// What it changes.
    pub cpuid: Vec<Change>,
    /// What it sets.
    pub msrs: Vec<Msr>,
}

/// A change of one register of one leaf: `value & keep | set`, on a host that has all bits of `require`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub place: Place,
    /// Bits that stay as they are.
    pub keep: u32,
    /// Bits that are set.
    pub set: u32,
    /// Bits that the host must have.
    pub require: u32,
}

/// A model-specific register's value at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Msr {
    /// Its number.
    pub index: u32,
    /// Its value.
    pub value: u64,
}

/// One register of CPUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// EAX before the instruction.
    pub leaf: u32,
    /// ECX before the instruction; 0 where it does not matter.
    pub index: u32,
    /// Which of the four that the instruction fills.
    pub register: Register,
}

/// A register that CPUID fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

impl Register {
    /// Its value in an entry.
    pub fn of(self, entry: &mut kvm_cpuid_entry2) -> &mut u32 {
        match self {
            Register::Eax => &mut entry.eax,
            Register::Ebx => &mut entry.ebx,
            Register::Ecx => &mut entry.ecx,
            Register::Edx => &mut entry.edx,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let register = match self.register {
            Register::Eax => "eax",
            Register::Ebx => "ebx",
            Register::Ecx => "ecx",
            Register::Edx => "edx",
        };
        write!(f, "leaf {:#x}, index {}, register {register}", self.leaf, self.index)
    }
}

/// The host's processor, or its KVM, lacks what a template needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this host cannot give the guest the processor of its CPU template: CPUID {place} lacks the bits {bits:#010x}; \
     use another --cpu-template, or another host"
)]
pub struct Missing {
    /// Where.
    pub place: Place,
    /// Which bits.
    pub bits: u32,
}

/// Whether CPUID has all these bits.
///
/// # Errors
/// It has not: says which.
pub fn require(entries: &[kvm_cpuid_entry2], place: Place, bits: u32) -> Result<(), Missing> {
    let found = entries.iter().find(|entry| (entry.function, entry.index) == (place.leaf, place.index));
    let value = found.map_or(0, |entry| *place.register.of(&mut entry.clone()));
    match bits & !value {
        0 => Ok(()),
        bits => Err(Missing { place, bits }),
    }
}

/// Makes the changes. `host` is what they require their bits of.
///
/// # Errors
/// The host lacks bits, or a leaf that bits are set in.
pub fn change(
    entries: &mut [kvm_cpuid_entry2],
    host: &[kvm_cpuid_entry2],
    changes: &[Change],
) -> Result<(), Missing> {
    for Change { place, keep, set, require: needed } in changes {
        require(host, *place, *needed)?;
        let found =
            entries.iter_mut().find(|entry| (entry.function, entry.index) == (place.leaf, place.index));
        match found {
            Some(entry) => {
                let register = place.register.of(entry);
                *register = *register & keep | set;
            }
            // Nothing is there to be kept.
            None if *set == 0 => {}
            None => return Err(Missing { place: *place, bits: *set }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { leaf: 7, index: 0, register: Register::Ebx };

    fn entries() -> Vec<kvm_cpuid_entry2> {
        vec![kvm_cpuid_entry2 { function: 7, ebx: 0b1100, ..Default::default() }]
    }

    #[test]
    fn keeps_then_sets() {
        let mut changed = entries();
        let one = Change { place: PLACE, keep: 0b0110, set: 0b0001, require: 0b1000 };
        change(&mut changed, &entries(), &[one]).unwrap();
        assert_eq!(changed[0].ebx, 0b0101);
    }

    #[test]
    fn what_the_host_lacks_is_named() {
        let lacking = Change { place: PLACE, keep: !0, set: 0, require: 0b0111 };
        let error = change(&mut entries(), &entries(), &[lacking]).unwrap_err();
        assert_eq!(error.bits, 0b0011);
        let text = error.to_string();
        assert!(text.contains("leaf 0x7, index 0, register ebx lacks the bits 0x00000003"), "{text}");
        let absent = Place { leaf: 0x99, ..PLACE };
        let set = Change { place: absent, keep: !0, set: 1, require: 0 };
        assert_eq!(change(&mut entries(), &entries(), &[set]), Err(Missing { place: absent, bits: 1 }));
        let hide = Change { place: absent, keep: 0, set: 0, require: 0 };
        change(&mut entries(), &entries(), &[hide]).unwrap();
    }
}
