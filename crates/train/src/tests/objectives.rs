//! Each objective learns on a tiny configuration, and a resumed run repeats an uninterrupted one.

use super::{
    Scratch, add, aligned_teacher, autoencoder, decoder, dmd2, ect, gan, ladd, lcm, lcm_lora, lightning, loss,
    mean_flow, optimizer, progressive, rdm, teacher, text, trainable, training,
};
use crate::error::Result;
use crate::objective::{Batch, Loss, Objective, Player, Turn};
use crate::objectives::{Dmd2, Ladd};
use crate::params::NamedParams;
use crate::tests::common::saved;
use crate::trained::Painter;
use crate::trainer::{AdamW, Budget, LoopConfig, RunOptions, run};
use prima_picture::Picture;
use prima_tensor::no_grad;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Mean loss over the first batches, before and after `steps` updates.
fn before_and_after(objective: &dyn Objective, steps: u64) -> (f32, f32) {
    let mut adam = AdamW::new(optimizer(), &trainable(objective));
    let mean = || (0..4).map(|number| loss(objective, number).item()).sum::<f32>() / 4.0;
    let before = mean();
    for step in 0..steps {
        let gradients = loss(objective, step).backward();
        adam.update(&gradients, 3e-3);
    }
    (before, mean())
}

#[test]
fn the_teacher_learns() {
    let (before, after) = before_and_after(&teacher(&Scratch::with_data("teacher")), 200);
    assert!(after < 0.9 * before, "{before} -> {after}");
}

#[test]
fn a_teacher_that_is_aligned_learns_what_a_feature_network_sees() {
    let folder = Scratch::with_data("aligned");
    let objective = aligned_teacher(&folder, 0.5);
    let features = || {
        let batch = Batch {
            player: 0,
            number: 3,
            progress: 0.0,
        };
        let metrics = objective.loss(batch).unwrap().metrics;
        metrics.iter().find(|(name, _)| *name == "mse_features").unwrap().1
    };
    let untrained = features();
    before_and_after(&objective, 200);
    let trained = features();
    assert!(trained < 0.7 * untrained, "{untrained} -> {trained}");
}

#[test]
fn the_student_approaches_its_consistency_target() {
    let (before, after) = before_and_after(&lcm(&Scratch::with_data("lcm")), 60);
    assert!(after < 0.7 * before, "{before} -> {after}");
}

#[test]
fn a_student_goes_in_one_step_where_its_teacher_takes_two() {
    let (before, after) = before_and_after(&progressive(&Scratch::with_data("progressive")), 100);
    assert!(after < 0.5 * before, "{before} -> {after}");
}

#[test]
fn each_phase_is_taught_by_the_student_of_the_one_before() {
    let folder = Scratch::with_data("phases");
    let mut objective = progressive(&folder);
    let mut options = RunOptions::alone(Budget::steps(8), false);
    run(&mut objective, &training(), &folder.join("run"), &mut options).unwrap();
    let state = saved(&folder.join("run"));
    assert_eq!(state["buffer.phase"], [1.0]);
    let untaught = progressive(&folder).buffers();
    let (key, first) = &untaught[0];
    assert!(
        state[&format!("buffer.{key}")] != first.tensor().data(),
        "{key} is still the first teacher's"
    );
}

#[test]
fn a_run_that_is_lost_in_one_phase_resumes_through_the_next_with_the_same_bits() {
    let folder = Scratch::with_data("phases-resumed");
    let keeping = LoopConfig {
        save_every_s: 0,
        keep: 8,
        ..training()
    };
    let make = |name: &str| -> Box<dyn Objective> {
        match name {
            "progressive" => Box::new(progressive(&folder)),
            "ect" => Box::new(ect(&folder, 1.5)),
            _ => Box::new(lightning(&folder, json!([2, 1]), 1, 0.5)),
        }
    };
    for name in ["progressive", "ect", "lightning"] {
        let (whole, parts) = (
            folder.join(format!("{name}-whole")),
            folder.join(format!("{name}-parts")),
        );
        let train = |dir| {
            let mut options = RunOptions::alone(Budget::steps(8), true);
            run(&mut *make(name), &keeping, dir, &mut options).unwrap();
        };
        train(&whole);
        std::fs::create_dir(&parts).unwrap();
        // Of its states only the first three are left.
        for file in [
            "states.json",
            "state-00000001.safetensors",
            "state-00000002.safetensors",
            "state-00000003.safetensors",
        ] {
            std::fs::copy(whole.join(file), parts.join(file)).unwrap();
        }
        train(&parts);
        if name != "ect" {
            assert_eq!(saved(&parts)["buffer.phase"], [1.0]);
        }
        assert!(saved(&whole) == saved(&parts), "{name}: states differ");
    }
}

