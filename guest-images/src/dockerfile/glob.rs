//! Patterns of file names: `*` and `?` within a name, `**` over directories, `[a-z]`, and an escaping backslash.
//!
//! All positions in the pattern are followed at once, so that no pattern takes more than its length times that of
//! the name.

/// A pattern, ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// `*` and `?` take a slash too.
    text: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// One byte but a slash.
    Any,
    /// Any number of bytes but slashes.
    Star,
    /// Any number of bytes.
    DoubleStar,
    /// `**/` may be nothing at all: on to the one after the next, or into the next.
    Perhaps,
    /// Any number of bytes, the last of which is a slash.
    Directories,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Glob {
    /// A pattern of paths.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn path(pattern: &str) -> Result<Glob, String> {
        Ok(Glob { tokens: tokens(pattern)?, text: false })
    }

    /// A pattern of any text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn text(pattern: &str) -> Result<Glob, String> {
        Ok(Glob { tokens: tokens(pattern)?, text: true })
    }

    /// Whether all of `name` fits.
    pub fn matches(&self, name: &[u8]) -> bool {
        let end = self.tokens.len();
        let mut now = vec![false; end + 1];
        now[0] = true;
        self.skip(&mut now);
        for byte in name {
            let mut next = vec![false; end + 1];
            for (at, token) in self.tokens.iter().enumerate().filter(|(at, _)| now[*at]) {
                let within = self.text || *byte != b'/';
                match token {
                    Token::Byte(wanted) => next[at + 1] |= wanted == byte,
                    Token::Any => next[at + 1] |= within,
                    Token::Star => next[at] |= within,
                    Token::DoubleStar => next[at] = true,
                    Token::Perhaps => {}
                    Token::Directories => {
                        next[at] = true;
                        next[at + 1] |= *byte == b'/';
                    }
                    Token::Class { negated, ranges } => {
                        let inside = ranges.iter().any(|(from, to)| (from..=to).contains(&byte));
                        next[at + 1] |= within && inside != *negated;
                    }
                }
            }
            self.skip(&mut next);
            now = next;
        }
        now[end]
    }

    /// Goes on over what may be nothing.
    fn skip(&self, states: &mut [bool]) {
        for (at, token) in self.tokens.iter().enumerate() {
            if !states[at] {
                continue;
            }
            match token {
                Token::Star | Token::DoubleStar => states[at + 1] = true,
                Token::Perhaps => {
                    states[at + 1] = true;
                    states[at + 2] = true;
                }
                _ => {}
            }
        }
    }
}

fn tokens(pattern: &str) -> Result<Vec<Token>, String> {
    let bytes = pattern.as_bytes();
    let wrong = |why: &str| format!("the pattern `{}` {why}", pattern.escape_debug());
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'*' if bytes.get(at) == Some(&b'*') => {
                while bytes.get(at) == Some(&b'*') {
                    at += 1;
                }
                if bytes.get(at) == Some(&b'/') {
                    at += 1;
                    tokens.extend([Token::Perhaps, Token::Directories]);
                } else {
                    tokens.push(Token::DoubleStar);
                }
            }
            b'*' => tokens.push(Token::Star),
            b'?' => tokens.push(Token::Any),
            b'[' => tokens.push(class(bytes, &mut at).ok_or_else(|| wrong("has a `[` without its `]`"))?),
            b'\\' => {
                tokens.push(Token::Byte(*bytes.get(at).ok_or_else(|| wrong("ends in a backslash"))?));
                at += 1;
            }
            other => tokens.push(Token::Byte(*other)),
        }
    }
    Ok(tokens)
}

/// What is between brackets; None if it has no end or nothing in it.
fn class(bytes: &[u8], at: &mut usize) -> Option<Token> {
    let negated = matches!(bytes.get(*at), Some(b'^' | b'!'));
    if negated {
        *at += 1;
    }
    let mut ranges = Vec::new();
    loop {
        if bytes.get(*at)? == &b']' && !ranges.is_empty() {
            *at += 1;
            return Some(Token::Class { negated, ranges });
        }
        let from = member(bytes, at)?;
        let to = if bytes.get(*at) == Some(&b'-') && bytes.get(*at + 1)? != &b']' {
            *at += 1;
            member(bytes, at)?
        } else {
            from
        };
        ranges.push((from, to));
    }
}

fn member(bytes: &[u8], at: &mut usize) -> Option<u8> {
    if bytes.get(*at)? == &b'\\' {
        *at += 1;
    }
    let byte = *bytes.get(*at)?;
    *at += 1;
    Some(byte)
}

/// Whether a path has anything of a pattern in it.
pub fn is_pattern(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}
