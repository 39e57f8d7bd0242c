//! A cgroup around a microVM's monitor, so that the kernel's own figure can be read.
//!
//! A container has a cgroup of its own. A microVM's monitor stays in that of whoever started it:
//! moving into another costs a start an RCU grace period, and the VM is its own limit. To measure it,
//! the harness steps into a fresh cgroup before it starts hv, and out again after: hv is born in it,
//! and the time that this takes falls outside what is measured. A runtime that knows no limits is held by such a
//! cgroup, too.

use hv_common::cgroup::{Cgroup, Layout};
use hv_common::{Id, Limits};

use crate::error::Result;

/// The cgroup of one launch; removed when dropped, after hv has ended.
pub struct Enclosure {
    outside: Layout,
    cgroup: Option<Cgroup>,
}

impl Enclosure {
    /// Steps into a cgroup with these limits, named after the sandbox, if one can be made.
    ///
    /// # Errors
    /// This process cannot be moved, or a limit cannot be set.
    pub fn enter(limits: &Limits, id: &Id) -> Result<Enclosure> {
        let outside = Layout::detect()?;
        let cgroup = Cgroup::create_in(&outside, id, limits)?;
        if let Some(cgroup) = &cgroup {
            cgroup.add(std::process::id() as i32)?;
        }
        Ok(Enclosure { outside, cgroup })
    }

    /// Steps out again; what was started meanwhile stays in.
    ///
    /// # Errors
    /// This process cannot be moved.
    pub fn leave(&self) -> Result<()> {
        match self.cgroup {
            Some(_) => Ok(self.outside.rejoin(std::process::id() as i32)?),
            None => Ok(()),
        }
    }
}

impl Drop for Enclosure {
    fn drop(&mut self) {
        // The cgroup cannot go while this process is in it, as after a start that failed.
        let _ = self.leave();
    }
}
