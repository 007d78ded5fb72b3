//! Weights as the kernels of this machine read them, in files of a cache folder: a model that was read once is mapped the next
//! time, and neither read nor packed again.
//!
//! A component (a UNet, a text encoder, an autoencoder) has up to two files: what its first picture was painted with, and the
//! forms that later ones needed beside that. They are named by a hash of their *identity*: which files the weights come from
//! (path, length, time of change), in which type they are kept, on which kernels. A file is written whole or not at all,
//! never changed, and replaced or removed by its name only, so that whoever has it mapped keeps the bytes that it began with.

mod file;

use crate::whole_file;
use crate::{Error, Reader};
use file::{Contents, PackedFile, Writer};
use prima_tensor::{DType, FormTag, Keep, Param, Residency, layout};
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Most bytes of all files in a cache folder.
const LIMIT_BYTES: u64 = 64 << 30;
/// What is left free on its disk.
const LEFT_FREE_BYTES: u64 = 2 << 30;
const SUFFIX: &str = ".packed";

/// Components with less are read as fast as they are mapped, and kept only where a folder was named for them.
const WORTH_BYTES: usize = 32 << 20;

/// A folder of packed weights.
#[derive(Clone, Debug)]
pub struct PackedCache {
    folder: PathBuf,
    /// Smaller components are not kept.
    least_bytes: usize,
}

/// A file of the cache.
#[derive(Clone, Debug)]
pub struct PackedEntry {
    pub path: PathBuf,
    /// What it was made of: the component, its files, the type and the kernels; a line each.
    pub identity: String,
    pub bytes: u64,
    /// When it was last written or mapped.
    pub used: SystemTime,
}

impl PackedCache {
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            least_bytes: 0,
        }
    }

    /// Below the user's cache folder; `None` where there is none, and where files are not mapped (other than Unix).
    pub fn of_user() -> Option<Self> {
        if !cfg!(unix) {
            return None;
        }
        let absolute = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(Self {
            folder: caches.join("prima").join("packed"),
            least_bytes: WORTH_BYTES,
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All files, the one that was used last first. What is not one of ours, or is damaged, is not among them.
    pub fn entries(&self) -> Vec<PackedEntry> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut entries: Vec<_> = files
            .filter(|entry| is_ours(&entry.file_name().to_string_lossy()))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some(PackedEntry {
                    identity: file::identity(&entry.path()).unwrap_or_else(|| "damaged".to_owned()),
                    path: entry.path(),
                    bytes: metadata.len(),
                    used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                })
            })
            .collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.used));
        entries
    }

    /// Removes all files, and what killed processes left of them; how many bytes that were. Who has one mapped keeps it.
    pub fn clear(&self) -> Result<u64, Error> {
        whole_file::sweep(&self.folder, is_ours);
        let mut bytes = 0;
        for entry in self.entries() {
            fs::remove_file(&entry.path).map_err(Error::io("remove", &entry.path))?;
            bytes += entry.bytes;
        }
        Ok(bytes)
    }

    /// The place of a component's packed weights, which `reader` reads; `None` where they come from no file, or are too
    /// few.
    pub fn component(&self, name: &str, reader: &Reader, dtype: DType) -> Option<PackedComponent> {
        // Elsewhere files are not mapped.
        if !cfg!(unix) {
            return None;
        }
        let files = reader.file_identity().filter(|_| reader.bytes() >= self.least_bytes)?;
        let identity = format!("{name}\n{files}{dtype:?}\n{}", layout());
        let hash = Sha256::digest(identity.as_bytes());
        let half = hash.first_chunk::<16>().map_or(0, |half| u128::from_be_bytes(*half));
        let stem = format!("{half:032x}");
        Some(PackedComponent {
            cache: self.clone(),
            identity,
            files: ["", ".more"].map(|part| self.folder.join(format!("{stem}{part}{SUFFIX}"))),
            stored: HashSet::new(),
            is_mapped: false,
        })
    }

    /// Removes what was used longest ago until `bytes` more fit; never `ours`, which are about to be replaced.
    fn make_room(&self, bytes: u64, ours: &[PathBuf]) -> Result<(), Error> {
        make_folder(&self.folder)?;
        let mut entries = self.entries();
        entries.retain(|entry| !ours.contains(&entry.path));
        loop {
            let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
            let fits = total + bytes <= LIMIT_BYTES
                && free_bytes(&self.folder).is_none_or(|free| bytes + LEFT_FREE_BYTES <= free);
            if fits {
                return Ok(());
            }
            let Some(oldest) = entries.pop() else {
                let full = std::io::ErrorKind::StorageFull.into();
                return Err(Error::io("keep packed weights in", &self.folder)(full));
            };
            fs::remove_file(&oldest.path).map_err(Error::io("remove", &oldest.path))?;
        }
    }
}

