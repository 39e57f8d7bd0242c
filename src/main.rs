//! hv
fn main() {}
