//! From what a client sent to a [`Request`]: the same rules for the command line, the live protocol and every API.

use crate::request::AESTHETIC_SCORES;
use crate::{
    Blend, Control, Error, InitImage, LoraChoice, Mask, Picture, Pipeline, PromptSyntax, Region, Request,
    RequestLimits, Rng,
};
use prima_schedulers::{ScheduleOptions, SchedulerKind};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A client's names of fields where they are not [`Request`]'s: `(Request's, the client's)`. Errors speak the client's.
pub type Spelling = &'static [(&'static str, &'static str)];

/// A request as a client may send it, nothing of it checked; `None` is what the client did not say.
#[derive(Clone, Debug, Default)]
pub struct RequestBuilder {
    pub spelling: Spelling,
    pub limits: RequestLimits,
    /// Programs send an empty negative prompt where their user wrote none. A person who gives one means it: to models that
    /// are guided away from zeros (`force_zeros_for_empty_prompt`) it is not the same.
    pub blank_is_none: bool,
    /// Has to be there; may be empty.
    pub prompt: Option<String>,
    pub prompt_2: Option<String>,
    pub prompt_syntax: PromptSyntax,
    pub negative_prompt: Option<String>,
    pub negative_prompt_2: Option<String>,
    /// Without one, or below zero, a random seed.
    pub seed: Option<i128>,
    pub rng: Rng,
    pub blend: Option<Blend>,
    pub regions: Vec<Region>,
    pub width: Option<usize>,
    pub height: Option<usize>,
    pub num_images: Option<usize>,
    pub guidance_scale: Option<f64>,
    pub guidance_rescale: Option<f64>,
    pub schedule: ScheduleOptions,
    pub clip_skip: Option<usize>,
    pub original_size: Option<[usize; 2]>,
    pub crops_coords_top_left: Option<[usize; 2]>,
    pub target_size: Option<[usize; 2]>,
    pub denoising_start: Option<f64>,
    pub denoising_end: Option<f64>,
    pub refiner_switch_at: Option<f64>,
    pub aesthetic_score: Option<f64>,
    pub negative_aesthetic_score: Option<f64>,
    pub loras: Vec<LoraChoice>,
    /// What to start from.
    pub image: Option<Picture>,
    /// Of no effect without an image.
    pub strength: Option<f64>,
    /// Which part of the image is painted.
    pub mask: Option<Mask>,
    pub controls: Vec<Control>,
}

impl RequestBuilder {
    /// The request, if it can be painted by some model within the limits.
    pub fn build(self) -> Result<Request, Error> {
        let (spelling, limits) = (self.spelling, self.limits);
        self.unchecked()
            .and_then(|request| request.validate_within(&limits).map(|()| request))
            .map_err(|error| error.spelled(spelling))
    }

    /// The request, if it can be painted by this model within the limits.
    pub fn build_for(self, pipeline: &Pipeline) -> Result<Request, Error> {
        let spelling = self.spelling;
        let request = self.build()?;
        pipeline.check(&request).map_err(|error| error.spelled(spelling))?;
        Ok(request)
    }

    fn unchecked(self) -> Result<Request, Error> {
        let strength = self.strength;
        let wanted = |text: &String| !(self.blank_is_none && text.trim().is_empty());
        Ok(Request {
            prompt: self.prompt.ok_or(Error::Missing { field: "prompt" })?,
            prompt_2: self.prompt_2.filter(wanted),
            prompt_syntax: self.prompt_syntax,
            negative_prompt: self.negative_prompt.filter(wanted),
            negative_prompt_2: self.negative_prompt_2.filter(wanted),
            guidance_scale: self.guidance_scale,
            guidance_rescale: self.guidance_rescale.unwrap_or(0.0),
            seed: seed(self.seed)?,
            rng: self.rng,
            blend: self.blend,
            regions: self.regions,
            width: self.width,
            height: self.height,
            num_images: self.num_images.unwrap_or(1),
            schedule: self.schedule,
            clip_skip: self.clip_skip.unwrap_or(0),
            original_size: self.original_size,
            crops_coords_top_left: self.crops_coords_top_left.unwrap_or([0, 0]),
            target_size: self.target_size,
            denoising_start: self.denoising_start,
            denoising_end: self.denoising_end,
            refiner_switch_at: self.refiner_switch_at,
            aesthetic_score: self.aesthetic_score.unwrap_or(AESTHETIC_SCORES[0]),
            negative_aesthetic_score: self.negative_aesthetic_score.unwrap_or(AESTHETIC_SCORES[1]),
            loras: self.loras,
            init_image: self.image.map(|picture| InitImage { picture, strength }),
            mask: self.mask,
            controls: self.controls,
        })
    }
}

