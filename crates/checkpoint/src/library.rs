//! The models of this machine by the names under which people choose them: what lies in a folder of models, and what was
//! pulled into the hub's cache. A name is looked up in these lists and never taken for a path.

use crate::model_source::{is_weights_file, only_weights_in};
use crate::{Error, ModelSource, TensorFile, hub, what_is_it};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Where a model lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    Folder,
    Hub,
}

/// A model that can be chosen.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LibraryEntry {
    /// `ORG/NAME` of the hub; in the folder the path below it, with the ending of a file.
    pub name: String,
    pub place: Place,
    /// The diffusers folder, or the file.
    pub path: PathBuf,
}

/// How long a list is good for: clients ask often, and a file may be copied in at any time.
const FRESH: Duration = Duration::from_secs(3);
/// Folders within folders, as A1111 and ComfyUI have them.
const DEEPEST: usize = 3;
/// More are no collection of models.
const MOST: usize = 1000;

/// See the module.
#[derive(Debug, Default)]
pub struct Library {
    folder: Option<PathBuf>,
    cache: Option<PathBuf>,
    list: Mutex<Option<(Instant, Vec<LibraryEntry>)>>,
    /// What is known of files: whether this one is a whole model.
    files: Mutex<HashMap<(PathBuf, u64, SystemTime), bool>>,
}

/// Where models are put and looked for if nobody says: `$PRIMA_MODELS_DIR`, else `prima/models` in `$XDG_DATA_HOME`, which is
/// `~/.local/share`.
pub fn models_folder() -> Option<PathBuf> {
    let path = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || path("HOME").or_else(|| path("USERPROFILE"));
    let data = || path("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local/share")));
    path("PRIMA_MODELS_DIR").or_else(|| data().map(|data| data.join("prima/models")))
}

impl Library {
    /// Of a folder of models and a cache of the hub; either may be absent.
    pub fn new(folder: Option<PathBuf>, cache: Option<PathBuf>) -> Self {
        Self {
            folder,
            cache,
            ..Self::default()
        }
    }

    /// Of this user: `folder`, or where models are put if nobody says, and the hub's cache.
    pub fn of_user(folder: Option<PathBuf>) -> Self {
        Self::new(
            folder.or_else(models_folder),
            hub::cache_dir(&|name| std::env::var_os(name)),
        )
    }

    /// The folder that models are put into.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// All models, by name.
    pub fn entries(&self) -> Vec<LibraryEntry> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, entries)) = &*list
            && at.elapsed() < FRESH
        {
            return entries.clone();
        }
        let mut entries = Vec::new();
        if let Some(folder) = &self.folder {
            self.look_in(folder, "", DEEPEST, &mut entries);
        }
        if let Some(cache) = &self.cache {
            self.look_in_cache(cache, &mut entries);
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        *list = Some((Instant::now(), entries.clone()));
        entries
    }

    /// The model that `name` means, its file's ending left out or not.
    pub fn find(&self, name: &str) -> Option<LibraryEntry> {
        let entries = self.entries();
        let exact = entries.iter().find(|entry| entry.name == name);
        let found = exact.or_else(|| entries.iter().find(|entry| without_ending(&entry.name) == name));
        found.cloned()
    }

    fn look_in(&self, folder: &Path, above: &str, deep: usize, entries: &mut Vec<LibraryEntry>) {
        for item in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(own) = item.file_name().into_string() else {
                continue;
            };
            if own.starts_with('.') || entries.len() >= MOST {
                continue;
            }
            let (path, name) = (item.path(), format!("{above}{own}"));
            let is_model = path.join("model_index.json").is_file() || self.is_whole(&path);
            if is_model {
                let place = Place::Folder;
                entries.push(LibraryEntry { name, place, path });
            } else if path.is_dir() && deep > 0 {
                self.look_in(&path, &format!("{name}/"), deep - 1, entries);
            }
        }
    }

    fn look_in_cache(&self, cache: &Path, entries: &mut Vec<LibraryEntry>) {
        for repository in hub::repositories(cache) {
            let Some(snapshot) = hub::find_in(cache, &repository) else {
                continue;
            };
            let place = Place::Hub;
            if is_painter(&snapshot) {
                entries.push(LibraryEntry {
                    name: repository,
                    place,
                    path: snapshot,
                });
                continue;
            }
            let only = only_weights_in(&snapshot).filter(|path| self.is_whole(path));
            let files = fs::read_dir(&snapshot)
                .into_iter()
                .flatten()
                .flatten()
                .map(|item| item.path());
            match only {
                Some(path) => entries.push(LibraryEntry {
                    name: repository,
                    place,
                    path,
                }),
                None => entries.extend(files.filter(|path| self.is_whole(path)).filter_map(|path| {
                    let file = path.file_name()?.to_str()?;
                    let name = format!("{repository}/{file}");
                    Some(LibraryEntry { name, place, path })
                })),
            }
        }
    }

    /// Whether a file holds a model, and not a LoRA or one network.
    fn is_whole(&self, path: &Path) -> bool {
        if !is_weights_file(path) {
            return false;
        }
        let Ok(metadata) = path.metadata() else { return false };
        let key = (
            path.to_owned(),
            metadata.len(),
            metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        );
        let known = |files: &Mutex<HashMap<_, bool>>| {
            let files = files.lock().unwrap_or_else(PoisonError::into_inner);
            files.get(&key).copied()
        };
        if let Some(known) = known(&self.files) {
            return known;
        }
        let is_whole = metadata.is_file() && TensorFile::open(path).is_ok_and(|file| what_is_it(&file).is_model());
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(key, is_whole);
        is_whole
    }
}

