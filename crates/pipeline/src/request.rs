//! What a caller asks for, and what they get.

use crate::control::{Control, MAX_CONTROLS};
use crate::mask::Mask;
use crate::{Blend, Error, LoraChoice, MAX_REGIONS, Picture, PromptSyntax, Region, Rng};
use prima_schedulers::ScheduleOptions;
use prima_tensor::Tensor;

/// Longest side of a picture.
pub const MAX_SIDE_PX: usize = 4096;
/// Largest picture, 2048 x 2048: a bound on the memory of the autoencoder.
pub const MAX_AREA_PX: usize = 2048 * 2048;
/// Most pictures of one request.
pub const MAX_IMAGES: usize = 64;
/// Most steps of one picture.
pub const MAX_STEPS: usize = 1000;

/// One or more pictures of one prompt. What is `None` is the model's choice.
#[derive(Clone, Debug)]
pub struct Request {
    pub prompt: String,
    /// What the second text encoder reads, where there is one; `None`: the prompt.
    pub prompt_2: Option<String>,
    /// Which marks of the prompts are read as such.
    pub prompt_syntax: PromptSyntax,
    /// What the picture should not be; only read when guidance is classifier-free (`guidance_scale > 1`).
    pub negative_prompt: Option<String>,
    /// The same for the second text encoder; `None`: the negative prompt. Of no effect without that one, as in diffusers.
    pub negative_prompt_2: Option<String>,
    /// Above 1: classifier-free guidance, two network evaluations a step. Models with a guidance
    /// embedding (LCM) take any value at no cost.
    pub guidance_scale: Option<f64>,
    /// Share of the guided output that is brought back to the unguided one's contrast
    /// (Lin et al. 2023, section 3.4), 0 to 1.
    pub guidance_rescale: f64,
    pub seed: u64,
    pub rng: Rng,
    pub width: Option<usize>,
    pub height: Option<usize>,
    /// Another prompt, another seed or both, on the way to which the picture is.
    pub blend: Option<Blend>,
    /// Prompts for parts of the picture.
    pub regions: Vec<Region>,
    /// How many pictures, at least one.
    pub num_images: usize,
    /// Steps, and what replaces the model's own scheduler settings.
    pub schedule: ScheduleOptions,
    /// diffusers' `clip_skip`: how many layers before the family's own hidden state the text is read.
    pub clip_skip: usize,
    /// SDXL's size conditioning, height and width in pixels: the picture is as if cut from an
    /// original of this size. `None`: the size that is painted.
    pub original_size: Option<[usize; 2]>,
    /// The same: where the cut begins, top and left in pixels.
    pub crops_coords_top_left: [usize; 2],
    /// The same: height and width in pixels that the network is told it paints. `None`: what it paints.
    pub target_size: Option<[usize; 2]>,
    /// Share of the schedule, 0 to 1, that an initial picture has behind it: it gets no noise, and `strength` has no effect
    /// (diffusers' `denoising_start`).
    pub denoising_start: Option<f64>,
    /// Share of the schedule, 0 to 1, after which the picture is taken as it is, noise and all (diffusers'
    /// `denoising_end`).
    pub denoising_end: Option<f64>,
    /// Share of the steps, 0 to 1, after which the pipeline's refiner takes over; `None`: it does not.
    pub refiner_switch_at: Option<f64>,
    /// What a refiner is told of how beautiful the picture is, and how beautiful what it is to avoid, 0 to 10.
    pub aesthetic_score: f64,
    pub negative_aesthetic_score: f64,
    /// By the names that the pipeline knows; the prompt's tags come on top.
    pub loras: Vec<LoraChoice>,
    /// Where to start from, instead of pure noise.
    pub init_image: Option<InitImage>,
    /// Which part of that is painted; `None` for all.
    pub mask: Option<Mask>,
    /// Pictures that steer what is painted.
    pub controls: Vec<Control>,
}

/// diffusers' own, for the picture and for what it is not to be.
pub(crate) const AESTHETIC_SCORES: [f64; 2] = [6.0, 2.5];

/// Image-to-image: the picture to change.
#[derive(Clone, Debug)]
pub struct InitImage {
    pub picture: Picture,
    /// How much of the way from noise to picture is painted again: 0 changes nothing, 1 everything.
    pub strength: Option<f64>,
}

