//! The container: namespaces, mounts, the ordered plan; and the bare process.
//!
//! # Layout
//! - [`Namespaces`] (`namespaces`): the recipe of a start; [`Bare`] (`bare`): the baseline without a wall.
//! - `plan`: spec and [`host`](self) facts become an ordered list of steps; `step`: what a step is, in words.
//! - `image`, `loop_device`: an image becomes a mount; `idmap`: ids of a user namespace.
//! - `spawn`: one clone3, the monitor's part; `inside`: the child's part: `apply` (one step), `mount`,
//!   `terminal`, and `init`, PID 1 while the workload runs. `report`: what it tells the monitor.
//! - `sandbox`: a running container.
//! - [`oci`]: bundles of the OCI runtime specification, made of the same steps.
//! - `sys`: system calls that rustix does not have. Beside it, unsafe code is only where a process is
//!   made (`spawn`, `bare`), in `loop_device`, and on the child's side.

mod bare;
#[forbid(unsafe_code)]
mod error;
#[forbid(unsafe_code)]
mod host;
#[forbid(unsafe_code)]
mod idmap;
#[forbid(unsafe_code)]
mod image;
mod inside;
mod loop_device;
#[forbid(unsafe_code)]
mod namespaces;
pub mod oci;
#[forbid(unsafe_code)]
mod plan;
#[forbid(unsafe_code)]
mod report;
#[forbid(unsafe_code)]
mod sandbox;
mod spawn;
#[forbid(unsafe_code)]
mod step;
mod sys;

use std::fs::File;
use std::io;

pub use bare::Bare;
pub use error::Error;
pub use loop_device::LoopDevice;
pub use namespaces::Namespaces;

/// Makes a loop device of `file` and lets it go again: what `hv check` tries.
///
/// # Errors
/// This host or this user has none.
pub fn try_loop_device(file: &File) -> io::Result<()> {
    Ok(loop_device::LoopDevice::attach(file, true).map(drop)?)
}
