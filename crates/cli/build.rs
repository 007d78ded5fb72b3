//! Lists the files of assets/prima-mini, so that they become part of the binary.
//! Without that folder the list is empty and `prima` says so when asked for the embedded model.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What a model folder is made of; previews and the like stay out of the binary.
const KINDS: &[&str] = &["json", "txt", "safetensors", "md"];

fn main() -> io::Result<()> {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let folder = manifest.join("../../assets/prima-mini");
    println!("cargo::rerun-if-changed=../../assets/prima-mini");
    println!("cargo::rerun-if-changed=build.rs");
    let mut files = Vec::new();
    if folder.is_dir() {
        walk(&folder.canonicalize()?, "", &mut files)?;
    }
    files.sort();
    let mut code = String::from("&[\n");
    for (name, path) in &files {
        let path = path.display().to_string();
        let _ = writeln!(code, "    ({name:?}, include_bytes!({path:?})),");
    }
    code.push(']');
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("embedded_files.rs"), code)
}

/// Adds `(path inside the folder with slashes, path on this machine)` of each file below `folder`.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if path.is_dir() {
            walk(&path, &format!("{name}/"), files)?;
        } else if path
            .extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| KINDS.contains(&e))
        {
            files.push((name, path));
        }
    }
    Ok(())
}
