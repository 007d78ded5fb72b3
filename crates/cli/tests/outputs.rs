//! Where the command line writes and reads is closed, full, or no file.

#![cfg(unix)]

#[allow(dead_code, reason = "each test file uses its part")]
mod common;

use common::{copied_model, folder, golden, paint, prima, prima_on_full_disk, refused, stderr};
use std::fs::{self, File};
use std::process::{Command, Stdio};

#[test]
fn a_reader_that_has_seen_enough_ends_a_command_without_a_word() {
    for args in [
        &["doctor", "--json"][..],
        &["doctor"],
        &["models", "info", "embedded"],
        &["--help"],
        &["--version"],
        &["man"],
        &["completions", "bash"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_prima"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(stderr(&output), "", "{args:?}");
        assert_eq!(output.status.code(), Some(0), "{args:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_output_is_one_sentence() {
    for args in [
        &["doctor", "--json"][..],
        &["models", "info", "embedded", "--json"],
        &["--help"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_prima"))
            .args(args)
            .stdout(File::options().write(true).open("/dev/full").unwrap())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let text = stderr(&output);
        assert!(
            text.starts_with("error: what prima has to say") && text.lines().count() == 1,
            "{text}"
        );
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
    let deaf = Command::new(env!("CARGO_BIN_EXE_prima"))
        .args(["paint", "a", "--steps", "0"])
        .stderr(File::options().write(true).open("/dev/full").unwrap())
        .status()
        .unwrap();
    assert_eq!(deaf.code(), Some(2));
}

#[test]
fn what_is_no_file_is_refused_by_its_kind() {
    let folder = folder("kinds");
    assert!(
        Command::new("mkfifo")
            .arg(folder.join("pipe.png"))
            .status()
            .unwrap()
            .success()
    );
    for (image, kind) in [("pipe.png", "a pipe"), ("/dev/zero", "a device"), (".", "a folder")] {
        let output = paint(&folder, &golden("tiny-sdxl"), &["--image", image]);
        refused(&folder, &output, 1, &["cannot read the picture", image, kind]);
    }
    let model = golden("tiny-sdxl").display().to_string();
    let output = prima(&folder, &["paint", "a", "--model", &model, "-o", "pipe.png"]);
    assert!(stderr(&output).contains("it is a pipe"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_model_at_which_a_library_panics_is_one_sentence() {
    let folder = folder("panics");
    let model = copied_model(&folder);
    let read = |name: &str| fs::read_to_string(model.join("tokenizer").join(name)).unwrap();
    let vocab: serde_json::Value = serde_json::from_str(&read("vocab.json")).unwrap();
    let merges = read("merges.txt");
    let merges: Vec<&str> = merges
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x".repeat(1000)},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocab, "merges": merges},
    });
    for name in ["tokenizer", "tokenizer_2"] {
        for old in ["vocab.json", "merges.txt"] {
            fs::remove_file(model.join(name).join(old)).unwrap();
        }
        fs::write(model.join(name).join("tokenizer.json"), tokenizer.to_string()).unwrap();
    }
    let output = paint(&folder, &model, &[]);
    refused(&folder, &output, 1, &[]);
    assert_eq!(stderr(&output).lines().count(), 1);
}

#[test]
fn what_a_killed_paint_left_of_its_picture_goes_and_nothing_else() {
    let folder = folder("leftovers");
    let (ours, others) = ([".out.png.aB3dE6.tmp", ".out.png.4242.tmp"], ".other.png.aB3dE6.tmp");
    for name in ours.iter().chain([&others]) {
        fs::write(folder.join(name), "half a picture").unwrap();
    }
    let output = paint(&folder, &golden("tiny-sdxl"), &["--steps", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut left: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [others, "out.png"]);
}

#[test]
fn a_full_disk_leaves_the_old_picture() {
    let folder = folder("full-disk-picture");
    fs::write(folder.join("out.png"), "old").unwrap();
    let model = golden("tiny-sdxl").display().to_string();
    let args = [
        "paint",
        "a cat",
        "--model",
        &model,
        "--steps",
        "1",
        "-o",
        "out.png",
        "--overwrite",
    ];
    let output = prima_on_full_disk(&folder, 1, &args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("cannot write out.png") && text.contains("File too large"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(folder.join("out.png")).unwrap(), "old");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}
