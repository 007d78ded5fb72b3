//! `prima train` and `prima paint`, killed at random moments, most of them by SIGKILL, a third by SIGTERM.
//!
//! Eight times each, or as often as `PRIMA_KILLS` says (`cargo xtask kills`).

#![cfg(unix)]

#[allow(dead_code, reason = "each test file uses its part")]
mod common;
#[path = "../../train/tests/common/mod.rs"]
mod tiny;

use common::{folder, golden, paint, signal, stderr};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What SIGTERM and SIGKILL are called in an exit status.
const TERM: i32 = 15;
const KILL: i32 = 9;
/// Of a whole run, which saves a state after each.
const STEPS: u64 = 20;

fn wanted() -> usize {
    let count = std::env::var("PRIMA_KILLS").ok();
    count.map_or(8, |count| count.parse().expect("PRIMA_KILLS is a number"))
}

/// Random from one run of this test to the next.
fn random_share() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1u64 << 53) as f64
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn temporary(folder: &Path) -> Vec<String> {
    let mut names = names(folder);
    names.retain(|name| Path::new(name).extension().is_some_and(|end| end == "tmp"));
    names
}

/// Ends `command` with a signal once `delay` is over; with `writing`, when it next begins a file in that folder.
fn killed(mut command: Command, delay: Duration, writing: Option<&Path>, name: &str) -> Output {
    let before = writing.map(temporary);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut runs = || child.try_wait().unwrap().is_none();
    std::thread::sleep(delay);
    if let (Some(folder), Some(before)) = (writing, before) {
        while runs() && temporary(folder).iter().all(|name| before.contains(name)) {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(2).mul_f64(random_share()));
    }
    if runs() {
        match name {
            "KILL" => child.kill().unwrap(),
            _ => signal(&child, name),
        }
    }
    child.wait_with_output().unwrap()
}

fn train(folder: &Path, config: &str) -> Command {
    let steps = STEPS.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_prima"));
    command.current_dir(folder).args([
        "--threads",
        "1",
        "train",
        "autoencoder",
        config,
        "--resume",
        "--steps",
        &steps,
    ]);
    command
}

fn train_to_the_end(folder: &Path, config: &str) {
    let output = train(folder, config).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

fn configure(folder: &Path, run: &str) {
    let config = json!({
        "data_dir": "data", "run_dir": run, "networks": tiny::configs(),
        "autoencoder": { "loop": { "sample_every": 0, "save_every_s": 0, "log_every": 1 },
            "batch_size": 2, "crop_px": 32, "whole_pictures_from": 2.0 },
        "export": { "folder": "exported", "name": "tiny" }
    });
    fs::write(folder.join(format!("{run}.json")), config.to_string()).unwrap();
}

/// Each state that is listed is what was written there.
fn assert_whole(stage: &Path) {
    for state in tiny::listed(stage) {
        let name = state["file"].as_str().unwrap();
        let hash = format!("{:x}", Sha256::digest(fs::read(stage.join(name)).unwrap()));
        assert_eq!(state["sha256"], json!(hash), "{name}");
    }
}

/// Nothing but what a run keeps.
fn assert_nothing_left(stage: &Path) {
    let listed = tiny::listed(stage);
    let is_kept = |name: &str| {
        [".lock", "metrics.jsonl", "states.json", "summary.json"].contains(&name)
            || name.starts_with("events.")
            || listed.iter().any(|state| state["file"] == json!(name))
    };
    let left: Vec<String> = names(stage).into_iter().filter(|name| !is_kept(name)).collect();
    assert!(left.is_empty() && listed.len() <= 2, "{left:?}, {listed:?}");
}

#[test]
fn training_that_is_killed_anywhere_loses_a_step_at_most_and_ends_with_the_same_bits() {
    let folder = folder("kills-train");
    tiny::write_dataset(&folder.join("data"));
    configure(&folder, "whole");
    configure(&folder, "run");
    let started = Instant::now();
    train_to_the_end(&folder, "whole.json");
    let whole_run = started.elapsed();
    let want = tiny::saved(&folder.join("whole/autoencoder"));
    let stage = folder.join("run/autoencoder");

    let mut runs = 0;
    let (mut kills, mut lost, mut saved_on_term, mut finished, mut left) = ([0; 2], 0, 0, 0, 0);
    while kills.iter().sum::<usize>() < wanted() {
        let before = tiny::saved_step(&stage);
        let name = if kills.iter().sum::<usize>() % 3 == 2 {
            "TERM"
        } else {
            "KILL"
        };
        runs += 1;
        let writing = (runs % 2 == 0).then_some(&*stage);
        // Most rounds take several kills.
        let delay = whole_run.mul_f64(0.5 * random_share());
        let output = killed(train(&folder, "run.json"), delay, writing, name);
        assert_whole(&stage);
        let (step, told) = (tiny::saved_step(&stage), tiny::told(&stage));
        assert!(step >= before, "step {before} was saved, and step {step} now");
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => {
                assert!(tiny::saved(&stage) == want, "not the bits of a run that was not killed");
                assert_nothing_left(&stage);
                fs::remove_dir_all(&stage).unwrap();
                finished += 1;
            }
            (Some(143), _) => {
                assert_eq!(step, told, "{}", stderr(&output));
                assert_nothing_left(&stage);
                saved_on_term += 1;
                kills[0] += 1;
            }
            // By SIGTERM before training began.
            (None, Some(signal @ (KILL | TERM))) => {
                assert!(told <= step + 1, "step {told} was told, and step {step} is saved");
                lost += told - step;
                left += usize::from(!temporary(&stage).is_empty());
                kills[usize::from(signal == KILL)] += 1;
            }
            other => panic!("{other:?}: {}", stderr(&output)),
        }
    }
    train_to_the_end(&folder, "run.json");
    assert!(tiny::saved(&stage) == want, "not the bits of a run that was not killed");
    assert_nothing_left(&stage);
    let [by_term, by_kill] = kills;
    println!(
        "prima train: {by_kill} kills by SIGKILL, which lost {lost} steps in all, and {by_term} by SIGTERM, {saved_on_term} of \
         them while it trained, which lost none; {left} left a temporary file, the next start none; {} runs to the end, with \
         the same bits",
        finished + 1
    );
}

