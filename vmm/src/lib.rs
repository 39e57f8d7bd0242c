//! The microVM: a Linux guest on KVM vCPUs with as few devices as it needs.
//!
//! # Layout
//! - [`device`]: the trait that every device implements, and the machine's own devices; [`bus`]: address to device;
//!   [`event_loop`]: the thread that waits for all of them.
//! - [`memory`]: where things are in the guest's address space, and how its memory is mapped.
//! - [`kvm`]: the ioctls; [`arch`]: a processor's state before its first instruction; [`end`]: how a machine ended.
//! - [`boot`]: what stands in memory before the first instruction; [`acpi`]: the tables that describe the machine.

pub mod acpi;
pub mod arch;
pub mod boot;
pub mod bus;
pub mod device;
pub mod end;
pub mod event_loop;
pub mod guest;
pub mod kvm;
pub mod memory;
pub mod recipe;
pub mod settings;
