//! Training on the CUDA kernels, run on the CPU by emulation, against the CPU's own.

mod common;

use common::{autoencoder, decoder, distillation, saved, scratch, teacher, training, write_dataset};
use prima_emulator as emulator;
use prima_tensor::{DType, Device, Tensor};
use prima_train::ema::Ema;
use prima_train::optimizer::{AdamW, AdamWConfig};
use prima_train::trainer::{Budget, LoopConfig, Objective, Session, run};
use std::collections::BTreeMap;
use std::path::Path;

/// Gradients that are 0 but for rounding (the bias of a key in attention) would be blown up to a whole learning rate by Adam,
/// and rounding differs between devices: epsilon is well above it.
fn optimizer() -> AdamWConfig {
    AdamWConfig {
        epsilon: 1e-4,
        weight_decay: 0.01,
        ..training().optimizer
    }
}

fn train(device: &Device, dir: &Path, steps: u64, recompute: bool) {
    let config = LoopConfig {
        optimizer: optimizer(),
        log_every: 1,
        recompute,
        ..training()
    };
    let mut session = Session::alone(Budget::steps(steps), true);
    device.run(|| run(&mut teacher(), &config, dir, &mut session).unwrap());
}

/// The loss of each step.
fn losses(dir: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(dir.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"]
            .as_f64()
            .unwrap()
    };
    text.lines().map(loss).collect()
}

/// Root of the mean square of the difference, over that of the value.
fn relative(got: &[f32], want: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
    let value: f64 = want.iter().map(|b| square(*b)).sum();
    (difference / value.max(1e-30)).sqrt()
}

/// The largest difference of each part of a state (param, ema, exp_avg, exp_avg_sq), all its tensors taken as one.
fn differences(got: &BTreeMap<String, Vec<f32>>, want: &BTreeMap<String, Vec<f32>>) -> BTreeMap<String, f64> {
    assert!(got.keys().eq(want.keys()));
    let mut parts: BTreeMap<String, [Vec<f32>; 2]> = BTreeMap::new();
    for (key, values) in want {
        let part = key.split('.').next().unwrap().to_owned();
        let [all_got, all_want] = parts.entry(part).or_default();
        all_got.extend_from_slice(&got[key]);
        all_want.extend_from_slice(values);
    }
    let relative = |(part, [got, want]): (String, [Vec<f32>; 2])| (part, relative(&got, &want));
    parts.into_iter().map(relative).collect()
}

#[test]
fn ten_steps_of_the_trainer_are_the_cpus() {
    let on_cpu = scratch("emulated-cpu");
    train(&Device::cpu(), &on_cpu, 10, false);
    let (want, want_losses) = (saved(&on_cpu), losses(&on_cpu));
    assert_eq!(want_losses.len(), 10);
    for (dtype, of_losses, of_states) in [(DType::F32, 1e-6, 1e-5), (DType::BF16, 5e-3, 0.1)] {
        let Some(device) = emulator::device(dtype) else { return };
        let dir = scratch(&format!("emulated-{dtype:?}"));
        train(&device, &dir, 10, false);
        let (got, got_losses) = (saved(&dir), losses(&dir));
        std::fs::remove_dir_all(&dir).unwrap();
        let farthest = got_losses.iter().zip(&want_losses).map(|(a, b)| (a / b - 1.0).abs());
        let farthest = farthest.fold(0.0, f64::max);
        let parts = differences(&got, &want);
        println!("{dtype:?}: losses {farthest:.1e}, states {parts:?}");
        assert_eq!(got_losses.len(), 10);
        assert!(
            farthest < of_losses,
            "{dtype:?}: {got_losses:?}, the CPU's {want_losses:?}"
        );
        for (part, difference) in parts {
            assert!(difference < of_states, "{dtype:?}: {part} differs by {difference}");
        }
        assert_eq!(got["step"], want["step"]);
    }
    std::fs::remove_dir_all(&on_cpu).unwrap();
}

#[test]
fn a_state_goes_from_device_to_device() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    let whole = scratch("moves-whole");
    train(&Device::cpu(), &whole, 6, false);
    let want = saved(&whole);
    for (name, first, second) in [("to", &Device::cpu(), &device), ("from", &device, &Device::cpu())] {
        let dir = scratch(&format!("moves-{name}"));
        train(first, &dir, 3, false);
        train(second, &dir, 6, false);
        let parts = differences(&saved(&dir), &want);
        println!("{name}: {parts:?}");
        assert!(parts.values().all(|difference| *difference < 1e-5), "{name}: {parts:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
    std::fs::remove_dir_all(&whole).unwrap();
}

#[test]
fn recomputation_changes_nothing_on_a_device_either() {
    let Some(device) = emulator::device(DType::BF16) else {
        return;
    };
    let states = [false, true].map(|recompute| {
        let dir = scratch(&format!("recompute-{recompute}"));
        train(&device, &dir, 2, recompute);
        let state = saved(&dir);
        std::fs::remove_dir_all(&dir).unwrap();
        state
    });
    assert!(states[0] == states[1], "{:?}", differences(&states[0], &states[1]));
}

/// Loss, parameters and averages after one step.
fn one_step(device: &Device, objective: &mut dyn Objective) -> (f32, Vec<Tensor>) {
    device.run(|| {
        let params = objective.params().to_vec();
        for (_, param) in &params {
            param.set_trainable(true);
        }
        let mut adam = AdamW::new(optimizer(), &params);
        let mut ema = Ema::new(&params, 0.5);
        let loss = objective.loss(0, 0.0).unwrap().total;
        adam.update(&loss.backward(), 3e-3);
        objective.updated();
        ema.update(0);
        let mut values: Vec<Tensor> = params.iter().map(|(_, p)| p.tensor().detach()).collect();
        ema.with_average(|| values.extend(params.iter().map(|(_, p)| p.tensor().detach())));
        (loss.item(), values)
    })
}

#[test]
fn every_objective_makes_the_cpus_step() {
    let Some(device) = emulator::device(DType::F32) else {
        return;
    };
    let folder = scratch("emulated-objectives");
    write_dataset(&folder);
    let fresh = |name: &str| -> Box<dyn Objective> {
        match name {
            "autoencoder" => Box::new(autoencoder(&folder)),
            "decoder" => Box::new(decoder(&folder, 1).0),
            "teacher" => Box::new(teacher()),
            _ => Box::new(distillation()),
        }
    };
    for name in ["autoencoder", "decoder", "teacher", "distill"] {
        let make = || fresh(name);
        let start: Vec<Tensor> = make().params().iter().map(|(_, p)| p.tensor().detach()).collect();
        let (want_loss, want) = one_step(&Device::cpu(), &mut *make());
        let (loss, got) = one_step(&device, &mut *make());
        assert!(
            (loss / want_loss - 1.0).abs() < 1e-5,
            "{name}: {loss}, the CPU's {want_loss}"
        );
        let all = |tensors: &[Tensor]| -> Vec<f32> { tensors.iter().flat_map(|t| t.data().to_vec()).collect() };
        let (start, got, want) = (all(&start), all(&got), all(&want));
        let moved = relative(&want[..start.len()], &start);
        let difference = relative(&got, &want);
        println!("{name}: the step moves by {moved:.1e}, the devices differ by {difference:.1e}");
        assert!(
            difference < 1e-2 * moved,
            "{name}: {difference}, the step moves by {moved}"
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
