//! The one error type. A kind chooses the Python exception; the message is for the user.

use std::fmt;

/// Which exception an error becomes at the Python border.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// `MXNetError`: an operator refuses its inputs, a file is damaged, a kernel failed.
    Op,
    Value,
    Type,
    Index,
    Memory,
    /// A capability that is known and not built.
    NotImplemented,
}

/// An error with the words the user reads. Cheap to pass: one pointer.
#[derive(Clone, Debug)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Inner { kind, message: message.into() }))
    }
    pub fn op(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Op, message)
    }
    pub fn value(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Value, message)
    }
    pub fn typ(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Type, message)
    }
    pub fn index(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Index, message)
    }
    pub fn memory(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Memory, message)
    }
    pub fn not_implemented(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::NotImplemented, message)
    }
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
    pub fn message(&self) -> &str {
        &self.0.message
    }
    /// The same error with `context: ` put before its message, once.
    pub fn within(mut self, context: &str) -> Error {
        if !self.0.message.starts_with(context) {
            self.0.message = format!("{context}: {}", self.0.message);
        }
        self
    }
    /// The same error with a line added at its end.
    pub fn note(mut self, line: &str) -> Error {
        self.0.message.push('\n');
        self.0.message.push_str(line);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}
