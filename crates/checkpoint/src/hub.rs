//! The hub's local cache: `models--org--name/{refs/<revision>, snapshots/<commit>/...}`. Looked
//! up, never filled: nothing here touches the network.

use crate::files::read_small;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the hub's tools keep models (huggingface_hub `constants.py`), as `variable` gives the environment: `$HF_HUB_CACHE`,
/// else what it was called before, `$HUGGINGFACE_HUB_CACHE`, else `hub` in [`home_dir`]. None if not even a home directory is
/// known.
pub fn cache_dir(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let named = path_in(variable, "HF_HUB_CACHE").or_else(|| path_in(variable, "HUGGINGFACE_HUB_CACHE"));
    match named {
        Some(named) => expanded(variable, named),
        None => home_dir(variable).map(|home| home.join("hub")),
    }
}

/// Where they keep everything: `$HF_HOME`, which is `huggingface` in `$XDG_CACHE_HOME` or `~/.cache` where nobody says.
pub fn home_dir(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let cache = || path_in(variable, "XDG_CACHE_HOME").or_else(|| user_dir(variable).map(|home| home.join(".cache")));
    let home = path_in(variable, "HF_HOME").or_else(|| cache().map(|cache| cache.join("huggingface")));
    expanded(variable, home?)
}

fn path_in(variable: &dyn Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn user_dir(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    path_in(variable, "HOME").or_else(|| path_in(variable, "USERPROFILE"))
}

fn expanded(variable: &dyn Fn(&str) -> Option<OsString>, named: PathBuf) -> Option<PathBuf> {
    match named.strip_prefix("~") {
        Ok(rest) => user_dir(variable).map(|home| home.join(rest)),
        Err(_) => Some(named),
    }
}

/// The cache of this process.
fn own_cache() -> Option<PathBuf> {
    cache_dir(&|name| std::env::var_os(name))
}

/// What the hub calls a model, or a file of one: `ORG/NAME`, `ORG/NAME/FILE`, either with `@REVISION` behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// `ORG/NAME`.
    pub repository: String,
    pub file: Option<String>,
    /// A branch, a tag or a commit; `main` where none is said.
    pub revision: String,
}

