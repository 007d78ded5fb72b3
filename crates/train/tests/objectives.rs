//! Each objective learns on a tiny configuration, and a resumed run repeats an uninterrupted one.

mod common;

use common::{autoencoder, configs, decoder, distillation, saved, scratch, teacher, training, write_dataset};
use prima_models::{ClipTextConfig, Unet2dConditionConfig};
use prima_train::optimizer::AdamW;
use prima_train::trainer::{Budget, Objective, Session, run};

/// Mean loss over the first batches, before and after `steps` updates.
fn before_and_after(objective: &mut dyn Objective, steps: u64) -> (f32, f32) {
    let params = objective.params().to_vec();
    for (_, p) in &params {
        p.set_trainable(true);
    }
    let mut optimizer = AdamW::new(training().optimizer, &params);
    let mean = |objective: &mut dyn Objective| {
        (0..4)
            .map(|step| objective.loss(step, 0.0).unwrap().total.item())
            .sum::<f32>()
            / 4.0
    };
    let before = mean(objective);
    for step in 0..steps {
        let gradients = objective.loss(step, 0.0).unwrap().total.backward();
        optimizer.update(&gradients, 3e-3);
    }
    (before, mean(objective))
}

#[test]
fn the_teacher_learns() {
    let (before, after) = before_and_after(&mut teacher(), 200);
    assert!(after < 0.9 * before, "{before} -> {after}");
}

#[test]
fn the_student_approaches_its_consistency_target() {
    let mut trained = teacher();
    before_and_after(&mut trained, 60);
    let mut objective = distillation();
    let (before, after) = before_and_after(&mut objective, 60);
    assert!(after < 0.7 * before, "{before} -> {after}");
}

#[test]
fn the_autoencoder_learns() {
    let folder = scratch("autoencoder");
    write_dataset(&folder);
    let mut objective = autoencoder(&folder);
    let (before, after) = before_and_after(&mut objective, 30);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(after < 0.7 * before, "{before} -> {after}");
}

#[test]
fn the_decoder_learns_from_the_encoder_and_from_the_painter_and_leaves_the_encoder_alone() {
    let folder = scratch("decoder");
    write_dataset(&folder);
    let (mut objective, encoder) = decoder(&folder, 2);
    let before_training = encoder.tensor().data().to_vec();
    let (before, after) = before_and_after(&mut objective, 12);
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(after < 0.8 * before, "{before} -> {after}");
    assert_eq!(encoder.tensor().data(), before_training);
}

#[test]
fn a_resumed_run_repeats_an_uninterrupted_one_exactly() {
    let (whole, parts) = (scratch("whole"), scratch("parts"));
    let train = |dir, steps, resume| {
        let mut session = Session::alone(Budget::steps(steps), resume);
        run(&mut teacher(), &training(), dir, &mut session).unwrap();
    };
    train(&whole, 6, false);
    train(&parts, 2, true);
    train(&parts, 6, true);
    let same = saved(&whole) == saved(&parts);
    std::fs::remove_dir_all(&whole).unwrap();
    std::fs::remove_dir_all(&parts).unwrap();
    assert!(same, "states differ");
}

#[test]
fn tiny_configurations_are_what_the_models_read() {
    assert!(Unet2dConditionConfig::from_json(&configs().unet.to_string(), "unet").is_ok());
    assert!(
        ClipTextConfig::from_json(&configs().text_encoder.to_string(), "text")
            .unwrap()
            .eos_token_id
            == 15
    );
}
