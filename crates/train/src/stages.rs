//! The stages of a run, in order: autoencoder, latents, teacher, distill (and
//! [`export`](crate::export::export)). Each reads what the earlier ones left in the run folder.

use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::latent_cache::LatentCache;
use crate::networks::{self, Component, TextEncoders, encode};
use crate::objectives::{
    Autoencoder, ConsistencyDistillation, Decoder, Painter, SamplePrompts, Teacher, TextLatents, linear_start,
    picture_size,
};
use crate::sample_grid::to_signed;
use crate::sampling::Sampler;
use crate::state::load_weights;
use crate::tokens::CaptionTokenizer;
use crate::trainer::{Budget, LoopConfig, Objective, Session, Summary, run, state_path};
use prima_data::{Composer, ComposerOptions, DataError, Dataset};
use prima_models::{AutoencoderKl, Unet2dCondition};
use prima_tensor::{Tensor, no_grad};
use rayon::prelude::*;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

/// Trains the autoencoder.
pub fn autoencoder(config: &TrainConfig, session: &mut Session) -> Result<Summary> {
    let component = networks::vae(&config.networks, config.seed)?;
    let log_variance = 2.0 * config.autoencoder.latent_noise.max(1e-6).ln();
    if !linear_start(&component.params, component.network.config(), log_variance) {
        tracing::warn!("autoencoder: this configuration starts at random, colours will take long");
    }
    let mut objective = Autoencoder::new(component, composer(config)?, config.autoencoder.clone(), config.seed)?;
    train(config, &mut objective, &config.autoencoder.training, session)
}

/// Trains the decoder further, with the latents as they are. Its state is of its own; the first
/// time it starts from the autoencoder's average.
pub fn decoder(config: &TrainConfig, session: &mut Session) -> Result<Summary> {
    let stage = config.decoder.clone();
    let style = config.latents.only_style.clone();
    let painter = match &style {
        Some(style) if stage.painter_share > 0.0 => Some(painter(config, style.clone())?),
        None if stage.painter_share > 0.0 => {
            let message = "decoder.painter_share needs latents.only_style: the style that is painted";
            return Err(Error::Config(message.into()));
        }
        _ => None,
    };
    let dataset = dataset(config)?;
    let mut options = composer_options(config, &dataset);
    options.favoured_style = style.map(|style| (style, stage.style_share));
    let mut objective = Decoder::new(
        trained_vae(config)?,
        Composer::new(dataset, options).map_err(data_error)?,
        painter,
        stage,
        config.seed + 1,
    );
    train(config, &mut objective, &config.decoder.training, session)
}

fn painter(config: &TrainConfig, style: String) -> Result<Painter> {
    let (unet, text) = trained_painter(config)?;
    Ok(Painter {
        unet: unet.network,
        text,
        tokenizer: Mutex::new(CaptionTokenizer::open(&config.data_dir.join("tokenizer"))?),
        sampler: if config.samples_as_lcm()? {
            Sampler::Lcm
        } else {
            Sampler::Ddim
        },
        unnamed_share: match &config.latents.unnamed_style {
            Some(unnamed) if *unnamed == style => config.latents.unnamed_share,
            _ => 0.0,
        },
        style,
        size_px: picture_size(config),
    })
}

