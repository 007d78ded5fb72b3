//! `prima train` as several processes, started as launchers start them: together they are one process with as many batches, and
//! when one goes, all stop.

#[allow(dead_code)] // each test file uses its own part
mod common;
#[path = "../../train/tests/common/mod.rs"]
mod tiny;

use common::{folder, prima};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How torchrun, Open MPI and Slurm say rank and number of processes.
const TORCHRUN: [&str; 2] = ["RANK", "WORLD_SIZE"];
const OPEN_MPI: [&str; 2] = ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"];
const SLURM: [&str; 2] = ["SLURM_PROCID", "SLURM_NTASKS"];

/// A folder with a data set and `config.json`, whose run is below `run`.
fn prepared(name: &str) -> PathBuf {
    let folder = folder(name);
    tiny::write_dataset(&folder.join("data"));
    configure(&folder, "config.json", "run", 1, 1e-3);
    folder
}

fn configure(folder: &Path, file: &str, run: &str, batches_per_step: usize, learning_rate: f32) {
    let stage = json!({
        "loop": { "batches_per_step": batches_per_step, "sample_every": 1_000_000, "save_every_s": 0, "log_every": 1,
            "optimizer": { "learning_rate": learning_rate } },
        "batch_size": 2, "crop_px": 32, "whole_pictures_from": 2.0
    });
    let config = json!({
        "data_dir": "data", "run_dir": run, "networks": tiny::configs(), "autoencoder": stage,
        "export": { "folder": "exported", "name": "tiny" }
    });
    std::fs::write(folder.join(file), config.to_string()).unwrap();
}

/// A port that nobody has.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string()
}

