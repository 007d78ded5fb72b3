//! What the network is told beside the latents, and how its answers become one.

use crate::prompts::score::{Chord, Composer, Score};
use crate::settings::Settings;
use crate::{Conditioning, Error, Pipeline, Region, Request, region};
use prima_models::{ControlNet, Residuals, Unet2dCondition, UnetCond, guidance_scale_embedding};
use prima_tensor::{Device, Tensor, concat_channels, stack_batch, take_batch, weighted_sum};
use std::cell::RefCell;
use std::sync::Arc;

/// Conditioning of one request, for any number of images.
pub(crate) struct Guidance<'a> {
    unet: &'a Unet2dCondition,
    score: Score,
    /// The weight of the prompts over the negative one; 1 where guidance is not classifier-free (`guidance_scale <= 1`, or
    /// the UNet takes the scale itself).
    scale: f64,
    /// What a UNet with a guidance input is told.
    embedded_scale: f64,
    rescale: f64,
    regions: Vec<Region>,
    /// Original height, width, crop top, left, target height, width, or what of that the model reads: of the prompts.
    time_ids: [f32; 6],
    /// The same of the negative prompt.
    negative_time_ids: [f32; 6],
    /// What the UNet reads in further channels, `[1, h, w, C]`: of inpainting models, mask and picture.
    pub beside: Option<Tensor>,
    /// ControlNets, and network evaluations in all.
    pub steering: Vec<Steering>,
    evaluations: usize,
    /// What the network was told in the last step: in the next one it is told the same tensors, of which it then knows what
    /// it made.
    told: RefCell<Option<Told>>,
}

/// A ControlNet and what it makes of its picture.
pub(crate) struct Steering {
    pub network: Arc<ControlNet>,
    /// `[1, h, w, C]`.
    pub embedded: Tensor,
    pub scale: f64,
    /// Shares of the steps.
    pub start: f64,
    pub end: f64,
}

impl Steering {
    /// diffusers' `controlnet_keep`.
    fn steers(&self, evaluation: usize, all: usize) -> bool {
        let share = |evaluation: usize| evaluation as f64 / all as f64;
        share(evaluation) >= self.start && share(evaluation + 1) <= self.end
    }
}

/// The conditioning of some evaluations side by side.
struct Told {
    images: usize,
    chord: usize,
    parts: Vec<UnetCond>,
}

/// Latent pixels that go through the network at once (at least one image does): SDXL's own 128 x 128.
const BATCH_LATENT_PIXELS: usize = 128 * 128;

