//! WebDataset's tar shards: files of one name, up to its first dot, are a sample; `.txt` or `.json` beside `.jpg` has the words.
//! Pictures stay where they are: only their places are kept.

use super::captions::MAX_BYTES;
use super::{Found, Place, Wording, is_picture};
use crate::DataError;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The pictures of all shards, in the order of the shards and within them.
pub(super) fn list(shards: &[PathBuf], wording: &Wording) -> Result<Vec<Found>, DataError> {
    let mut found = Vec::new();
    for shard in shards {
        found.extend(of_shard(shard, wording)?);
    }
    Ok(found)
}

/// What a shard has of one sample so far.
#[derive(Default)]
struct Sample {
    key: String,
    pictures: Vec<(String, Place)>,
    text: Option<String>,
    json: Option<String>,
}

impl Sample {
    fn into_found(self) -> impl Iterator<Item = Found> {
        let words = self.text.or(self.json);
        self.pictures.into_iter().map(move |(name, place)| Found {
            name,
            place,
            caption: words.clone(),
        })
    }
}

fn of_shard(shard: &Path, wording: &Wording) -> Result<Vec<Found>, DataError> {
    let failed = |source| DataError::io(shard, source);
    let mut archive = tar::Archive::new(File::open(shard).map_err(failed)?);
    let (mut found, mut sample) = (Vec::new(), Sample::default());
    for entry in archive.entries_with_seek().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        let (key, ending) = split(&name);
        if key != sample.key {
            let whole = std::mem::replace(
                &mut sample,
                Sample {
                    key: key.to_owned(),
                    ..Sample::default()
                },
            );
            found.extend(whole.into_found());
        }
        if is_picture(&ending) {
            let place = Place::Part {
                file: shard.to_owned(),
                start: entry.raw_file_position(),
                bytes: entry.size(),
            };
            sample.pictures.push((format!("{}/{name}", shard.display()), place));
        } else if matches!(ending.as_str(), "txt" | "caption" | "json") {
            let mut bytes = Vec::new();
            entry
                .by_ref()
                .take(MAX_BYTES as u64)
                .read_to_end(&mut bytes)
                .map_err(failed)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if ending == "json" {
                let value: Option<Value> = serde_json::from_str(&text).ok();
                sample.json = value.and_then(|value| wording.of_json(&value));
            } else {
                sample.text = Some(text);
            }
        }
    }
    found.extend(sample.into_found());
    Ok(found)
}

/// A file's sample, and what the file is of it: everything behind the first dot of its name, of which the last part counts.
fn split(name: &str) -> (&str, String) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name[start..].find('.').map_or(name.len(), |dot| start + dot);
    let ending = name[dot..].rsplit('.').next().unwrap_or_default();
    (&name[..dot], ending.to_lowercase())
}