/// The mean of what the student paints in one step, which its teacher would paint around 0.
fn painted_mean(objective: &Dmd2) -> f32 {
    let painted = no_grad(|| objective.painted_from_noise(7)).unwrap();
    painted.data().iter().sum::<f32>() / painted.numel() as f32
}

/// The same of a student that a discriminator teaches.
fn answered_mean(objective: &Ladd) -> f32 {
    let answer = no_grad(|| objective.answer(7)).unwrap();
    answer.data().iter().sum::<f32>() / answer.numel() as f32
}

#[test]
fn matching_distributions_moves_a_student_to_where_its_teacher_paints() {
    for gan_weight in [0.0, 0.01] {
        let folder = Scratch::with_data(&format!("dmd2-{gan_weight}"));
        let mut objective = dmd2(&folder, gan_weight);
        let before = painted_mean(&objective);
        let mut options = RunOptions::alone(Budget::steps(60), false);
        run(&mut objective, &training(), &folder.join("run"), &mut options).unwrap();
        let after = painted_mean(&objective);
        assert!(
            before > 0.9 && after.abs() < 0.4,
            "gan_weight {gan_weight}: {before} -> {after}"
        );
    }
}

#[test]
fn a_discriminator_moves_a_student_to_where_the_data_lies() {
    let folder = Scratch::with_data("ladd");
    let mut objective = ladd(&folder);
    let before = answered_mean(&objective);
    let mut options = RunOptions::alone(Budget::steps(80), false);
    run(&mut objective, &training(), &folder.join("run"), &mut options).unwrap();
    let after = answered_mean(&objective);
    assert!(before > 0.9 && after.abs() < 0.5, "{before} -> {after}");
}

#[test]
fn consistency_tuning_moves_a_student_to_where_the_data_lies() {
    for guidance_scale in [1.0, 1.5] {
        let folder = Scratch::with_data(&format!("ect-{guidance_scale}"));
        let objective = ect(&folder, guidance_scale);
        let before = objective.offset(7).unwrap();
        before_and_after(&objective, 100);
        let after = objective.offset(7).unwrap();
        assert!(
            before > 0.5 && after.abs() < 0.5 * before,
            "guidance {guidance_scale}: {before} -> {after}"
        );
    }
}

/// Mean loss of one player over the first batches, before and after `steps` updates of it alone.
fn alone(objective: &dyn Objective, player: usize, steps: u64) -> (f32, f32) {
    let players = objective.players();
    for (i, other) in players.iter().enumerate() {
        for (_, param) in &other.params {
            param.set_trainable(i == player);
        }
    }
    let mut adam = AdamW::new(optimizer(), &players[player].params);
    let loss = |number| {
        let batch = Batch {
            player,
            number,
            progress: 0.0,
        };
        objective.loss(batch).unwrap().total
    };
    let mean = || (0..4).map(|number| loss(number).item()).sum::<f32>() / 4.0;
    let before = mean();
    for step in 0..steps {
        adam.update(&loss(step).backward(), 3e-3);
    }
    (before, mean())
}

#[test]
fn a_discriminator_tells_a_students_steps_from_its_teachers_and_the_student_learns_to_fool_it() {
    for trajectory_share in [0.0, 1.0] {
        let folder = Scratch::with_data(&format!("lightning-{trajectory_share}"));
        let objective = lightning(&folder, json!([1]), 0, trajectory_share);
        let (before, after) = alone(&objective, 1, 60);
        assert!(after < 0.7 * before, "the discriminator: {before} -> {after}");
        let (before, after) = alone(&objective, 0, 60);
        assert!(after < 0.7 * before, "the student: {before} -> {after}");
    }
}

#[test]
fn a_discriminator_tells_a_generators_pictures_from_the_data_and_the_generator_learns_to_fool_it() {
    let objective = gan(&Scratch::with_data("gan"));
    let (before, after) = alone(&objective, 1, 60);
    assert!(after < 0.7 * before, "the discriminator: {before} -> {after}");
    let (before, after) = alone(&objective, 0, 60);
    assert!(after < 0.7 * before, "the generator: {before} -> {after}");
}

#[test]
fn a_student_learns_the_mean_velocity_between_noise_levels() {
    let folder = Scratch::with_data("mean-flow");
    let objective = mean_flow(&folder, 1.5);
    let error = || {
        let batch = Batch {
            player: 0,
            number: 3,
            progress: 0.0,
        };
        objective.loss(batch).unwrap().metrics[0].1
    };
    let before = error();
    before_and_after(&objective, 100);
    let after = error();
    assert!(after < 0.5 * before, "{before} -> {after}");
}

#[test]
fn matching_moments_moves_a_student_to_where_the_data_lies() {
    let (before, after) = before_and_after(&rdm(&Scratch::with_data("rdm")), 60);
    assert!(after < 0.5 * before, "{before} -> {after}");
}

