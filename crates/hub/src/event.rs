//! What is told while a model comes.

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many files with so many bytes belong to it.
    Plan { files: usize, bytes: u64 },
    /// This file is next.
    File { name: String, bytes: u64 },
    /// So many bytes of it are there more than before: found, or come.
    Bytes { bytes: u64 },
    /// So many bytes of it have to come again.
    Again { bytes: u64 },
    /// Nothing is known of this file by which it could be checked, as at mirrors that have hashes of their own.
    Unchecked { name: String },
}
