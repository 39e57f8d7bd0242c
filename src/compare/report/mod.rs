//! The forms a comparison is shown in, and reading one back.
//!
//! - [`text`]: the first screen, 80 columns, with [`beside`] for sandboxes beside each other, [`inside`] for workloads
//!   in them, [`switches`] for what each costs and [`absent`] for what is missing; [`html`]: one page with its
//!   pictures, no network;
//! - [`csv`]: a line for each launch; [`mod@file`]: the JSON with every sample, written whole and read with suspicion;
//! - [`difference`]: the table of two reports.

pub mod absent;
pub mod beside;
pub mod csv;
pub mod difference;
pub mod file;
pub mod html;
pub mod inside;
pub mod switches;
pub mod text;
