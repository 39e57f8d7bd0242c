//! Images in and out of the store: OCI layouts (directories and archives), docker's archives, plain root tars.
//!
//! `source`: a directory or an archive as files by name; `load`: images from there; `save`: images to there;
//! `import`: a tar of a root file system becomes an image; `write`: tar headers.

mod import;
mod load;
mod save;
mod source;
mod write;

pub use load::Loaded;
pub use source::Source;
