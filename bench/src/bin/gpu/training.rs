//! Training steps of the scene model's teacher: forward, backward, AdamW.

use crate::layout::Training;
use crate::{Options, median_ms};
use anyhow::Result;
use prima_checkpoint::RandomInit;
use prima_models::{Unet2dCondition, Unet2dConditionConfig, UnetCond};
use prima_tensor::{DType, Device, Philox, Tensor, device, weighted_mse};
use prima_train::{AdamW, AdamWConfig};
use serde_json::{Value, json};

/// Weights are f32, activations the device's type; on a CPU f32, and the factors of products are rounded to the asked one.
pub fn measure(options: &Options, device: &Device, training: &Training) -> Result<Value> {
    let config = Unet2dConditionConfig::from_json(&training.unet.to_string(), "the recipe's unet")?;
    let context = training.unet["cross_attention_dim"].as_u64().unwrap_or(0) as usize;
    let channels = config.in_channels;
    let mut source = RandomInit::new(3);
    let unet = Unet2dCondition::new(config, &mut source)?;
    let params = source.into_params();
    for (_, param) in &params {
        param.set_trainable(true);
        param.set_bf16_products(options.dtype == DType::BF16);
    }
    device.reset_usage();
    let mut optimizer = AdamW::new(AdamWConfig::default(), &params);
    let batch = training.batch;
    let random = |step: u32, shape: &[usize]| -> Tensor {
        let noise = Philox {
            seed: 4,
            image: 0,
            purpose: 0xbe9c,
            step,
        };
        noise.normal_batch(shape)
    };
    let picture = [batch, training.latent_px, training.latent_px, channels];
    let (sample, target) = (random(0, &picture), random(1, &picture));
    let cond = UnetCond {
        encoder_hidden_states: random(2, &[batch, training.tokens, context]),
        text_embeds: Some(random(3, &[batch, training.pooled])),
        time_ids: vec![[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]; batch],
        timestep_cond: None,
    };
    let (timesteps, weight) = (vec![500.0; batch], vec![1.0; batch]);
    let mut losses = Vec::new();
    let step_ms = median_ms(options, device, || {
        device::catch(|| -> Result<()> {
            let out = unet.forward(&sample, &timesteps, &cond, &mut || true)?;
            let loss = weighted_mse(&out, &target, &weight);
            let gradients = loss.backward();
            optimizer.update(&gradients, 1e-4);
            losses.push(loss.item());
            Ok(())
        })?
    })?;
    Ok(json!({
        "batch": batch,
        "step_ms": step_ms,
        "samples_per_s": batch as f64 / step_ms * 1e3,
        "first_loss": losses.first(),
        "last_loss": losses.last(),
        "peak_bytes": device.usage().peak,
    }))
}