/// Composes and encodes pictures until there are enough of them or the budget is spent.
pub fn latents(config: &TrainConfig, budget: Budget) -> Result<Summary> {
    let started = Instant::now();
    let dataset = dataset(config)?;
    let mut options = composer_options(config, &dataset);
    options.favoured_style = config.latents.only_style.clone().map(|style| (style, 1.0));
    let composer = Composer::new(dataset, options).map_err(data_error)?;
    let vae = trained_vae(config)?.network;
    let side = picture_size(config)[0] as usize;
    let factor = vae.config().scale_factor();
    let shape = [side / factor, side / factor, vae.config().latent_channels];
    let (mut values, mut captions) = (Vec::new(), Vec::new());
    let mut index = 0u64;
    let in_time = || budget.deadline.is_none_or(|d| Instant::now() < d);
    while captions.len() < config.latents.count && in_time() {
        let range = index..index + config.latents.batch_size as u64;
        index = range.end;
        let samples = range
            .into_par_iter()
            .map(|i| composer.sample(i).map_err(data_error))
            .collect::<Result<Vec<_>>>()?;
        let pixels: Vec<f32> = samples
            .iter()
            .flat_map(|s| s.rgb.iter().map(|&b| to_signed(b)))
            .collect();
        let pictures = Tensor::from_vec(pixels, &[samples.len(), side, side, 3]);
        let posterior = no_grad(|| encode(&vae, &pictures))?;
        values.extend_from_slice(posterior.mean.data());
        let before = captions.len();
        captions.extend(samples.into_iter().map(|s| s.caption.replace(['\n', '\r'], " ")));
        if captions.len() / 2048 != before / 2048 {
            let rate = captions.len() as f64 / started.elapsed().as_secs_f64();
            tracing::info!(
                "latents: {} of {}, {rate:.1} pictures/s",
                captions.len(),
                config.latents.count
            );
        }
    }
    let cache = LatentCache::new(shape, values, captions);
    cache.save(&config.stage_dir("latents"))?;
    let samples = cache.len() as u64;
    let summary = Summary {
        steps: index,
        samples,
        seconds: started.elapsed().as_secs_f64(),
        loss: 0.0,
    };
    write_summary(config, "latents", &summary)?;
    Ok(summary)
}

/// Trains the diffusion teacher and its text encoders on the cached latents.
pub fn teacher(config: &TrainConfig, session: &mut Session) -> Result<Summary> {
    let text = TextEncoders::new(&config.networks, config.seed + 2)?;
    let unet = networks::unet(&config.networks, config.seed + 3)?;
    let (data, prompts) = text_latents(config, text.max_length(), config.seed + 4)?;
    let mut objective = Teacher::new(unet, text, data, prompts, config.teacher.clone());
    train(config, &mut objective, &config.teacher.training, session)
}

/// Distils the teacher into a student for one to four steps.
pub fn distill(config: &TrainConfig, session: &mut Session) -> Result<Summary> {
    let (teacher, text) = trained_teacher(config)?;
    let (student, target) = (trained_teacher(config)?.0, trained_teacher(config)?.0);
    let (data, prompts) = text_latents(config, text.max_length(), config.seed + 5)?;
    let stage = config.distill.clone();
    let ladder = config.distill_timesteps()?;
    let mut objective =
        ConsistencyDistillation::new(student, target, teacher.network, text, data, prompts, stage, ladder);
    train(config, &mut objective, &config.distill.training, session)
}

/// Runs the stage that the objective is named after, in its folder.
fn train(
    config: &TrainConfig,
    objective: &mut dyn Objective,
    settings: &LoopConfig,
    session: &mut Session,
) -> Result<Summary> {
    let stage = objective.name();
    let summary = run(objective, settings, &config.stage_dir(stage), session)?;
    if session.group.is_first() {
        write_summary(config, stage, &summary)?;
    }
    Ok(summary)
}

fn composer(config: &TrainConfig) -> Result<Composer> {
    let dataset = dataset(config)?;
    let options = composer_options(config, &dataset);
    Composer::new(dataset, options).map_err(data_error)
}

fn dataset(config: &TrainConfig) -> Result<Dataset> {
    Dataset::open(&config.data_dir).map_err(data_error)
}

fn data_error(e: DataError) -> Error {
    Error::Data(e.to_string())
}

fn composer_options(config: &TrainConfig, dataset: &Dataset) -> ComposerOptions {
    let mut options = ComposerOptions::for_profile(dataset.manifest.profile, config.seed);
    // Captions are dropped while training, row by row; the cache keeps them all.
    options.empty_caption = 0.0;
    if let Some(english) = config.latents.english {
        options.english = english;
    }
    if let Some(style) = config.latents.style {
        options.style = style;
    }
    if let Some(jitter) = config.latents.jitter {
        options.jitter = jitter;
    }
    options
}

