//! The training data: openly licensed pictures of things and the words for them.
//!
//! [`build()`] reads npm packages that `npm pack NAME` has downloaded into one folder, draws every picture as a
//! 128 px sprite with transparency and writes a data set (layout: [`dataset`]). [`Composer`] turns sprites into
//! training samples on the fly: it picks a sprite, places it on a named background, repaints it now and then in a
//! named colour, and writes the caption that says exactly this. The same (data set, options, index) give the same sample
//! on every machine and in every thread.
//!
//! Packages, and their licences ([`NOTICE`] is the text that must travel with weights trained on them):
//!
//! | package | profile | licence |
//! |---|---|---|
//! | `emojibase-data` (the words, in eight languages) | both | MIT |
//! | `@lobehub/fluent-emoji-3d` | both | MIT |
//! | `@iconify-json/fluent-emoji-flat` | both | MIT |
//! | `@iconify-json/noto`, `@iconify-json/noto-v1` | both | Apache-2.0 |
//! | `@iconify-json/twemoji`, `@iconify-json/emojione` | both | CC-BY-4.0 |
//! | `@iconify-json/fxemoji` | full | Apache-2.0 |
//! | `@iconify-json/streamline-emojis` | full | CC-BY-4.0 |
//!
//! The full profile also takes photographs (an archive with `labels.jsonl`) and pixel art (an archive of 32 px tiles).
//!
//! **Held back.** For every noun that at least five sets draw, the sprite of one vector set, chosen by a hash of the
//! noun, is never used for training; [`Composer::held_back`] shows it.

pub mod bpe;
mod build;
mod canvas;
pub mod caption;
pub mod colour;
mod composer;
pub mod dataset;
mod extras;
pub mod languages;
mod notice;
mod nouns;
mod packages;
pub mod pictures;
mod random;
mod render;
mod scene;
#[cfg(test)]
mod tests;
pub mod world;

pub use bpe::tokenizer_of;
pub use build::{BuildOptions, build};
pub use colour::Colour;
pub use composer::{Composer, ComposerOptions, EVALUATION_NOUNS, Sample};
pub use dataset::{Dataset, Kind, Manifest, NounRecord, Source, SpriteRecord};
pub use notice::NOTICE;
pub use nouns::{CoreNoun, core_nouns};
pub use packages::LANGUAGES;
pub use render::SIZE_PX;

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How much of the vocabulary a data set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Common, visually distinct objects only (`core_nouns.txt`): for a model that sees few samples.
    Core,
    /// Everything: all objects, people, photographs, pixel art, scenes.
    Full,
}

/// What can go wrong with training data.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error(transparent)]
    World(#[from] world::WorldError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{file}: not the JSON expected: {source}")]
    Json { file: PathBuf, source: serde_json::Error },
    #[error("package {package} is not in {folder}: run `npm pack {package}` there")]
    MissingPackage { package: String, folder: PathBuf },
    #[error("{archive}: expected a file {file} in it, found none")]
    MissingFile { archive: PathBuf, file: String },
    #[error("core_nouns.txt line {line}: no emoji is called {label:?}")]
    UnknownLabel { line: usize, label: String },
    #[error("{file}: expected format {expected}, found {found}")]
    Format { file: PathBuf, expected: u32, found: u32 },
    #[error("{file}: expected {expected} bytes for the sprites listed, found {found}")]
    Length { file: PathBuf, expected: u64, found: u64 },
    #[error("{file}: expected noun indices below {nouns}, found {index}")]
    NounIndex { file: PathBuf, index: usize, nouns: usize },
    #[error("{name}: {message}")]
    Pictures { name: String, message: String },
    #[error("the data set has no drawn object to train on")]
    Empty,
    #[error("word splitter: {0}")]
    Tokenizer(String),
}

impl DataError {
    fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    fn pictures(name: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Pictures {
            name: name.as_ref().display().to_string(),
            message: message.into(),
        }
    }

    fn tokenizer(error: tokenizers::Error) -> Self {
        Self::Tokenizer(error.to_string())
    }
}
