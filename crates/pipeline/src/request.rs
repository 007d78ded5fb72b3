//! What a caller asks for, and what they get.

use crate::{Error, Parameters, Picture, Rng};
use prima_schedulers::{ScheduleOptions, SchedulerKind};
use prima_tensor::Tensor;
use std::time::Duration;

/// Longest side of a picture.
pub const MAX_SIDE_PX: usize = 4096;
/// Largest picture, 2048 x 2048: a bound on the memory of the autoencoder.
pub const MAX_AREA_PX: usize = 2048 * 2048;
/// Most pictures of one request.
pub const MAX_IMAGES: usize = 64;
/// Most network evaluations of one picture.
pub const MAX_STEPS: usize = 1000;

/// One or more pictures of one prompt. What is `None` is the model's choice.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub prompt: String,
    /// What the picture should not be; only read when guidance is classifier-free (`guidance_scale > 1`).
    pub negative_prompt: Option<String>,
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
    /// How many pictures; 0 is read as 1.
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
    /// Where to start from, instead of pure noise.
    pub init_image: Option<InitImage>,
}

/// Image-to-image: the picture to change.
#[derive(Clone, Debug)]
pub struct InitImage {
    pub picture: Picture,
    /// How much of the way from noise to picture is painted again: 0 changes nothing, 1 everything.
    pub strength: Option<f64>,
}

impl Request {
    /// Checks what can be checked without a model.
    pub fn validate(&self) -> Result<(), Error> {
        let steps = self.schedule.num_inference_steps;
        if let Some(n) = steps.filter(|n| !(1..=MAX_STEPS).contains(n)) {
            return Err(Error::request("steps", n, format!("use 1 to {MAX_STEPS}")));
        }
        if let Some(g) = self.guidance_scale.filter(|g| !(0.0..=100.0).contains(g)) {
            return Err(Error::request("guidance_scale", g, "use 0 to 100"));
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return Err(Error::request("guidance_rescale", self.guidance_rescale, "use 0 to 1"));
        }
        if self.num_images > MAX_IMAGES {
            return Err(Error::request(
                "num_images",
                self.num_images,
                format!("use 1 to {MAX_IMAGES}"),
            ));
        }
        if let Some(strength) = self
            .init_image
            .as_ref()
            .and_then(|i| i.strength)
            .filter(|s| !(0.0..=1.0).contains(s))
        {
            return Err(Error::request("strength", strength, "use 0 to 1"));
        }
        for (field, side) in [("width", self.width), ("height", self.height)] {
            if let Some(side) = side {
                check_side(field, side, 8)?;
            }
        }
        check_area(self.width.unwrap_or(0), self.height.unwrap_or(0))
    }
}

/// `multiple` is the autoencoder's factor, 8 in every family.
pub(crate) fn check_side(field: &'static str, side_px: usize, multiple: usize) -> Result<(), Error> {
    if !side_px.is_multiple_of(multiple) || side_px == 0 || side_px > MAX_SIDE_PX {
        let fix = format!("use a multiple of {multiple} from {multiple} to {MAX_SIDE_PX} pixels");
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

/// Wall-clock times of one request.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    /// Prompts to conditioning; next to nothing when they were in the cache.
    pub text: Duration,
    /// Whether the prompts were in the cache.
    pub text_cached: bool,
    /// The initial picture to latents.
    pub init_image: Duration,
    /// Each step: network and scheduler, all pictures of the request.
    pub steps: Vec<Duration>,
    /// Latents to pictures, all of them.
    pub decode: Duration,
    /// From the call to the return.
    pub total: Duration,
}

/// The pictures and how they came about, every default filled in.
#[derive(Clone, Debug)]
pub struct Response {
    pub pictures: Vec<Picture>,
    pub seed: u64,
    pub num_inference_steps: usize,
    pub guidance_scale: f64,
    pub scheduler: SchedulerKind,
    /// A name of `--timestep-spacing`, or `explicit`.
    pub timestep_spacing: &'static str,
    /// Only where an initial picture was given.
    pub strength: Option<f64>,
    /// The timesteps at which the network was asked, in order.
    pub timesteps: Vec<f64>,
    /// The noise level before each of them, in units of the data's standard deviation.
    pub sigmas: Vec<f64>,
    pub timings: Timings,
    /// What was asked and does not do what one might think, one sentence each.
    pub warnings: Vec<String>,
}

impl Response {
    /// What picture number `index` says of its own making: that `model` of this name painted it for `request`.
    pub fn parameters(&self, request: &Request, model: &str, index: usize) -> Parameters {
        let (width, height) = self.pictures.get(index).map_or((0, 0), |p| (p.width, p.height));
        let mut fields = vec![
            ("Steps", self.num_inference_steps.to_string()),
            ("Sampler", self.scheduler.a1111_name().to_owned()),
            ("Schedule type", self.timestep_spacing.to_owned()),
            ("CFG scale", self.guidance_scale.to_string()),
            ("Seed", self.seed.to_string()),
            ("Size", format!("{width}x{height}")),
            ("Model", model.to_owned()),
            ("RNG", request.rng.name().to_owned()),
        ];
        if let Some(timesteps) = &request.schedule.timesteps {
            let timesteps: Vec<String> = timesteps.iter().map(f64::to_string).collect();
            fields.push(("Timesteps", timesteps.join(" ")));
        }
        if let Some(strength) = self.strength {
            fields.push(("Denoising strength", strength.to_string()));
        }
        if self.pictures.len() > 1 {
            fields.push(("Image index", index.to_string()));
            fields.push(("Batch size", self.pictures.len().to_string()));
        }
        fields.push(("Version", format!("prima {}", env!("CARGO_PKG_VERSION"))));
        Parameters {
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone().unwrap_or_default(),
            fields: fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        }
    }
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
            width: Some(100),
            ..Request::default()
        });
        assert_eq!(
            text,
            "width 100 is not possible: use a multiple of 8 from 8 to 4096 pixels"
        );
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
