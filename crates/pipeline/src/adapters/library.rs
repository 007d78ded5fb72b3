//! Which LoRAs there are: files that were named, and those of a folder. Only names come from clients: they are looked up here
//! and never become part of a path.

use super::choice::LoraChoice;
use crate::Error;
use crate::weight_files::{check_folder, is_safetensors, sorted, stem};
use prima_checkpoint::TensorFile;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Which LoRAs a pipeline has.
#[derive(Clone, Debug, Default)]
pub struct LoraOptions {
    /// Every safetensors file in this folder and those below, by its name without the ending.
    pub folder: Option<PathBuf>,
    /// Files, or names of files in the folder, that every request gets, and their weights.
    pub standing: Vec<(PathBuf, f32)>,
}

/// A LoRA that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoraEntry {
    pub name: String,
    pub path: PathBuf,
    /// What the file says it is called, if anything else.
    pub alias: Option<String>,
    pub metadata: BTreeMap<String, String>,
}

impl LoraEntry {
    /// What its metadata call it.
    pub fn title(&self) -> Option<&str> {
        let titles = ["modelspec.title", "ss_output_name"].into_iter();
        titles
            .filter_map(|key| self.metadata.get(key))
            .map(String::as_str)
            .next()
    }
}

/// A file as it was when it was looked at: another that takes its name is another file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileId(PathBuf, u64, Option<SystemTime>);

#[derive(Default)]
pub(super) struct Library {
    folder: Option<PathBuf>,
    /// By name; files that were named first.
    named: BTreeMap<String, LoraEntry>,
    found: BTreeMap<String, LoraEntry>,
}

/// Files of one folder that are looked at.
const MOST_FILES: usize = 10_000;
/// Folders below one another.
const DEEPEST: usize = 8;
/// Names that are told to someone who asked for another.
const TOLD: usize = 12;

impl Library {
    /// With the choices that every request gets.
    pub fn new(options: &LoraOptions) -> Result<(Self, Vec<LoraChoice>), Error> {
        let mut library = Self {
            folder: options.folder.clone(),
            ..Self::default()
        };
        if let Some(folder) = &options.folder {
            check_folder("--lora-dir", folder)?;
        }
        library.refresh();
        let mut standing = Vec::new();
        for (path, weight) in &options.standing {
            standing.push(LoraChoice::new(library.add(path)?, *weight));
        }
        Ok((library, standing))
    }

    /// The name of a file that is named by its path, or by a name in the folder.
    fn add(&mut self, path: &Path) -> Result<String, Error> {
        if !path.exists()
            && let Some(name) = path.to_str().and_then(|name| self.resolve(name))
        {
            return Ok(name);
        }
        let entry = entry(path)?;
        let mut name = entry.name.clone();
        // Two files of one name are told apart.
        for number in 2.. {
            match self.named.get(&name) {
                Some(other) if other.path != entry.path => name = format!("{}-{number}", entry.name),
                _ => break,
            }
        }
        self.named.insert(
            name.clone(),
            LoraEntry {
                name: name.clone(),
                ..entry
            },
        );
        Ok(name)
    }

    pub fn refresh(&mut self) {
        self.found.clear();
        let mut folders: Vec<(PathBuf, usize)> = self.folder.iter().map(|folder| (folder.clone(), 0)).collect();
        let mut files = 0;
        while let Some((folder, depth)) = folders.pop() {
            for path in sorted(&folder) {
                if path.is_dir() && depth < DEEPEST {
                    folders.push((path, depth + 1));
                } else if is_safetensors(&path) && files < MOST_FILES {
                    files += 1;
                    // What cannot be read is told when it is asked for.
                    let entry = entry(&path).unwrap_or_else(|_| nameless(&path));
                    self.found.entry(entry.name.clone()).or_insert(entry);
                }
            }
        }
    }

    /// Sorted by name.
    pub fn entries(&self) -> Vec<LoraEntry> {
        let mut all = self.found.clone();
        all.extend(self.named.clone());
        all.into_values().collect()
    }

    /// The name of the LoRA that is called so: exactly, else whatever the case, else by its alias.
    pub fn resolve(&self, name: &str) -> Option<String> {
        let name = name.trim();
        let name = name.strip_suffix(".safetensors").unwrap_or(name);
        let all = || self.named.values().chain(self.found.values());
        let same = |other: &str| other.eq_ignore_ascii_case(name);
        let found = all()
            .find(|entry| entry.name == name)
            .or_else(|| all().find(|entry| same(&entry.name)))
            .or_else(|| all().find(|entry| entry.alias.as_deref().is_some_and(same)));
        found.map(|entry| entry.name.clone())
    }

    /// By the name that [`resolve`](Self::resolve) gives.
    pub fn entry(&self, name: &str) -> Option<&LoraEntry> {
        self.named.get(name).or_else(|| self.found.get(name))
    }

    /// Where it lies, if it still does.
    pub fn file(&self, name: &str) -> Option<(PathBuf, FileId)> {
        let entry = self.entry(name)?;
        let metadata = fs::metadata(&entry.path).ok()?;
        let id = FileId(entry.path.clone(), metadata.len(), metadata.modified().ok());
        Some((entry.path.clone(), id))
    }

    /// What there is, in words.
    pub fn known(&self) -> String {
        let names: BTreeSet<&str> = self.found.keys().chain(self.named.keys()).map(String::as_str).collect();
        let names: Vec<&str> = names.into_iter().collect();
        match names.len() {
            0 if self.folder.is_some() => "there are none in the folder of LoRAs".to_owned(),
            0 => "there are none; start prima with --lora-dir DIR or --lora FILE".to_owned(),
            n if n > TOLD => format!("known are {} and {} more", names[..TOLD].join(", "), n - TOLD),
            _ => format!("known are {}", names.join(", ")),
        }
    }
}

fn nameless(path: &Path) -> LoraEntry {
    LoraEntry {
        name: stem(path),
        path: path.to_path_buf(),
        alias: None,
        metadata: BTreeMap::new(),
    }
}

/// By the file's header.
fn entry(path: &Path) -> Result<LoraEntry, Error> {
    let file = TensorFile::open(path)?;
    let alias = file
        .metadata()
        .get("ss_output_name")
        .filter(|alias| !alias.is_empty() && alias.as_str() != "None");
    Ok(LoraEntry {
        alias: alias.cloned(),
        metadata: file.metadata().clone(),
        ..nameless(path)
    })
}