impl Id {
    pub fn parse(text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let mut parts = name.splitn(3, '/');
        let (org, model, file) = (parts.next()?, parts.next()?, parts.next());
        let fits = is_plain(org) && is_plain(model) && revision.split('/').all(is_plain);
        (fits && file.is_none_or(is_file_name)).then(|| Self {
            repository: format!("{org}/{model}"),
            file: file.map(str::to_owned),
            revision: revision.to_owned(),
        })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(file) = &self.file {
            write!(f, "/{file}")?;
        }
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// The folder of the cache that belongs to `ORG/NAME`.
pub fn folder_of(repository: &str) -> String {
    format!("models--{}", repository.replace('/', "--"))
}

/// The repositories that a cache has models of, as `ORG/NAME`.
pub fn repositories(cache: &Path) -> Vec<String> {
    let names = fs::read_dir(cache).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names
        .filter_map(|name| Some(name.strip_prefix("models--")?.replacen("--", "/", 1)))
        .filter(|name| Id::parse(name).is_some())
        .collect();
    found.sort();
    found
}

/// What an [`Id`] names in the local cache: the folder of a snapshot, or a file in it.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(&own_cache()?, name)
}

/// `org/name`, if `path` is a snapshot of the cache.
pub fn repository_of(path: &Path) -> Option<String> {
    let snapshots = path.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(repository.replacen("--", "/", 1))
}

/// [`find`] in a given cache directory.
pub fn find_in(cache: &Path, name: &str) -> Option<PathBuf> {
    let id = Id::parse(name)?;
    let snapshot = snapshot_in(cache, &id)?;
    match &id.file {
        None => Some(snapshot),
        Some(file) => Some(snapshot.join(file)).filter(|path| path.is_file()),
    }
}

fn snapshot_in(cache: &Path, id: &Id) -> Option<PathBuf> {
    let root = cache.join(folder_of(&id.repository));
    let snapshots = root.join("snapshots");
    let commit = read_small(&root.join("refs").join(&id.revision)).ok();
    let commit = commit.and_then(|bytes| String::from_utf8(bytes).ok());
    let named = commit.as_deref().map_or(id.revision.as_str(), str::trim);
    let snapshot = snapshots.join(named);
    if is_plain(named) && snapshot.is_dir() {
        return Some(snapshot);
    }
    // `refs/main` may be absent (a download pinned to a commit): the newest snapshot then.
    (id.revision == "main").then(|| newest(&snapshots)).flatten()
}

fn newest(snapshots: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(snapshots).ok()?.flatten();
    entries
        .filter_map(|entry| Some((entry.metadata().ok()?, entry.path())))
        .filter(|(metadata, _)| metadata.is_dir())
        .max_by_key(|(metadata, _)| metadata.modified().ok())
        .map(|(_, path)| path)
}

/// Letters, digits, `.`, `_`, `-`, and not a way out of the directory.
pub fn is_plain(part: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    !part.is_empty() && part.bytes().all(allowed) && !part.bytes().all(|b| b == b'.')
}

/// A file's path in a repository: any letters, and not a way out of it.
pub fn is_file_name(path: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && !part.bytes().all(|b| b == b'.') && !part.contains(['\\', ':', '\0']);
    path.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_directory_follows_the_hubs_variables_in_order() {
        let with = |set: &[(&str, &str)]| {
            cache_dir(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
        };
        let home = ("HOME", "/home/me");
        assert_eq!(with(&[home]), Some(PathBuf::from("/home/me/.cache/huggingface/hub")));
        assert_eq!(with(&[home, ("HF_HOME", "/hf")]), Some(PathBuf::from("/hf/hub")));
        assert_eq!(
            with(&[home, ("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/c")]),
            Some(PathBuf::from("/c"))
        );
        assert_eq!(
            with(&[("HF_HUB_CACHE", ""), home]),
            Some(PathBuf::from("/home/me/.cache/huggingface/hub"))
        );
        assert_eq!(with(&[]), None);
        let old = ("HUGGINGFACE_HUB_CACHE", "/old");
        assert_eq!(with(&[home, ("HF_HOME", "/hf"), old]), Some(PathBuf::from("/old")));
        assert_eq!(with(&[old, ("HF_HUB_CACHE", "/c")]), Some(PathBuf::from("/c")));
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        assert_eq!(with(&[home, xdg]), Some(PathBuf::from("/xdg/huggingface/hub")));
        assert_eq!(
            with(&[xdg, ("HF_HOME", "~/hf"), home]),
            Some(PathBuf::from("/home/me/hf/hub"))
        );
    }

    #[test]
    fn a_revision_leads_to_its_snapshot() {
        let cache = tempfile::tempdir().unwrap();
        let root = cache.path().join("models--stabilityai--sdxl-turbo");
        let snapshot = root.join("snapshots/abc123");
        fs::create_dir_all(&snapshot).unwrap();
        let find = |name| find_in(cache.path(), name);
        assert_eq!(
            find("stabilityai/sdxl-turbo"),
            Some(snapshot.clone()),
            "without refs: the only snapshot"
        );
        fs::create_dir_all(root.join("refs")).unwrap();
        fs::write(root.join("refs/main"), "abc123\n").unwrap();
        assert_eq!(find("stabilityai/sdxl-turbo"), Some(snapshot.clone()));
        assert_eq!(find("stabilityai/sdxl-turbo@abc123"), Some(snapshot.clone()));
        assert_eq!(find("stabilityai/sdxl-turbo@other"), None);
        assert_eq!(find("stabilityai/sdxl-turbo/a.safetensors"), None);
        fs::write(snapshot.join("a.safetensors"), "").unwrap();
        assert_eq!(
            find("stabilityai/sdxl-turbo/a.safetensors"),
            Some(snapshot.join("a.safetensors"))
        );
        assert_eq!(find("stabilityai/sdxl-turbo/../abc123/a.safetensors"), None);
        assert_eq!(find("stabilityai/sdxl-base"), None);
        assert_eq!(find("sdxl-turbo"), None);
        assert_eq!(find("stabilityai/../sdxl-turbo"), None);
        assert_eq!(find("../.."), None);
    }
}
