//! Training on the CUDA kernels, run on the CPU by emulation, against the CPU's own.

mod common;

use common::{configs, saved, write_dataset};
use prima_emulator as emulator;
use prima_tensor::{DType, Device};
use prima_train::stages::{STAGES, Stage};
use prima_train::{Budget, RunOptions, TrainConfig, latents};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

type State = BTreeMap<String, Vec<f32>>;

/// A data set and what the stages before have left, trained on the CPU for a step each.
struct Runs {
    folder: PathBuf,
}

impl Runs {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("prima-train-{name}-{}", std::process::id()));
        write_dataset(&folder.join("data"));
        let runs = Self { folder };
        runs.train("autoencoder", &Device::cpu(), "start", 1, false);
        latents(&runs.config("start", false), Budget::default()).unwrap();
        for stage in ["teacher", "lcm"] {
            runs.train(stage, &Device::cpu(), "start", 1, false);
        }
        runs
    }

    /// Gradients that are 0 but for rounding (the bias of a key in attention) would be blown up to a whole learning rate by Adam,
    /// and rounding differs between devices: epsilon is well above it.
    fn config(&self, run: &str, recompute: bool) -> TrainConfig {
        let optimizer = json!({ "learning_rate": 3e-3, "lr_warmup_steps": 1, "lr_scheduler": "constant", "epsilon": 1e-4,
            "weight_decay": 0.01 });
        let training = json!({ "optimizer": optimizer, "batches_per_step": 2, "recompute": recompute, "ema_decay": 0.5,
            "log_every": 1, "sample_every": 0, "save_every_s": 1000 });
        let config = json!({
            "data_dir": self.folder.join("data"), "run_dir": self.folder.join(run), "networks": configs(),
            "autoencoder": { "loop": training, "batch_size": 2, "crop_px": 32, "whole_pictures_from": 2.0 },
            "text": { "loop": training, "batch_size": 4 },
            "latents": { "count": 8, "batch_size": 8, "only_style": "noto" },
            "teacher": { "loop": training, "batch_size": 2 },
            "lcm": { "loop": training, "batch_size": 2 },
            "ect": { "loop": training, "batch_size": 2, "guidance_scale": 1.5 },
            "mean-flow": { "loop": training, "batch_size": 2 },
            "lightning": { "loop": training, "batch_size": 2, "teacher_steps": 4, "steps": [2, 1], "mse_phases": 0 },
            "rdm": { "loop": training, "batch_size": 4 },
            "gan": { "loop": training, "batch_size": 2 },
            "decoder": { "loop": training, "batch_size": 1, "painter_share": 0.5, "painter_timesteps": [[999], [999, 500]] },
            "export": { "folder": "exported", "name": "tiny" },
        });
        let file = self.folder.join(format!("{run}.json"));
        std::fs::write(&file, config.to_string()).unwrap();
        TrainConfig::open(&file, |model| prima_checkpoint::ModelSource::open(model)).unwrap()
    }

    /// `stage` up to step `steps` in the folder `run`, which begins as a copy of what came before; the state it saves.
    fn train(&self, stage: &str, device: &Device, run: &str, steps: u64, recompute: bool) -> State {
        let before = self.folder.join("start");
        if before.exists() && run != "start" {
            copy(&before, &self.folder.join(run), stage);
        }
        let config = self.config(run, recompute);
        let stage: &Stage = STAGES.iter().find(|s| s.name == stage).unwrap();
        let mut options = RunOptions::alone(Budget::steps(steps), true);
        device.run(|| stage.run(&config, &mut options).unwrap());
        saved(&self.dir(run, stage.name))
    }

    fn dir(&self, run: &str, stage: &str) -> PathBuf {
        self.folder.join(run).join(stage)
    }

    /// The loss of each step.
    fn losses(&self, run: &str) -> Vec<f64> {
        let text = std::fs::read_to_string(self.dir(run, "teacher").join("metrics.jsonl")).unwrap();
        let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(|text| line(text)["loss"].as_f64().unwrap()).collect()
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The states and latents below `from`, but for those of `stage`, where they are not there yet.
fn copy(from: &Path, to: &Path, stage: &str) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let folder = to.join(entry.file_name());
        if entry.file_name() == stage || folder.exists() {
            continue;
        }
        std::fs::create_dir_all(&folder).unwrap();
        for file in std::fs::read_dir(entry.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
}

/// Root of the mean square of the difference, over that of the value.
fn relative(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
    let value: f64 = want.iter().map(|b| square(*b)).sum();
    (difference / value.max(1e-30)).sqrt()
}

/// The values of each part of a state (param, ema, exp_avg, exp_avg_sq), all its tensors one after the other.
fn parts(state: &State) -> BTreeMap<String, Vec<f32>> {
    let mut parts: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (key, values) in state {
        let part = key.split('.').next().unwrap().to_owned();
        parts.entry(part).or_default().extend_from_slice(values);
    }
    parts
}

fn differences(got: &State, want: &State) -> BTreeMap<String, f64> {
    assert!(got.keys().eq(want.keys()));
    let (got, want) = (parts(got), parts(want));
    want.iter()
        .map(|(part, want)| (part.clone(), relative(&got[part], want)))
        .collect()
}

#[test]
fn ten_steps_of_the_trainer_are_the_cpus() {
    let runs = Runs::new("emulated");
    let want = runs.train("teacher", &Device::cpu(), "cpu", 10, false);
    let want_losses = runs.losses("cpu");
    assert_eq!(want_losses.len(), 10);
    for (dtype, of_losses, of_states) in [(DType::F32, 1e-6, 1e-5), (DType::BF16, 5e-3, 0.1)] {
        let Some(device) = emulator::device(dtype) else { return };
        let run = format!("{dtype:?}");
        let got = runs.train("teacher", &device, &run, 10, false);
        let got_losses = runs.losses(&run);
        let farthest = got_losses.iter().zip(&want_losses).map(|(a, b)| (a / b - 1.0).abs());
        let farthest = farthest.fold(0.0, f64::max);
        let parts = differences(&got, &want);
        println!("{run}: losses {farthest:.1e}, states {parts:?}");
        assert_eq!(got_losses.len(), 10);
        assert!(farthest < of_losses, "{run}: {got_losses:?}, the CPU's {want_losses:?}");
        for (part, difference) in parts {
            assert!(difference < of_states, "{run}: {part} differs by {difference}");
        }
        assert_eq!(got["step"], want["step"]);
    }
}

#[test]
fn a_state_goes_from_device_to_device() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    let runs = Runs::new("moves");
    let want = runs.train("teacher", &Device::cpu(), "whole", 6, false);
    for (run, first, second) in [("to", &Device::cpu(), &device), ("from", &device, &Device::cpu())] {
        runs.train("teacher", first, run, 3, false);
        let parts = differences(&runs.train("teacher", second, run, 6, false), &want);
        println!("{run}: {parts:?}");
        assert!(parts.values().all(|difference| *difference < 1e-5), "{run}: {parts:?}");
    }
}

