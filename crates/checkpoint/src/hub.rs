//! The hub's local cache: `models--org--name/{refs/<revision>, snapshots/<commit>/...}`. Looked
//! up, never filled: nothing here touches the network.

use crate::files::read_small;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the hub's tools keep models (huggingface_hub `constants.py`): `$HF_HUB_CACHE`, else what it was called before,
/// `$HUGGINGFACE_HUB_CACHE`, else `hub` in `$HF_HOME`, which is `huggingface` in `$XDG_CACHE_HOME` or `~/.cache` where nobody
/// says. None if not even a home directory is known.
pub fn cache_dir() -> Option<PathBuf> {
    cache_dir_from(|name| std::env::var_os(name))
}

fn cache_dir_from(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || path("HOME").or_else(|| path("USERPROFILE"));
    let expanded = |named: PathBuf| match named.strip_prefix("~") {
        Ok(rest) => home().map(|home| home.join(rest)),
        Err(_) => Some(named),
    };
    let cache = || path("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")));
    let hf_home = || path("HF_HOME").or_else(|| cache().map(|cache| cache.join("huggingface")));
    path("HF_HUB_CACHE")
        .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| hf_home().map(|home| home.join("hub")))
        .and_then(expanded)
}

/// The snapshot of `org/name` (or `org/name@revision`) in the local cache.
pub fn find(name: &str) -> Option<PathBuf> {
    find_in(&cache_dir()?, name)
}

/// `org/name`, if `path` is a snapshot of the cache.
pub fn repository_of(path: &Path) -> Option<String> {
    let snapshots = path.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let repository = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(repository.replacen("--", "/", 1))
}

/// [`find`] in a given cache directory.
pub fn find_in(cache: &Path, name: &str) -> Option<PathBuf> {
    let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
    let (org, model) = name.split_once('/')?;
    if !is_plain(org) || !is_plain(model) || !revision.split('/').all(is_plain) {
        return None;
    }
    let root = cache.join(format!("models--{org}--{model}"));
    let snapshots = root.join("snapshots");
    let commit = read_small(&root.join("refs").join(revision)).ok();
    let commit = commit.and_then(|bytes| String::from_utf8(bytes).ok());
    let named = commit.as_deref().map_or(revision, str::trim);
    let snapshot = snapshots.join(named);
    if is_plain(named) && snapshot.is_dir() {
        return Some(snapshot);
    }
    // `refs/main` may be absent (a download pinned to a commit): the newest snapshot then.
    (revision == "main").then(|| newest(&snapshots)).flatten()
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
fn is_plain(part: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    !part.is_empty() && part.bytes().all(allowed) && !part.bytes().all(|b| b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_directory_follows_the_hubs_variables_in_order() {
        let with = |set: &[(&str, &str)]| {
            cache_dir_from(|name| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
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
        assert_eq!(find("stabilityai/sdxl-turbo@abc123"), Some(snapshot));
        assert_eq!(find("stabilityai/sdxl-turbo@other"), None);
        assert_eq!(find("stabilityai/sdxl-base"), None);
        assert_eq!(find("sdxl-turbo"), None);
        assert_eq!(find("stabilityai/../sdxl-turbo"), None);
        assert_eq!(find("../.."), None);
    }
}
