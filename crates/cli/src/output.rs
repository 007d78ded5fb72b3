//! Where pictures go. Files appear whole or not at all.

use anyhow::{Context, Result};
use prima_checkpoint::export::write_bytes;
use std::fs;
use std::path::{Path, PathBuf};

/// Fails early, before any painting, if `path` cannot be written.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        anyhow::bail!(
            "cannot write {}: it is a folder; give a file name with -o",
            path.display()
        );
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let probe = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| explain(path))
}

/// Writes beside `path`, then renames: a reader sees the old file or the whole new one.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_bytes(path, bytes).with_context(|| explain(path))
}

fn explain(path: &Path) -> String {
    format!("cannot write {} (choose another place with -o)", path.display())
}

/// `out.png` for one picture, `out-1.png`, `out-2.png`, ... for several.
pub fn numbered(path: &Path, count: usize) -> Vec<PathBuf> {
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