impl Default for Request {
    /// One picture of no words, all else the model's choice.
    fn default() -> Self {
        Self {
            prompt: String::new(),
            prompt_2: None,
            prompt_syntax: PromptSyntax::default(),
            negative_prompt: None,
            negative_prompt_2: None,
            guidance_scale: None,
            guidance_rescale: 0.0,
            seed: 0,
            rng: Rng::default(),
            width: None,
            height: None,
            blend: None,
            regions: Vec::new(),
            num_images: 1,
            schedule: ScheduleOptions::default(),
            clip_skip: 0,
            original_size: None,
            crops_coords_top_left: [0, 0],
            target_size: None,
            denoising_start: None,
            denoising_end: None,
            refiner_switch_at: None,
            aesthetic_score: AESTHETIC_SCORES[0],
            negative_aesthetic_score: AESTHETIC_SCORES[1],
            loras: Vec::new(),
            init_image: None,
            mask: None,
            controls: Vec::new(),
        }
    }
}

/// What whoever serves a request allows; each bounds memory or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Of the prompt and of the negative prompt.
    pub prompt_chars: usize,
    pub max_steps: usize,
    pub max_side_px: usize,
    pub max_images: usize,
}

impl Default for RequestLimits {
    /// What prima can do at all.
    fn default() -> Self {
        Self {
            prompt_chars: usize::MAX,
            max_steps: MAX_STEPS,
            max_side_px: MAX_SIDE_PX,
            max_images: MAX_IMAGES,
        }
    }
}

impl Request {
    /// Checks what can be checked without a model.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_within(&RequestLimits::default())
    }

    /// As [`validate`](Self::validate), within tighter `limits`.
    pub fn validate_within(&self, limits: &RequestLimits) -> Result<(), Error> {
        for (field, text) in [
            ("prompt", Some(&self.prompt)),
            ("prompt_2", self.prompt_2.as_ref()),
            ("negative_prompt", self.negative_prompt.as_ref()),
            ("negative_prompt_2", self.negative_prompt_2.as_ref()),
            (
                "blend.prompt",
                self.blend.as_ref().and_then(|blend| blend.prompt.as_ref()),
            ),
        ] {
            check_length(field, text.map_or("", String::as_str), limits.prompt_chars)?;
        }
        if self.regions.len() > MAX_REGIONS {
            let fix = format!("use at most {MAX_REGIONS}");
            return Err(Error::request("regions", self.regions.len(), fix));
        }
        for region in &self.regions {
            check_length("region.prompt", &region.prompt, limits.prompt_chars)?;
            region.check()?;
        }
        let (steps, most) = (self.schedule.num_inference_steps, limits.max_steps.min(MAX_STEPS));
        if let Some(n) = steps.filter(|n| !(1..=most).contains(n)) {
            return Err(Error::request("steps", n, format!("use 1 to {most}")));
        }
        if let Some(g) = self.guidance_scale.filter(|g| !(0.0..=100.0).contains(g)) {
            return Err(Error::request("guidance_scale", g, "use 0 to 100"));
        }
        self.blend.as_ref().map_or(Ok(()), Blend::check)?;
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(Error::request("guidance_rescale", self.guidance_rescale, "use 0 to 1"));
        }
        self.validate_range()?;
        check_count(self.num_images, limits.max_images.min(MAX_IMAGES))?;
        let strength = self.init_image.as_ref().and_then(|image| image.strength);
        if let Some(strength) = strength.filter(|s| !(0.0..=1.0).contains(s)) {
            return Err(Error::request("strength", strength, "use 0 to 1"));
        }
        for (field, side) in [("width", self.width), ("height", self.height)] {
            if let Some(side) = side {
                check_side(field, side, limits.max_side_px)?;
            }
        }
        if self.controls.len() > MAX_CONTROLS {
            let fix = format!("use at most {MAX_CONTROLS}");
            return Err(Error::request("controlnet", self.controls.len(), fix));
        }
        self.controls.iter().try_for_each(Control::check)?;
        if let Some(mask) = &self.mask {
            mask.check(self.init_image.as_ref().map(|image| &image.picture))?;
        }
        check_area(self.width.unwrap_or(0), self.height.unwrap_or(0))
    }

    fn validate_range(&self) -> Result<(), Error> {
        let (start, end) = (self.denoising_start, self.denoising_end);
        let switch = self.refiner_switch_at;
        for (field, share) in [
            ("denoising_start", start),
            ("denoising_end", end),
            ("refiner_switch_at", switch),
        ] {
            if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
                return Err(Error::request(field, share, "use 0 to 1"));
            }
        }
        let scores = [
            ("aesthetic_score", self.aesthetic_score),
            ("negative_aesthetic_score", self.negative_aesthetic_score),
        ];
        if let Some((field, score)) = scores.into_iter().find(|(_, score)| !(0.0..=10.0).contains(score)) {
            return Err(Error::request(field, score, "use 0 to 10"));
        }
        if let Some(switch) = switch
            && (start.is_some_and(|start| start >= switch) || end.is_some_and(|end| end <= switch))
        {
            let fix = "use a share between denoising_start and denoising_end";
            return Err(Error::request("refiner_switch_at", switch, fix));
        }
        match (start, end) {
            (Some(start), _) if self.init_image.is_none() => Err(Error::request(
                "denoising_start",
                start,
                "it goes on from a picture: give one to start from",
            )),
            (Some(start), Some(end)) if start >= end => Err(Error::request(
                "denoising_end",
                end,
                format!("use more than the denoising_start of {start}"),
            )),
            _ => Ok(()),
        }
    }
}

