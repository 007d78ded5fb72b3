//! A folder of pictures, and below it, in the order of their paths. Words stand in a `.txt` beside a picture, or in the
//! folder's table.

use super::captions::{MAX_BYTES, by_name, metadata};
use super::{Found, Place, Wording, ending, is_picture};
use crate::DataError;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// What lies in a folder, sorted.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let listed = fs::read_dir(folder).map_err(|source| DataError::io(folder, source))?;
    let mut paths = Vec::new();
    for entry in listed {
        paths.push(entry.map_err(|source| DataError::io(folder, source))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// All pictures, those that a table names and that are not there included.
pub(super) fn list(folder: &Path, wording: &Wording) -> Result<Vec<Found>, DataError> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = entries(&folder)?;
        // Links to folders are not followed: they may lead back.
        let is_folder = |path: &PathBuf| path.is_dir() && !path.is_symlink();
        folders.extend(entries.iter().rev().filter(|path| is_folder(path)).cloned());
        let table = metadata(&folder, wording)?.unwrap_or_default();
        let words = by_name(&table);
        let mut seen = BTreeSet::new();
        for path in entries
            .iter()
            .filter(|path| is_picture(&ending(path)) && path.is_file())
        {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let caption = match words.get(name.as_str()) {
                Some(caption) => caption.cloned(),
                None => beside(path)?,
            };
            seen.insert(name);
            found.push(at(path, caption));
        }
        for (name, caption) in &table {
            if !seen.contains(name.as_str()) {
                found.push(named(&folder, name, caption.clone()));
            }
        }
    }
    Ok(without_doubles(found))
}

fn at(path: &Path, caption: Option<String>) -> Found {
    Found {
        name: path.display().to_string(),
        place: Place::File(path.to_owned()),
        caption,
    }
}

/// A picture of the table, which may lie below its folder but nowhere else.
fn named(folder: &Path, name: &str, caption: Option<String>) -> Found {
    let path = folder.join(name);
    let is_below = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let place = if !is_below || name.is_empty() {
        Place::Nowhere("the table of captions may name files below its folder only".to_owned())
    } else if path.is_file() {
        Place::File(path.clone())
    } else {
        Place::Nowhere("the table of captions names it, and it is not there".to_owned())
    };
    Found {
        name: path.display().to_string(),
        place,
        caption,
    }
}

/// The words in a `.txt` (or `.caption`) beside a picture.
fn beside(picture: &Path) -> Result<Option<String>, DataError> {
    for ending in ["txt", "caption"] {
        let path = picture.with_extension(ending);
        if path.is_file() {
            let bytes = fs::read(&path).map_err(|source| DataError::io(&path, source))?;
            let bytes = &bytes[..bytes.len().min(MAX_BYTES)];
            return Ok(Some(String::from_utf8_lossy(bytes).into_owned()));
        }
    }
    Ok(None)
}

/// A table above and one below may name the same file: the words that were found with it count, unless it has none.
fn without_doubles(found: Vec<Found>) -> Vec<Found> {
    let mut out: Vec<Found> = Vec::new();
    let mut places = std::collections::BTreeMap::new();
    for found in found {
        match places.get(&found.name) {
            None => {
                places.insert(found.name.clone(), out.len());
                out.push(found);
            }
            Some(&place) => {
                let before: &mut Found = &mut out[place];
                before.caption = before.caption.take().or(found.caption);
            }
        }
    }
    out
}
