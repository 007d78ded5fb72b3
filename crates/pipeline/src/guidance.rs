//! What the network is told beside the latents, and how two answers become one.

use crate::known_words::UnknownWord;
use crate::settings::Settings;
use crate::{Conditioning, Error, Pipeline, Request};
use prima_models::{Unet2dCondition, UnetCond, guidance_scale_embedding};
use prima_tensor::{Device, Tensor, stack_batch, take_batch, weighted_sum};
use std::cell::RefCell;
use std::sync::Arc;

/// Conditioning of one request, for any number of images.
pub(crate) struct Guidance<'a> {
    unet: &'a Unet2dCondition,
    cond: Arc<Conditioning>,
    /// Present iff guidance is classifier-free: `guidance_scale > 1` and the UNet takes no guidance
    /// scale itself.
    uncond: Option<Arc<Conditioning>>,
    /// Whether all encodings were there already.
    pub text_cached: bool,
    scale: f64,
    rescale: f64,
    /// Original height, width, crop top, left, target height, width.
    time_ids: [f32; 6],
    /// What the network was told in the last step, and for how many images: in the next one it is told the same tensors,
    /// of which it then knows what it made.
    told: RefCell<Option<(usize, UnetCond)>>,
}

/// Latent pixels that go through the network at once (at least one image does): SDXL's own 128 x 128.
const BATCH_LATENT_PIXELS: usize = 128 * 128;

