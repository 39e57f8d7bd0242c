//! What the verbs that speak to registries have in common.

use hv_image::content::Store;
use hv_image::dirs::Dirs;
use hv_image::reference::{self, Reference};
use hv_image::registry::auth::Source;
use hv_image::registry::{Keyring, Registries, RegistryError, Settings};

use crate::cli::image::registry::ConnectionArgs;
use crate::error::{Failure, Result};

/// The settings of this user, and what was typed.
pub fn settings(
    connection: &ConnectionArgs,
    registry: impl FnOnce(&Settings) -> Result<String>,
) -> Result<Settings> {
    let mut settings = Settings::of_this_user()?;
    if connection.plain_http {
        let registry = registry(&settings)?;
        settings.plain_http.push(registry);
    }
    Ok(settings)
}

/// The registries, and the name that was typed.
pub fn named(
    connection: &ConnectionArgs,
    parallel: Option<u8>,
    name: &str,
) -> Result<(Registries, Reference)> {
    let parse = |settings: &Settings| Reference::parse(name, &settings.default_registry);
    let mut settings = settings(connection, |settings| Ok(parse(settings)?.registry().to_owned()))?;
    if let Some(parallel) = parallel {
        settings.parallel = parallel.into();
    }
    let name = parse(&settings)?;
    Ok((Registries::new(settings, Source::Keyring(Keyring::of_this_user())), name))
}

/// A registry that was typed, or the default one.
pub fn registry(typed: Option<&str>, settings: &Settings) -> Result<String> {
    Ok(reference::parse_registry(typed.unwrap_or(&settings.default_registry))?)
}

/// The store of this user.
pub fn store() -> Result<Store> {
    Ok(Store::of(&Dirs::of_this_user()?))
}

/// A failure, with advice where there is some.
pub fn failed(error: RegistryError, registry: &str) -> Failure {
    let hint = match error.status() {
        Some(401 | 403) => {
            Some(format!("if there is such an image and it is not for everybody: hv login {registry}"))
        }
        Some(404) => Some(format!(
            "is the name right? `hv image tags` and `hv image search {registry}/` show what there is"
        )),
        Some(429) => Some(format!(
            "the registry asks for less; who is logged in may often do more: hv login {registry}"
        )),
        _ => None,
    };
    match hint {
        Some(hint) => Failure::from(error).hint(hint),
        None => Failure::from(error),
    }
}