fn is_ours(name: &str) -> bool {
    let stem = name
        .strip_suffix(SUFFIX)
        .map(|stem| stem.strip_suffix(".more").unwrap_or(stem));
    stem.is_some_and(|stem| stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// For its owner alone: nobody else is to change what is mapped.
fn make_folder(folder: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(Error::io("make the folder", folder))
}

#[cfg(unix)]
fn free_bytes(folder: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(folder).ok()?;
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// The packed weights of one component.
pub struct PackedComponent {
    cache: PackedCache,
    identity: String,
    /// What was there at first, and what was needed beside it.
    files: [PathBuf; 2],
    /// Parameters and uses that the first file holds.
    stored: HashSet<(String, u8)>,
    is_mapped: bool,
}

impl PackedComponent {
    /// Whether the weights come from the cache.
    pub fn is_mapped(&self) -> bool {
        self.is_mapped
    }

    /// Gives `params` their values from the cache, without reading them; `false` if it does not hold all of them, or is damaged.
    pub fn attach(&mut self, params: &[(String, Param)], kept: &(Arc<Residency>, bool)) -> bool {
        let Some(first) = PackedFile::open(&self.files[0], &self.identity, Some(kept.clone())) else {
            return false;
        };
        if !first.attach(params, true) {
            return false;
        }
        self.stored = first.uses();
        self.is_mapped = true;
        if let Some(more) = PackedFile::open(&self.files[1], &self.identity, Some(kept.clone())) {
            more.attach(params, false);
        }
        true
    }

    /// Writes those forms of `params` that no file holds yet; how many bytes that were. An error leaves what was there.
    pub fn store(&mut self, params: &[(String, Param)]) -> Result<u64, Error> {
        let place = usize::from(self.is_mapped);
        let path = &self.files[place];
        let is_new = |key: &str, tag: &FormTag| !self.stored.contains(&(key.to_owned(), tag.usage));
        let held: HashSet<(String, u8)> = match place {
            0 => HashSet::new(),
            _ => PackedFile::open(path, &self.identity, None).map_or_else(HashSet::new, |more| more.uses()),
        };
        let (mut bytes, mut is_needed) = (0, place == 0);
        for (key, param) in params {
            let Ok(()) = param.each_form::<std::convert::Infallible>(|tag, parts| {
                if is_new(key, &tag) {
                    bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
                    is_needed |= !held.contains(&(key.clone(), tag.usage));
                }
                Ok(())
            });
        }
        if !is_needed {
            return Ok(0);
        }
        self.cache.make_room(bytes, &self.files)?;
        let contents = Contents::new(&self.identity);
        whole_file::replace(path, |temporary| {
            let mut writer = Writer::new(temporary, contents)?;
            for (key, param) in params {
                writer.add(key, param, |tag| is_new(key, tag))?;
            }
            writer.finish()
        })?;
        Ok(bytes)
    }

    /// Reads, packs and writes the values of `reader` part by part, so that no more than a few of them are in memory at once,
    /// and maps what was written.
    pub fn build(
        &mut self,
        reader: &mut Reader,
        keep: impl Fn(&str, &[usize]) -> Keep + Sync,
        kept: &(Arc<Residency>, bool),
        on_read: &(dyn Fn(usize) + Sync),
    ) -> Result<(), Error> {
        let params = reader
            .params()
            .iter()
            .map(|(key, param)| (param.numel(), keep(key, &param.shape())));
        let bytes: usize = params
            .map(|(numel, keep)| match keep {
                Keep::Packed(DType::F32) | Keep::Summed(DType::F32) | Keep::Stored(DType::F32) => 4 * numel,
                Keep::Packed(_) | Keep::Summed(_) | Keep::Stored(_) => 2 * numel,
                Keep::Int8 => numel,
            })
            .sum();
        self.cache.make_room(bytes as u64, &self.files)?;
        let contents = Contents::new(&self.identity);
        let params = reader.params().to_vec();
        whole_file::replace(&self.files[0], |temporary| {
            let mut writer = Writer::new(temporary, contents)?;
            reader.fill_in_turn(keep, on_read, |key, param| {
                writer.add(key, param, |_| true)?;
                param.empty();
                Ok(())
            })?;
            writer.finish()
        })?;
        if self.attach(&params, kept) {
            return Ok(());
        }
        Err(Error::File {
            file: self.files[0].display().to_string(),
            message: "was just written and cannot be mapped; use --cache off, or another folder".to_owned(),
        })
    }
}
