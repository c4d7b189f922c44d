//! One error type for the whole engine: what kind, one line for the user, the place.
//!
//! `kind` decides the exit status (Python maps it once): `Input` is 2, the others 1.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The user's file, policy or option is wrong: exit status 2.
    Input,
    /// The work itself failed (an I/O error, a full disk, a broken law): exit status 1.
    Failed,
    /// A filter of another make lets go of nothing: it costs its round, not the run.
    Hung,
    /// An NBD server went away, or cannot be understood any more: it costs its round, not the run.
    ServerLost,
    /// As `ServerLost`, after its whole timeout: it is there, and answers nothing.
    ServerSilent,
    /// Stopped on request: exit status 130.
    Interrupted,
}

#[derive(Debug)]
pub struct Error {
    pub kind: ErrorKind,
    pub message: String,
    /// Where it happened, outermost first: `("file", "a.csv")`, `("row", "17")`.
    pub context: Vec<(&'static str, String)>,
    pub source: Option<std::io::Error>,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), context: Vec::new(), source: None }
    }

    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    #[must_use]
    pub fn caused_by(mut self, source: std::io::Error) -> Self {
        self.source = Some(source);
        self
    }
}

impl fmt::Display for Error {
    /// One line: `a.csv: row 17: expected ..., got ...: No space left on device`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.context {
            if *key == "file" {
                write!(f, "{value}: ")?;
            } else {
                write!(f, "{key} {value}: ")?;
            }
        }
        f.write_str(&self.message)?;
        if let Some(source) = &self.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
