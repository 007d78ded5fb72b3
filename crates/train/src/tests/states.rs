//! What a run finds in its folder and what it leaves there: the states, their list, the lock, leftovers of killed runs.

use super::common::{listed, newest, saved, saved_step};
use super::players::{Gan, training};
use super::{Scratch, in_a_group_of_two};
use crate::error::{Error, Result};
use crate::stage_folder::StageFolder;
use crate::trainer::states::States;
use crate::trainer::{Budget, LoopConfig, RunOptions, Summary, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// With a state after each step.
fn train_with(config: &LoopConfig, dir: &Path, mut options: RunOptions) -> Result<Summary> {
    run(&mut Gan::new(u64::MAX), config, dir, &mut options)
}

fn train(dir: &Path, steps: u64) {
    train_with(&training(1), dir, RunOptions::alone(Budget::steps(steps), false)).unwrap();
}

fn resume(dir: &Path, steps: u64) -> Result<Summary> {
    train_with(&training(1), dir, RunOptions::alone(Budget::steps(steps), true))
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with("events.")).collect();
    names.sort();
    names
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// A byte of the newest state is another, which its format does not notice.
fn rot(dir: &Path) -> PathBuf {
    let path = newest(dir);
    flip_a_byte(&path);
    path
}

#[test]
fn a_folder_that_has_a_state_is_refused_and_stays_as_it_is() {
    let folder = Scratch::new("refused");
    let dir = folder.join("run");
    train(&dir, 3);
    let before = (names(&dir), saved(&dir));
    let error = train_with(&training(1), &dir, RunOptions::alone(Budget::steps(5), false)).unwrap_err();
    assert!(error.is_usage());
    let text = error.to_string();
    for word in [dir.to_str().unwrap(), "--resume", "--overwrite", "run_dir"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert_eq!((names(&dir), saved(&dir)), before);
}

#[test]
fn a_run_that_overwrites_is_a_new_one() {
    let folder = Scratch::new("overwritten");
    let (dir, fresh) = (folder.join("run"), folder.join("fresh"));
    train(&dir, 20);
    fs::write(dir.join("notes.txt"), "a person's").unwrap();
    let options = RunOptions {
        overwrite: true,
        ..RunOptions::alone(Budget::steps(2), false)
    };
    train_with(&training(1), &dir, options).unwrap();
    train(&fresh, 2);
    assert_eq!(saved(&dir), saved(&fresh));
    let mut expected = names(&fresh);
    expected.insert(2, "notes.txt".into());
    assert_eq!(names(&dir), expected);
}

#[test]
fn as_many_states_are_kept_as_the_configuration_says() {
    let folder = Scratch::new("kept");
    for (keep, steps) in [(1, vec![5]), (2, vec![4, 5]), (9, vec![1, 2, 3, 4, 5])] {
        let dir = folder.join(format!("{keep}"));
        let config = LoopConfig { keep, ..training(1) };
        train_with(&config, &dir, RunOptions::alone(Budget::steps(5), false)).unwrap();
        let states = listed(&dir);
        let found: Vec<u64> = states.iter().map(|state| state["step"].as_u64().unwrap()).collect();
        assert_eq!(found, steps);
        let mut files: Vec<String> = states
            .iter()
            .map(|state| state["file"].as_str().unwrap().to_owned())
            .collect();
        files.splice(0..0, [".lock".into(), "metrics.jsonl".into()]);
        files.push("states.json".into());
        assert_eq!(names(&dir), files);
    }
    let none = LoopConfig { keep: 0, ..training(1) };
    let error = train_with(&none, &folder.join("none"), RunOptions::alone(Budget::steps(1), false)).unwrap_err();
    assert!(error.to_string().contains("keep is 0"), "{error}");
}

type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn a_state_that_is_not_whole_is_passed_over_for_the_one_before_it() {
    let folder = Scratch::new("damaged");
    let whole = folder.join("whole");
    train(&whole, 9);
    let damage: [Damage; 4] = [
        ("a flipped byte", &flip_a_byte),
        ("cut short", &|path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 3]).unwrap();
        }),
        ("empty", &|path| fs::write(path, "").unwrap()),
        ("gone", &|path| fs::remove_file(path).unwrap()),
    ];
    for (i, (what, damage)) in damage.into_iter().enumerate() {
        let dir = folder.join(format!("{i}"));
        // The learning rate follows the budget: the same one, stopped on the way.
        stopped_after(&dir, 6, 9);
        damage(&newest(&dir));
        let used = States::of(&dir).unwrap().newest_whole().unwrap().unwrap();
        assert!(
            used.ends_with("state-00000005.safetensors"),
            "{what}: {}",
            used.display()
        );
        resume(&dir, 9).unwrap();
        assert_eq!(saved(&dir), saved(&whole), "{what}");
    }
}

