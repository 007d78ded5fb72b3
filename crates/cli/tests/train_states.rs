//! What a machine does to `prima train`, and what is left of the run: signals, a second run, bytes that rot, a full disk.

#![cfg(unix)]

#[allow(dead_code, reason = "each test file uses its part")]
mod common;
#[path = "../../train/tests/common/mod.rs"]
mod tiny;

use common::{folder, prima, prima_on_full_disk, signal, stderr};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// More steps than any test waits for.
const ENDLESS: &str = "1000000";

/// A folder with a data set and `config.json`, whose learning rate does not follow the budget; `training` and `batch_size`
/// of its autoencoder.
fn prepared(name: &str, training: &Value, batch_size: usize) -> PathBuf {
    let folder = folder(name);
    tiny::write_dataset(&folder.join("data"));
    let mut all = json!({ "sample_every": 0, "log_every": 1, "save_every_s": 1000,
        "optimizer": { "learning_rate": 1e-3, "lr_warmup_steps": 1, "lr_scheduler": "constant" } });
    for (key, value) in training.as_object().unwrap() {
        all[key] = value.clone();
    }
    let config = json!({
        "data_dir": "data", "run_dir": "run", "networks": tiny::configs(),
        "autoencoder": { "loop": all, "batch_size": batch_size, "crop_px": 32, "whole_pictures_from": 2.0 },
        "export": { "folder": "exported", "name": "tiny" }
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    folder
}

fn arguments<'a>(steps: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let all = [
        "--threads",
        "1",
        "train",
        "autoencoder",
        "config.json",
        "--steps",
        steps,
    ];
    [&all[..], more].concat()
}

fn train(folder: &Path, steps: u64, more: &[&str]) -> Output {
    prima(folder, &arguments(&steps.to_string(), more))
}

fn trained(folder: &Path, steps: u64, more: &[&str]) {
    let output = train(folder, steps, more);
    assert!(output.status.success(), "{}", stderr(&output));
}

fn start(folder: &Path, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_prima"))
        .current_dir(folder)
        .args(arguments(ENDLESS, more))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn stage(folder: &Path) -> PathBuf {
    folder.join("run/autoencoder")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// But for TensorBoard's, of which each run has its own.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(stage(folder)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("events.")).collect();
    names.sort();
    names
}

/// A single error line with these words, the last of stderr.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{text}");
    for word in words {
        assert!(last.contains(word), "{word:?} is not in: {last}");
    }
}

#[test]
fn a_signal_ends_training_after_the_step_at_hand_and_nothing_is_lost() {
    for (name, code) in [("TERM", 143), ("INT", 130)] {
        let folder = prepared(&format!("signal-{name}"), &json!({}), 2);
        let child = start(&folder, &[]);
        wait_until("the third step", || tiny::told(&stage(&folder)) >= 3);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        let step = tiny::saved_step(&stage(&folder));
        assert_eq!(step, tiny::told(&stage(&folder)));
        let said = format!("stopped by SIG{name}: step {step} is saved, go on with --resume");
        assert_eq!(text.lines().last(), Some(said.as_str()));
        let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&summary["stopped"], &summary["steps"]), (&json!(true), &json!(step)));
        trained(&folder, step + 2, &["--resume"]);
        let stopped = tiny::saved(&stage(&folder));
        trained(&folder, step + 2, &["--overwrite"]);
        assert!(
            stopped == tiny::saved(&stage(&folder)),
            "not the bits of a run that was not stopped"
        );
    }
}

#[test]
fn the_second_signal_ends_training_at_once() {
    // A step takes much longer than it takes to send both.
    let folder = prepared("two-signals", &json!({}), 256);
    let child = start(&folder, &[]);
    wait_until("the first step", || tiny::told(&stage(&folder)) >= 1);
    signal(&child, "TERM");
    std::thread::sleep(Duration::from_millis(30));
    signal(&child, "TERM");
    let status = child.wait_with_output().unwrap().status;
    assert_eq!(status.signal(), Some(15), "{status}");
    assert!(tiny::listed(&stage(&folder)).is_empty());
}

