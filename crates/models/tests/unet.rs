//! The UNet against diffusers, on tiny random models.

mod common;

use common::{Golden, assert_close, build, component};
use prima_checkpoint::RandomInit;
use prima_models::{Cancelled, Unet2dCondition, Unet2dConditionConfig, UnetCond};
use prima_tensor::{Tensor, mul, weighted_mse};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

fn load(folder: &str) -> Unet2dCondition {
    let (config, reader) = component(folder, WEIGHTS);
    let config = Unet2dConditionConfig::from_json(&config, "config.json").unwrap();
    build(reader, |source| Unet2dCondition::new(config, source))
}

fn cond(golden: &Golden, case: &str) -> UnetCond {
    let optional = |name: &str| {
        let key = format!("{case}.{name}");
        golden.has(&key).then(|| golden.tensor(&key))
    };
    let time_ids = optional("time_ids").map_or_else(Vec::new, |ids| ids.data().as_chunks().0.to_vec());
    UnetCond {
        encoder_hidden_states: golden.tensor(&format!("{case}.encoder_hidden_states")),
        text_embeds: optional("text_embeds"),
        time_ids,
        timestep_cond: optional("timestep_cond"),
    }
}

fn check_all_cases(folder: &str, name: &str) {
    let (unet, golden) = (load(folder), Golden::open(name));
    let outputs: Vec<String> = golden
        .keys()
        .into_iter()
        .filter(|key| key.ends_with(".model_output"))
        .collect();
    assert!(outputs.len() >= 3, "{name} has {outputs:?}");
    for output in outputs {
        let case = output.trim_end_matches(".model_output");
        let sample = golden.nhwc(&format!("{case}.sample"));
        let timesteps = golden.tensor(&format!("{case}.timestep"));
        let found = unet
            .forward(&sample, timesteps.data(), &cond(&golden, case), &mut || true)
            .unwrap();
        assert_close(&format!("{name} {case}"), &found, &golden.nhwc(&output));
    }
}

#[test]
fn sdxl_blocks_match_diffusers() {
    check_all_cases("tiny-sdxl/unet", "tiny-sdxl.unet");
}

#[test]
fn an_lcm_unet_with_guidance_embedding_matches_diffusers() {
    check_all_cases("tiny-lcm/unet", "tiny-lcm.unet");
}

#[test]
fn no_mid_block_and_nested_transformer_layers_match_diffusers() {
    check_all_cases("unets/ssd-1b", "unets.ssd-1b");
}

#[test]
fn layers_that_differ_per_block_match_diffusers() {
    check_all_cases("unets/irregular", "unets.irregular");
}

#[test]
fn text_conditioning_without_added_embeddings_matches_diffusers() {
    check_all_cases("unets/sd21", "unets.sd21");
}

#[test]
fn convolutional_projections_match_diffusers() {
    check_all_cases("unets/sd15", "unets.sd15");
}

#[test]
fn a_pass_stops_at_the_first_refusal() {
    let (unet, golden) = (load("tiny-sdxl/unet"), Golden::open("tiny-sdxl.unet"));
    let sample = golden.nhwc("t999.sample");
    let mut asked = 0;
    let mut hook = || {
        asked += 1;
        asked < 5
    };
    let result = unet.forward(&sample, &[999.0], &cond(&golden, "t999"), &mut hook);
    assert_eq!(result.err(), Some(Cancelled));
    assert_eq!(asked, 5);
}

#[test]
fn what_was_made_of_a_text_is_used_for_no_other_text_and_with_no_other_weights() {
    let (config, mut reader) = component("tiny-sdxl/unet", WEIGHTS);
    let config = Unet2dConditionConfig::from_json(&config, "config.json").unwrap();
    let unet = Unet2dCondition::new(config, &mut reader).unwrap();
    let golden = Golden::open("tiny-sdxl.unet");
    let (sample, timesteps) = (golden.nhwc("t999.sample"), golden.tensor("t999.timestep"));
    let run = |cond: &UnetCond| {
        let output = unet.forward(&sample, timesteps.data(), cond, &mut || true);
        output.unwrap().data().to_vec()
    };
    let told = cond(&golden, "t999");
    let text = &told.encoder_hidden_states;
    let other = UnetCond {
        encoder_hidden_states: mul(text, text),
        ..told.clone()
    };
    let first = run(&told);
    assert_eq!(run(&told), first);
    assert_ne!(run(&other), first);
    assert_eq!(run(&told), first);
    let values = reader
        .params()
        .iter()
        .filter(|(key, _)| key.ends_with("attn2.to_v.weight"));
    for (_, value) in values {
        value.update(|value| value.iter_mut().for_each(|x| *x *= 2.0));
    }
    assert_ne!(run(&told), first);
}

#[test]
fn a_fresh_unet_predicts_zero_and_learns_from_its_first_step() {
    let (config, _) = component("tiny-sdxl/unet", WEIGHTS);
    let config = Unet2dConditionConfig::from_json(&config, "config.json").unwrap();
    let mut source = RandomInit::new(1);
    let unet = Unet2dCondition::new(config, &mut source).unwrap();
    let golden = Golden::open("tiny-sdxl.unet");
    let (sample, cond) = (golden.nhwc("t999.sample"), cond(&golden, "t999"));
    let loss = |target: &Tensor| {
        let output = unet.forward(&sample, &[999.0], &cond, &mut || true).unwrap();
        (weighted_mse(&output, target, &[1.0]), output)
    };
    let (_, output) = loss(&sample);
    assert!(output.data().iter().all(|&v| v == 0.0));
    for (_, param) in source.params() {
        param.set_trainable(true);
    }
    // Zero-initialised layers open one after the other: after a few steps every layer must
    // have a gradient.
    for _ in 0..4 {
        let gradients = loss(&sample).0.backward();
        for (_, param) in source.params() {
            if let Some(gradient) = gradients.param(param) {
                param.update(|values| values.iter_mut().zip(gradient.data()).for_each(|(v, g)| *v -= 0.1 * g));
            }
        }
    }
    let gradients = loss(&sample).0.backward();
    for (key, param) in source.params() {
        let gradient = gradients
            .param(param)
            .unwrap_or_else(|| panic!("{key} has no gradient"));
        let energy = mul(gradient, gradient).data().iter().sum::<f32>();
        assert!(energy.is_finite() && energy > 0.0, "{key}: gradient energy {energy}");
    }
}