/// A run of `budget` steps that ended after `steps`, as a kill would end it.
fn stopped_after(dir: &Path, steps: u64, budget: u64) {
    let options = RunOptions::alone(Budget::steps(budget), false);
    let mut gan = Gan::new(u64::MAX);
    gan.stops_after = Some((steps, options.stop.clone()));
    let mut options = options;
    let summary = run(&mut gan, &training(1), dir, &mut options).unwrap();
    assert_eq!((summary.steps, summary.stopped), (steps, true));
}

#[test]
fn where_no_state_is_whole_the_error_names_all_of_them() {
    let folder = Scratch::new("hopeless");
    let dir = folder.join("run");
    train(&dir, 4);
    for state in listed(&dir) {
        flip_a_byte(&dir.join(state["file"].as_str().unwrap()));
    }
    let text = resume(&dir, 5).unwrap_err().to_string();
    for word in ["state-00000003", "state-00000004", "SHA-256", "--overwrite"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn without_a_readable_list_the_states_are_found_by_their_names() {
    let folder = Scratch::new("no-list");
    let whole = folder.join("whole");
    train(&whole, 9);
    for (i, list) in [
        None,
        Some("{\"states\": [{\"fi"),
        Some("{\"states\": [{\"file\": \"../x\", \"step\": 1}]}"),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = folder.join(format!("{i}"));
        stopped_after(&dir, 6, 9);
        match list {
            None => fs::remove_file(dir.join("states.json")).unwrap(),
            Some(text) => fs::write(dir.join("states.json"), text).unwrap(),
        }
        resume(&dir, 9).unwrap();
        assert_eq!(saved(&dir), saved(&whole));
    }
}

#[test]
fn a_folder_of_an_older_version_goes_on_and_its_state_leaves_with_time() {
    let folder = Scratch::new("older");
    let (dir, whole) = (folder.join("run"), folder.join("whole"));
    train(&whole, 9);
    stopped_after(&dir, 6, 9);
    fs::rename(newest(&dir), dir.join("state.safetensors")).unwrap();
    for name in names(&dir) {
        if name.starts_with("state-") || name == "states.json" {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }
    let error = train_with(&training(1), &dir, RunOptions::alone(Budget::steps(9), false)).unwrap_err();
    assert!(matches!(error, Error::WouldOverwrite { .. }), "{error}");
    resume(&dir, 7).unwrap();
    let steps: Vec<_> = listed(&dir).iter().map(|state| state["step"].as_u64()).collect();
    assert_eq!(steps, [Some(6), Some(7)]);
    assert!(dir.join("state.safetensors").exists());
    resume(&dir, 9).unwrap();
    assert!(!dir.join("state.safetensors").exists());
    assert_eq!(saved_step(&dir), 9);
}

#[test]
fn one_run_at_a_time_writes_in_a_folder() {
    let folder = Scratch::new("held");
    let dir = folder.join("run");
    train(&dir, 2);
    let held = StageFolder::hold(&dir).unwrap();
    let before = names(&dir);
    let text = resume(&dir, 3).unwrap_err().to_string();
    assert!(
        text.contains("another run") && text.contains(dir.to_str().unwrap()),
        "{text}"
    );
    assert_eq!(names(&dir), before);
    drop(held);
    resume(&dir, 3).unwrap();
}

#[test]
#[cfg(unix)]
fn what_killed_runs_left_half_written_goes_and_nothing_else() {
    let folder = Scratch::new("swept");
    let dir = folder.join("run");
    train(&dir, 2);
    let ours = [
        // As older versions called it, with the process's number.
        ".state.safetensors.4242.tmp",
        ".state-00000003.safetensors.aB3dE6.tmp",
        ".states.json.aB3dE6.tmp",
        ".summary.json.aB3dE6.tmp",
        ".samples-000002.png.aB3dE6.tmp",
        // Written whole, but not listed.
        "state-00000017.safetensors",
    ];
    let others = [
        ".notes.txt.aB3dE6.tmp",
        "aB3dE6.tmp",
        "state-17.safetensors",
        "state-best.safetensors",
    ];
    for name in ours.iter().chain(&others) {
        fs::write(dir.join(name), "left").unwrap();
    }
    resume(&dir, 3).unwrap();
    for name in ours {
        assert!(!dir.join(name).exists(), "{name} is still there");
    }
    for name in others {
        assert!(dir.join(name).exists(), "{name} is gone");
    }
}

#[test]
fn a_state_that_cannot_be_saved_leaves_the_one_before_it() {
    let folder = Scratch::new("full");
    let (dir, whole) = (folder.join("run"), folder.join("whole"));
    train(&whole, 9);
    stopped_after(&dir, 4, 9);
    // No file can be renamed to this.
    let blocked = dir.join("state-00000005.safetensors");
    fs::create_dir_all(blocked.join("full")).unwrap();
    let text = resume(&dir, 9).unwrap_err().to_string();
    for word in [
        "step 5",
        blocked.to_str().unwrap(),
        "state-00000004.safetensors stays",
        "--resume",
    ] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
    assert!(
        !names(&dir).iter().any(|name| name.contains(".tmp")),
        "{:?}",
        names(&dir)
    );
    assert_eq!(saved_step(&dir), 4);
    fs::remove_dir_all(&blocked).unwrap();
    resume(&dir, 9).unwrap();
    assert_eq!(saved(&dir), saved(&whole));
}

#[test]
fn steps_that_are_trained_again_are_told_once() {
    let folder = Scratch::new("told-once");
    let dir = folder.join("run");
    let config = LoopConfig {
        log_every: 1,
        ..training(1)
    };
    let options = |resume| RunOptions::alone(Budget::steps(6), resume);
    train_with(&config, &dir, options(false)).unwrap();
    // As after a kill: the last state did not come to be, and the last line only half.
    rot(&dir);
    let metrics = dir.join("metrics.jsonl");
    let text = fs::read_to_string(&metrics).unwrap();
    fs::write(&metrics, text + "{\"stage\": \"gan\", \"st").unwrap();
    train_with(&config, &dir, options(true)).unwrap();
    let text = fs::read_to_string(&metrics).unwrap();
    let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64();
    let steps: Vec<_> = text.lines().map(step).collect();
    assert_eq!(steps, (1..=6).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_run_that_is_stopped_before_it_began_leaves_no_state() {
    let folder = Scratch::new("not-begun");
    let dir = folder.join("run");
    let options = RunOptions::alone(Budget::steps(3), false);
    options.stop.store(true, Ordering::Relaxed);
    let summary = train_with(&training(1), &dir, options).unwrap();
    assert_eq!((summary.steps, summary.stopped), (0, true));
    assert!(listed(&dir).is_empty());
    train(&dir, 3);
}

#[test]
fn one_process_that_is_asked_to_stop_stops_its_group() {
    let folder = Scratch::new("group-stops");
    let dir = folder.join("run");
    in_a_group_of_two(Budget::steps(30), |rank, options| {
        options.stop.store(rank == 1, Ordering::Relaxed);
        let summary = train_with(&training(1), &dir, options).unwrap();
        assert_eq!((summary.steps, summary.stopped), (1, true), "rank {rank}");
    });
    assert_eq!(saved_step(&dir), 1);
}
