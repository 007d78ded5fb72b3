//! A stage's folder below `run_dir`, in which one run at a time may write.

use crate::error::{Error, Result};
use crate::latent_cache;
use crate::trainer::states;
use prima_checkpoint::whole_file::sweep;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// What is locked. It stays when the run ends: without it two runs could lock two files of this name.
const LOCK: &str = ".lock";

/// A folder that is this run's until it is dropped; the kernel gives it back if the process is killed.
pub(crate) struct StageFolder {
    dir: PathBuf,
    _lock: File,
}

impl StageFolder {
    /// Makes the folder, refuses a second run in it, and removes the temporary files of killed ones.
    pub(crate) fn hold(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let path = dir.join(LOCK);
        let mut options = File::options();
        let lock = options.create(true).write(true).truncate(false).open(&path);
        let lock = lock.map_err(Error::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Held { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(
                    "{} cannot be locked ({error}): see to it that no second run writes there",
                    path.display()
                );
            }
        }
        sweep(dir, is_ours);
        Ok(Self {
            dir: dir.to_path_buf(),
            _lock: lock,
        })
    }

    /// Removes all that a run left here, for one that starts anew.
    pub(crate) fn clear(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(Error::io(&self.dir))? {
            let entry = entry.map_err(Error::io(&self.dir))?;
            if entry.file_name().to_str().is_some_and(is_ours) {
                fs::remove_file(entry.path()).map_err(Error::io(entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Is `name` that of a file which training writes?
fn is_ours(name: &str) -> bool {
    let is = |start: &str, end: &str| name.starts_with(start) && name.ends_with(end);
    states::is_ours(name)
        || latent_cache::is_ours(name)
        || matches!(name, "metrics.jsonl" | "summary.json")
        || is("samples-", ".png")
        || is("events.out.tfevents.", ".prima")
}
