//! Dockerfiles and `.dockerignore`, as people have them.
//!
//! # Layout
//! `lines`: text becomes logical lines (directives, comments, continuations, here-documents); `words`: a line
//! becomes flags and words; `instruction`: those become an [`Instruction`]; [`expand`]: `$x` and quotes, when the
//! values are known; [`glob`] and [`ignore`]: which files of a directory are meant.
//!
//! Facts: the Dockerfile reference, "Format", "Parser directives", "Here-documents", "Environment replacement".
//! A file is hostile: its size is bounded, and nothing takes more than the square of a line's length.

pub mod expand;
pub mod glob;
pub mod ignore;
mod instruction;
mod lines;
mod words;

#[cfg(test)]
mod tests;

pub use expand::Expander;
pub use glob::Glob;
pub use ignore::Ignore;
pub use instruction::{Command, From, Healthcheck, Instruction, Pairs, Run, RunMount, RunNetwork, Transfer};
pub use lines::Heredoc;

/// The largest Dockerfile.
pub const MAX_SIZE: usize = 1 << 20;

/// A Dockerfile cannot be understood. The words start with `FILE:LINE: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// The line, counted from 1, on which the instruction starts.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// An instruction and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its first line, counted from 1.
    pub line: usize,
    /// As it is written, in one line.
    pub text: String,
    /// What it is.
    pub instruction: Instruction,
}

/// A Dockerfile, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// What it was called.
    pub file: String,
    /// The character of its `escape` directive, else a backslash.
    pub escape: char,
    /// Its instructions, in order.
    pub steps: Vec<Step>,
}

impl Dockerfile {
    /// Reads the text of `file`.
    ///
    /// # Errors
    /// [`Mistake`]: the first.
    pub fn parse(file: &str, text: &str) -> Result<Dockerfile, Mistake> {
        let mistake = |(line, what)| Mistake { file: file.to_owned(), line, what };
        if text.len() > MAX_SIZE {
            return Err(mistake((1, "it has more than 1 MiB".into())));
        }
        let lines::Lines { escape, lines } = lines::split(text).map_err(mistake)?;
        let mut steps = Vec::with_capacity(lines.len());
        let mut stage_open = false;
        for line in lines {
            let number = line.line;
            let instruction = instruction::parse(&line, escape).map_err(|what| mistake((number, what)))?;
            match &instruction {
                Instruction::From(_) => stage_open = true,
                Instruction::Arg(_) => {}
                _ if !stage_open => {
                    let what = "before the first FROM there can only be ARG; begin with FROM IMAGE";
                    return Err(mistake((number, what.into())));
                }
                _ => {}
            }
            steps.push(Step { line: number, text: line.text, instruction });
        }
        if !stage_open {
            return Err(mistake((1, "it has no FROM: begin with FROM IMAGE or FROM scratch".into())));
        }
        Ok(Dockerfile { file: file.to_owned(), escape, steps })
    }

    /// Reads one instruction on its own: what ONBUILD keeps.
    ///
    /// # Errors
    /// [`Mistake`]
    pub fn parse_trigger(file: &str, line: usize, text: &str) -> Result<Step, Mistake> {
        let mistake = |(_, what)| Mistake { file: file.to_owned(), line, what };
        let lines::Lines { escape, lines } = lines::split(text).map_err(mistake)?;
        let [one] = &lines[..] else { return Err(mistake((line, "an ONBUILD is one instruction".into()))) };
        let instruction = instruction::parse(one, escape).map_err(|what| mistake((line, what)))?;
        Ok(Step { line, text: one.text.clone(), instruction })
    }

    /// A mistake in this file.
    pub fn mistake(&self, line: usize, what: impl Into<String>) -> Mistake {
        Mistake { file: self.file.clone(), line, what: what.into() }
    }
}