#[test]
fn the_autoencoder_learns() {
    let (before, after) = before_and_after(&autoencoder(&Scratch::with_data("autoencoder")), 30);
    assert!(after < 0.7 * before, "{before} -> {after}");
}

#[test]
fn the_decoder_learns_from_the_encoder_and_from_the_painter_and_leaves_the_encoder_alone() {
    let (objective, encoder) = decoder(&Scratch::with_data("decoder"), 2);
    let before_training = encoder.tensor().data().to_vec();
    let (before, after) = before_and_after(&objective, 12);
    assert!(after < 0.8 * before, "{before} -> {after}");
    assert_eq!(encoder.tensor().data(), before_training);
}

#[test]
fn the_text_encoders_learn_their_embeddings() {
    let (before, after) = before_and_after(&text(&Scratch::with_data("text")), 200);
    assert!(after < 0.3 * before, "{before} -> {after}");
}

#[test]
fn the_teacher_starts_from_the_text_encoders_that_a_stage_left() {
    let folder = Scratch::with_data("text-first");
    let config = folder.random();
    let weights = |painter: Painter| -> Vec<Vec<f32>> {
        let params = painter.texts.named_params();
        params.iter().map(|(_, param)| param.tensor().into_vec()).collect()
    };
    let at_random = weights(Painter::fresh(&config).unwrap());
    let mut objective = text(&folder);
    let mut options = RunOptions::alone(Budget::steps(2), false);
    run(&mut objective, &training(), &config.stage_dir("text"), &mut options).unwrap();
    let learnt: Vec<Vec<f32>> = objective.players()[0]
        .params
        .iter()
        .map(|(_, p)| p.tensor().into_vec())
        .collect();
    let started = weights(Painter::fresh(&config).unwrap());
    assert_ne!(started, at_random);
    assert_eq!(started, learnt[..started.len()]);
}

#[test]
fn a_resumed_run_repeats_an_uninterrupted_one_exactly() {
    let folder = Scratch::with_data("resumed");
    let make = |name: &str| -> Box<dyn Objective> {
        match name {
            "teacher" => Box::new(teacher(&folder)),
            "text" => Box::new(text(&folder)),
            "ladd" => Box::new(ladd(&folder)),
            "gan" => Box::new(gan(&folder)),
            "add" => Box::new(add(&folder)),
            "lcm-lora" => Box::new(lcm_lora(&folder)),
            "dmd2" => Box::new(dmd2(&folder, 0.01)),
            "rdm" => Box::new(rdm(&folder)),
            "mean-flow" => Box::new(mean_flow(&folder, 1.0)),
            "ect" => Box::new(ect(&folder, 1.5)),
            "lightning" => Box::new(lightning(&folder, json!([2, 1]), 1, 0.5)),
            // Its target is an average of its own, which no optimizer moves.
            _ => Box::new(lcm(&folder)),
        }
    };
    for name in [
        "teacher",
        "lcm",
        "text",
        "ladd",
        "gan",
        "add",
        "dmd2",
        "rdm",
        "mean-flow",
        "lcm-lora",
        "ect",
        "lightning",
    ] {
        let (whole, parts) = (
            folder.join(format!("{name}-whole")),
            folder.join(format!("{name}-parts")),
        );
        // Schedules follow the budget, so that both parts have the same; the first is stopped on its way, as a signal would do it.
        let train = |dir, stops_after| {
            let mut options = RunOptions::alone(Budget::steps(6), true);
            let mut objective = Stopped {
                inner: make(name),
                after: stops_after,
                stop: options.stop.clone(),
            };
            run(&mut objective, &training(), dir, &mut options).unwrap()
        };
        assert!(!train(&whole, None).stopped);
        for after in [2, 3] {
            let summary = train(&parts, Some(after));
            assert_eq!((summary.steps, summary.stopped), (after, true), "{name}");
        }
        assert_eq!(train(&parts, None).steps, 6);
        assert!(saved(&whole) == saved(&parts), "{name}: states differ");
    }
}

/// An objective whose run is asked to stop during the step that is its last.
struct Stopped {
    inner: Box<dyn Objective>,
    after: Option<u64>,
    stop: Arc<AtomicBool>,
}

impl Objective for Stopped {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn players(&self) -> Vec<Player> {
        self.inner.players()
    }

    fn buffers(&self) -> NamedParams {
        self.inner.buffers()
    }

    fn batch_size(&self) -> usize {
        self.inner.batch_size()
    }

    fn turns(&mut self, step: u64, progress: f32) -> Result<Vec<Turn>> {
        if self.after == Some(step + 1) {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.inner.turns(step, progress)
    }

    fn loss(&self, batch: Batch) -> Result<Loss> {
        self.inner.loss(batch)
    }

    fn updated(&mut self, player: usize, observed: &[f32]) {
        self.inner.updated(player, observed);
    }

    fn samples(&self) -> Result<Option<Picture>> {
        self.inner.samples()
    }
}
