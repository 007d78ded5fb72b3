//! Where sampling starts from a picture, with a mask or without (diffusers `pipeline_stable_diffusion_xl_img2img.py`,
//! `pipeline_stable_diffusion_xl_inpaint.py`: `prepare_latents`, `prepare_mask_latents`); the rest is text-to-image with
//! fewer steps.

use crate::canvas::Canvas;
use crate::mask::MaskFill;
use crate::noise::{NoiseSource, Purpose};
use crate::{Error, Vae, vae};
use prima_picture::Gray;
use prima_schedulers::{Row, Schedule};
use prima_tensor::{Tensor, add, affine, concat_channels, mul, stack_batch, weighted_sum};

/// Where sampling starts, and what a picture adds to its steps.
pub(crate) struct Start {
    /// `[images, h, w, C]`.
    pub latents: Tensor,
    /// What a mask leaves as it is, put back after each step; not where the UNet reads the picture itself.
    pub kept: Option<Kept>,
    /// What a UNet of inpainting reads beside the noisy latents, `[1, h, w, 1 + C]`: the mask, and the latents of what it leaves.
    pub beside: Option<Tensor>,
}

/// The latents outside of a mask.
pub(crate) struct Kept {
    /// 1 where the picture is painted, `[images, h, w, C]`, and 0 there.
    painted: Tensor,
    stays: Tensor,
    clean: Tensor,
    noise: Tensor,
}

impl Kept {
    /// The sample with the picture outside of the mask, at the noise level of the row that comes next, or without noise.
    pub fn put_back(&self, sample: &Tensor, next: Option<&Row>) -> Tensor {
        let original = match next.map(|row| row.add_noise) {
            Some((signal, sigma)) => weighted_sum(&[(signal, &self.clean), (sigma, &self.noise)]),
            None => self.clean.clone(),
        };
        add(&mul(&self.stays, &original), &mul(&self.painted, sample))
    }
}

/// What a start is made from.
pub(crate) struct Starter<'a, 'b> {
    pub vae: &'a Vae,
    pub schedule: &'a Schedule,
    /// `[images, h, w, C]`.
    pub shape: [usize; 4],
    /// Whether the UNet has channels for a mask and a picture.
    pub reads_picture: bool,
    pub noise: &'a mut NoiseSource,
    pub keep_going: &'b mut dyn FnMut() -> bool,
}

impl Starter<'_, '_> {
    /// From noise. A UNet that reads a picture is told that all of one is masked.
    pub fn of_noise(mut self) -> Result<Start, Error> {
        let noise = self.noise.normal(Purpose::Latents, 0, self.shape);
        Ok(Start {
            latents: affine(&noise, self.schedule.init_noise_sigma as f32, 0.0),
            kept: None,
            beside: self.reads_picture.then(|| self.nothing_beside()).transpose()?,
        })
    }

    /// The picture's latents at the noise level of the schedule's first step; as they are where the picture has its noise
    /// already (`denoising_start`). The picture is encoded once: all images share its draw and differ in noise.
    pub fn of_picture(mut self, canvas: &Canvas, adds_noise: bool) -> Result<Start, Error> {
        let clean = self.encoded(canvas)?;
        let latents = if adds_noise {
            let noise = self.noise.normal(Purpose::Latents, 0, self.shape);
            self.noised(&clean, &noise)
        } else {
            clean
        };
        Ok(Start {
            latents,
            kept: None,
            beside: self.reads_picture.then(|| self.nothing_beside()).transpose()?,
        })
    }

