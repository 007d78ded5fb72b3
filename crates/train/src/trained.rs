//! What earlier stages left in the run's folder: networks with their averaged weights, and summaries. Where a run starts from
//! a model, a stage that has no state is the model itself.

use crate::captions::{Tokens, loose};
use crate::config::{Origin, TrainConfig};
use crate::draws::{purpose, uniform};
use crate::error::{Error, Result};
use crate::latent_cache::{LatentCache, LatentManifest};
use crate::latents;
use crate::networks::{self, Texts, kl};
use crate::objectives::{
    AutoencoderConfig, DecoderConfig, LcmConfig, StageConfig, TeacherConfig, TextConfig, TextLatents,
};
use crate::params::{Component, NamedParams, prefixed};
use crate::trainer::Summary;
use crate::trainer::state::load_average;
use crate::trainer::states::States;
use prima_checkpoint::export::write_bytes;
use prima_models::{Unet2dCondition, Vae};
use prima_pipeline::TextEncoders;
use std::path::PathBuf;

/// A text-to-image model without its autoencoder.
pub(crate) struct Painter {
    pub(crate) unet: Component<Unet2dCondition>,
    pub(crate) texts: Texts,
}

impl Painter {
    /// At its start: at random, or as the model has it; the text encoders as the stage `text` left them, where it ran.
    pub(crate) fn fresh(config: &TrainConfig) -> Result<Self> {
        Ok(Self {
            texts: texts(config)?,
            unet: networks::unet(config, config.seed + 3)?,
        })
    }

    /// The teacher's averaged weights.
    pub(crate) fn teacher(config: &TrainConfig) -> Result<Self> {
        let painter = Self::fresh(config)?;
        if let Some(state) = state(config, TeacherConfig::NAME)? {
            // A teacher may have been trained without its text encoders.
            load_average(&state, &painter.unet_params())?;
            if config.section::<TeacherConfig>()?.trains_text_encoders {
                load_average(&state, &painter.texts.named_params())?;
            }
        }
        Ok(painter)
    }

    /// The networks to ship: the teacher's, with the UNet of the stage that is shipped.
    pub(crate) fn shipped(config: &TrainConfig) -> Result<Self> {
        let stage = config.export.stage()?;
        let painter = match config.section::<LcmConfig>()?.guidance_input() {
            Some(dim) if stage.name == LcmConfig::NAME => Self::teacher(config)?.with_guidance_input(dim)?,
            _ => Self::teacher(config)?,
        };
        if stage.name != TeacherConfig::NAME {
            load_average(&needed_state(config, stage.name)?, &painter.unet_params())?;
        }
        Ok(painter)
    }

    /// The same with an input for the guidance scale.
    pub(crate) fn with_guidance_input(self, dim: usize) -> Result<Self> {
        Ok(Self {
            unet: networks::with_guidance_input(self.unet, dim)?,
            ..self
        })
    }

    /// Parameters of the UNet, `unet.KEY`.
    pub(crate) fn unet_params(&self) -> NamedParams {
        prefixed("unet", &self.unet.params)
    }
}

/// The text encoders that the stage `text` starts from.
pub(crate) fn untrained_texts(config: &TrainConfig) -> Result<Texts> {
    networks::texts(config, config.seed + 2)
}

/// The text encoders before any picture: as the stage `text` left them, where it ran.
pub(crate) fn texts(config: &TrainConfig) -> Result<Texts> {
    let texts = untrained_texts(config)?;
    if let Some(learned) = newest_state(config, TextConfig::NAME)? {
        load_average(&learned, &texts.named_params())?;
    }
    Ok(texts)
}

/// The text encoders that a run has so far, and will ship: the teacher's, if it trains them and ran, else those of the stage
/// `text`.
pub fn text_encoders(config: &TrainConfig) -> Result<TextEncoders> {
    let texts = texts(config)?;
    if config.section::<TeacherConfig>()?.trains_text_encoders
        && let Some(teacher) = newest_state(config, TeacherConfig::NAME)?
    {
        load_average(&teacher, &texts.named_params())?;
    }
    Ok(texts.encoders)
}

/// The teacher's UNet alone.
pub(crate) fn teacher_unet(config: &TrainConfig) -> Result<Component<Unet2dCondition>> {
    let unet = networks::unet(config, config.seed + 3)?;
    if let Some(state) = state(config, TeacherConfig::NAME)? {
        load_average(&state, &prefixed("unet", &unet.params))?;
    }
    Ok(unet)
}

