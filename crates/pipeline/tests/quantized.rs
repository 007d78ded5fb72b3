//! Models in 8 and 4 bits beside the same in f32: how far apart their pictures are, and what the files hold.

mod common;

use common::goldens;
use prima_pipeline::{
    LayerReport, LoadOptions, ModelSource, Pipeline, Quantization, Request, ScheduleOptions, quantize,
};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The model that is part of the binary.
fn mini() -> PathBuf {
    goldens().join("../assets/prima-mini")
}

fn painted(model: &Path, prompt: &str) -> Vec<u8> {
    let source = ModelSource::open(model).unwrap();
    let pipeline = Pipeline::load(&source, &LoadOptions::default()).unwrap();
    let request = Request {
        prompt: prompt.to_owned(),
        seed: 7,
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    let response = pipeline.paint(&request, &mut |_| ControlFlow::Continue(())).unwrap();
    response.pictures[0].rgb.clone()
}

fn decibels(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum();
    10.0 * (255.0f64.powi(2) / (squares / a.len() as f64)).log10()
}

fn quantized(model: &Path, asked: Quantization) -> (TempDir, Vec<LayerReport>) {
    let folder = tempfile::tempdir().unwrap();
    let source = ModelSource::open(model).unwrap();
    let layers = quantize(&source, folder.path(), asked, &mut |_| {}).unwrap();
    (folder, layers)
}

#[test]
fn models_in_8_bits_paint_nearly_the_same_picture() {
    for model in [goldens().join("tiny-sdxl"), mini()] {
        let (folder, layers) = quantized(&model, Quantization::of_bits(8));
        let narrow = layers.iter().filter(|layer| layer.bits == 8).count();
        assert!(2 * narrow > layers.len(), "{narrow} of {} layers", layers.len());
        for prompt in ["a red circle", "a cat beside a tree"] {
            let apart = decibels(&painted(&model, prompt), &painted(folder.path(), prompt));
            println!("{}: {prompt}: {apart:.1} dB", model.display());
            assert!((32.0..90.0).contains(&apart), "{}: {apart:.1} dB", model.display());
        }
    }
}

#[test]
fn models_in_4_bits_are_smaller_and_paint_a_similar_picture() {
    let size = |folder: &Path| prima_checkpoint::info(folder).unwrap().bytes;
    let (eight, _) = quantized(&mini(), Quantization::of_bits(8));
    let (four, layers) = quantized(&mini(), Quantization::of_bits(4));
    assert!(layers.iter().any(|layer| layer.bits == 4));
    assert!(size(four.path()) < size(eight.path()) && size(eight.path()) < size(&mini()));
    let apart = decibels(&painted(&mini(), "a red circle"), &painted(four.path(), "a red circle"));
    println!("{apart:.1} dB in 4 bits");
    assert!((18.0..60.0).contains(&apart), "{apart:.1} dB");
}

#[test]
fn layers_that_lose_more_than_allowed_stay_in_bf16_and_the_rest_is_a_model_folder() {
    let model = goldens().join("tiny-sdxl");
    let stored = |folder: &Path| -> BTreeSet<String> {
        let info = prima_checkpoint::info(folder).unwrap();
        info.components
            .into_iter()
            .flat_map(|part| part.dtypes.into_keys())
            .collect()
    };
    let (folder, layers) = quantized(
        &model,
        Quantization {
            bits: 8,
            max_error: 0.0,
        },
    );
    // What the picture did not need has no error.
    assert!(layers.iter().all(|layer| (layer.bits == 16) == layer.error.is_some()));
    assert!(layers.iter().filter(|layer| layer.bits == 16).count() > 20);
    let all = |bits| layers.iter().filter(|layer| layer.bits == bits).count();
    let (loose, loose_layers) = quantized(
        &model,
        Quantization {
            bits: 8,
            max_error: 1.0,
        },
    );
    assert!(loose_layers.iter().all(|layer| layer.bits == 8) && all(16) > 0);
    assert!(stored(loose.path()).contains("int8"));
    for file in [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
    ] {
        assert_eq!(
            std::fs::read(model.join(file)).unwrap(),
            std::fs::read(folder.path().join(file)).unwrap()
        );
    }
}
