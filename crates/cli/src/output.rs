//! Where pictures go. Files appear whole or not at all.

use crate::Usage;
use anyhow::{Context, Result};
use prima_checkpoint::export::write_bytes;
use prima_checkpoint::whole_file;
use std::fs;
use std::path::{Path, PathBuf};

/// The PNG files for `count` pictures, by default named after the seed; an error, before any painting, if one cannot be
/// written.
pub fn files(path: Option<PathBuf>, seed: u64, count: usize) -> Result<Vec<PathBuf>> {
    let path = path.unwrap_or_else(|| format!("prima-{seed}.png").into());
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
        return Err(Usage(format!(
            "{} does not end in .png, the only format that prima writes",
            path.display()
        ))
        .into());
    }
    let files = numbered(&path, count);
    files.iter().try_for_each(|file| check_writable(file))?;
    Ok(files)
}

fn check_writable(path: &Path) -> Result<()> {
    if let Ok(there) = fs::metadata(path)
        && !there.is_file()
    {
        anyhow::bail!(
            "cannot write {}: it is {}; give a file name with -o",
            path.display(),
            kind(&there)
        );
    }
    // It also removes what a killed `paint` left of this file.
    explained(path, whole_file::check_writable(path))
}

/// What there is in the place of a file.
pub fn kind(metadata: &fs::Metadata) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if metadata.is_dir() {
        "a folder"
    } else {
        "something that is not a file"
    }
}

/// A reader sees the old file or the whole new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    explained(path, write_bytes(path, bytes))
}

/// What went wrong, and what helps; the path once.
fn explained(path: &Path, done: Result<(), prima_checkpoint::Error>) -> Result<()> {
    let why = |error| match error {
        prima_checkpoint::Error::Io { source, .. } => source.into(),
        other => anyhow::Error::from(other),
    };
    let what = || format!("cannot write {} (choose another place with -o)", path.display());
    done.map_err(why).with_context(what)
}

/// `out.png` for one picture, `out-1.png`, `out-2.png`, ... for several.
fn numbered(path: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![path.to_path_buf()];
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    (1..=count)
        .map(|i| path.with_file_name(format!("{stem}-{i}.png")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered() {
        assert_eq!(numbered(Path::new("a/b.png"), 1), [Path::new("a/b.png")]);
        assert_eq!(
            numbered(Path::new("a/b.c.png"), 2),
            [Path::new("a/b.c-1.png"), Path::new("a/b.c-2.png")]
        );
    }
}
