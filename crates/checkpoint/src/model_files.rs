//! What a model consists of beside its weights: for a copy of it with other weights.

use crate::files::read_small;
use crate::{Error, ModelSource};
use std::fs;
use std::path::Path;

/// Folders of a diffusers model whose files are no weights.
const FOLDERS: [&str; 4] = ["", "scheduler", "tokenizer", "tokenizer_2"];
/// The files of those folders that a model in one file may have in a folder beside it, or that follow from its tensors.
const BESIDE: [&str; 10] = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/special_tokens_map.json",
];

/// `(path in the model, contents)` of its index, its scheduler's config, its tokenizers and whatever lies beside them; not
/// of the components' configs.
pub fn files_beside_weights(source: &ModelSource) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut files = Vec::new();
    match source {
        ModelSource::Folder(root) => {
            for folder in FOLDERS {
                add_folder(root, folder, &mut files)?;
            }
        }
        ModelSource::Embedded(model) => {
            let ours = |path: &str| FOLDERS.contains(&path.rsplit_once('/').map_or("", |(folder, _)| folder));
            let those = model.files.iter().filter(|(path, _)| ours(path));
            files.extend(those.map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())));
        }
        ModelSource::SingleFile(_) | ModelSource::Assembled(_) => {
            for path in BESIDE.into_iter().filter(|path| source.exists(path)) {
                let (component, name) = path.split_once('/').unwrap_or(("", path));
                let bytes = match source.read_bytes(path) {
                    Err(Error::NoFile { .. }) => source.json(component, name)?.to_string().into_bytes(),
                    other => other?,
                };
                files.push((path.to_owned(), bytes));
            }
        }
    }
    Ok(files)
}

/// The regular files of one folder, if it is there, but for hidden ones.
fn add_folder(root: &Path, folder: &str, files: &mut Vec<(String, Vec<u8>)>) -> Result<(), Error> {
    let path = root.join(folder);
    if !path.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(&path).map_err(Error::io("read", &path))?;
    for entry in entries {
        let entry = entry.map_err(Error::io("read", &path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && !name.starts_with('.') {
            let place = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            files.push((place, read_small(&entry.path())?));
        }
    }
    Ok(())
}
