//! `prima models list`, `import` and `remove`: the folder of models and the hub's cache.

use crate::out::{note, say};
use crate::{Usage, embedded};
use anyhow::{Context, Result, bail};
use prima_checkpoint::{Library, LibraryEntry, Place, hub, info};
use serde_json::json;
use std::fs;
use std::io::{BufRead, IsTerminal, stdin};
use std::path::{Path, PathBuf};

#[derive(clap::Args, Default)]
pub struct FolderArg {
    /// The folder of models [default: prima/models in the user's data folder]
    #[arg(long, value_name = "DIR", env = "PRIMA_MODELS_DIR")]
    pub models_dir: Option<PathBuf>,
}

impl FolderArg {
    pub fn library(&self) -> Library {
        Library::of_user(self.models_dir.clone())
    }
}

/// `prima models list`.
pub fn list(folder: &FolderArg, as_json: bool) -> Result<()> {
    let library = folder.library();
    let entries = library.entries();
    if as_json {
        let entry = |entry: &LibraryEntry| json!({"name": entry.name, "place": entry.place, "path": entry.path, "bytes": bytes_of(&entry.path)});
        let mut all: Vec<_> = entries.iter().map(entry).collect();
        if !embedded::FILES.is_empty() {
            all.insert(
                0,
                json!({"name": "embedded", "place": "binary", "path": null, "bytes": embedded_bytes()}),
            );
        }
        say!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if !embedded::FILES.is_empty() {
        say!("{:>9}  {:<6}  embedded", gigabytes(embedded_bytes()), "binary");
    }
    for entry in &entries {
        let place = match entry.place {
            Place::Folder => "folder",
            Place::Hub => "hub",
        };
        say!("{:>9}  {place:<6}  {}", gigabytes(bytes_of(&entry.path)), entry.name);
    }
    if entries.is_empty() {
        let folder = library.folder().map_or_else(
            || "a folder of models".to_owned(),
            |folder| folder.display().to_string(),
        );
        note!("prima models pull ORG/NAME gets models from the hub, prima models import FILE puts one into {folder}");
    }
    Ok(())
}

#[derive(clap::Args)]
pub struct ImportArgs {
    /// A file (.safetensors, .gguf) or a diffusers folder
    path: PathBuf,
    /// What it is called from now on [default: its own name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Put a link there, and leave the model where it is
    #[arg(long)]
    link: bool,
    #[command(flatten)]
    folder: FolderArg,
}

/// `prima models import`.
pub fn import(args: &ImportArgs) -> Result<()> {
    crate::source::check_there(&args.path)?;
    let path = args
        .path
        .canonicalize()
        .with_context(|| format!("cannot open {}", args.path.display()))?;
    let found = info(&path)?;
    if found.layout == "weights" {
        let message = format!(
            "{} is no whole model ({}): name it to --unet, --vae, --lora or --text-encoder instead",
            args.path.display(),
            found.preset
        );
        return Err(Usage(message).into());
    }
    let library = args.folder.library();
    let folder = library
        .folder()
        .context("nobody says where models are put: name --models-dir")?;
    let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let target = folder.join(target_name(args.name.as_deref().unwrap_or(&own), &path)?);
    if target.symlink_metadata().is_ok() {
        let message = format!(
            "{} is there already: choose another --name, or remove that one",
            target.display()
        );
        return Err(Usage(message).into());
    }
    let above = target.parent().unwrap_or(folder);
    fs::create_dir_all(above).with_context(|| format!("cannot make the folder {}", above.display()))?;
    let put = if args.link {
        link(&path, &target)
    } else {
        copy(&path, &target)
    };
    put.with_context(|| format!("cannot write {}", target.display()))?;
    let name = target.strip_prefix(folder).unwrap_or(&target).display().to_string();
    say!("{}", target.display());
    note!("paint with --model {name}");
    Ok(())
}

/// A name below the folder, with the ending of a file.
fn target_name(name: &str, path: &Path) -> Result<String> {
    if !hub::is_file_name(name) || name.split('/').any(|part| part.starts_with('.')) {
        return Err(Usage(format!("{name:?} is no name for a model: use letters, digits, - and _")).into());
    }
    let ending = path
        .extension()
        .filter(|_| path.is_file())
        .map(|ending| ending.to_string_lossy());
    Ok(match ending {
        Some(ending) if !name.to_lowercase().ends_with(&format!(".{}", ending.to_lowercase())) => {
            format!("{name}.{ending}")
        }
        _ => name.to_owned(),
    })
}

/// A copy that is there whole or not at all.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let beside = to.with_file_name(format!(".{name}.part"));
    let copied = copy_all(from, &beside).and_then(|()| fs::rename(&beside, to));
    if copied.is_err() {
        let _ = if beside.is_dir() {
            fs::remove_dir_all(&beside)
        } else {
            fs::remove_file(&beside)
        };
    }
    copied
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::symlink(from, to);
    #[cfg(windows)]
    return if from.is_dir() {
        std::os::windows::fs::symlink_dir(from, to)
    } else {
        std::os::windows::fs::symlink_file(from, to)
    };
}

