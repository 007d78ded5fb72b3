//! The hub's cache, written: `models--ORG--NAME/{blobs/ETAG, snapshots/COMMIT/FILE -> ../../blobs/ETAG, refs/REVISION}` beside
//! `.locks/models--ORG--NAME/ETAG.lock`, as huggingface_hub lays it out.

use crate::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// One repository in the cache.
pub(crate) struct Repository {
    root: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub fn new(cache: &Path, repository: &str) -> Self {
        let folder = prima_checkpoint::hub::folder_of(repository);
        Self {
            root: cache.join(&folder),
            locks: cache.join(".locks").join(folder),
        }
    }

    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    pub fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// What there is of a blob while it comes.
    pub fn part(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The folder that everything is written below, made if it is not there.
    pub fn made(&self) -> Result<&Path, Error> {
        let blobs = self.root.join("blobs");
        fs::create_dir_all(&blobs).map_err(Error::io("make the folder", &blobs))?;
        Ok(&self.root)
    }

    /// Waits until no other process gets this blob; the lock goes with the file. Other tools of the hub ask for the same one.
    pub fn lock(&self, etag: &str) -> Result<File, Error> {
        fs::create_dir_all(&self.locks).map_err(Error::io("make the folder", &self.locks))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(Error::io("open", &path))?;
        // Where there are no locks nobody waits for them.
        let _ = file.lock();
        Ok(file)
    }

    /// Lets `file` of a snapshot be that blob.
    pub fn point(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf, Error> {
        let at = self.snapshot(commit).join(file);
        let folder = at.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        if at.symlink_metadata().is_ok() {
            fs::remove_file(&at).map_err(Error::io("replace", &at))?;
        }
        let up = "../".repeat(file.split('/').count() + 1);
        link(&format!("{up}blobs/{etag}"), &self.blob(etag), &at).map_err(Error::io("link", &at))?;
        Ok(at)
    }

    /// Lets a branch or a tag be that commit.
    pub fn refer(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if revision == commit {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
        fs::write(&path, commit).map_err(Error::io("write", &path))
    }
}

/// Where links need rights that few have, the file itself lies in the snapshot, as huggingface_hub does it there too.
fn link(relative: &str, blob: &Path, at: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let _ = blob;
        std::os::unix::fs::symlink(relative, at)
    }
    #[cfg(not(unix))]
    {
        let _ = relative;
        fs::rename(blob, at)
    }
}
