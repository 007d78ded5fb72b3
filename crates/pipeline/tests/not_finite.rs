//! Values that are not finite end in an error that names them, never in a flat picture.

mod common;

use common::goldens;
use prima_pipeline::{DType, Error, LoadOptions, ModelSource, Pipeline, Request, ScheduleOptions};
use safetensors::{Dtype, SafeTensors};
use std::ops::ControlFlow;
use std::path::Path;
use tempfile::TempDir;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// tiny-sdxl with `value` in every place of the first tensor of `file` whose key ends in `suffix`.
fn damaged(file: &str, suffix: &str, value: f32) -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    copy(&goldens().join("tiny-sdxl"), dir.path());
    let path = dir.path().join(file);
    let mut bytes = std::fs::read(&path).unwrap();
    let (key, range, dtype) = {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut keys: Vec<String> = tensors.names().into_iter().map(str::to_owned).collect();
        keys.sort();
        let key = keys.into_iter().find(|key| key.ends_with(suffix)).unwrap();
        let view = tensors.tensor(&key).unwrap();
        let from = view.data().as_ptr() as usize - bytes.as_ptr() as usize;
        (key.clone(), from..from + view.data().len(), view.dtype())
    };
    let stored = match dtype {
        Dtype::F32 => value.to_le_bytes().to_vec(),
        Dtype::BF16 => value.to_bits().to_le_bytes()[2..].to_vec(),
        other => panic!("{other:?}"),
    };
    for place in bytes[range].chunks_exact_mut(stored.len()) {
        place.copy_from_slice(&stored);
    }
    std::fs::write(&path, bytes).unwrap();
    (dir, key)
}

fn load(dir: &TempDir) -> Result<Pipeline, Error> {
    Pipeline::load(&ModelSource::open(dir.path()).unwrap(), &LoadOptions::of(DType::F32))
}

#[test]
fn weights_that_are_not_finite_are_refused_when_the_model_is_loaded() {
    let unet = "unet/diffusion_pytorch_model.safetensors";
    let vae = "vae/diffusion_pytorch_model.safetensors";
    for (file, suffix, value) in [
        (unet, "to_q.weight", f32::NAN),
        (vae, "conv_in.weight", f32::INFINITY),
        ("text_encoder/model.safetensors", "fc1.bias", f32::NAN),
        (
            "text_encoder_2/model.safetensors",
            "token_embedding.weight",
            f32::NEG_INFINITY,
        ),
    ] {
        let (dir, key) = damaged(file, suffix, value);
        let error = load(&dir).err().unwrap().to_string();
        assert!(
            error.contains(file) && error.contains(&key) && error.contains("has the value"),
            "{error}"
        );
    }
}

#[test]
fn an_overflow_while_denoising_names_the_step_and_what_to_try() {
    let (dir, _) = damaged("unet/diffusion_pytorch_model.safetensors", "conv_out.weight", 3e38);
    let pipeline = load(&dir).unwrap();
    let request = Request {
        prompt: "a red apple".to_owned(),
        schedule: ScheduleOptions::steps(3),
        ..Request::default()
    };
    let mut steps = 0;
    let error = pipeline
        .paint(&request, &mut |progress| {
            steps += usize::from(matches!(progress, prima_pipeline::Progress::Step { .. }));
            ControlFlow::Continue(())
        })
        .err()
        .unwrap();
    let text = error.to_string();
    assert!(matches!(error, Error::NotFinite { .. }) && !error.is_usage(), "{text}");
    assert!(
        text.starts_with(&format!(
            "after step {} of 3 the latents hold NaN or infinite values",
            steps + 1
        )),
        "{text}"
    );
    assert!(text.contains("--dtype f32"), "{text}");
}

#[test]
fn an_overflow_of_the_autoencoder_is_an_error() {
    let (dir, _) = damaged(
        "vae/diffusion_pytorch_model.safetensors",
        "decoder.conv_out.weight",
        3e38,
    );
    let request = Request {
        prompt: "a red apple".to_owned(),
        schedule: ScheduleOptions::steps(1),
        ..Request::default()
    };
    let painted = load(&dir).unwrap().paint(&request, &mut |_| ControlFlow::Continue(()));
    let error = painted.err().unwrap().to_string();
    assert!(error.starts_with("the decoded picture holds"), "{error}");
}

#[test]
fn a_model_cards_numbers_are_bounded() {
    for (card, field) in [
        (r#"{"num_inference_steps": 0}"#, "num_inference_steps = 0"),
        (r#"{"num_inference_steps": 1000000}"#, "num_inference_steps = 1000000"),
        (r#"{"guidance_scale": -1e300}"#, "guidance_scale = -"),
        (r#"{"width": 1000000007}"#, "width = 1000000007"),
        (r#"{"strength": -1}"#, "strength = -1"),
        (r#"{"step_counts": [0]}"#, "step_counts = 0"),
        (r#"{"timesteps": {"2": [1]}}"#, "length of timesteps[2] = 1"),
        (r#"{"timesteps": {"1": [-4]}}"#, "timesteps[1] = -4"),
    ] {
        let error = prima_pipeline::ModelCard::parse(card, "m/prima.json")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&format!("m/prima.json: {field}")), "{error}");
    }
}

#[test]
fn a_tokenizer_of_more_tokens_than_its_encoder_knows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    copy(&goldens().join("tiny-sdxl"), dir.path());
    let path = dir.path().join("tokenizer/vocab.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, _) = text.rsplit_once('}').unwrap();
    std::fs::write(&path, format!("{head},\"zzzz</w>\":4000000}}")).unwrap();
    let error = load(&dir).err().unwrap().to_string();
    assert!(error.contains("it has a token 4000000"), "{error}");
}
