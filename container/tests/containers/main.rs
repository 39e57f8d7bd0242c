//! Starts real containers. All tests are below `ctr`, so that they run on this machine and in the
//! testbed, where the kernel is older and the cgroups are v2.

#[macro_use]
mod support;
mod ctr;
