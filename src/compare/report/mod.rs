//! What the comparison shows.

pub mod text;
