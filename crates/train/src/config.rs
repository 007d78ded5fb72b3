//! The file that describes a whole run: data, networks, and one section a stage.

use crate::error::{Error, Result};
use crate::noise_schedule::{NUM_TRAIN_TIMESTEPS, NoiseSchedule};
use crate::trainer::LoopConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Folder of the data set (see `prima_data`).
    pub data_dir: PathBuf,
    /// Folder of states, caches, logs and sample grids.
    pub run_dir: PathBuf,
    #[serde(default)]
    pub seed: u64,
    pub networks: NetworkConfigs,
    #[serde(default)]
    pub autoencoder: AutoencoderStage,
    #[serde(default)]
    pub decoder: DecoderStage,
    #[serde(default)]
    pub latents: LatentsStage,
    #[serde(default)]
    pub teacher: TeacherStage,
    #[serde(default)]
    pub distill: DistillStage,
    pub export: ExportStage,
    /// Captions of the sample grids.
    #[serde(default)]
    pub sample_prompts: Vec<String>,
}

/// The `config.json` of each component, as diffusers and transformers write them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfigs {
    pub vae: serde_json::Value,
    pub unet: serde_json::Value,
    pub text_encoder: serde_json::Value,
    pub text_encoder_2: serde_json::Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AutoencoderStage {
    #[serde(rename = "loop")]
    pub training: LoopConfig,
    pub batch_size: usize,
    /// Side of the random crops in pixels; whole pictures where it is no smaller.
    pub crop_px: usize,
    /// From this fraction of the budget on, batches are whole pictures ...
    pub whole_pictures_from: f32,
    /// ... of this many.
    pub whole_batch_size: usize,
    /// Standard deviation of the noise added to latents, which makes the decoder tolerant.
    pub latent_noise: f32,
    /// Weight of the mean squared latent (the KL's pull to 0).
    pub kl_weight: f32,
    pub weights: PictureWeights,
}

impl Default for AutoencoderStage {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 16,
            crop_px: 64,
            whole_pictures_from: 0.8,
            whole_batch_size: 4,
            latent_noise: 0.05,
            kl_weight: 1e-4,
            weights: PictureWeights::default(),
        }
    }
}

/// Weights of the distances between pictures beside their L1, whose weight is 1.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PictureWeights {
    pub mse: f32,
    /// L1 between differences of neighbouring pixels.
    pub edges: f32,
    /// L1 between 8x8 means.
    pub colours: f32,
}

impl Default for PictureWeights {
    fn default() -> Self {
        Self {
            mse: 0.5,
            edges: 0.5,
            colours: 0.5,
        }
    }
}

/// The decoder's further training, on whole pictures: the latents, and what was trained on them, stay valid.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderStage {
    #[serde(rename = "loop")]
    pub training: LoopConfig,
    pub batch_size: usize,
    /// Standard deviation of the noise added to latents.
    pub latent_noise: f32,
    pub weights: PictureWeights,
    /// Share of pictures in `latents.only_style`, where that is set: what the decoder is shipped for.
    pub style_share: f32,
    /// Of those, the share whose latents are what the network of `export.stage` paints for their caption, so that the
    /// decoder learns to make a good picture of its errors too. Needs that stage trained where it is not 0.
    pub painter_share: f32,
    /// The timesteps of each way it paints, taken in turn batch by batch.
    pub painter_timesteps: Vec<Vec<usize>>,
}

impl Default for DecoderStage {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 4,
            latent_noise: 0.05,
            weights: PictureWeights::default(),
            style_share: 0.8,
            painter_share: 0.0,
            painter_timesteps: vec![vec![NUM_TRAIN_TIMESTEPS - 1]],
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatentsStage {
    /// Pictures to compose and encode.
    pub count: usize,
    pub batch_size: usize,
    /// Share of captions in English; the data set's own where absent.
    pub english: Option<f32>,
    /// Share of captions that name the style; the data set's own where absent.
    pub style: Option<f32>,
    /// Share of objects moved off the centre; the data set's own where absent. With 0 a caption has
    /// one placement, so that the mean over all its pictures, which is what one step paints, is sharp.
    pub jitter: Option<f32>,
    /// Show every object in this style, where its noun has it.
    pub only_style: Option<String>,
    /// The style that a caption without a style means ...
    pub unnamed_style: Option<String>,
    /// ... which is left out of this share of the captions that end with it.
    pub unnamed_share: f32,
    /// Share of captions with words around them that no picture shows ([`crate::loose_captions`]).
    pub reworded_share: f32,
}

impl Default for LatentsStage {
    fn default() -> Self {
        Self {
            count: 24_000,
            batch_size: 16,
            english: None,
            style: None,
            jitter: None,
            only_style: None,
            unnamed_style: None,
            unnamed_share: 0.7,
            reworded_share: 0.0,
        }
    }
}

/// Which noise levels are trained on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimestepSampling {
    /// Share of samples at the last timestep (pure noise): what one-step sampling sees.
    pub max_noise_share: f32,
    /// The others have `ln(sigma / alpha)` normal with this mean and deviation.
    pub log_sigma_mean: f32,
    pub log_sigma_std: f32,
}