#[test]
fn a_state_is_saved_from_time_to_time() {
    let folder = prepared("interval", &json!({ "save_every_s": 1 }), 2);
    let mut child = start(&folder, &[]);
    wait_until("a state", || tiny::saved_step(&stage(&folder)) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_second_run_in_the_same_folder_is_refused_until_the_first_has_gone() {
    let folder = prepared("two-runs", &json!({ "save_every_s": 0 }), 2);
    let mut child = start(&folder, &[]);
    wait_until("a state", || tiny::saved_step(&stage(&folder)) > 0);
    for more in [&["--resume"][..], &["--overwrite"], &[]] {
        let output = train(&folder, 1, more);
        refused(&output, 1, &["another run is writing in run/autoencoder", "run_dir"]);
    }
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    let step = tiny::saved_step(&stage(&folder));
    trained(&folder, step + 1, &["--resume"]);
}

#[test]
fn a_run_that_is_there_is_not_overwritten_without_a_word() {
    for what in ["finished", "killed", "reconfigured"] {
        let folder = prepared(&format!("there-{what}"), &json!({ "save_every_s": 0 }), 2);
        if what == "killed" {
            let mut child = start(&folder, &[]);
            wait_until("a state", || tiny::saved_step(&stage(&folder)) > 0);
            child.kill().unwrap();
            child.wait().unwrap();
        } else {
            trained(&folder, 2, &[]);
        }
        if what == "reconfigured" {
            let config = fs::read_to_string(folder.join("config.json")).unwrap();
            let other = config.replace("\"crop_px\":32", "\"crop_px\":64");
            assert_ne!(config, other);
            fs::write(folder.join("config.json"), other).unwrap();
        }
        let before = tiny::saved(&stage(&folder));
        let output = train(&folder, 1, &[]);
        refused(&output, 2, &["run/autoencoder", "--resume", "--overwrite", "run_dir"]);
        assert!(before == tiny::saved(&stage(&folder)), "{what}");
        let output = train(&folder, 1, &["--resume", "--overwrite"]);
        assert_eq!(output.status.code(), Some(2), "{what}");
        trained(&folder, 1, &["--overwrite"]);
        assert_eq!(tiny::saved_step(&stage(&folder)), 1, "{what}");
    }
}

#[test]
fn a_state_that_has_rotted_is_told_with_the_one_that_is_used() {
    let folder = prepared("rotten", &json!({ "save_every_s": 0 }), 2);
    trained(&folder, 4, &[]);
    let whole = tiny::saved(&stage(&folder));
    type Rot = fn(&mut Vec<u8>);
    let rots: [(&str, Rot); 4] = [
        ("one bit", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }),
        ("the header", |bytes| bytes[9] = b' '),
        ("the end", |bytes| bytes.truncate(bytes.len() / 2)),
        ("all", Vec::clear),
    ];
    for (what, rot) in rots {
        let path = tiny::newest(&stage(&folder));
        let mut bytes = fs::read(&path).unwrap();
        rot(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let output = train(&folder, 4, &["--resume"]);
        let text = stderr(&output);
        assert!(output.status.success(), "{what}: {text}");
        for word in [
            "not whole: run/autoencoder/state-00000004.safetensors (its SHA-256",
            "run/autoencoder/state-00000003.safetensors is used instead",
            "resuming at step 3",
        ] {
            assert!(text.contains(word), "{what}: {word:?} is not in: {text}");
        }
        assert!(whole == tiny::saved(&stage(&folder)), "{what}");
    }
}

#[test]
fn a_full_disk_leaves_the_state_before() {
    let folder = prepared("full-disk", &json!({ "save_every_s": 0 }), 2);
    trained(&folder, 2, &[]);
    let before = files(&folder);
    let output = prima_on_full_disk(&folder, 64, &arguments("4", &["--resume"]));
    refused(
        &output,
        1,
        &[
            "the state of step 3 could not be saved",
            "run/autoencoder/state-00000003.safetensors",
            "File too large",
            "state-00000002.safetensors stays",
            "--resume",
        ],
    );
    assert_eq!(files(&folder), before);
    assert_eq!(tiny::saved_step(&stage(&folder)), 2);
    trained(&folder, 4, &["--resume"]);
    assert_eq!(tiny::saved_step(&stage(&folder)), 4);
}
