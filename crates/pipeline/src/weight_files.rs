//! Folders of files that prompts and requests name without their endings: LoRAs, learnt words.

use crate::Error;
use std::path::{Path, PathBuf};

/// Refuses what the option `flag` names unless it is a folder.
pub(crate) fn check_folder(flag: &'static str, folder: &Path) -> Result<(), Error> {
    if folder.is_dir() {
        return Ok(());
    }
    let fix = "name a folder that is there".to_owned();
    Err(Error::request(flag, folder.display(), fix))
}

/// What is in a folder, in order; nothing where it cannot be read.
pub(crate) fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

pub(crate) fn is_safetensors(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"))
}

/// What a file is called by.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
