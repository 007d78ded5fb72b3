//! Drives the binary on the tiny models of goldens/.

mod copied;

use copied::copy;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A fresh folder under cargo's own folder for test files.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens").join(name)
}

/// A copy of the tiny SDXL model that a test may spoil.
pub fn copied_model(into: &Path) -> PathBuf {
    let model = into.join("model");
    copy(&golden("tiny-sdxl"), &model);
    model
}

/// Runs `prima` in `folder`.
pub fn prima(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prima"))
        .current_dir(folder)
        .args(args)
        // With it, panics say more.
        .env_remove("RUST_BACKTRACE")
        .output()
        .unwrap()
}

/// Runs `prima paint "a cat" --model MODEL -o out.png ARGS` in `folder`.
pub fn paint(folder: &Path, model: &Path, args: &[&str]) -> Output {
    let model = model.display().to_string();
    prima(
        folder,
        &[
            &["paint", "a cat", "--model", &model, "-o", "out.png", "--overwrite"],
            args,
        ]
        .concat(),
    )
}

/// What went to stderr, and it was no panic.
pub fn stderr(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// One error line with exit code `code` that holds each of `words`, and nothing written but what was there.
pub fn refused(folder: &Path, output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with("error: "), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    let pictures = fs::read_dir(folder).unwrap().filter(|e| {
        let name = e.as_ref().unwrap().file_name().to_string_lossy().into_owned();
        name.starts_with("out") || name.starts_with(".out") || name.contains(".tmp")
    });
    assert_eq!(pictures.count(), 0, "a half-made file was left behind");
}

/// Sends a signal such as TERM, as a person or a supervisor would.
#[cfg(unix)]
pub fn signal(child: &std::process::Child, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status();
    assert!(status.unwrap().success());
}

/// `prima` where no file may be longer than `kib` KiB, as where the disk is full: a write past it is an error.
#[cfg(unix)]
pub fn prima_on_full_disk(folder: &Path, kib: usize, args: &[&str]) -> Output {
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    Command::new("bash")
        .current_dir(folder)
        .args(["-c", &script, env!("CARGO_BIN_EXE_prima")])
        .args(args)
        .output()
        .unwrap()
}