impl Default for TimestepSampling {
    fn default() -> Self {
        Self {
            max_noise_share: 0.2,
            log_sigma_mean: 0.4,
            log_sigma_std: 1.3,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TeacherStage {
    #[serde(rename = "loop")]
    pub training: LoopConfig,
    pub batch_size: usize,
    pub timesteps: TimestepSampling,
    /// Share of captions replaced by zeros, for classifier-free guidance.
    pub caption_dropout: f32,
    pub sample_steps: usize,
    pub sample_guidance_scale: f32,
}

impl Default for TeacherStage {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 64,
            timesteps: TimestepSampling::default(),
            caption_dropout: 0.1,
            sample_steps: 8,
            sample_guidance_scale: 2.0,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillStage {
    #[serde(rename = "loop")]
    pub training: LoopConfig,
    pub batch_size: usize,
    /// The teacher's guidance, baked into the student.
    pub guidance_scale: f32,
    /// Number of segments of the noise schedule (50 in the LCM paper; fewer converge sooner).
    pub ddim_steps: usize,
    /// The timesteps that bound the segments instead, from the noisiest down: those that the teacher is sampled with.
    pub timesteps: Option<Vec<usize>>,
    pub max_noise_share: f32,
    /// Decay of the average of the student that answers for the target (0.95 in the LCM paper).
    pub target_decay: f32,
    /// Constant of the pseudo-Huber loss.
    pub huber_c: f32,
    pub sample_steps: usize,
}

impl Default for DistillStage {
    fn default() -> Self {
        Self {
            training: LoopConfig::default(),
            batch_size: 48,
            guidance_scale: 2.0,
            ddim_steps: 10,
            timesteps: None,
            max_noise_share: 0.5,
            target_decay: 0.95,
            huber_c: 0.1,
            sample_steps: 1,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportStage {
    /// The folder to write.
    pub folder: PathBuf,
    /// Which networks to ship: `distill`, or `teacher`.
    #[serde(default = "default_export_stage")]
    pub stage: String,
    /// `lcm` or `euler`; what suits the stage where absent.
    #[serde(default)]
    pub scheduler: Option<String>,
    /// What `prima` samples with unless told otherwise.
    #[serde(default = "default_steps")]
    pub num_inference_steps: usize,
    /// Classifier-free guidance that the network is sampled with; none where absent.
    #[serde(default)]
    pub guidance_scale: Option<f64>,
    /// How much of a picture that is given is painted anew unless told otherwise; prima's own choice where absent.
    #[serde(default)]
    pub strength: Option<f64>,
    /// Explicit timesteps by step count, for `prima.json`.
    #[serde(default)]
    pub timesteps: BTreeMap<usize, Vec<f64>>,
    pub name: String,
}

fn default_steps() -> usize {
    1
}

fn default_export_stage() -> String {
    "distill".into()
}

impl TrainConfig {
    /// Reads a JSON file; paths in it are relative to the current directory.
    pub fn open(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        serde_json::from_str(&text).map_err(|e| Error::file(path, e))
    }

    /// Is the network to ship the distilled one, or the teacher?
    pub fn ships_student(&self) -> Result<bool> {
        match self.export.stage.as_str() {
            "distill" => Ok(true),
            "teacher" => Ok(false),
            other => {
                let message = format!("export.stage is {other:?}, expected \"distill\" or \"teacher\"");
                Err(Error::Config(message))
            }
        }
    }

    /// The timesteps of the consistency targets, from the noisiest down.
    pub fn distill_timesteps(&self) -> Result<Vec<usize>> {
        let stage = &self.distill;
        let timesteps = stage
            .timesteps
            .clone()
            .unwrap_or_else(|| NoiseSchedule::trailing(stage.ddim_steps));
        let falling = timesteps.windows(2).all(|pair| pair[0] > pair[1]);
        if falling && timesteps.last().is_some_and(|&t| t > 0) && timesteps[0] < NUM_TRAIN_TIMESTEPS {
            return Ok(timesteps);
        }
        let message = format!("distill.timesteps is {timesteps:?}, expected falling ones between 1 and 999");
        Err(Error::Config(message))
    }

    /// Does it sample as the LCM scheduler does (what suits a student), or as Euler?
    pub fn samples_as_lcm(&self) -> Result<bool> {
        match self.export.scheduler.as_deref() {
            None => self.ships_student(),
            Some("lcm") => Ok(true),
            Some("euler") => Ok(false),
            Some(other) => {
                let message = format!("export.scheduler is {other:?}, expected \"lcm\" or \"euler\"");
                Err(Error::Config(message))
            }
        }
    }

    pub fn stage_dir(&self, stage: &str) -> PathBuf {
        self.run_dir.join(stage)
    }
}