#[test]
fn recomputation_changes_nothing_on_a_device_either() {
    let Some(device) = emulator::device(DType::BF16) else {
        return;
    };
    let runs = Runs::new("recompute");
    let states = [false, true].map(|recompute| runs.train("teacher", &device, &format!("{recompute}"), 2, recompute));
    assert!(states[0] == states[1], "{:?}", differences(&states[0], &states[1]));
}

#[test]
fn every_objective_makes_the_cpus_step() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    let runs = Runs::new("emulated-objectives");
    // ADD's discriminator sits on a whole EfficientNet-lite0, whose file no test has.
    for stage in STAGES.iter().filter(|stage| stage.name != "add") {
        let run = |device: &Device, name: &str, steps| {
            let state = runs.train(stage.name, device, &format!("{}-{name}", stage.name), steps, false);
            let values = parts(&state);
            [values["param"].clone(), values["ema"].clone()].concat()
        };
        let start = run(&Device::cpu(), "start", 0);
        let (want, got) = (run(&Device::cpu(), "cpu", 1), run(&device, "device", 1));
        let (moved, difference) = (relative(&want, &start), relative(&got, &want));
        let name = stage.name;
        println!("{name}: the step moves by {moved:.1e}, the devices differ by {difference:.1e}");
        // Adam's first step moves each value by the sign of its gradient, which rounding decides where the gradient is next to
        // nothing: behind a discriminator that has learnt nothing yet those are a few in a hundred.
        let most = if name == "ladd" { 5e-2 } else { 1e-2 };
        assert!(
            difference < most * moved,
            "{name}: {difference}, the step moves by {moved}"
        );
    }
}
