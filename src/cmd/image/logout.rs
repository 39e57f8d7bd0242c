//! `hv logout`: forgets a user and a password.

use hv_image::registry::{Keyring, Settings};

use super::print;
use super::registries::registry;
use crate::cli::image::LogoutArgs;
use crate::error::Result;

/// Forgets what is kept for a registry.
///
/// # Errors
/// A file or a helper cannot be changed.
pub fn run(args: &LogoutArgs) -> Result<u8> {
    let host = registry(args.registry.as_deref(), &Settings::of_this_user()?)?;
    let word = if Keyring::of_this_user().forget(&host)? { "logged out of" } else { "was not logged in to" };
    print(&format!("{word} {host}\n"))?;
    Ok(0)
}
