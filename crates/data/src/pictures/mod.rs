//! A person's own pictures with words for them: a folder of files, WebDataset's tar shards, or Hugging Face's parquet files.
//!
//! All pictures are read once when the set is opened. What cannot be used (a file that is no picture, a picture without words)
//! is left out and named, so that a number always stands for the same picture.

mod buckets;
mod captions;
mod folder;
mod parquet;
mod shards;
#[cfg(test)]
mod tests;

pub use buckets::{Fitted, buckets, fitted, nearest};

use crate::DataError;
use parquet::Table;
use prima_picture::Picture;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pixels that a picture may have: 100 megapixels.
const MAX_PIXELS: usize = 100_000_000;

/// How pictures get their words.
#[derive(Clone, Debug, Default)]
pub struct Wording {
    /// For pictures that have no words of their own.
    pub caption: Option<String>,
    /// The column of `metadata.jsonl` or `metadata.csv`, or the key in a shard's `.json`; `text`, `caption` or `prompt` where absent.
    pub column: Option<String>,
}

/// A set of pictures, by number.
#[derive(Debug)]
pub struct Pictures {
    items: Vec<Item>,
    skipped: Vec<Skipped>,
}

/// What was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub name: String,
    pub reason: String,
}

/// A picture that was found, before anybody has looked at it.
#[derive(Debug)]
struct Found {
    name: String,
    place: Place,
    caption: Option<String>,
}

/// Where the bytes of a picture lie.
#[derive(Debug)]
enum Place {
    File(PathBuf),
    /// Within another file.
    Part {
        file: PathBuf,
        start: u64,
        bytes: u64,
    },
    /// In a table's column of pictures.
    Row {
        table: Arc<Table>,
        group: usize,
        row: usize,
    },
    /// It is named, and not there.
    Nowhere(String),
}

#[derive(Debug)]
struct Item {
    name: String,
    place: Place,
    caption: String,
    /// Width and height in pixels.
    size_px: [usize; 2],
    /// Of its bytes.
    sha256: [u8; 32],
}

impl Pictures {
    /// Opens a folder of pictures, a folder of tar shards or of parquet files, or one of these.
    ///
    /// # Errors
    /// Where there is nothing that can be read, or no picture of those found can be used: then the first reasons are told.
    pub fn open(path: &Path, wording: &Wording) -> Result<Self, DataError> {
        let entries = if path.is_dir() {
            folder::entries(path)?
        } else {
            vec![path.to_owned()]
        };
        let of_kind = |kind: &str| -> Vec<PathBuf> {
            let files = entries.iter().filter(|file| ending(file) == kind);
            files.cloned().collect()
        };
        let (shards, tables) = (of_kind("tar"), of_kind("parquet"));
        let found = if !shards.is_empty() {
            shards::list(&shards, wording)?
        } else if !tables.is_empty() {
            parquet::list(&tables, wording)?
        } else {
            folder::list(path, wording)?
        };
        let looked_at: Vec<Result<Item, Skipped>> =
            found.into_par_iter().map(|found| Item::of(found, wording)).collect();
        let (mut items, mut skipped) = (Vec::new(), Vec::new());
        for looked_at in looked_at {
            match looked_at {
                Ok(item) => items.push(item),
                Err(other) => skipped.push(other),
            }
        }
        if items.is_empty() {
            let reasons: Vec<String> = skipped.iter().take(3).map(Skipped::to_string).collect();
            let message = if reasons.is_empty() {
                "holds no PNG, JPEG or WebP file, no tar shards and no parquet files".to_owned()
            } else {
                format!(
                    "none of its {} pictures can be used: {}",
                    skipped.len(),
                    reasons.join("; ")
                )
            };
            return Err(DataError::pictures(path, message));
        }
        Ok(Self { items, skipped })
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Never: a set of none cannot be opened.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    pub fn caption(&self, number: usize) -> &str {
        &self.items[number].caption
    }

    /// Width and height in pixels.
    pub fn size_px(&self, number: usize) -> [usize; 2] {
        self.items[number].size_px
    }

    pub fn read(&self, number: usize) -> Result<Picture, DataError> {
        let item = &self.items[number];
        let bytes = item
            .place
            .bytes()
            .map_err(|reason| DataError::pictures(&item.name, reason))?;
        Picture::decode_at_most(&bytes, &item.name, MAX_PIXELS)
            .map_err(|error| DataError::pictures(&item.name, error.to_string()))
    }

    /// Of all pictures and their words, in order: the same for the same set, wherever it lies.
    pub fn sha256(&self) -> String {
        let mut all = Sha256::new();
        for item in &self.items {
            all.update(item.sha256);
            all.update((item.caption.len() as u64).to_le_bytes());
            all.update(&item.caption);
        }
        format!("{:x}", all.finalize())
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl Item {
    /// Looks at the picture.
    fn of(found: Found, wording: &Wording) -> Result<Self, Skipped> {
        let Found { name, place, caption } = found;
        let skipped = |reason: String| Skipped {
            name: name.clone(),
            reason,
        };
        let bytes = place.bytes().map_err(&skipped)?;
        let picture = Picture::decode_at_most(&bytes, &name, MAX_PIXELS);
        let picture = picture.map_err(|error| skipped(error.to_string()))?;
        let words = |text: String| {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            (!text.is_empty()).then_some(text)
        };
        let own = caption.and_then(words);
        let caption = own.or_else(|| wording.caption.clone().and_then(words));
        let Some(caption) = caption else {
            let reason =
                "it has no words: write them into a .txt beside it, or give a caption for all pictures without";
            return Err(skipped(reason.to_owned()));
        };
        Ok(Self {
            size_px: [picture.width, picture.height],
            sha256: Sha256::digest(&bytes).into(),
            name,
            place,
            caption,
        })
    }
}

impl Place {
    fn bytes(&self) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => std::fs::read(path).map_err(|error| error.to_string()),
            Self::Part { file, start, bytes } => {
                let read = || {
                    let mut file = File::open(file)?;
                    file.seek(SeekFrom::Start(*start))?;
                    let mut all = Vec::new();
                    file.take(*bytes).read_to_end(&mut all)?;
                    Ok(all)
                };
                read().map_err(|error: std::io::Error| error.to_string())
            }
            Self::Row { table, group, row } => table.bytes(*group, *row),
            Self::Nowhere(reason) => Err(reason.clone()),
        }
    }
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Of the formats that are read.
fn is_picture(ending: &str) -> bool {
    matches!(ending, "png" | "jpg" | "jpeg" | "webp")
}
