//! What hv does with bytes that somebody else chose: one function for each kind of such bytes, to be called with
//! anything. It fails by panicking (an overflow is a panic too), by not ending, or by using too much memory.
//!
//! - [`target`]: the list. [`devices`], [`registers`]: a guest's side. [`files`]: kernels and archives.
//!   [`layers`]: images' layers, and [`erofs`], which reads what they became. [`words`]: what is typed, asked for and said.
//! - [`rig`]: a virtio device on queue memory, driven by the bytes of an [`input`].
//! - [`mutate`]: changes inputs, for runs without libFuzzer. [`seeds`]: where inputs begin.
//!
//! The same bodies run in two ways: `fuzz_targets/` are libFuzzer's programs (`cargo xtask fuzz`), guided by what of
//! hv's code an input reaches; `tests/bodies.rs` runs every seed and some thousands of mutated ones in every
//! ordinary test run.
#![forbid(unsafe_code)]

pub mod devices;
pub mod erofs;
pub mod files;
pub mod input;
pub mod layers;
pub mod mutate;
pub mod registers;
pub mod rig;
pub mod seeds;
pub mod target;
pub mod words;

/// Runs the target of this name on this input.
///
/// # Panics
/// The target has found something, or there is none of this name.
pub fn run(name: &str, data: &[u8]) {
    match target::ALL.iter().find(|target| target.name == name) {
        Some(target) => (target.body)(data),
        None => panic!("there is no target {name}"),
    }
}