/// The autoencoder with its averaged weights, the decoder's refined where there are any, and the
/// latents' statistics once they are known.
pub fn trained_vae(config: &TrainConfig) -> Result<Component<AutoencoderKl>> {
    let mut networks_with_statistics = config.networks.clone();
    let statistics = config.stage_dir("latents").join("latents.json");
    if statistics.exists() {
        let text = std::fs::read_to_string(&statistics).map_err(Error::io(&statistics))?;
        let found: crate::latent_cache::LatentStatistics =
            serde_json::from_str(&text).map_err(|e| Error::file(&statistics, e))?;
        networks_with_statistics.vae["latents_mean"] = serde_json::json!(found.mean);
        networks_with_statistics.vae["latents_std"] = serde_json::json!(found.std);
        networks_with_statistics.vae["scaling_factor"] = serde_json::json!(1.0);
    }
    let vae = networks::vae(&networks_with_statistics, config.seed)?;
    load_weights(&needed_state(config, "autoencoder")?, "ema", &vae.params)?;
    let refined = state_path(&config.stage_dir("decoder"));
    if refined.exists() {
        let decoder: Vec<_> = vae
            .params
            .iter()
            .filter(|(key, _)| key.starts_with("decoder.") || key.starts_with("post_quant_conv."))
            .cloned()
            .collect();
        load_weights(&refined, "ema", &decoder)?;
    }
    Ok(vae)
}

/// The teacher's averaged weights.
pub fn trained_teacher(config: &TrainConfig) -> Result<(Component<Unet2dCondition>, TextEncoders)> {
    let text = TextEncoders::new(&config.networks, config.seed + 2)?;
    let unet = networks::unet(&config.networks, config.seed + 3)?;
    let params = crate::objectives::network_params(&unet, &text);
    load_weights(&needed_state(config, "teacher")?, "ema", &params)?;
    Ok((unet, text))
}

/// The networks to ship: the teacher's, or its student's.
pub fn trained_painter(config: &TrainConfig) -> Result<(Component<Unet2dCondition>, TextEncoders)> {
    let (unet, text) = trained_teacher(config)?;
    if config.ships_student()? {
        let params = networks::prefixed("unet", &unet.params);
        load_weights(&needed_state(config, "distill")?, "ema", &params)?;
    }
    Ok((unet, text))
}

fn needed_state(config: &TrainConfig, stage: &str) -> Result<PathBuf> {
    let path = state_path(&config.stage_dir(stage));
    if path.exists() {
        Ok(path)
    } else {
        Err(Error::file(path, format!("not there: run the stage {stage} first")))
    }
}

fn text_latents(config: &TrainConfig, length: usize, seed: u64) -> Result<(TextLatents, SamplePrompts)> {
    let mut cache = LatentCache::open(&config.stage_dir("latents"))?;
    let mut tokenizer = CaptionTokenizer::open(&config.data_dir.join("tokenizer"))?;
    if let Some(style) = &config.latents.unnamed_style {
        leave_unnamed(&mut cache.captions, style, config.latents.unnamed_share);
    }
    crate::loose_captions::reword(&mut cache.captions, config.latents.reworded_share);
    let tokens = tokenizer.encode_all(&cache.captions, length)?;
    let ids = tokenizer.encode_all(&config.sample_prompts, length)?.ids;
    let prompts = SamplePrompts {
        vae: trained_vae(config)?.network,
        ids,
        count: config.sample_prompts.len(),
        size_px: picture_size(config),
        latent_shape: cache.shape,
        seed: config.seed,
    };
    Ok((TextLatents { cache, tokens, seed }, prompts))
}

/// Takes `, style` off a share of the captions that end so: a prompt without a style means this one.
fn leave_unnamed(captions: &mut [String], style: &str, share: f32) {
    let suffix = format!(", {style}");
    let draws = crate::sampling::uniform(0, crate::sampling::purpose::DROPOUT, 0, captions.len());
    for (caption, draw) in captions.iter_mut().zip(draws) {
        if draw < share
            && let Some(bare) = caption.strip_suffix(&suffix)
        {
            *caption = bare.to_owned();
        }
    }
}

fn write_summary(config: &TrainConfig, stage: &str, summary: &Summary) -> Result<()> {
    let path = config.stage_dir(stage).join("summary.json");
    let json = serde_json::to_string_pretty(summary).map_err(|e| Error::file(&path, e))?;
    std::fs::write(&path, json).map_err(Error::io(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_unnamed_style_is_taken_off() {
        let mut captions = vec![
            "a dog, glossy 3d".to_owned(),
            "a cat, flat".to_owned(),
            "a glossy 3d".to_owned(),
        ];
        leave_unnamed(&mut captions, "glossy 3d", 1.0);
        assert_eq!(captions, ["a dog", "a cat, flat", "a glossy 3d"]);
    }
}
