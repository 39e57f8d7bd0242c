//! hv's own program file, out of reach of containers (CVE-2019-5736).
//!
//! The process that becomes a container's program is hv until it is executed, so that `/proc/self/exe`
//! leads to hv's own file: an image that executes it could then write to that file. So hv executes itself
//! again beforehand, from a read-only mount of its file that is attached nowhere, or, where such a mount
//! may not be made, from a sealed copy in memory.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use hv_container::oci::seal;

use super::{Fault, Result};

/// By which name a sealed hv finds the file that it was: hv-init is beside it.
const PROGRAM: &str = "HV_PROGRAM";

/// hv's own file, sealed or not.
pub fn program() -> PathBuf {
    std::env::var_os(PROGRAM).map_or_else(|| "/proc/self/exe".into(), PathBuf::from)
}

/// Returns only in a process whose program file cannot be written through.
pub fn ensure() -> Result<()> {
    let failed = |source: std::io::Error| Fault::because("cannot protect hv's own program file", source);
    if seal::is_sealed().map_err(failed)? {
        return Ok(());
    }
    let program: OwnedFd = seal::sealed_program().map_err(failed)?;
    let text = |bytes: &[u8]| CString::new(bytes).unwrap_or_default();
    let args = std::env::args_os().map(|arg| text(arg.as_bytes())).collect();
    let env =
        std::env::vars_os().map(|(name, value)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat()));
    let own = std::env::current_exe().map_err(failed)?;
    let own = text(&[PROGRAM.as_bytes(), b"=", own.as_os_str().as_bytes()].concat());
    Err(failed(seal::execute(program.as_fd(), args, env.chain([own]).collect())))
}
