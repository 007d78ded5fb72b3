//! Lines on stdout and stderr, which may be closed or full.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr, stdout};

/// Whoever read stdout has seen enough: an end without a word.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads stdout any more")]
pub struct Unread;

/// A line of results.
pub fn line(text: Arguments) -> anyhow::Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Results that are no line: a picture, a script.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Unread.into()),
        Err(error) => Err(anyhow::Error::new(error).context("what prima has to say cannot be written to stdout")),
    }
}

/// A line for the person at the terminal; where it cannot be written there is nobody to tell.
pub fn tell(text: Arguments) {
    let _ = writeln!(stderr().lock(), "{text}");
}

/// `println!`, but an error ends the command.
macro_rules! say {
    ($($text:tt)*) => { $crate::out::line(format_args!($($text)*))? };
}

/// `eprintln!`, without its panic.
macro_rules! note {
    ($($text:tt)*) => { $crate::out::tell(format_args!($($text)*)) };
}

pub(crate) use {note, say};
