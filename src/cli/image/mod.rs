//! What is done with images: `hv image VERB`, and the verbs that people type without `image`.

pub mod registry;
pub mod store;

use std::path::PathBuf;

use clap::Subcommand;

pub use self::registry::{LoginArgs, LogoutArgs, PullArgs, PushArgs, SearchArgs, TagsArgs};
pub use self::store::{FsckArgs, HistoryArgs, ImportArgs, InspectArgs, JsonArgs, LoadArgs, LsArgs, SaveArgs};

/// Examples of `hv image`.
pub const EXAMPLES: &str = "\
An image is named as registries name it (alpine, ghcr.io/owner/app:1.2), or by
the start of its digest. The store is an OCI image layout, which skopeo and
umoci read too; `hv images` is `hv image ls`.

Example: hv image pull alpine
         hv image load debian.tar
         hv image ls --json
         hv ctr alpine -- sh
         hv vm alpine -- sh";

/// What can be done with images.
#[derive(Debug, Clone, Subcommand)]
pub enum ImageVerb {
    /// Show the images
    #[command(visible_alias = "list", after_help = store::LS_EXAMPLES)]
    Ls(LsArgs),
    /// Store the images of an OCI layout (directory or tar) or of docker's archive
    #[command(
        after_help = "Example: docker save alpine | hv image load\n         hv image load ./layout --name mine:1"
    )]
    Load(LoadArgs),
    /// Write images as one tar: an OCI layout that `docker load` takes too
    #[command(
        after_help = "Example: hv image save alpine debian -o both.tar\n         hv image save alpine --layout ./dir"
    )]
    Save(SaveArgs),
    /// Make an image of a tar of a root file system
    #[command(
        after_help = "Example: hv image import rootfs.tar.gz mine:1\n         tar -C ./rootdir -c . | hv image import - mine:1"
    )]
    Import(ImportArgs),
    /// Write an image's files, all layers merged, as one tar
    #[command(after_help = "Example: hv image export alpine | tar -t")]
    Export {
        /// The image
        image: String,
        /// The file [default: standard output, if that is no terminal]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Give an image another name
    #[command(after_help = "Example: hv image tag alpine mine:1")]
    Tag {
        /// The image
        image: String,
        /// Its further name
        name: String,
    },
    /// Remove names, and the images that have no other
    #[command(visible_alias = "remove", after_help = "Example: hv image rm alpine")]
    Rm {
        /// Names, or (starts of) digests: then all names of that image
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Show what an image says of itself, and the file that both kinds start, as JSON
    #[command(after_help = "Example: hv image inspect alpine")]
    Inspect(InspectArgs),
    /// Show how an image came to be, the newest step first
    #[command(after_help = "Example: hv image history alpine")]
    History(HistoryArgs),
    /// Remove images without a name, downloads that were not finished, and files of images that are gone
    #[command(after_help = "Example: hv image prune")]
    Prune(JsonArgs),
    /// Read every blob, and remove what is damaged
    #[command(after_help = store::FSCK_EXAMPLES)]
    Fsck(FsckArgs),
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
