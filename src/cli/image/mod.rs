//! What is done with images: `hv image VERB`, and the verbs that people type without `image`.

pub mod registry;

use clap::Subcommand;

pub use self::registry::{LoginArgs, LogoutArgs, PullArgs, PushArgs, SearchArgs, TagsArgs};

/// Examples of `hv image`.
pub const EXAMPLES: &str = "\
Images are kept in ~/.local/share/hv/images, root's in /var/lib/hv/images.

Example: hv image pull alpine && hv image tags alpine";

/// What can be done with images.
#[derive(Debug, Clone, Subcommand)]
pub enum ImageVerb {
    /// Get images from a registry
    #[command(after_help = registry::PULL_EXAMPLES)]
    Pull(PullArgs),
    /// Send an image to a registry
    #[command(after_help = registry::PUSH_EXAMPLES)]
    Push(PushArgs),
    /// List the tags that a registry has of an image
    #[command(after_help = registry::TAGS_EXAMPLES)]
    Tags(TagsArgs),
    /// Look for images in a registry
    #[command(after_help = registry::SEARCH_EXAMPLES)]
    Search(SearchArgs),
    /// Keep a user and a password for a registry
    #[command(after_help = registry::LOGIN_EXAMPLES)]
    Login(LoginArgs),
    /// Forget them
    #[command(after_help = registry::LOGOUT_EXAMPLES)]
    Logout(LogoutArgs),
}
