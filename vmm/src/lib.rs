//! The microVM: a Linux guest on KVM vCPUs with as few devices as it needs.
//!
//! # Layout
//! - [`device`]: the trait that every device implements, and the machine's own devices; [`bus`]: address to device;
//!   [`event_loop`]: the thread that waits for all of them.
//! - [`memory`]: where things are in the guest's address space, and how its memory is mapped.
//! - [`gate`]: how all of a machine's threads are held.
//! - [`kvm`]: the ioctls; [`arch`]: a processor's state before its first instruction; [`end`]: how a machine ended.
//! - [`boot`]: what stands in memory before the first instruction; [`acpi`]: the tables that describe the machine.
//! - [`hardware`]: what a machine is built on; [`guest`]: a machine from its description to its running vCPUs, in the order of [`recipe`]; [`settings`]: its size.
//! - [`agent`]: the monitor's side of hv-init; [`failure`]: why a guest gave no result; [`backend`]: a spec to a sandbox.
//! - [`walls`]: what stands around the monitor: [`seccomp`], what system calls each thread may make; [`jail`], what it gives up; [`broker`], what is done for it from outside.
//! - [`probe`]: whether this host's KVM runs a guest kernel natively.
//!
//! Unsafe code is in [`kvm`] and [`memory`] only.

#[forbid(unsafe_code)]
pub mod acpi;
#[forbid(unsafe_code)]
pub mod agent;
#[forbid(unsafe_code)]
pub mod arch;
#[forbid(unsafe_code)]
pub mod backend;
#[forbid(unsafe_code)]
pub mod boot;
#[forbid(unsafe_code)]
pub mod broker;
#[forbid(unsafe_code)]
pub mod bus;
#[forbid(unsafe_code)]
pub mod device;
#[forbid(unsafe_code)]
pub mod end;
#[forbid(unsafe_code)]
pub mod event_loop;
#[forbid(unsafe_code)]
pub mod failure;
#[forbid(unsafe_code)]
pub mod gate;
#[forbid(unsafe_code)]
pub mod guest;
#[forbid(unsafe_code)]
pub mod hardware;
#[forbid(unsafe_code)]
pub mod jail;
pub mod kvm;
pub mod memory;
#[forbid(unsafe_code)]
pub mod probe;
#[forbid(unsafe_code)]
pub mod recipe;
#[forbid(unsafe_code)]
pub mod seccomp;
#[forbid(unsafe_code)]
pub mod settings;
#[forbid(unsafe_code)]
mod threads;
#[forbid(unsafe_code)]
pub mod walls;

pub use backend::{AddedDisk, ConsoleDevice, Kvm, Machine};
pub use probe::{ProbeError, runs_guest_kernel_code};
