//! Quotes, escapes and variables of a word, as a shell has them.

use super::glob::Glob;

/// The longest result: a file of 1 MiB could otherwise grow by repetition.
const MAX: usize = 4 << 20;
/// The deepest `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 32;

/// Replaces variables.
#[derive(Clone, Copy)]
pub struct Expander<'a> {
    /// The Dockerfile's escape character.
    pub escape: char,
    /// The value of a variable; None: it is not set.
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

/// Where characters are taken from.
struct Input<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    /// Quotes and escapes are text, as in a here-document.
    raw: bool,
    depth: usize,
}

impl Expander<'_> {
    /// A word without its quotes, with its variables replaced.
    ///
    /// # Errors
    /// What is wrong with the word.
    pub fn word(&self, word: &str) -> Result<String, String> {
        self.run(&mut Input { chars: word.chars().peekable(), raw: false, depth: 0 }, None)
    }

    /// A here-document: quotes stay, variables are replaced.
    ///
    /// # Errors
    /// As [`Expander::word`].
    pub fn text(&self, text: &str) -> Result<String, String> {
        self.run(&mut Input { chars: text.chars().peekable(), raw: true, depth: 0 }, None)
    }

    fn run(&self, input: &mut Input<'_>, stop: Option<char>) -> Result<String, String> {
        let mut out = String::new();
        loop {
            let Some(c) = input.chars.next() else {
                return match stop {
                    Some(stop) => Err(format!("a `{stop}` is missing")),
                    None => Ok(out),
                };
            };
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' if !input.raw => single(input, &mut out)?,
                '"' if !input.raw => self.double(input, &mut out)?,
                '$' => out += &self.variable(input)?,
                c if c == self.escape => match (input.raw, input.chars.peek().copied()) {
                    (true, Some(next)) if next == '$' || next == self.escape => {
                        out.extend(input.chars.next());
                    }
                    (true, _) => out.push(c),
                    (false, _) => out.extend(input.chars.next()),
                },
                c => out.push(c),
            }
            if out.len() > MAX {
                return Err("with its variables replaced it has more than 4 MiB".into());
            }
        }
    }

    fn double(&self, input: &mut Input<'_>, out: &mut String) -> Result<(), String> {
        loop {
            match input.chars.next() {
                None => return Err("a closing `\"` is missing".into()),
                Some('"') => return Ok(()),
                Some('$') => *out += &self.variable(input)?,
                Some(c) if c == self.escape => match input.chars.next() {
                    Some(next) if matches!(next, '"' | '$') || next == self.escape => out.push(next),
                    next => {
                        out.push(c);
                        out.extend(next);
                    }
                },
                Some(c) => out.push(c),
            }
        }
    }

    /// What follows a `$`.
    fn variable(&self, input: &mut Input<'_>) -> Result<String, String> {
        if input.chars.peek() == Some(&'{') {
            input.chars.next();
            input.depth += 1;
            if input.depth > MAX_DEPTH {
                return Err(format!("variables within variables, more than {MAX_DEPTH} deep"));
            }
            let value = self.braced(input);
            input.depth -= 1;
            return value;
        }
        let name = name(input);
        if name.is_empty() {
            return Ok("$".into());
        }
        Ok((self.lookup)(&name).unwrap_or_default())
    }

    fn braced(&self, input: &mut Input<'_>) -> Result<String, String> {
        let name = name(input);
        if name.is_empty() {
            return Err("`${` needs the name of a variable".into());
        }
        let value = (self.lookup)(&name);
        let mut operator = match input.chars.next() {
            None => return Err(format!("`${{{name}` has no closing `}}`")),
            Some('}') => return Ok(value.unwrap_or_default()),
            Some(c) => c,
        };
        let mut given = value.clone();
        if operator == ':' {
            // With a colon, an empty variable is as good as none.
            given = given.filter(|value| !value.is_empty());
            operator = input.chars.next().unwrap_or(':');
            if !matches!(operator, '-' | '+' | '?') {
                return Err(format!("`${{{name}:{operator}…}}`: after the colon comes one of - + ?"));
            }
        }
        let doubled = matches!(operator, '#' | '%' | '/') && input.chars.peek() == Some(&operator);
        if doubled {
            input.chars.next();
        }
        match operator {
            '-' => self.run(input, Some('}')).map(|word| given.unwrap_or(word)),
            '+' => self.run(input, Some('}')).map(|word| if given.is_some() { word } else { String::new() }),
            '?' => {
                let word = self.run(input, Some('}'))?;
                let why = if word.is_empty() { "it is not set".to_owned() } else { word };
                given.ok_or_else(|| format!("{name}: {why}"))
            }
            '#' | '%' => {
                let pattern = Glob::text(&self.run(input, Some('}'))?)?;
                Ok(cut(&value.unwrap_or_default(), &pattern, operator == '#', doubled))
            }
            '/' => {
                let pattern = Glob::text(&self.run(input, Some('/'))?)?;
                let with = self.run(input, Some('}'))?;
                Ok(replace(&value.unwrap_or_default(), &pattern, &with, doubled))
            }
            other => Err(format!("`${{{name}{other}…}}`: hv knows - + ? :- :+ :? # ## % %% / //")),
        }
    }
}

fn single(input: &mut Input<'_>, out: &mut String) -> Result<(), String> {
    loop {
        match input.chars.next() {
            None => return Err("a closing `'` is missing".into()),
            Some('\'') => return Ok(()),
            Some(c) => out.push(c),
        }
    }
}

fn name(input: &mut Input<'_>) -> String {
    let mut name = String::new();
    while let Some(c) = input.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        name.push(c);
        // `$1` and so on: one digit.
        if name.len() == 1 && c.is_ascii_digit() {
            break;
        }
    }
    name
}

/// The value without the shortest, or longest, start or end that fits.
fn cut(value: &str, pattern: &Glob, front: bool, longest: bool) -> String {
    let mut at: Vec<usize> = value.char_indices().map(|(at, _)| at).chain([value.len()]).collect();
    if front == longest {
        at.reverse();
    }
    for at in at {
        let (start, end) = value.split_at(at);
        if front && pattern.matches(start.as_bytes()) {
            return end.to_owned();
        }
        if !front && pattern.matches(end.as_bytes()) {
            return start.to_owned();
        }
    }
    value.to_owned()
}

/// The value with the first, or every, longest part that fits replaced.
fn replace(value: &str, pattern: &Glob, with: &str, all: bool) -> String {
    // Cubic in its length: longer values are no names of packages any more.
    if value.len() > 512 {
        return value.to_owned();
    }
    let mut out = String::new();
    let mut rest = value;
    'next: while !rest.is_empty() {
        let ends: Vec<usize> = rest.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
        for end in ends.into_iter().rev() {
            if pattern.matches(&rest.as_bytes()[..end]) {
                out += with;
                rest = &rest[end..];
                if all {
                    continue 'next;
                }
                return out + rest;
            }
        }
        let first = rest.chars().next().map_or(1, char::len_utf8);
        out += &rest[..first];
        rest = &rest[first..];
    }
    out
}