#[test]
fn painting_that_is_killed_anywhere_leaves_the_old_picture_or_the_new_one() {
    let folder = folder("kills-paint");
    let model = golden("tiny-sdxl");
    let path = folder.join("out.png");
    let args = |seed: usize| ["--steps".to_owned(), "1".into(), "--seed".into(), seed.to_string()];
    let started = Instant::now();
    let pictures = [1, 2].map(|seed| {
        let args = args(seed);
        let output = paint(&folder, &model, &args.each_ref().map(String::as_str));
        assert!(output.status.success(), "{}", stderr(&output));
        fs::read(&path).unwrap()
    });
    let once = started.elapsed() / 2;
    assert_ne!(pictures[0], pictures[1]);

    let (mut kills, mut replaced, mut left) = (0, 0, 0);
    let mut runs = 0;
    while kills < wanted() {
        runs += 1;
        // Half of the time there is no picture yet.
        let old = if runs % 2 == 0 {
            let _ = fs::remove_file(&path);
            None
        } else {
            fs::read(&path).ok()
        };
        let seed = runs / 4 % 2;
        let mut command = Command::new(env!("CARGO_BIN_EXE_prima"));
        let command_line = ["paint", "a cat", "-o", "out.png", "--overwrite", "--model"];
        command
            .current_dir(&folder)
            .args(command_line)
            .arg(&model)
            .args(args(seed + 1));
        let name = if kills % 3 == 2 { "TERM" } else { "KILL" };
        // In fours: with and without a picture, at any time and when a file is written.
        let writing = (runs / 2 % 2 == 0).then_some(&*folder);
        let output = killed(command, once.mul_f64(random_share()), writing, name);
        let new = fs::read(&path).ok();
        let is_new = new.as_ref() == Some(&pictures[seed]);
        assert!(is_new || new == old, "the picture is torn or gone");
        if output.status.success() {
            assert!(is_new);
            assert_eq!(names(&folder), ["out.png"]);
        } else {
            let signal = output.status.signal();
            assert!(matches!(signal, Some(KILL | TERM)), "{}", stderr(&output));
            kills += 1;
            replaced += usize::from(is_new && new != old);
            left += usize::from(!temporary(&folder).is_empty());
        }
    }
    let args = args(2);
    let output = paint(&folder, &model, &args.each_ref().map(String::as_str));
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(names(&folder), ["out.png"]);
    assert!(fs::read(&path).unwrap() == pictures[1]);
    println!(
        "prima paint: {kills} kills in {runs} runs, {replaced} when the new picture was there already, none with a torn one; \
         {left} left a temporary file, the next start none"
    );
}
