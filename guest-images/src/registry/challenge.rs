//! `WWW-Authenticate`: how a registry wants to be asked (RFC 9110, section 11.6.1).

use std::collections::BTreeMap;

/// The most bytes of one header that are read.
const MAX_HEADER: usize = 8 << 10;
/// The most challenges and the most parameters of one.
const MAX_PARTS: usize = 32;

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Lower-case: `bearer`, `basic`.
    pub scheme: String,
    /// Names in lower case, values without their quotes.
    pub parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter's value, if it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reads a header's value. What makes no sense ends it; challenges before that count.
///
/// A parameter that is there twice makes its challenge void: two readers could take two of them.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = Rest(header.get(..header.len().min(MAX_HEADER)).unwrap_or_default());
    let mut found: Vec<(Challenge, bool)> = Vec::new();
    while found.len() < MAX_PARTS {
        rest.skip(&[' ', '\t', ',']);
        let Some(word) = rest.token() else { break };
        match rest.value() {
            Some(value) => {
                let Some((challenge, sound)) = found.last_mut() else { break };
                let twice = challenge.parameters.insert(word.to_ascii_lowercase(), value).is_some();
                *sound &= !twice && challenge.parameters.len() <= MAX_PARTS;
            }
            // A parameter whose value is none.
            None if rest.0.trim_start_matches([' ', '\t']).starts_with('=') => break,
            None => {
                let challenge = Challenge { scheme: word.to_ascii_lowercase(), parameters: BTreeMap::new() };
                found.push((challenge, true));
                rest.skip_token68();
            }
        }
    }
    found.into_iter().filter(|(_, sound)| *sound).map(|(challenge, _)| challenge).collect()
}

/// What has not been read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self, what: &[char]) {
        self.0 = self.0.trim_start_matches(what);
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self.0.find(|c| !is_token(c)).unwrap_or(self.0.len());
        let (token, rest) = self.0.split_at(end);
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// `= value`, which makes the word before it a parameter. Nothing is read if there is none.
    fn value(&mut self) -> Option<String> {
        let after = self.0.trim_start_matches([' ', '\t']).strip_prefix('=')?;
        let mut rest = Rest(after.trim_start_matches([' ', '\t']));
        let value = match rest.0.strip_prefix('"') {
            Some(quoted) => rest.quoted(quoted)?,
            None => rest.token()?.to_owned(),
        };
        self.0 = rest.0;
        Some(value)
    }

    fn quoted(&mut self, text: &'a str) -> Option<String> {
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in text.char_indices() {
            match c {
                _ if escaped => {
                    value.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '"' => {
                    self.0 = &text[at + 1..];
                    return Some(value);
                }
                c if c.is_control() && c != '\t' => return None,
                c => value.push(c),
            }
        }
        None
    }

    /// What schemes such as Negotiate have in the place of parameters: `YIIB==`.
    fn skip_token68(&mut self) {
        let Some(text) = self.0.strip_prefix(' ') else { return };
        let text = text.trim_start_matches(' ');
        let end = text.find(|c| !is_token(c) && c != '/' && c != '=').unwrap_or(text.len());
        let after = text[end..].trim_start_matches([' ', '\t']);
        if text[..end].ends_with('=') && (after.is_empty() || after.starts_with(',')) {
            self.0 = after;
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_registries_send() {
        let found = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(found[0].get("scope"), Some("repository:a/b:pull,push"));
    }

    #[test]
    fn several_in_one_header() {
        let found = parse(r#"Negotiate YIIB==, basic REALM = "a \"b\"" , Bearer realm=x, error="e""#);
        let schemes: Vec<_> = found.iter().map(|challenge| challenge.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(found[1].get("realm"), Some(r#"a "b""#));
        assert_eq!(found[2].get("error"), Some("e"));
    }

    #[test]
    fn what_is_ambiguous_is_void() {
        assert_eq!(parse(r#"Bearer realm="https://a/", realm="https://b/""#), []);
        assert_eq!(parse(r#"Bearer realm="unclosed"#), [bare("bearer")]);
        assert_eq!(parse(r#"realm="x", Bearer"#), []);
        assert_eq!(parse("Bearer realm=\"a\nb\""), [bare("bearer")]);
        assert_eq!(parse(""), []);
    }

    fn bare(scheme: &str) -> Challenge {
        Challenge { scheme: scheme.into(), parameters: BTreeMap::new() }
    }

    #[test]
    fn endless_headers_are_cut() {
        let many = "a,".repeat(100_000);
        assert!(parse(&many).len() <= MAX_PARTS);
        let many: String = (0..1000).map(|n| format!("p{n}=v,")).collect();
        assert_eq!(parse(&format!("Bearer {many}")), []);
    }

    proptest! {
        #[test]
        fn anything_ends(text in "\\PC{0,200}|[a-zA-Z =,\"\\\\]{0,200}") {
            for challenge in parse(&text) {
                prop_assert!(challenge.parameters.len() <= MAX_PARTS);
                prop_assert!(challenge.scheme.chars().all(is_token));
            }
        }

        #[test]
        fn what_is_written_is_read(values in prop::collection::btree_map("[a-z]{1,8}", "[ -~]{0,20}", 1..6)) {
            let quote = |value: &String| value.replace('\\', "\\\\").replace('"', "\\\"");
            let parameters: Vec<String> =
                values.iter().map(|(name, value)| format!("{name}=\"{}\"", quote(value))).collect();
            let found = parse(&format!("Basic realm2=x, Bearer {}", parameters.join(", ")));
            prop_assert_eq!(&found[1].parameters, &values);
        }
    }
}
