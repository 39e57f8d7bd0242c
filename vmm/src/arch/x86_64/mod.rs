//! A processor's state before the guest's first instruction.

pub mod cpuid;
pub mod msrs;
pub mod registers;
pub mod template;