impl<'a> Guidance<'a> {
    /// `keep_going` is asked between two prompts; `Error::Cancelled` if not.
    pub fn new(
        pipeline: &'a Pipeline,
        request: &Request,
        settings: &Settings,
        warnings: &mut Vec<String>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Self, Error> {
        let parts = &pipeline.parts;
        let is_guided = settings.guidance_scale > 1.0 && pipeline.guidance_embedding_dim().is_none();
        let scale = if is_guided { settings.guidance_scale } else { 1.0 };
        let composer = Composer {
            encoders: &parts.text_encoders,
            request,
            zeros_if_no_negative: parts.force_zeros_for_empty_prompt,
            scale,
            total: settings.schedule.rows.len(),
            keep_going,
            warnings,
        };
        let painted = [settings.height, settings.width];
        let original = request.original_size.unwrap_or(painted);
        let target = request.target_size.unwrap_or(painted);
        let crop = request.crops_coords_top_left;
        let ids = [original, crop, target];
        let ids: [f32; 6] = std::array::from_fn(|i| ids[i / 2][i % 2] as f32);
        let scored = |score: f64| {
            if parts.is_refiner() {
                [ids[0], ids[1], ids[2], ids[3], score as f32, 0.0]
            } else {
                ids
            }
        };
        let mut negative_time_ids = scored(request.negative_aesthetic_score);
        if parts.is_refiner() {
            // diffusers cuts nothing from what a refiner is to avoid.
            negative_time_ids[2..4].fill(0.0);
        }
        Ok(Self {
            unet: &parts.unet,
            score: composer.score()?,
            scale,
            embedded_scale: settings.guidance_scale,
            rescale: request.guidance_rescale,
            regions: request.regions.clone(),
            time_ids: scored(request.aesthetic_score),
            negative_time_ids,
            beside: None,
            steering: Vec::new(),
            evaluations: settings.schedule.rows.len(),
            told: RefCell::new(None),
        })
    }

    /// Whether all prompts were encoded before.
    pub fn text_cached(&self) -> bool {
        self.score.text_cached
    }

    /// The (guided) output of network evaluation number `evaluation` for all images, `[images, h, w, C]`.
    pub fn model_output(
        &self,
        evaluation: usize,
        model_input: &Tensor,
        timestep: f32,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Error> {
        let images = model_input.dim(0);
        let at_once = (BATCH_LATENT_PIXELS / (model_input.dim(1) * model_input.dim(2)).max(1)).max(1);
        let mut outputs = Vec::new();
        for start in (0..images).step_by(at_once) {
            let part = take_batch(model_input, start, at_once.min(images - start));
            outputs.push(self.part_output(evaluation, &part, timestep, keep_going)?);
        }
        Ok(stack_batch(&outputs.iter().collect::<Vec<_>>()))
    }

    fn part_output(
        &self,
        evaluation: usize,
        input: &Tensor,
        timestep: f32,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Tensor, Error> {
        let images = input.dim(0);
        let (number, chord) = self.score.chord(evaluation);
        let whole = self.beside.as_ref().map(|beside| {
            let beside = stack_batch(&vec![beside; images]);
            concat_channels(&[input, &beside])
        });
        let whole = whole.as_ref().unwrap_or(input);
        let mut answers = Vec::new();
        for cond in self.told(number, chord, images) {
            let side_by_side = cond.time_ids.len() / images.max(1);
            let inputs = stack_batch(&vec![whole; side_by_side]);
            let timesteps = vec![timestep; side_by_side * images];
            let latents = || stack_batch(&vec![input; side_by_side]);
            let output = match self.residuals(evaluation, latents, &timesteps, &cond, keep_going)? {
                Some(residuals) => self
                    .unet
                    .step_with(&inputs, &timesteps, &cond, &residuals, keep_going)?,
                None => self.unet.step(&inputs, &timesteps, &cond, keep_going)?,
            };
            answers.extend((0..side_by_side).map(|i| take_batch(&output, i * images, images)));
        }
        Ok(self.joined(chord, &answers))
    }

    /// What the ControlNets add that steer this evaluation.
    fn residuals(
        &self,
        evaluation: usize,
        latents: impl Fn() -> Tensor,
        timesteps: &[f32],
        cond: &UnetCond,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Residuals>, Error> {
        let mut sum: Option<Residuals> = None;
        for part in self
            .steering
            .iter()
            .filter(|part| part.steers(evaluation, self.evaluations))
        {
            let picture = (&part.embedded, part.scale);
            let residuals = part.network.forward(&latents(), timesteps, cond, picture, keep_going)?;
            sum = Some(match sum {
                Some(sum) => sum.plus(&residuals),
                None => residuals,
            });
        }
        Ok(sum)
    }

    /// One answer of those to a chord: the negative prompt's, if there is one, and then the others.
    fn joined(&self, chord: &Chord, answers: &[Tensor]) -> Tensor {
        let (negative, texts) = answers.split_at(usize::from(chord.negative.is_some()));
        let whole;
        let texts = if self.regions.is_empty() {
            texts
        } else {
            whole = [region::joined(&self.regions, texts)];
            &whole
        };
        let weights = chord.prompts.iter().map(|(_, weight)| *weight).take(texts.len());
        let guided = match (negative, texts) {
            ([], [text]) => return text.clone(),
            ([uncond], [text]) if chord.prompts[0].1 == 1.0 => classifier_free(uncond, text, self.scale),
            // A1111 `modules/sd_samplers_cfg_denoiser.py`, `combine_denoised`.
            _ => {
                let shares: Vec<f64> = weights.clone().map(|weight| weight * self.scale).collect();
                let rest = 1.0 - shares.iter().sum::<f64>();
                let terms = shares.into_iter().zip(texts);
                sum(terms.chain(negative.iter().map(|uncond| (rest, uncond))).collect())
            }
        };
        if self.rescale == 0.0 || self.scale == 1.0 {
            return guided;
        }
        let all: f64 = weights.clone().sum();
        let text = match texts {
            [text] => text.clone(),
            _ => sum(weights.map(|weight| weight / all).zip(texts).collect()),
        };
        rescale(&guided, &text, self.rescale)
    }

    /// What the network is told of a chord for `images` samples: at once where its prompts are of one length and at most
    /// two, else one after the other. The negative one comes first.
    fn told(&self, number: usize, chord: &Chord, images: usize) -> Vec<UnetCond> {
        let prompts = chord.prompts.iter().map(|(prompt, _)| prompt);
        let negative = chord.negative.iter().map(|c| (c.as_ref(), self.negative_time_ids));
        let prompts = prompts.map(|c| (c.as_ref(), self.time_ids));
        let all: Vec<(&Conditioning, [f32; 6])> = negative.chain(prompts).collect();
        let length = |(c, _): &(&Conditioning, _)| c.prompt_embeds.dim(1);
        let at_once = all.len() <= 2 && all.iter().all(|c| length(c) == length(&all[0]));
        let make = || -> Vec<UnetCond> {
            let parts = all.chunks(if at_once { 2 } else { 1 });
            parts.map(|part| self.repeated(part, images)).collect()
        };
        // A GPU replays a step, and moves what it is told into the recording.
        if Device::current().is_gpu() {
            return make();
        }
        let mut told = self.told.borrow_mut();
        if let Some(told) = told
            .as_ref()
            .filter(|told| (told.images, told.chord) == (images, number))
        {
            return told.parts.clone();
        }
        let parts = make();
        *told = Some(Told {
            images,
            chord: number,
            parts: parts.clone(),
        });
        parts
    }

    /// Each of `conditionings`, with its time ids, for `images` samples, one after the other.
    fn repeated(&self, conditionings: &[(&Conditioning, [f32; 6])], images: usize) -> UnetCond {
        let batch = conditionings.len() * images;
        let repeat = |part: &dyn Fn(&'_ Conditioning) -> Option<Tensor>| {
            let parts: Option<Vec<Tensor>> = conditionings.iter().map(|(c, _)| part(c)).collect();
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
            time_ids: conditionings.iter().flat_map(|(_, ids)| vec![*ids; images]).collect(),
            timestep_cond: config
                .time_cond_proj_dim
                .map(|dim| guidance_scale_embedding(&vec![self.embedded_scale as f32; batch], dim)),
        }
    }
}

/// The two answers of a network as one: `uncond + scale * (text - uncond)` (Ho and Salimans 2022). Not recorded.
pub fn classifier_free(uncond: &Tensor, text: &Tensor, scale: f64) -> Tensor {
    weighted_sum(&[(1.0 - scale, uncond), (scale, text)])
}

fn sum(terms: Vec<(f64, &Tensor)>) -> Tensor {
    crate::sampling::sum(&terms)
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