/// `prima --threads 1 train autoencoder ARGS` as `rank` of `world`.
fn start(
    folder: &Path,
    [rank_name, world_name]: [&str; 2],
    rank: usize,
    world: usize,
    port: &str,
    args: &[&str],
) -> Child {
    Command::new(env!("CARGO_BIN_EXE_prima"))
        .current_dir(folder)
        .env(rank_name, rank.to_string())
        .env(world_name, world.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port)
        .env("PRIMA_PEER_TIMEOUT_S", "60")
        .args(["--threads", "1", "train", "autoencoder"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// All processes of a group, to their ends.
fn run_group(folder: &Path, launcher: [&str; 2], world: usize, args: &[&str]) -> Vec<Output> {
    let port = free_port();
    let children: Vec<Child> = (0..world)
        .map(|rank| start(folder, launcher, rank, world, &port, args))
        .collect();
    children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect()
}

fn stderr(output: &Output) -> String {
    common::stderr(output)
}

fn alone(folder: &Path, args: &[&str]) -> Output {
    prima(folder, &[&["--threads", "1", "train", "autoencoder"], args].concat())
}

#[test]
fn several_processes_train_as_one_with_as_many_batches_does() {
    let folder = prepared("group");
    for (world, launcher) in [(2, TORCHRUN), (3, OPEN_MPI)] {
        configure(&folder, "one.json", &format!("one-{world}"), world, 1e-3);
        configure(&folder, "group.json", &format!("group-{world}"), 1, 1e-3);
        let output = alone(&folder, &["one.json", "--steps", "4"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let want = tiny::saved(&folder.join(format!("one-{world}/autoencoder")));

        let outputs = run_group(&folder, launcher, world, &["group.json", "--steps", "4"]);
        for output in &outputs {
            assert!(output.status.success(), "{}", stderr(output));
        }
        let got = tiny::saved(&folder.join(format!("group-{world}/autoencoder")));
        assert!(got == want, "{world} processes do not end where one does");
        // Only the first speaks.
        let summary: Value = serde_json::from_slice(&outputs[0].stdout).unwrap();
        assert_eq!(
            (summary["steps"].as_u64(), summary["samples"].as_u64()),
            (Some(4), Some(8 * world as u64))
        );
        assert!(stderr(&outputs[0]).contains("parameters"));
        for other in &outputs[1..] {
            assert!(other.stdout.is_empty() && stderr(other).is_empty(), "{}", stderr(other));
        }
        let losses = |run: &str| -> Vec<Value> {
            let text =
                std::fs::read_to_string(folder.join(format!("{run}-{world}/autoencoder/metrics.jsonl"))).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.map(|line| line["loss"].clone()).collect()
        };
        assert_eq!(losses("group"), losses("one"));
    }
}

#[test]
fn processes_with_several_batches_each_go_on_from_a_state_of_one() {
    let folder = prepared("group-resume");
    configure(&folder, "one.json", "one", 4, 1e-3);
    configure(&folder, "group.json", "group", 2, 1e-3);
    assert!(alone(&folder, &["one.json", "--steps", "2"]).status.success());
    std::fs::create_dir_all(folder.join("group/autoencoder")).unwrap();
    // Under the name that older versions gave it.
    let state = tiny::newest(&folder.join("one/autoencoder"));
    std::fs::copy(state, folder.join("group/autoencoder/state.safetensors")).unwrap();
    let resume = ["--steps", "4", "--resume"];
    assert!(alone(&folder, &[&["one.json"], &resume[..]].concat()).status.success());
    for output in run_group(&folder, SLURM, 2, &[&["group.json"], &resume[..]].concat()) {
        assert!(output.status.success(), "{}", stderr(&output));
    }
    // Four gradients summed in pairs round otherwise than one after the other.
    let [got, want] = ["group", "one"].map(|run| tiny::saved(&folder.join(run).join("autoencoder")));
    assert!(got.keys().eq(want.keys()) && got["step"] == want["step"]);
    for key in got
        .keys()
        .filter(|key| key.starts_with("param.") || key.starts_with("ema."))
    {
        for (a, b) in got[key].iter().zip(&want[key]) {
            assert!((a - b).abs() < 1e-3, "{key}: {a}, one process {b}");
        }
    }
}

#[test]
fn a_group_that_cannot_form_says_why() {
    let folder = prepared("group-errors");
    let refuse = |code: i32, variables: &[(&str, &str)], stage: &str, words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_prima"))
            .current_dir(&folder)
            .envs(variables.iter().copied())
            .env("PRIMA_PEER_TIMEOUT_S", "1")
            .args(["train", stage, "config.json", "--steps", "1"])
            .output()
            .unwrap();
        refused_at_end(&output, code, words);
    };
    let port = free_port();
    let two = [
        ("WORLD_SIZE", "2"),
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", port.as_str()),
    ];
    let (first, second) = ([("RANK", "0")], [("RANK", "1")]);
    refuse(
        1,
        &[("RANK", "0"), ("WORLD_SIZE", "2")],
        "autoencoder",
        &["MASTER_ADDR is not set"],
    );
    refuse(
        1,
        &[("RANK", "2"), two[0], two[1]],
        "autoencoder",
        &["RANK is 2", "WORLD_SIZE is 2"],
    );
    let place = format!("127.0.0.1:{port}");
    refuse(
        1,
        &[&first[..], &two].concat(),
        "autoencoder",
        &["rank 1 of 2 did not come", &place, "1 s"],
    );
    refuse(
        1,
        &[&second[..], &two].concat(),
        "autoencoder",
        &["rank 1 of 2 found no rank 0", &place, "1 s"],
    );
    refuse(
        2,
        &[&first[..], &two].concat(),
        "latents",
        &["latents runs in one process", "started 2"],
    );
    assert!(tiny::listed(&folder.join("run/autoencoder")).is_empty());
}

/// The last line is the one error.
fn refused_at_end(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    let last = text.lines().last().unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(last.starts_with("error: "), "{text}");
    assert_eq!(text.matches("error: ").count(), 1, "{text}");
    for word in words {
        assert!(last.contains(word), "{word:?} is not in: {last}");
    }
}

#[test]
fn a_process_with_another_configuration_is_found_out() {
    let folder = prepared("group-differs");
    configure(&folder, "other.json", "run", 1, 2e-3);
    let port = free_port();
    let first = start(&folder, TORCHRUN, 0, 2, &port, &["config.json", "--steps", "2"]);
    let second = start(&folder, TORCHRUN, 1, 2, &port, &["other.json", "--steps", "2"]);
    let [first, second] = [first, second].map(|child| child.wait_with_output().unwrap());
    refused_at_end(&second, 1, &["rank 1 is not where rank 0 is", "the same configuration"]);
    refused_at_end(&first, 1, &["rank 1 is gone"]);
}

#[test]
fn when_one_process_dies_all_stop_and_the_state_is_usable() {
    let folder = prepared("group-death");
    let port = free_port();
    let args = ["config.json", "--steps", "1000000"];
    let mut children: Vec<Child> = (0..3)
        .map(|rank| start(&folder, TORCHRUN, rank, 3, &port, &args))
        .collect();
    let deadline = Instant::now() + Duration::from_mins(1);
    while tiny::listed(&folder.join("run/autoencoder")).is_empty() {
        assert!(Instant::now() < deadline, "no state was saved");
        std::thread::sleep(Duration::from_millis(50));
    }
    children[1].kill().unwrap();
    let outputs: Vec<Output> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    refused_at_end(&outputs[0], 1, &["rank 1 is gone", "--resume"]);
    refused_at_end(&outputs[2], 1, &["rank 0 is gone", "--resume"]);
    let step = tiny::saved(&folder.join("run/autoencoder"))["step"][1] as u64;
    assert!(step > 0);
    let output = alone(
        &folder,
        &["config.json", "--resume", "--steps", &(step + 1).to_string()],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["steps"].as_u64(), Some(step + 1));
}
