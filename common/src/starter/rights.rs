//! [`Privileges`] as they travel to a guest: what hv-init gives the workload beyond its user's rights.

use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::{Capabilities, Privileges};

/// What a process in a guest may do, where somebody says so; else it keeps all that its user has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Bounding, effective, permitted, inheritable, ambient, as bits by number; None: all that the user has.
    capabilities: Option<[u64; 5]>,
    no_new_privs: bool,
    /// Instructions: code, jt, jf, k of `struct sock_filter` (linux/filter.h).
    seccomp: Vec<(u16, u8, u8, u32)>,
    seccomp_flags: u32,
    groups: Option<Vec<u32>>,
    limits: Option<Vec<(u32, u64, u64)>>,
    umask: u32,
}

impl From<&Privileges> for Rights {
    fn from(all: &Privileges) -> Rights {
        let bits = |sets: &Capabilities| {
            [sets.bounding, sets.effective, sets.permitted, sets.inheritable, sets.ambient]
                .map(|set| set.bits())
        };
        Rights {
            capabilities: all.capabilities.as_ref().map(bits),
            no_new_privs: all.no_new_privs,
            seccomp: all.seccomp.iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect(),
            seccomp_flags: all.seccomp_flags,
            groups: all.groups.clone(),
            limits: all.limits.clone(),
            umask: all.umask,
        }
    }
}

impl From<&Rights> for Privileges {
    fn from(rights: &Rights) -> Privileges {
        let sets = |bits: [u64; 5]| {
            let [bounding, effective, permitted, inheritable, ambient] =
                bits.map(CapabilitySet::from_bits_retain);
            Capabilities { bounding, effective, permitted, inheritable, ambient, root_only: false }
        };
        let instruction = |&(code, jt, jf, k): &(u16, u8, u8, u32)| libc::sock_filter { code, jt, jf, k };
        Privileges {
            capabilities: rights.capabilities.map(sets),
            no_new_privs: rights.no_new_privs,
            seccomp: rights.seccomp.iter().map(instruction).collect(),
            seccomp_flags: rights.seccomp_flags,
            groups: rights.groups.clone(),
            limits: rights.limits.clone(),
            umask: rights.umask,
            ..Privileges::all()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_what_was_sent() {
        let filter = vec![libc::sock_filter { code: 6, jt: 1, jf: 2, k: 0x7fff_0000 }];
        let mut sent = Privileges { umask: 0o77, groups: Some(vec![5]), ..Privileges::container(filter) };
        sent.limits = Some(vec![(7, 1, 2)]);
        if let Some(sets) = &mut sent.capabilities {
            sets.root_only = false;
        }
        let arrived = Privileges::from(&Rights::from(&sent));
        assert_eq!(format!("{arrived:?}"), format!("{sent:?}"));
        let all = Privileges::from(&Rights::from(&Privileges::all()));
        assert_eq!(format!("{all:?}"), format!("{:?}", Privileges::all()));
    }
}
