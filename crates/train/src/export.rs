//! A run as a diffusers folder in SDXL's layout, with a model card and the data's credits.

use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::fold_statistics::fold_statistics;
use crate::latent_cache::LatentStatistics;
use crate::noise_schedule::{BETA_END, BETA_START, NUM_TRAIN_TIMESTEPS};
use crate::stages::{trained_painter, trained_vae};
use crate::trainer::Summary;
use prima_checkpoint::export as write_component;
use prima_checkpoint::export::{write_bytes, write_json};
use prima_data::{ComposerOptions, EVALUATION_NOUNS, NOTICE};
use prima_tensor::{DType, Param};
use serde_json::{Value, json};
use std::path::Path;

/// What was written.
#[derive(Clone, Debug)]
pub struct Exported {
    pub parameters: usize,
    pub bytes: u64,
}

const COMPONENTS: [(&str, &str); 4] = [
    ("text_encoder", "model.safetensors"),
    ("text_encoder_2", "model.safetensors"),
    ("unet", "diffusion_pytorch_model.safetensors"),
    ("vae", "diffusion_pytorch_model.safetensors"),
];

/// Writes the folder `config.export.folder` from the averaged weights, in f16.
pub fn export(config: &TrainConfig) -> Result<Exported> {
    let folder = &config.export.folder;
    let (distilled, lcm) = (config.ships_student()?, config.samples_as_lcm()?);
    let (unet, text) = trained_painter(config)?;
    let vae = trained_vae(config)?;
    let (vae_config, vae_params) = match (&vae.network.config().latents_mean, &vae.network.config().latents_std) {
        (Some(mean), Some(std)) => {
            let statistics = LatentStatistics {
                mean: narrow(mean),
                std: narrow(std),
            };
            fold_statistics(vae.network.config(), &vae.params, &statistics)
        }
        _ => (vae.network.config().clone(), vae.params),
    };
    let parts: [(Value, &[(String, Param)]); 4] = [
        (text.first.network.config().to_json(), &text.first.params),
        (text.second.network.config().to_json(), &text.second.params),
        (unet.network.config().to_json(), &unet.params),
        (vae_config.to_json(), &vae_params),
    ];
    let mut parameters = 0;
    for ((component, weights), (json, params)) in COMPONENTS.iter().zip(parts) {
        write_component(&folder.join(component), weights, &json, params, DType::F16)?;
        parameters += params.iter().map(|(_, p)| p.numel()).sum::<usize>();
    }
    let scheduler_folder = folder.join("scheduler");
    std::fs::create_dir_all(&scheduler_folder).map_err(Error::io(&scheduler_folder))?;
    write_json(&scheduler_folder.join("scheduler_config.json"), &scheduler(lcm))?;
    write_json(&folder.join("model_index.json"), &model_index(lcm))?;
    for name in ["tokenizer", "tokenizer_2"] {
        copy_tokenizer(
            &config.data_dir.join("tokenizer"),
            &folder.join(name),
            text.max_length(),
        )?;
    }
    write_json(&folder.join("prima.json"), &settings(config, lcm))?;
    write_bytes(&folder.join("NOTICE"), NOTICE.as_bytes())?;
    write_bytes(
        &folder.join("MODEL_CARD.md"),
        card(config, distilled, lcm, parameters)?.as_bytes(),
    )?;
    Ok(Exported {
        parameters,
        bytes: folder_bytes(folder)?,
    })
}

