//! `hv image search`: which repositories a registry has.

use hv_image::registry::auth::Source;
use hv_image::registry::list::{self, Found};
use hv_image::registry::{Keyring, Registries};

use super::registries::{failed, registry, settings};
use super::{print, print_json};
use crate::cli::image::SearchArgs;
use crate::error::Result;

/// Prints a repository a line.
///
/// # Errors
/// The registry does not say.
pub fn run(args: &SearchArgs) -> Result<u8> {
    let (host, word) = split(&args.word);
    let settings = settings(&args.connection, |settings| registry(host, settings))?;
    let host = registry(host, &settings)?;
    let registries = Registries::new(settings, Source::Keyring(Keyring::of_this_user()));
    let found = list::search(&registries.client(&host), &host, word).map_err(|error| failed(error, &host))?;
    match args.json {
        true => print_json(&found)?,
        false => print(&found.iter().map(line).collect::<String>())?,
    }
    Ok(0)
}

/// A registry before the first `/`, as in names.
fn split(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((host, word)) if host == "localhost" || host.contains(['.', ':']) => (Some(host), word),
        _ => (None, text),
    }
}

fn line(found: &Found) -> String {
    match (&found.description, found.stars) {
        (None, None) => format!("{}\n", found.name),
        (description, stars) => {
            let (name, text) = (&found.name, description.as_deref().unwrap_or_default());
            format!("{name:<40} {:>6}  {text}\n", stars.unwrap_or(0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_comes_before_the_word() {
        assert_eq!(split("nginx"), (None, "nginx"));
        assert_eq!(split("team/app"), (None, "team/app"));
        assert_eq!(split("localhost:5000/team/app"), (Some("localhost:5000"), "team/app"));
        assert_eq!(split("r.example/"), (Some("r.example"), ""));
    }
}