/// A scheduler by any of its names.
pub fn scheduler_named(name: Option<&str>) -> Result<Option<SchedulerKind>, Error> {
    name.map(str::parse).transpose().map_err(Error::Schedule)
}

/// `512x768` as width and height in pixels.
pub fn parse_size(field: &'static str, text: &str) -> Result<(usize, usize), Error> {
    let sides = text
        .split_once(['x', 'X', '\u{d7}'])
        .and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
    sides.ok_or_else(|| {
        let start: String = text.chars().take(40).collect();
        Error::request(
            field,
            format!("{start:?}"),
            "use width and height in pixels such as 512x512",
        )
    })
}

/// In every web UI a seed of -1 is a random one.
pub fn seed(wanted: Option<i128>) -> Result<u64, Error> {
    match wanted {
        Some(seed) if seed >= 0 => u64::try_from(seed)
            .map_err(|_| Error::request("seed", seed, format!("use 0 to {}, or -1 for a random one", u64::MAX))),
        _ => Ok(random_seed()),
    }
}

/// 32 bits: short to type, and all that torch's CPU generator reads.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Spelling = &[("steps", "num_inference_steps"), ("num_images", "n")];

    fn asked() -> RequestBuilder {
        RequestBuilder {
            prompt: Some("a cat".to_owned()),
            spelling: NAMES,
            limits: RequestLimits {
                prompt_chars: 10,
                max_steps: 20,
                max_side_px: 512,
                max_images: 4,
            },
            ..RequestBuilder::default()
        }
    }

    fn refused(builder: RequestBuilder) -> String {
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field_as_the_client_does_and_the_tighter_limit() {
        assert!(asked().build().is_ok());
        let missing = RequestBuilder {
            prompt: None,
            ..asked()
        };
        assert_eq!(refused(missing), "prompt is missing");
        let long = RequestBuilder {
            negative_prompt: Some("x".repeat(11)),
            ..asked()
        };
        assert_eq!(
            refused(long),
            "negative_prompt has 11 characters, more than the 10 allowed"
        );
        let steps = RequestBuilder {
            schedule: ScheduleOptions::steps(21),
            ..asked()
        };
        assert_eq!(refused(steps), "num_inference_steps 21 is not possible: use 1 to 20");
        let none = RequestBuilder {
            num_images: Some(0),
            ..asked()
        };
        assert_eq!(refused(none), "n 0 is not possible: use 1 to 4");
        let wide = RequestBuilder {
            width: Some(1024),
            ..asked()
        };
        assert_eq!(refused(wide), "width 1024 is not possible: use 8 to 512 pixels");
    }

    #[test]
    fn a_programs_blank_negative_prompt_is_none_and_a_persons_is_kept() {
        let blank = |blank_is_none| {
            let negative_prompt = Some(" ".to_owned());
            let builder = RequestBuilder {
                blank_is_none,
                negative_prompt,
                ..asked()
            };
            builder.build().unwrap().negative_prompt
        };
        assert_eq!(blank(true), None);
        assert_eq!(blank(false), Some(" ".to_owned()));
    }

    #[test]
    fn a_seed_below_zero_is_a_random_one() {
        let of = |seed| RequestBuilder { seed, ..asked() }.build().map(|request| request.seed);
        assert_eq!(of(Some(7)).unwrap(), 7);
        assert_eq!(of(Some(u64::MAX.into())).unwrap(), u64::MAX);
        assert_ne!(of(Some(-1)).unwrap(), of(Some(-1)).unwrap());
        let error = of(Some(1 << 64)).unwrap_err().to_string();
        assert!(error.contains("-1 for a random one"), "{error}");
    }

    #[test]
    fn sizes_are_width_times_height() {
        assert_eq!(parse_size("size", "512x768").unwrap(), (512, 768));
        assert_eq!(parse_size("size", " 8 X 16 ").unwrap(), (8, 16));
        let error = parse_size("resolution", "huge").unwrap_err().to_string();
        assert_eq!(
            error,
            "resolution \"huge\" is not possible: use width and height in pixels such as 512x512"
        );
    }
}