fn model_index(lcm: bool) -> Value {
    let scheduler = if lcm { "LCMScheduler" } else { "EulerDiscreteScheduler" };
    json!({
        "_class_name": "StableDiffusionXLPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [null, null],
        "force_zeros_for_empty_prompt": true,
        "image_encoder": [null, null],
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

/// The schedule that training used, under the sampler that suits the networks.
fn scheduler(lcm: bool) -> Value {
    let mut config = json!({
        "_class_name": if lcm { "LCMScheduler" } else { "EulerDiscreteScheduler" },
        "_diffusers_version": "0.42.1",
        "beta_end": BETA_END,
        "beta_schedule": "scaled_linear",
        "beta_start": BETA_START,
        "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": true,
        "steps_offset": 0,
        "timestep_spacing": if lcm { "leading" } else { "trailing" },
        "trained_betas": null,
    });
    if lcm {
        config["clip_sample"] = json!(false);
        config["original_inference_steps"] = json!(50);
        config["set_alpha_to_one"] = json!(true);
        config["thresholding"] = json!(false);
        config["timestep_scaling"] = json!(10.0);
    }
    config
}

/// The model's own defaults, for `prima`.
fn settings(config: &TrainConfig, lcm: bool) -> Value {
    let [height, width] = crate::objectives::picture_size(config);
    let mut settings = json!({
        "name": config.export.name,
        "num_inference_steps": config.export.num_inference_steps,
        "guidance_scale": match config.export.guidance_scale {
            Some(scale) => scale,
            None if lcm => 1.0,
            None => 0.0,
        },
        "width": width as usize,
        "height": height as usize,
        "guidance_free": config.export.guidance_scale.is_none_or(|scale| scale <= 1.0),
        "timesteps": config.export.timesteps,
    });
    if let Some(strength) = config.export.strength {
        settings["strength"] = json!(strength);
    }
    settings
}

/// The tokenizer's files, with the text encoders' length.
fn copy_tokenizer(from: &Path, to: &Path, max_length: usize) -> Result<()> {
    std::fs::create_dir_all(to).map_err(Error::io(to))?;
    for name in [
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer_config.json",
    ] {
        let (source, target) = (from.join(name), to.join(name));
        let mut bytes = std::fs::read(&source).map_err(Error::io(&source))?;
        if name == "tokenizer_config.json" {
            let mut json: Value = serde_json::from_slice(&bytes).map_err(|e| Error::file(&source, e))?;
            json["model_max_length"] = json!(max_length);
            bytes = format!("{json:#}\n").into_bytes();
        }
        std::fs::write(&target, bytes).map_err(Error::io(&target))?;
    }
    Ok(())
}

fn card(config: &TrainConfig, distilled: bool, lcm: bool, parameters: usize) -> Result<String> {
    let mut facts = String::new();
    let stages: &[&str] = if distilled {
        &["autoencoder", "decoder", "latents", "teacher", "distill"]
    } else {
        &["autoencoder", "decoder", "latents", "teacher"]
    };
    for stage in stages {
        let path = config.stage_dir(stage).join("summary.json");
        if let Ok(text) = std::fs::read_to_string(&path) {
            let s: Summary = serde_json::from_str(&text).map_err(|e| Error::file(&path, e))?;
            let minutes = s.seconds / 60.0;
            let row = format!(
                "| {stage} | {} | {} | {minutes:.1} | {:.4} |\n",
                s.steps, s.samples, s.loss
            );
            facts.push_str(&row);
        }
    }
    let style = config
        .latents
        .only_style
        .as_ref()
        .map_or(String::new(), |s| format!(" in one style ({s})"));
    let manifest = prima_data::Dataset::open(&config.data_dir)
        .map_err(|e| Error::Data(e.to_string()))?
        .manifest;
    let sources: Vec<String> = manifest
        .sources
        .iter()
        .map(|s| format!("- {} ({})", s.name, s.licence))
        .collect();
    let steps = if lcm {
        "1 to 4 steps with the LCM scheduler"
    } else {
        "1 to 8 steps with the Euler scheduler"
    };
    Ok(format!(
        "# {name}\n\nA small text-to-image model: {parameters} parameters, pictures of {side} x {side} pixels, {steps}, \
         guidance scale {guidance}. It draws single objects as icons{style}; its captions look like `a red apple on a blue background`.\n\n\
         It was trained from scratch on a CPU by `prima train`; no weights of any other model went into it.\n\n\
         ## Training\n\n| stage | steps | samples | minutes | final loss |\n|---|---|---|---|---|\n{facts}\n\
         {nouns} nouns, {sprites} source pictures, composed on coloured backgrounds. Seed {seed}. The {evaluated} nouns \
         that `prima eval` asks for were drawn {weight} times as often as the others.{languages}\n\n\
         ## Data\n\n{sources}\n\nWords are from emojibase-data.{only} Credits and licences are in `NOTICE`.\n\n\
         ## Limits\n\n{sameness}Details are soft, and a word that no caption had is ignored at best. It does not \
         draw people, text, photographs or scenes.\n",
        name = config.export.name,
        side = crate::objectives::picture_size(config)[0],
        nouns = manifest.nouns,
        sprites = manifest.sprites,
        seed = config.seed,
        evaluated = EVALUATION_NOUNS,
        weight = ComposerOptions::for_profile(manifest.profile, 0).evaluation_noun_weight,
        guidance = config.export.guidance_scale.unwrap_or(1.0),
        languages = match config.latents.english {
            Some(english) if english < 1.0 => format!(
                " {:.0} % of the captions were in German, Spanish, French, Italian, Portuguese, Japanese or Chinese.",
                100.0 * (1.0 - english)
            ),
            _ => String::new(),
        },
        sameness = if config.latents.jitter == Some(0.0) {
            "Objects always have the same size and place, so that one caption gives nearly the same picture for every \
             seed. "
        } else {
            ""
        },
        sources = sources.join("\n"),
        only = if style.is_empty() {
            String::new()
        } else {
            format!(" The autoencoder saw all of them, the text-to-image network those{style}.")
        },
    ))
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let metadata = entry.metadata().map_err(Error::io(entry.path()))?;
        total += if metadata.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(total)
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}
