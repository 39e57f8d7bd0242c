//! What differs between processor architectures.

pub mod x86_64;