fn check_length(field: &'static str, text: &str, most: usize) -> Result<(), Error> {
    let chars = text.chars().count();
    if chars > most {
        return Err(Error::TooLong { field, chars, most });
    }
    Ok(())
}

fn check_count(num_images: usize, most: usize) -> Result<(), Error> {
    let fix = match num_images {
        0 => format!("use 1 to {most}"),
        n if n > most => format!("{n} pictures are more than the {most} of one request"),
        _ => return Ok(()),
    };
    Err(Error::request("num_images", num_images, fix))
}

/// Least side of a picture: what no autoencoder can paint is cut or made from what it can.
const MIN_SIDE_PX: usize = 8;

pub(crate) fn check_side(field: &'static str, side_px: usize, most_px: usize) -> Result<(), Error> {
    let most_px = most_px.min(MAX_SIDE_PX);
    if !(MIN_SIDE_PX..=most_px).contains(&side_px) {
        let fix = format!("use {MIN_SIDE_PX} to {most_px} pixels");
        return Err(Error::request(field, side_px, fix));
    }
    Ok(())
}

pub(crate) fn check_area(width: usize, height: usize) -> Result<(), Error> {
    if width * height > MAX_AREA_PX {
        let fix = format!("use at most {MAX_AREA_PX} pixels in all, such as 2048x2048");
        return Err(Error::request("size", format!("{width}x{height}"), fix));
    }
    Ok(())
}

/// How far a request has come; the callback of [`Pipeline::paint`](crate::Pipeline::paint) gets one
/// after each part of the work.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Nothing new: asked between the layers of a network, so that a cancellation takes effect soon.
    Tick,
    /// The prompt has been read.
    Text,
    /// `done` of `total` steps have been taken; `latents` are `[images, h, w, C]`, and so is
    /// `denoised`, what the last step took for the finished picture.
    Step {
        done: usize,
        total: usize,
        latents: &'a Tensor,
        denoised: &'a Tensor,
    },
    /// `done` of `total` pictures have left the autoencoder.
    Decode { done: usize, total: usize },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(request: &Request) -> String {
        request.validate().unwrap_err().to_string()
    }

    #[test]
    fn impossible_values_are_refused_with_the_limit() {
        assert!(Request::default().validate().is_ok());
        let text = message(&Request {
            schedule: ScheduleOptions::steps(0),
            ..Request::default()
        });
        assert_eq!(text, "steps 0 is not possible: use 1 to 1000");
        let text = message(&Request {
            width: Some(4),
            ..Request::default()
        });
        assert_eq!(text, "width 4 is not possible: use 8 to 4096 pixels");
        assert!(
            message(&Request {
                height: Some(1 << 20),
                ..Request::default()
            })
            .contains("4096")
        );
        assert!(
            message(&Request {
                guidance_scale: Some(f64::NAN),
                ..Request::default()
            })
            .contains("guidance_scale")
        );
        assert!(
            message(&Request {
                num_images: 1000,
                ..Request::default()
            })
            .contains("64")
        );
        let none = Request {
            num_images: 0,
            ..Request::default()
        };
        assert_eq!(message(&none), "num_images 0 is not possible: use 1 to 64");
        let picture = Picture {
            width: 8,
            height: 8,
            rgb: vec![0; 192],
        };
        let init_image = Some(InitImage {
            picture,
            strength: Some(1.5),
        });
        assert!(
            message(&Request {
                init_image,
                ..Request::default()
            })
            .contains("strength")
        );
    }
}
