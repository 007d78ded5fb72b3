//! The data set on disk: sprites, what they are, and a manifest.
//!
//! | file | holds |
//! |---|---|
//! | `sprites.rgba` | [N, 128, 128, 4] straight-alpha u8, in the order of `sprites.jsonl` |
//! | `sprites.jsonl` | one [`SpriteRecord`] a line |
//! | `nouns.jsonl` | one [`NounRecord`] a line, most common first |
//! | `manifest.json` | [`Manifest`]: counts, sources, licences, checksum |
//! | `tokenizer/` | `vocab.json`, `merges.txt`: see [`super::bpe`] |
//! | `NOTICE` | the credits that must travel with the data and with weights trained on it |

use crate::colour::Colour;
use crate::render::SPRITE_BYTES;
use crate::{DataError, Profile};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One drawn object on a transparent background.
    Object,
    /// A photograph that fills the picture.
    Photo,
    /// Pixel art on a transparent background.
    PixelArt,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpriteRecord {
    /// Index in `nouns.jsonl`.
    pub noun: usize,
    /// The set that it comes from, for example `noto`.
    pub set: String,
    /// The style that captions name, for example `glossy 3d`.
    pub style: String,
    pub kind: Kind,
    /// Whether [`super::colour::repaint`] gives it another colour.
    pub hue_shiftable: bool,
    /// Hue of the main cluster, degrees.
    pub hue: f32,
    /// Mean luma of the main cluster, 0 to 1.
    pub luma: f32,
    /// Name of the colour that most of the object has, if there is one.
    pub main_colour: Option<String>,
    /// Mean sRGB of the object.
    pub mean_rgb: [u8; 3],
    /// Never used for training; see [`super::Composer::held_back`].
    pub held_back: bool,
}

impl SpriteRecord {
    pub fn main_colour(&self) -> Option<Colour> {
        self.main_colour.as_deref().and_then(Colour::from_name)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NounRecord {
    /// The noun with its article or measure: `a dog`, `a pair of scissors`, `french fries`.
    pub phrase: String,
    /// Place in the list of the most common nouns, from 0, if it is a core noun.
    pub core_rank: Option<usize>,
    /// Other English words for it.
    pub tags: Vec<String>,
    /// Name by language code.
    pub names: BTreeMap<String, String>,
}

impl NounRecord {
    /// The noun without article: `dog`, `pair of scissors`.
    pub fn noun(&self) -> &str {
        super::caption::without_article(&self.phrase)
    }
}

/// Where pictures or words come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    pub name: String,
    pub licence: String,
    pub sprites: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub profile: Profile,
    pub size_px: u32,
    pub sprites: usize,
    pub held_back_sprites: usize,
    pub nouns: usize,
    pub core_nouns: usize,
    pub tokenizer_entries: usize,
    pub seed: u64,
    pub sources: Vec<Source>,
    /// SHA-256 of `sprites.rgba`.
    pub sha256: String,
}

/// Version of the layout described above.
pub const FORMAT: u32 = 1;

pub fn write_jsonl<T: Serialize>(path: &Path, records: &[T]) -> Result<(), DataError> {
    let mut text = String::new();
    for record in records {
        let line = serde_json::to_string(record).map_err(|source| DataError::Json {
            file: path.to_owned(),
            source,
        })?;
        text.push_str(&line);
        text.push('\n');
    }
    std::fs::write(path, text).map_err(|e| DataError::io(path, e))
}

fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, DataError> {
    let text = std::fs::read_to_string(path).map_err(|e| DataError::io(path, e))?;
    text.lines()
        .map(|line| {
            serde_json::from_str(line).map_err(|source| DataError::Json {
                file: path.to_owned(),
                source,
            })
        })
        .collect()
}

/// An opened data set. Sprites are read where they are needed; the page cache keeps them.
#[derive(Debug)]
pub struct Dataset {
    pub manifest: Manifest,
    pub sprites: Vec<SpriteRecord>,
    pub nouns: Vec<NounRecord>,
    path: PathBuf,
    pixels: File,
}

impl Dataset {
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let manifest_path = folder.join("manifest.json");
        let bytes = std::fs::read(&manifest_path).map_err(|e| DataError::io(&manifest_path, e))?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|source| DataError::Json {
            file: manifest_path.clone(),
            source,
        })?;
        if manifest.format != FORMAT {
            return Err(DataError::Format {
                file: manifest_path,
                expected: FORMAT,
                found: manifest.format,
            });
        }
        let sprites: Vec<SpriteRecord> = read_jsonl(&folder.join("sprites.jsonl"))?;
        let nouns: Vec<NounRecord> = read_jsonl(&folder.join("nouns.jsonl"))?;
        let path = folder.join("sprites.rgba");
        let pixels = File::open(&path).map_err(|e| DataError::io(&path, e))?;
        let found = pixels.metadata().map_err(|e| DataError::io(&path, e))?.len();
        let expected = (sprites.len() * SPRITE_BYTES) as u64;
        if found != expected {
            return Err(DataError::Length {
                file: path,
                expected,
                found,
            });
        }
        if let Some(bad) = sprites.iter().find(|s| s.noun >= nouns.len()) {
            return Err(DataError::NounIndex {
                file: folder.join("sprites.jsonl"),
                index: bad.noun,
                nouns: nouns.len(),
            });
        }
        Ok(Self {
            manifest,
            sprites,
            nouns,
            path,
            pixels,
        })
    }

    /// Straight-alpha RGBA [128, 128, 4] of a sprite.
    pub fn pixels(&self, sprite: usize) -> Result<Vec<u8>, DataError> {
        let mut bytes = vec![0u8; SPRITE_BYTES];
        read_at(&self.pixels, &mut bytes, (sprite * SPRITE_BYTES) as u64).map_err(|e| DataError::io(&self.path, e))?;
        Ok(bytes)
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[n..];
        offset += n as u64;
    }
    Ok(())
}
