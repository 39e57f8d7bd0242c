//! What a registry has: tags of a repository, repositories of a registry.

use serde::{Deserialize, Serialize};
use ureq::http::header::LINK;

use super::client::Client;
use super::http::Call;
use super::url::Url;
use super::{RegistryError, to_pull};
use crate::reference::{DEFAULT_REGISTRY, Reference};

/// The largest page.
const MAX_PAGE: u64 = 16 << 20;
/// The most pages: a registry that never ends is not followed.
const MAX_PAGES: usize = 1000;
/// How many entries a page is asked to have.
const PAGE: &str = "1000";
/// How many results of docker.io's search are shown.
const RESULTS: &str = "50";
/// What a token is to allow for the catalog (distribution: "Token Scope Documentation").
const CATALOG: &str = "registry:catalog:*";

/// A repository that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// As it can be pulled.
    pub name: String,
    /// What its owner says of it; only docker.io says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How many like it; only docker.io says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stars: Option<u64>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<HubResult>,
}

#[derive(Deserialize)]
struct HubResult {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: Option<u64>,
}

/// The tags of a repository, in the registry's order. What is no tag is left out.
///
/// # Errors
/// There is no such repository, or it may not be read.
pub fn tags(client: &Client, name: &Reference) -> Result<Vec<String>, RegistryError> {
    let repository = name.repository();
    let doing = format!("list the tags of {}/{repository}", name.registry());
    let first = client.url().at(&format!("/v2/{repository}/tags/list")).with("n", PAGE);
    let pages =
        pages(client, &doing, first, &to_pull(repository), |page: Tags| page.tags.unwrap_or_default())?;
    let base = format!("{}/{repository}", name.registry());
    Ok(pages.into_iter().filter(|tag| format!("{base}:{tag}").parse::<Reference>().is_ok()).collect())
}

/// The repositories whose names contain `word`. docker.io is searched, others list their catalog.
///
/// # Errors
/// The registry has no catalog, or does not show it.
pub fn search(client: &Client, registry: &str, word: &str) -> Result<Vec<Found>, RegistryError> {
    if registry == DEFAULT_REGISTRY {
        return hub(client, word);
    }
    let doing = format!("list the repositories of {registry}");
    let first = client.url().at("/v2/_catalog").with("n", PAGE);
    let all = pages(client, &doing, first, CATALOG, |page: Catalog| page.repositories.unwrap_or_default())?;
    let named = all.into_iter().filter(|repository| repository.contains(word));
    let named = named.map(|repository| format!("{registry}/{repository}"));
    let found = named.filter(|name| name.parse::<Reference>().is_ok());
    Ok(found.map(|name| Found { name, description: None, stars: None }).collect())
}

/// docker.io shows no catalog, but has a search of its own (docker's `/v1/search`).
fn hub(client: &Client, word: &str) -> Result<Vec<Found>, RegistryError> {
    let doing = format!("search {DEFAULT_REGISTRY}");
    let url = Url::root("index.docker.io", true).at("/v1/search").with("q", word).with("n", RESULTS);
    let answer = client.insist(&Call::get(&doing, url), "", &[200])?;
    let bytes = answer.document(&doing, MAX_PAGE)?;
    let nonsense = |_| RegistryError::Nonsense {
        doing: doing.clone(),
        at: DEFAULT_REGISTRY.into(),
        why: "answers with something else than results".into(),
    };
    let results: Results = serde_json::from_slice(&bytes).map_err(nonsense)?;
    let right = results.results.into_iter().filter(|one| one.name.parse::<Reference>().is_ok());
    let harmless = |text: String| text.chars().filter(|c| !c.is_control()).take(200).collect();
    Ok(right
        .map(|one| Found {
            name: one.name,
            description: one.description.map(harmless),
            stars: one.star_count,
        })
        .collect())
}

/// All pages of a list, each of which names the next one in a `Link` (RFC 8288).
fn pages<P: serde::de::DeserializeOwned>(
    client: &Client,
    doing: &str,
    first: Url,
    scope: &str,
    entries: impl Fn(P) -> Vec<String>,
) -> Result<Vec<String>, RegistryError> {
    let mut all = Vec::new();
    let mut next = Some(first);
    for _ in 0..MAX_PAGES {
        let Some(url) = next else { break };
        let answer = client.insist(&Call::get(doing, url), scope, &[200])?;
        let at = answer.url.clone();
        next = answer
            .headers
            .get(LINK)
            .and_then(|value| next_page(value.to_str().ok()?))
            .map(|target| at.join(target))
            .transpose()
            .map_err(|source| RegistryError::Address { doing: doing.into(), source })?;
        if let Some(url) = next.as_ref().filter(|url| !url.same_origin(&at)) {
            let why = "a list goes on where it began".into();
            return Err(RegistryError::Refused {
                what: format!("the next page at {}", url.authority()),
                why,
            });
        }
        let bytes = answer.document(doing, MAX_PAGE)?;
        let page: P = serde_json::from_slice(&bytes).map_err(|_| RegistryError::Nonsense {
            doing: doing.into(),
            at: at.authority().into(),
            why: "answers with something else than a list".into(),
        })?;
        all.extend(entries(page));
    }
    Ok(all)
}

/// The target of `<target>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|one| matches!(one.trim(), "rel=\"next\"" | "rel=next"));
    is_next.then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        assert_eq!(next_page("</v2/_catalog?last=b&n=2>; rel=\"next\""), Some("/v2/_catalog?last=b&n=2"));
        for bad in ["", "</x>", "</x>; rel=\"prev\"", "/x; rel=next", "<x"] {
            assert_eq!(next_page(bad), None, "{bad}");
        }
    }
}
