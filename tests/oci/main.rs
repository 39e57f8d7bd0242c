//! `hv oci` as engines call it: each verb on bundles of its own, the rules of processes, and what must
//! not be possible. `vm::`: the same bundles as microVMs. `ctr::` tests run natively (cgroup v1 beside v2) and in the testbed (v2).

#[path = "../support/mod.rs"]
mod support;

mod bundle;
mod clients;
mod vm;

mod ctr {
    mod front;
    mod lifecycle;
    mod notify;
    mod process;
    mod races;
    mod rootless;
    mod world;
}
