//! Files that are there whole or not at all: written beside their place as `.NAME.XXXXXX.tmp`, flushed to the disk, renamed,
//! and the rename flushed too.
//!
//! A process that is killed in between leaves that file behind. Who writes one holds its lock, which the kernel gives back
//! whatever the end was; so whoever writes the same file next can tell a leftover from the work of another process, and
//! removes it.

use crate::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

const SUFFIX: &str = ".tmp";

/// Lets `write` fill a file beside `path`, and puts it there. Errors name `path`.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let temporary = temporary(path)?;
    write(temporary.path())?;
    temporary.as_file().sync_all().map_err(Error::io("write", path))?;
    temporary
        .persist(path)
        .map_err(|error| Error::io("replace", path)(error.error))?;
    flush_folder(&folder_of(path)).map_err(Error::io("flush the folder of", path))
}

/// Could `path` be written? Also removes what killed processes left of it.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    temporary(path).map(drop)
}

/// Removes from `folder` what killed processes left of the files whose names `is_ours` knows. Nothing depends on it, so what
/// cannot be removed stays.
pub fn sweep(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let target = name.to_str().and_then(target_of);
        if target.is_some_and(&is_ours)
            && let Some(_lock) = abandoned(&entry.path())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A new file beside `path`, locked, which goes when it is dropped.
fn temporary(path: &Path) -> Result<NamedTempFile, Error> {
    let folder = folder_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    sweep(&folder, |target| target == name);
    loop {
        // Opened as any new file, not for the owner alone.
        let open = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        let made = builder.prefix(&prefix).suffix(SUFFIX).make_in(&folder, open);
        let file = made.map_err(Error::io("write", path))?;
        // Elsewhere a lock also keeps this process's other handles from writing.
        #[cfg(unix)]
        let _ = file.as_file().lock();
        // Who sweeps before the lock is taken removes it.
        if file.path().exists() {
            return Ok(file);
        }
    }
}

/// The file that `.NAME.XXXXXX.tmp` was to become.
fn target_of(temporary: &str) -> Option<&str> {
    let (target, random) = temporary.strip_prefix('.')?.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    (!random.is_empty() && random.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(target)
}

/// The lock of a file that nobody else holds. Opened for writing, without which there is no lock over NFS.
#[cfg(unix)]
fn abandoned(path: &Path) -> Option<File> {
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let file = File::options().read(true).write(true).open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

/// Without locks nobody can tell.
#[cfg(not(unix))]
fn abandoned(_: &Path) -> Option<File> {
    None
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A rename is on the disk once its folder is.
fn flush_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere a folder cannot be opened.
    if !cfg!(unix) {
        return Ok(());
    }
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems know no such thing.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::write_bytes;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_temporary_file_names_what_it_was_to_become() {
        assert_eq!(target_of(".out.png.aZ09bc.tmp"), Some("out.png"));
        assert_eq!(target_of(".state.safetensors.4242.tmp"), Some("state.safetensors"));
        for other in [
            "out.png",
            "out.png.aZ09bc.tmp",
            ".out.tmp",
            ".out.png..tmp",
            ".out.png.a-b.tmp",
        ] {
            assert_eq!(target_of(other), None, "{other}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn leftovers_of_the_same_file_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for left in [
            ".a.json.123.tmp",
            ".a.json.Xy12ab.tmp",
            ".b.json.Xy12ab.tmp",
            "notes.tmp",
        ] {
            fs::write(at(left), "left").unwrap();
        }
        fs::create_dir(at(".a.json.folder.tmp")).unwrap();
        std::os::unix::fs::symlink(at("notes.tmp"), at(".a.json.link.tmp")).unwrap();
        write_bytes(&at("a.json"), b"{}").unwrap();
        let stay = [
            ".a.json.folder.tmp",
            ".a.json.link.tmp",
            ".b.json.Xy12ab.tmp",
            "a.json",
            "notes.tmp",
        ];
        assert_eq!(names(dir.path()), stay);
    }

    #[test]
    #[cfg(unix)]
    fn what_another_process_is_writing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let others = temporary(&path).unwrap();
        write_bytes(&path, b"{}").unwrap();
        assert!(others.path().exists());
        others.persist(&path).unwrap();
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        write_bytes(&path, b"old").unwrap();
        let full = replace(&path, |temporary| {
            fs::write(temporary, "ne").unwrap();
            Err(Error::io("write", &path)(io::ErrorKind::StorageFull.into()))
        });
        let text = full.unwrap_err().to_string();
        assert!(text.contains("a.json") && !text.contains(".a.json"), "{text}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    #[cfg(unix)]
    fn a_file_has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str| {
            let metadata = fs::metadata(dir.path().join(name)).unwrap();
            metadata.permissions().mode()
        };
        fs::write(dir.path().join("plain"), "").unwrap();
        write_bytes(&dir.path().join("whole"), b"").unwrap();
        assert_eq!(mode("whole"), mode("plain"));
    }
}