impl<'a> Guidance<'a> {
    pub fn new(
        pipeline: &'a Pipeline,
        request: &Request,
        settings: &Settings,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Error> {
        let parts = &pipeline.parts;
        let (cond, mut text_cached) = parts.text_encoders.encode(&request.prompt, request.clip_skip)?;
        let max_length = parts.text_encoders.max_length();
        warn_dropped(warnings, "prompt", &cond, max_length);
        warn_unknown(warnings, &cond.unknown_words);
        let is_guided = settings.guidance_scale > 1.0 && pipeline.guidance_embedding_dim().is_none();
        let uncond = match (is_guided, &request.negative_prompt) {
            (false, _) => None,
            (true, None) if parts.force_zeros_for_empty_prompt => Some(Arc::new(cond.zeros_like())),
            (true, negative) => {
                // diffusers applies clip_skip to the prompt only.
                let (uncond, cached) = parts.text_encoders.encode(negative.as_deref().unwrap_or(""), 0)?;
                text_cached &= cached;
                warn_dropped(warnings, "negative prompt", &uncond, max_length);
                Some(uncond)
            }
        };
        let painted = [settings.height, settings.width];
        let original = request.original_size.unwrap_or(painted);
        let target = request.target_size.unwrap_or(painted);
        let crop = request.crops_coords_top_left;
        let ids = [original, crop, target];
        Ok(Self {
            unet: &parts.unet,
            cond,
            uncond,
            text_cached,
            scale: settings.guidance_scale,
            rescale: request.guidance_rescale,
            time_ids: std::array::from_fn(|i| ids[i / 2][i % 2] as f32),
            told: RefCell::new(None),
        })
    }

    /// The (guided) output for all images, `[images, h, w, C]`.
    pub fn model_output(
        &self,
        model_input: &Tensor,
        timestep: f32,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Error> {
        let images = model_input.dim(0);
        let at_once = (BATCH_LATENT_PIXELS / (model_input.dim(1) * model_input.dim(2)).max(1)).max(1);
        let mut outputs = Vec::new();
        for start in (0..images).step_by(at_once) {
            let part = take_batch(model_input, start, at_once.min(images - start));
            outputs.push(self.part_output(&part, timestep, keep_going)?);
        }
        Ok(stack_batch(&outputs.iter().collect::<Vec<_>>()))
    }

    fn part_output(
        &self,
        input: &Tensor,
        timestep: f32,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Error> {
        let images = input.dim(0);
        let cond = self.unet_cond(images);
        if self.uncond.is_none() {
            return Ok(self.unet.step(input, &vec![timestep; images], &cond, keep_going)?);
        }
        let both = stack_batch(&[input, input]);
        let output = self.unet.step(&both, &vec![timestep; 2 * images], &cond, keep_going)?;
        let (uncond, text) = (take_batch(&output, 0, images), take_batch(&output, images, images));
        let guided = classifier_free(&uncond, &text, self.scale);
        Ok(if self.rescale > 0.0 {
            rescale(&guided, &text, self.rescale)
        } else {
            guided
        })
    }

    /// The negative conditioning, if there is one, and the prompt's, each for `images` samples.
    fn unet_cond(&self, images: usize) -> UnetCond {
        let conditionings: Vec<&Conditioning> = self.uncond.iter().chain([&self.cond]).map(Arc::as_ref).collect();
        // A GPU replays a step, and moves what it is told into the recording.
        if Device::current().is_gpu() {
            return self.repeated(&conditionings, images);
        }
        let mut told = self.told.borrow_mut();
        if let Some((_, cond)) = told.as_ref().filter(|(count, _)| *count == images) {
            return cond.clone();
        }
        let cond = self.repeated(&conditionings, images);
        *told = Some((images, cond.clone()));
        cond
    }

    /// Each of `conditionings` for `images` samples, one after the other.
    fn repeated(&self, conditionings: &[&Conditioning], images: usize) -> UnetCond {
        let batch = conditionings.len() * images;
        let repeat = |part: &dyn Fn(&'_ Conditioning) -> Option<Tensor>| {
            let parts: Option<Vec<Tensor>> = conditionings.iter().map(|c| part(c)).collect();
            let parts = parts?;
            let rows: Vec<&Tensor> = parts.iter().flat_map(|t| vec![t; images]).collect();
            Some(match rows[..] {
                [row] if !Device::current().is_gpu() => row.clone(),
                _ => stack_batch(&rows),
            })
        };
        let config = self.unet.config();
        UnetCond {
            encoder_hidden_states: repeat(&|c| Some(c.prompt_embeds.clone())).unwrap_or_else(|| Tensor::zeros(&[0])),
            text_embeds: repeat(&|c| c.pooled_prompt_embeds.clone()),
            time_ids: vec![self.time_ids; batch],
            timestep_cond: config
                .time_cond_proj_dim
                .map(|dim| guidance_scale_embedding(self.scale as f32, dim, batch)),
        }
    }
}

/// The two answers of a network as one: `uncond + scale * (text - uncond)` (Ho and Salimans 2022). Not recorded.
pub fn classifier_free(uncond: &Tensor, text: &Tensor, scale: f64) -> Tensor {
    weighted_sum(&[(1.0 - scale, uncond), (scale, text)])
}

/// Names the words that the text encoders never saw.
fn warn_dropped(warnings: &mut Vec<String>, what: &str, conditioning: &Conditioning, max_length: usize) {
    if !conditioning.dropped.is_empty() {
        warnings.push(format!(
            "the {what} is longer than {max_length} tokens; this part was not read: \"{}\"",
            conditioning.dropped
        ));
    }
}

/// Names the words that no picture was seen of, and what they come nearest to.
fn warn_unknown(warnings: &mut Vec<String>, words: &[UnknownWord]) {
    let named = |UnknownWord { word, nearest }: &UnknownWord| match nearest.as_slice() {
        [] => format!("\"{word}\""),
        nearest => format!("\"{word}\" (nearest known: {})", nearest.join(", ")),
    };
    if !words.is_empty() {
        let list: Vec<String> = words.iter().map(named).collect();
        warnings.push(format!("the model saw no pictures of {}", list.join(", ")));
    }
}

/// `rescale_noise_cfg` of diffusers: gives the guided output the text-only output's standard
/// deviation, per image, and mixes by `share`.
fn rescale(guided: &Tensor, text: &Tensor, share: f64) -> Tensor {
    let mut out = guided.clone().into_vec();
    let images = guided.dim(0).max(1);
    let len = out.len() / images;
    for (values, text) in out.chunks_mut(len).zip(text.data().chunks(len)) {
        let factor = share * deviation(text) / deviation(values) + (1.0 - share);
        for v in values {
            *v *= factor as f32;
        }
    }
    Tensor::from_vec(out, guided.shape())
}

/// Standard deviation with Bessel's correction, torch's default.
fn deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}
