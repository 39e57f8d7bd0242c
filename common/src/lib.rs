//! Words and mechanisms that both kinds of sandbox share.
//!
//! # Layout
//! - [`spec`]: what to run and with what limits ([`Spec`], [`Process`], [`Limits`]); [`root`]: the opened image.
//! - [`sandbox`]: the traits [`Backend`] and [`Sandbox`] that every kind implements; [`exit`]: how a workload ended.
//! - [`cgroup`]: control groups, v2, v1 and hybrid.
//! - [`link`]: network interfaces by the routing socket.
//! - [`phase`]: named instants on one host clock.
//! - [`state`]: what runs on this host, and how to clean up after it; [`procfs`]: what /proc says.
//! - [`drill`]: harmless attempts to get out of a sandbox, made from inside.
//! - [`seccomp`]: system-call filters.
//! - [`landlock`]: what a workload may do with which files.
//! - [`starter`]: turns the current process into the workload.
//! - [`wire`]: what the monitor and hv-init say to each other.
//! - [`work`]: what hv-probe says about a workload inside.
//! - [`sys`]: the only unsafe code of this crate.
//!
//! Nothing here knows KVM, and nothing here makes a namespace.

pub mod cgroup;
pub mod drill;
pub mod exit;
pub mod kind;
pub mod landlock;
pub mod link;
pub mod phase;
pub mod procfs;
pub mod root;
pub mod sandbox;
pub mod seccomp;
pub mod spec;
pub mod starter;
pub mod state;
pub mod sys;
pub mod wire;
pub mod work;

pub use exit::Exit;
pub use kind::{Kind, Wall};
pub use phase::{Phase, Timeline};
pub use root::{Format, Root};
pub use sandbox::{
    Backend, Balloon, Counters, Crossings, Metrics, Pause, PowerButton, Sandbox, SandboxError, StartError,
    Stdio,
};
pub use spec::{Id, Limits, Process, Program, Spec};