impl LibraryEntry {
    pub fn open(&self) -> Result<ModelSource, Error> {
        ModelSource::open(&self.path)
    }
}

/// A file's name without `.safetensors` and its kin; other names as they are.
pub fn without_ending(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, _)) if is_weights_file(Path::new(name)) => stem,
        _ => name,
    }
}

/// Whether a snapshot is of a model that there are parts for here: other pipelines lie in the same cache.
fn is_painter(snapshot: &Path) -> bool {
    let index = crate::files::read_small(&snapshot.join("model_index.json"));
    let index = index
        .ok()
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    index.is_some_and(|index| index.get("unet").is_some_and(|unet| !unet[0].is_null()))
        && snapshot.join("unet").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_a_folder_and_of_the_cache_have_names_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, cache) = (dir.path().join("models"), dir.path().join("cache"));
        fs::create_dir_all(folder.join("sdxl/mine")).unwrap();
        fs::write(folder.join("sdxl/mine/model_index.json"), "{}").unwrap();
        fs::write(folder.join("broken.safetensors"), "no tensors").unwrap();
        fs::write(folder.join("notes.txt"), "").unwrap();
        for (repository, index) in [
            (
                "models--a--painter",
                r#"{"unet": ["diffusers", "UNet2DConditionModel"]}"#,
            ),
            ("models--a--flux", r#"{"transformer": ["diffusers", "X"]}"#),
        ] {
            let snapshot = cache.join(repository).join("snapshots/abc");
            fs::create_dir_all(snapshot.join("unet")).unwrap();
            fs::write(snapshot.join("model_index.json"), index).unwrap();
        }
        let library = Library::new(Some(folder.clone()), Some(cache));
        let names: Vec<String> = library.entries().into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["a/painter", "sdxl/mine"]);
        assert_eq!(library.find("sdxl/mine").unwrap().path, folder.join("sdxl/mine"));
        for other in ["", "mine", "../models/sdxl/mine", "/etc", "broken", "a/flux"] {
            assert_eq!(library.find(other), None, "{other}");
        }
    }

    #[test]
    fn endings_of_weights_may_be_left_out() {
        assert_eq!(without_ending("a/b.safetensors"), "a/b");
        assert_eq!(without_ending("sd_xl_1.0"), "sd_xl_1.0");
        assert_eq!(without_ending("x.GGUF"), "x");
    }
}
