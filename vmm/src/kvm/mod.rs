//! The host's side of the machine: ioctls on /dev/kvm, its VM and its vCPUs, with errors that say
//! what the user can do.

pub mod exit;
mod routes;
pub mod stats;
pub mod vcpu;
pub mod vm;

use std::io;

use kvm_bindings::{CpuId, KVM_API_VERSION, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::VmFd;

/// What went wrong with KVM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is not there.
    #[error(
        "cannot open /dev/kvm: this host offers no KVM; load its module (`modprobe kvm-intel` or `kvm-amd`), \
         or enable virtualisation in the firmware, or nested virtualisation if this is a VM"
    )]
    Missing(#[source] io::Error),
    /// The device is there but not for this user.
    #[error("cannot open /dev/kvm: this user may not use it; add the user to the group that owns it")]
    Denied(#[source] io::Error),
    /// Something else holds the processor's virtualisation.
    #[error(
        "cannot {0}: another hypervisor on this host holds the processor's virtualisation; stop it first"
    )]
    Busy(&'static str, #[source] io::Error),
    /// An interface nobody has seen since 2007.
    #[error("/dev/kvm speaks API version {0}, not {KVM_API_VERSION}")]
    ApiVersion(i32),
    /// An ioctl failed.
    #[error("KVM cannot {operation}")]
    Ioctl {
        /// In words.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Why /dev/kvm could not be opened, by error number.
    fn open(errno: i32) -> Error {
        let source = io::Error::from_raw_os_error(errno);
        match errno {
            libc::ENOENT | libc::ENXIO | libc::ENODEV => Error::Missing(source),
            libc::EACCES | libc::EPERM => Error::Denied(source),
            libc::EBUSY => Error::Busy("open /dev/kvm", source),
            _ => Error::Ioctl { operation: "be opened", source },
        }
    }

    fn ioctl(operation: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
        move |error| {
            let source = io::Error::from_raw_os_error(error.errno());
            match error.errno() {
                libc::EBUSY => Error::Busy(operation, source),
                _ => Error::Ioctl { operation, source },
            }
        }
    }
}

/// /dev/kvm, opened.
pub struct Kvm(kvm_ioctls::Kvm);

impl Kvm {
    /// Opens /dev/kvm.
    ///
    /// # Errors
    /// There is none, or not for this user, or not of the known version.
    pub fn open() -> Result<Kvm, Error> {
        let kvm = kvm_ioctls::Kvm::new().map_err(|error| Error::open(error.errno()))?;
        match kvm.get_api_version() {
            version if version == KVM_API_VERSION as i32 => Ok(Kvm(kvm)),
            version => Err(Error::ApiVersion(version)),
        }
    }

    /// What of the host's CPUID KVM can give to a guest.
    ///
    /// # Errors
    /// As the ioctl.
    pub fn supported_cpuid(&self) -> Result<CpuId, Error> {
        self.0.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::ioctl("tell what CPUID it supports"))
    }

    /// An empty virtual machine. A signal that arrives meanwhile (a timer of the caller, say) makes
    /// the kernel give up, so the call is repeated.
    fn create_vm(&self) -> Result<VmFd, Error> {
        loop {
            match self.0.create_vm() {
                Err(error) if error.errno() == libc::EINTR => {}
                other => return other.map_err(Error::ioctl("create a virtual machine")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_kvm_is_told_what_to_do() {
        assert!(Error::open(libc::ENOENT).to_string().contains("modprobe"));
        assert!(Error::open(libc::EACCES).to_string().contains("group"));
        let busy = Error::ioctl("create a virtual machine")(kvm_ioctls::Error::new(libc::EBUSY));
        assert!(busy.to_string().contains("another hypervisor"), "{busy}");
    }
}