#[derive(clap::Args)]
pub struct RemoveArgs {
    /// A name that `prima models list` says; of the hub also ORG/NAME of what is no model
    name: String,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    folder: FolderArg,
}

/// `prima models remove`.
pub fn remove(args: &RemoveArgs) -> Result<()> {
    let library = args.folder.library();
    let cache = hub::cache_dir(&|name| std::env::var_os(name));
    let entry = library.find(&args.name);
    let paths = match &entry {
        Some(entry) if entry.place == Place::Folder => vec![entry.path.clone()],
        _ => {
            let name = entry.as_ref().map_or(args.name.as_str(), |entry| entry.name.as_str());
            cache.map_or_else(Vec::new, |cache| of_hub(&cache, name))
        }
    };
    let Some(first) = paths.first() else {
        bail!(
            "there is no model {:?}: prima models list says what there is",
            args.name
        );
    };
    let bytes = bytes_of(first);
    if !args.yes && !is_sure(first, bytes)? {
        return Ok(());
    }
    for path in &paths {
        // Of a link, the link.
        let is_link = path.symlink_metadata().is_ok_and(|there| there.is_symlink());
        let removed = if path.is_dir() && !is_link {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    say!("removed {} from {}", gigabytes(bytes), first.display());
    Ok(())
}

/// What a name of the hub stands for in its cache: a repository and its locks; of one file its link and, where no other revision
/// has the same, what that leads to.
fn of_hub(cache: &Path, name: &str) -> Vec<PathBuf> {
    let Some(id) = hub::Id::parse(name) else {
        return Vec::new();
    };
    let folder = hub::folder_of(&id.repository);
    let root = cache.join(&folder);
    let Some(file) = &id.file else {
        let all = [root, cache.join(".locks").join(&folder)];
        return all.into_iter().filter(|path| path.is_dir()).collect();
    };
    let Some(link) = hub::find_in(cache, name) else {
        return Vec::new();
    };
    let blob = link.canonicalize().ok().filter(|blob| *blob != link);
    let snapshots = fs::read_dir(root.join("snapshots")).into_iter().flatten().flatten();
    let same = |snapshot: fs::DirEntry| snapshot.path().join(file).canonicalize().ok() == blob;
    let is_shared = snapshots
        .filter(|snapshot| !link.starts_with(snapshot.path()))
        .any(same);
    // The larger one first, which is what is asked about.
    let blob = blob.filter(|_| !is_shared);
    blob.into_iter().chain([link]).collect()
}

fn is_sure(path: &Path, bytes: u64) -> Result<bool> {
    if !stdin().is_terminal() {
        return Err(Usage(format!("{} would be removed: say --yes", path.display())).into());
    }
    note!("remove {} ({})? [y/N]", path.display(), gigabytes(bytes));
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Of all files below a path, each once, as the cache links to them.
fn bytes_of(path: &Path) -> u64 {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            let items = fs::read_dir(path).into_iter().flatten().flatten();
            // A repository of the hub holds each file once as a blob, and links to it.
            let is_cache = path.join("blobs").is_dir();
            let counted = items.filter(|item| !is_cache || item.file_name() == "blobs");
            counted.map(|item| bytes_of(&item.path())).sum()
        }
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    }
}

fn embedded_bytes() -> u64 {
    embedded::FILES.iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_the_folder_and_keeps_the_ending() {
        let dir = std::env::temp_dir();
        let of = |name: &str| target_name(name, &dir).ok();
        assert_eq!(of("turbo").as_deref(), Some("turbo"));
        assert_eq!(of("sdxl/turbo").as_deref(), Some("sdxl/turbo"));
        for wrong in ["", "../x", "/x", ".x", "a//b", "a/.x"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
