//! What is measured: networks' configs, sizes and steps. `gpu --layouts` prints it for the other side of the bench.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// SDXL's own configs, and very small ones of the same kind.
const SDXL: &str = include_str!("../../../gpu/sdxl.json");
const TINY: &str = include_str!("../../../gpu/tiny.json");
/// The scene model's, for training.
const RECIPE: &str = include_str!("../../../../recipes/prima-world.json");

/// One way to paint.
#[derive(Clone, Debug)]
pub struct Painting {
    pub name: &'static str,
    pub size_px: usize,
    pub steps: usize,
    /// diffusers' class; spacing is trailing.
    pub scheduler: &'static str,
}

pub struct Layout {
    /// By component: `text_encoder`, `text_encoder_2`, `unet`, `vae`.
    pub configs: Value,
    pub paintings: [Painting; 2],
    pub training: Training,
}

/// One step of the teacher: the UNet alone, v-prediction, AdamW.
pub struct Training {
    pub unet: Value,
    pub batch: usize,
    /// Latents each way, and tokens of the text.
    pub latent_px: usize,
    pub tokens: usize,
    /// Width of the pooled text.
    pub pooled: usize,
}

impl Layout {
    pub fn new(tiny: bool) -> Result<Self> {
        let configs = if tiny { TINY } else { SDXL };
        let recipe: Value = serde_json::from_str(RECIPE).context("recipes/prima-world.json")?;
        let unet = recipe["networks"]["unet"].clone();
        let number = |value: &Value| value.as_u64().unwrap_or(0) as usize;
        let pooled = &recipe["networks"]["text_encoder_2"]["projection_dim"];
        let tokens = &recipe["networks"]["text_encoder"]["max_position_embeddings"];
        let [small, large] = if tiny { [64, 128] } else { [512, 1024] };
        Ok(Self {
            configs: serde_json::from_str(configs).context("the configs of bench/gpu")?,
            paintings: [
                Painting {
                    name: "turbo",
                    size_px: small,
                    steps: 1,
                    scheduler: "EulerAncestralDiscreteScheduler",
                },
                Painting {
                    name: "lightning",
                    size_px: large,
                    steps: 4,
                    scheduler: "EulerDiscreteScheduler",
                },
            ],
            training: Training {
                latent_px: number(&unet["sample_size"]),
                tokens: number(tokens),
                pooled: number(pooled),
                batch: number(&recipe["teacher"]["batch_size"]),
                unet,
            },
        })
    }

    pub fn json(&self) -> Value {
        let paintings: Vec<Value> = self
            .paintings
            .iter()
            .map(|p| json!({"name": p.name, "size_px": p.size_px, "steps": p.steps, "scheduler": p.scheduler}))
            .collect();
        let t = &self.training;
        json!({
            "configs": self.configs,
            "paintings": paintings,
            "training": {
                "unet": t.unet,
                "batch": t.batch,
                "latent_px": t.latent_px,
                "tokens": t.tokens,
                "pooled": t.pooled,
            },
        })
    }
}
