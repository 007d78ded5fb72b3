//! What can be wrong with a model's files, one sentence each: the file, the field, expected, found.

use std::path::PathBuf;

/// What can be wrong with a model's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Anything particular to one file that has no variant of its own.
    #[error("{file}: {message}")]
    File { file: String, message: String },

    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },

    #[error("{file} is not the JSON expected: {source}")]
    Json { file: String, source: serde_json::Error },

    #[error(
        "no model at `{name}`: it is neither a diffusers folder (with model_index.json), nor a .safetensors file, nor a model in the local hub cache{fix}"
    )]
    NoModel { name: String, fix: String },

    #[error("{model} has no {path}{hint}")]
    NoFile { model: String, path: String, hint: String },

    #[error("{file} has no tensor `{key}` (expected with shape {expected:?})")]
    Missing {
        file: String,
        key: String,
        expected: Vec<usize>,
    },

    #[error("{file}: tensor `{key}` has shape {found:?}, expected {expected:?}")]
    Shape {
        file: String,
        key: String,
        expected: Vec<usize>,
        found: Vec<usize>,
    },

    #[error("{file}: {count} tensors were never read, so the config does not describe this file: {}{}", keys.join(", "), if *count > keys.len() { ", ..." } else { "" })]
    Unread {
        file: String,
        count: usize,
        keys: Vec<String>,
    },

    #[error("{file}: tensor `{key}` was read twice; every tensor belongs to one parameter")]
    Twice { file: String, key: String },

    #[error("{file} is truncated: its header promises {expected} bytes and it has {found}; download or copy it again")]
    Truncated { file: String, expected: u64, found: u64 },

    #[error("{file} is not a safetensors file: {reason}")]
    NotSafetensors { file: String, reason: String },

    #[error(
        "{file}: tensor `{key}` has the value {value} at {index:?}; the file is damaged, download or make it again"
    )]
    NotFinite {
        file: String,
        key: String,
        /// One number for each axis.
        index: Vec<usize>,
        value: f32,
    },

    #[error("{file}: tensor `{key}` has shape {found:?}, which has no axis {axis}")]
    Axes {
        file: String,
        key: String,
        axis: usize,
        found: Vec<usize>,
    },

    #[error("{file}: {field} = {value} is not possible, it must be {allowed}")]
    Range {
        file: String,
        field: String,
        value: String,
        allowed: String,
    },

    #[error("{} is {kind}, and a regular file was expected", path.display())]
    Kind { path: PathBuf, kind: &'static str },

    #[error("{file}: `{key}` is stored as {dtype}; f64, f32, f16, bf16 and 8-bit floats (E4M3, E5M2) are read")]
    DType { file: String, key: String, dtype: String },

    /// A kind of model, or a value of a config's field, that prima does not run.
    #[error("{file}: {field} = {found} is not supported; {fix}")]
    Unsupported {
        file: String,
        field: String,
        found: String,
        fix: String,
    },
}

impl Error {
    /// For `map_err` on a file operation.
    pub(crate) fn io(doing: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { doing, path, source }
    }
}
