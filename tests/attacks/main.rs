//! The ways out of a container, and out of a microVM, that others' flaws have opened: each is tried against
//! hv and must fail. Named by its number in docs/threat-model.md and by its CVE or class.
//!
//! `ctr::` tests run natively (cgroup v1 beside v2) and in the testbed (v2), by root and by a user who is
//! not; `vm::` tests need a running guest.

#[path = "../support/mod.rs"]
mod support;

mod drill;
mod hostile;
#[path = "../../guest-images/src/layer/tests/made.rs"]
#[allow(dead_code, reason = "tests of layers use more of it")]
mod made;
mod table;
mod trace;

mod ctr {
    mod archives;
    mod drill;
    mod entry;
    mod images;
    mod kernel;
    mod killed;
    mod landlock;
    mod mounts;
    mod privileges;
    mod seen;
}

mod vm {
    mod drill;
    mod machine;
}
