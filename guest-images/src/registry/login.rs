//! Whether a registry takes what the user would show it.

use super::http::Call;
use super::{Registries, RegistryError};

/// Asks the registry for nothing but an answer, as whoever `registries` says.
///
/// # Errors
/// It does not take the credentials, or cannot be reached.
pub fn check(registries: &Registries, registry: &str) -> Result<(), RegistryError> {
    let client = registries.client(registry);
    let call = Call::get(format!("log in to {registry}"), client.url().at("/v2/"));
    client.insist(&call, "", &[200]).map(drop)
}