    /// The same, of which only what `mask` shows is painted. `from_noise`: nothing of the picture is left there.
    pub fn of_masked(
        mut self,
        canvas: &Canvas,
        mask: &Gray,
        adds_noise: bool,
        from_noise: bool,
    ) -> Result<Start, Error> {
        let seen = latent_mask(mask, self.shape);
        // Which draws there are, and in which order, is diffusers'.
        let is_encoded = !self.reads_picture || !from_noise || !adds_noise;
        let clean = is_encoded.then(|| self.encoded(canvas)).transpose()?;
        let noise = self.noise.normal(Purpose::Latents, 0, self.shape);
        let pure = || affine(&noise, self.schedule.init_noise_sigma as f32, 0.0);
        let clean = clean.map(|clean| self.filled(canvas.fill, clean, &seen));
        let latents = match &clean {
            Some(clean) if !adds_noise => clean.clone(),
            Some(clean) if !from_noise => self.noised(clean, &noise),
            _ => pure(),
        };
        if self.reads_picture {
            let beside = Some(self.beside(canvas, mask)?);
            return Ok(Start {
                latents,
                kept: None,
                beside,
            });
        }
        // diffusers encodes the picture without the masked part, and reads it in UNets of inpainting only.
        if matches!(self.vae, Vae::Kl(_)) {
            let [_, h, w, c] = self.shape;
            self.noise.normal(Purpose::Encode, 1, [1, h, w, c]);
        }
        let kept = clean.map(|clean| Kept {
            stays: affine(&seen, -1.0, 1.0),
            painted: seen,
            clean,
            noise,
        });
        Ok(Start {
            latents,
            kept,
            beside: None,
        })
    }

    fn encoded(&mut self, canvas: &Canvas) -> Result<Tensor, Error> {
        let picture = crate::picture_to_tensor(&canvas.picture);
        let one = vae::encode(self.vae, &picture, 0, self.noise, self.keep_going)?;
        Ok(stack_batch(&vec![&one; self.shape[0]]))
    }

    fn noised(&self, clean: &Tensor, noise: &Tensor) -> Tensor {
        let (signal, sigma) = self.schedule.add_noise();
        weighted_sum(&[(signal, clean), (sigma, noise)])
    }

    /// The latents below the mask replaced.
    fn filled(&mut self, fill: MaskFill, clean: Tensor, seen: &Tensor) -> Tensor {
        let rest = |clean: &Tensor| mul(&affine(seen, -1.0, 1.0), clean);
        match fill {
            MaskFill::Noise => add(
                &rest(&clean),
                &mul(seen, &self.noise.normal(Purpose::Fill, 0, self.shape)),
            ),
            MaskFill::Nothing => rest(&clean),
            _ => clean,
        }
    }

    /// Mask and latents of the rest of the picture, whose masked part is mid-gray.
    fn beside(&mut self, canvas: &Canvas, mask: &Gray) -> Result<Tensor, Error> {
        let (width, height) = (canvas.picture.width, canvas.picture.height);
        let values = crate::picture_to_tensor(&canvas.picture).into_vec();
        let shown = values.chunks_exact(3).zip(&mask.values);
        let shown = shown.flat_map(|(rgb, &masked)| {
            if masked >= 128 {
                [0.0; 3]
            } else {
                [rgb[0], rgb[1], rgb[2]]
            }
        });
        let shown = Tensor::from_vec(shown.collect(), &[1, height, width, 3]);
        let [_, h, w, _] = self.shape;
        self.joined(&latent_mask(mask, [1, h, w, 1]), &shown)
    }

    /// The same of a picture that is masked everywhere.
    fn nothing_beside(&mut self) -> Result<Tensor, Error> {
        let [_, h, w, _] = self.shape;
        let factor = self.vae.scale_factor();
        let mask = Tensor::from_vec(vec![1.0; h * w], &[1, h, w, 1]);
        self.joined(&mask, &Tensor::zeros(&[1, h * factor, w * factor, 3]))
    }

    fn joined(&mut self, mask: &Tensor, shown: &Tensor) -> Result<Tensor, Error> {
        let latents = vae::encode(self.vae, shown, 1, self.noise, self.keep_going)?;
        Ok(concat_channels(&[mask, &latents]))
    }
}

/// One where the mask is white at a latent's first pixel (torch's `interpolate`, nearest), for every image and channel.
fn latent_mask(mask: &Gray, [n, h, w, c]: [usize; 4]) -> Tensor {
    let mut one = Vec::with_capacity(h * w * c);
    for y in 0..h {
        for x in 0..w {
            let at = (y * mask.height / h) * mask.width + x * mask.width / w;
            let value = f32::from(u8::from(mask.values[at] >= 128));
            one.extend(std::iter::repeat_n(value, c));
        }
    }
    Tensor::from_vec(one.repeat(n), &[n, h, w, c])
}