/// The same for objectives that take the data's own word where `guidance_scale` is 1: they have no teacher then.
pub(crate) fn guiding_unet(config: &TrainConfig, guidance_scale: f32) -> Result<Option<Unet2dCondition>> {
    let is_guided = guidance_scale != 1.0;
    let teacher = is_guided.then(|| teacher_unet(config)).transpose()?;
    Ok(teacher.map(|teacher| teacher.network))
}

/// The autoencoder with its averaged weights, the decoder's refined where there are any, and the
/// latents' statistics once they are known.
pub(crate) fn vae(config: &TrainConfig) -> Result<Component<Vae>> {
    let manifest = LatentManifest::read(&config.stage_dir(latents::NAME))?;
    let statistics = manifest.map(|manifest| manifest.statistics);
    let vae = networks::vae(config, statistics.as_ref(), config.seed)?;
    if matches!(config.origin()?, Origin::Networks(_)) {
        load_average(&needed_state(config, AutoencoderConfig::NAME)?, &vae.params)?;
    }
    let Some(refined) = newest_state(config, DecoderConfig::NAME)? else {
        return Ok(vae);
    };
    let Component { network, params } = kl(vae)?;
    load_average(&refined, &decoder_params(&params))?;
    let network = Vae::Kl(network);
    Ok(Component { network, params })
}

/// Those that turn latents into pictures.
pub(crate) fn decoder_params(params: &NamedParams) -> NamedParams {
    let of_decoder = |key: &str| key.starts_with("decoder.") || key.starts_with("post_quant_conv.");
    params.iter().filter(|(key, _)| of_decoder(key)).cloned().collect()
}

/// The state of a stage; `None` where the model stands in for it.
fn state(config: &TrainConfig, stage: &str) -> Result<Option<PathBuf>> {
    match config.origin()? {
        Origin::Model(_) => newest_state(config, stage),
        Origin::Networks(_) => needed_state(config, stage).map(Some),
    }
}

pub(crate) fn needed_state(config: &TrainConfig, stage: &str) -> Result<PathBuf> {
    newest_state(config, stage)?.ok_or_else(|| {
        let dir = config.stage_dir(stage);
        Error::file(dir, format!("there is no state: run the stage {stage} first"))
    })
}

fn newest_state(config: &TrainConfig, stage: &str) -> Result<Option<PathBuf>> {
    States::of(&config.stage_dir(stage))?.newest_whole()
}

/// The latents and their captions as `texts` reads them; `seed` draws the batches.
pub(crate) fn text_latents(config: &TrainConfig, texts: &Texts, seed: u64) -> Result<TextLatents> {
    let mut cache = LatentCache::open(&config.stage_dir(latents::NAME))?;
    if let Some(emphasis) = &config.latents.emphasis {
        cache.emphasise(|caption| emphasis.times(caption));
    }
    if let Some(style) = &config.latents.unnamed_style {
        leave_unnamed(&mut cache.captions, style, config.latents.unnamed_share);
    }
    loose::reword(&mut cache.captions, config.latents.reworded_share);
    Ok(TextLatents {
        tokens: Tokens::new(texts, &cache.captions)?,
        cache,
        seed,
    })
}

/// Takes `, style` off a share of the captions that end so: a prompt without a style means this one.
fn leave_unnamed(captions: &mut [String], style: &str, share: f32) {
    let suffix = format!(", {style}");
    let draws = uniform(0, purpose::DROPOUT, 0, captions.len());
    for (caption, draw) in captions.iter_mut().zip(draws) {
        if draw < share
            && let Some(bare) = caption.strip_suffix(&suffix)
        {
            *caption = bare.to_owned();
        }
    }
}

pub(crate) fn write_summary(config: &TrainConfig, stage: &str, summary: &Summary) -> Result<()> {
    let path = config.stage_dir(stage).join("summary.json");
    let json = serde_json::to_string_pretty(summary).map_err(|e| Error::file(&path, e))?;
    Ok(write_bytes(&path, json.as_bytes())?)
}

/// What a stage's run amounted to, where it ran.
pub(crate) fn read_summary(config: &TrainConfig, stage: &str) -> Result<Option<Summary>> {
    let path = config.stage_dir(stage).join("summary.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(None);
    };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::file(&path, e))
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
