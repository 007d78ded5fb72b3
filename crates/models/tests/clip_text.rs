//! The text encoders against transformers, on tiny random models.

mod common;

use common::{Golden, assert_close, build, component};
use prima_models::{ClipTextConfig, ClipTextModel, HiddenState};
use prima_tensor::{Tensor, take_batch, weighted_mse};

fn load(folder: &str) -> ClipTextModel {
    let (config, reader) = component(folder, "model.safetensors");
    let config = ClipTextConfig::from_json(&config, "config.json").unwrap();
    build(reader, |source| ClipTextModel::new(config, source))
}

fn check(folder: &str, name: &str) {
    let (encoder, golden) = (load(folder), Golden::open(name));
    let (ids, batch) = golden.ids("input_ids");
    let last = encoder.forward(&ids, batch, HiddenState::LAST);
    assert_close(
        &format!("{name} last_hidden_state"),
        &last.hidden_states,
        &golden.tensor("last_hidden_state"),
    );
    let output = encoder.forward(&ids, batch, HiddenState::PENULTIMATE);
    assert_close(
        &format!("{name} penultimate"),
        &output.hidden_states,
        &golden.tensor("penultimate"),
    );
    assert_eq!(output.pooled.is_some(), encoder.config().with_projection());
    if let Some(pooled) = output.pooled {
        assert_close(&format!("{name} pooled"), &pooled, &golden.tensor("pooled"));
    }
    // Three layers: skipping one more is hidden_states[1], and the pooled token stays.
    let skipped = encoder.forward(&ids, batch, HiddenState::PENULTIMATE.earlier(1));
    let first_two = take_batch(&skipped.hidden_states, 0, 2);
    assert_close(
        &format!("{name} clip_skip"),
        &first_two,
        &golden.tensor("hidden_states.1"),
    );
    if let Some(pooled) = skipped.pooled {
        assert_close(&format!("{name} pooled, clip_skip"), &pooled, &golden.tensor("pooled"));
    }
}

#[test]
fn quick_gelu_encoder_matches_transformers() {
    check("tiny-sdxl/text_encoder", "tiny-sdxl.text_encoder");
}

#[test]
fn gelu_encoder_with_projection_pools_the_highest_id_when_eos_is_2() {
    check("tiny-sdxl/text_encoder_2", "tiny-sdxl.text_encoder_2");
}

#[test]
fn keys_without_the_text_model_prefix_are_read() {
    check("tiny-lcm/text_encoder", "tiny-lcm.text_encoder");
}

#[test]
fn pooling_takes_the_first_eos_token() {
    check("tiny-lcm/text_encoder_2", "tiny-lcm.text_encoder_2");
}

#[test]
fn shorter_rows_give_the_same_states_because_attention_is_causal() {
    let (encoder, golden) = (load("tiny-sdxl/text_encoder"), Golden::open("tiny-sdxl.text_encoder"));
    let (ids, _) = golden.ids("input_ids");
    let short = encoder.forward(&ids[..16], 1, HiddenState::PENULTIMATE).hidden_states;
    let expected = golden.tensor("penultimate");
    let head = Tensor::from_vec(expected.data()[..short.numel()].to_vec(), short.shape());
    assert_close("first 16 tokens", &short, &head);
}

#[test]
fn gradients_reach_the_token_embedding() {
    let (config, mut reader) = component("tiny-sdxl/text_encoder_2", "model.safetensors");
    let config = ClipTextConfig::from_json(&config, "config.json").unwrap();
    let encoder = ClipTextModel::new(config, &mut reader).unwrap();
    for (_, param) in reader.params() {
        param.set_trainable(true);
    }
    let pooled = encoder.forward(&[0, 5, 9, 788], 1, HiddenState::LAST).pooled.unwrap();
    let gradients = weighted_mse(&pooled, &Tensor::zeros(pooled.shape()), &[1.0]).backward();
    for (key, param) in reader.params() {
        let gradient = gradients
            .param(param)
            .unwrap_or_else(|| panic!("{key} has no gradient"));
        assert!(gradient.data().iter().any(|&v| v != 0.0), "{key}: the gradient is zero");
    }
}
