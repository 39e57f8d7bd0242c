//! `.dockerignore`: which files of a context are not in it.

use super::glob::Glob;

/// The rules of a `.dockerignore`; the last that fits decides.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    glob: Glob,
    /// `!`: what fits is in the context after all.
    keeps: bool,
}

impl Ignore {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// [`Mistake`](super::Mistake): a pattern is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Ignore, super::Mistake> {
        let mut rules = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (keeps, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let pattern = clean(pattern);
            if pattern.is_empty() {
                continue;
            }
            let glob = Glob::path(&pattern);
            let mistake = |what| super::Mistake { file: file.to_owned(), line: number + 1, what };
            rules.push(Rule { glob: glob.map_err(mistake)?, keeps });
        }
        Ok(Ignore { rules })
    }

    /// Whether the file of this path, relative to the context, is left out.
    pub fn leaves_out(&self, path: &[u8]) -> bool {
        let mut out = false;
        for rule in &self.rules {
            if rule.keeps == out && rule.fits(path) {
                out = !rule.keeps;
            }
        }
        out
    }

    /// Whether something below a directory that is left out may be in the context all the same.
    pub fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keeps)
    }
}

impl Rule {
    /// The path itself, or a directory that it is in.
    fn fits(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        ends.chain([path.len()]).any(|end| self.glob.matches(&path[..end]))
    }
}

/// Without a leading slash, `.` and `..`, as Go's `filepath.Clean` has it below the root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
