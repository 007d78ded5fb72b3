//! The autoencoder: picture -> latents -> picture. L1 with a little MSE, differences of
//! neighbouring pixels (edges) and 8x8 means (colours), and a faint pull of the latents to 0.
//! Random crops for speed and variety; whole pictures towards the end.

use crate::config::AutoencoderStage;
use crate::data::{Composer, SIZE_PX};
use crate::error::{Error, Result};
use crate::networks::{Component, NamedParams, decode, encode};
use crate::sample_grid::{grid, to_signed};
use crate::sampling::{noise, purpose, uniform};
use crate::trainer::{Loss, Objective};
use image::RgbImage;
use prima_models::AutoencoderKl;
use prima_tensor::{
    Activation, Conv2d, Param, Tensor, add, affine, conv2d, mean_absolute_error, no_grad, stack_batch, weighted_mse,
};
use rayon::prelude::*;

/// Pictures of the sample grid: indices that training does not reach.
const GRID_START: u64 = 1 << 40;
const GRID_COUNT: usize = 16;

pub struct Autoencoder {
    vae: AutoencoderKl,
    params: NamedParams,
    composer: Composer,
    config: AutoencoderStage,
    seed: u64,
    edges: Param,
    means: Param,
}

impl Autoencoder {
    pub fn new(
        component: Component<AutoencoderKl>,
        composer: Composer,
        config: AutoencoderStage,
        seed: u64,
    ) -> Result<Self> {
        let factor = component.network.config().scale_factor();
        if !config.crop_px.is_multiple_of(factor.max(8)) {
            let message = format!(
                "autoencoder.crop_px = {} is no multiple of {}",
                config.crop_px,
                factor.max(8)
            );
            return Err(Error::Config(message));
        }
        let mut params = component.params;
        if config.decoder_only {
            params.retain(|(key, _)| key.starts_with("decoder.") || key.starts_with("post_quant_conv."));
        }
        let (edges, means) = (edge_filter(), mean_filter());
        Ok(Self {
            vae: component.network,
            params,
            composer,
            config,
            seed,
            edges,
            means,
        })
    }

    pub fn vae(&self) -> &AutoencoderKl {
        &self.vae
    }

    /// Batch `step`: `[B, side, side, 3]` in [-1, 1].
    fn batch(&self, step: u64, size: usize, side: usize) -> Result<Tensor> {
        let room = SIZE_PX as usize - side;
        let corners = uniform(self.seed, purpose::CROP, step, 2 * size);
        let crops: Vec<Vec<f32>> = (0..size)
            .into_par_iter()
            .map(|i| {
                let sample = self.composer.sample(step * self.config.batch_size as u64 + i as u64);
                let corner = |u: f32| (u * (room + 1) as f32) as usize;
                Ok(crop(
                    &sample.map_err(|e| Error::Data(e.to_string()))?.rgb,
                    corner(corners[2 * i]),
                    corner(corners[2 * i + 1]),
                    side,
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Tensor::from_vec(crops.concat(), &[size, side, side, 3]))
    }
}

/// L1 of `filter` over both pictures.
fn filtered_l1(filter: &Param, geometry: Conv2d, picture: &Tensor, target: &Tensor) -> Tensor {
    let apply = |x: &Tensor| conv2d(x, filter, None, geometry, Activation::None, None);
    mean_absolute_error(&apply(picture), &no_grad(|| apply(target)))
}

impl Objective for Autoencoder {
    fn name(&self) -> &'static str {
        "autoencoder"
    }

    fn params(&self) -> &[(String, Param)] {
        &self.params
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn loss(&self, step: u64, progress: f32) -> Result<Loss> {
        let config = &self.config;
        let whole = progress >= config.whole_pictures_from;
        let (size, side) = if whole {
            (config.whole_batch_size, SIZE_PX as usize)
        } else {
            (config.batch_size, config.crop_px)
        };
        let pictures = self.batch(step, size, side)?;
        let ones = vec![1.0; size];
        let (z, regulariser) = if config.decoder_only {
            let z = no_grad(|| encode(&self.vae, &pictures))?.mean;
            (z, None)
        } else {
            let posterior = encode(&self.vae, &pictures)?;
            let pull = weighted_mse(&posterior.mean, &Tensor::zeros(posterior.mean.shape()), &ones);
            // The variance is fixed, and the file says so.
            let log_variance = Tensor::full(2.0 * config.latent_noise.max(1e-6).ln(), posterior.logvar.shape());
            let honest = weighted_mse(&posterior.logvar, &log_variance, &ones);
            (
                posterior.mean,
                Some(add(&affine(&pull, config.kl_weight, 0.0), &affine(&honest, 1e-4, 0.0))),
            )
        };
        let jitter = affine(
            &noise(self.seed, purpose::LATENT, step, z.shape()),
            config.latent_noise,
            0.0,
        );
        let decoded = decode(&self.vae, &add(&z, &jitter))?;
        let l1 = mean_absolute_error(&decoded, &pictures);
        let mse = weighted_mse(&decoded, &pictures, &ones);
        let edges = filtered_l1(&self.edges, Conv2d::padded(0), &decoded, &pictures);
        let colours = filtered_l1(&self.means, Conv2d::strided(8, 0), &decoded, &pictures);
        let metrics = vec![
            ("l1", l1.item()),
            // Peak to peak is 2.
            ("psnr", 10.0 * (4.0 / mse.item().max(1e-9)).log10()),
            ("edges", edges.item()),
            ("colours", colours.item()),
            ("latent_std", std(&z)),
        ];
        let mut total = add(&l1, &affine(&mse, config.mse_weight, 0.0));
        total = add(&total, &affine(&edges, config.edge_weight, 0.0));
        total = add(&total, &affine(&colours, config.colour_weight, 0.0));
        if let Some(regulariser) = regulariser {
            total = add(&total, &regulariser);
        }
        Ok(Loss { total, metrics })
    }

    /// Rows of pictures above their reconstructions.
    fn samples(&self) -> Result<Option<RgbImage>> {
        let half = GRID_COUNT / 2;
        let mut rows = Vec::new();
        for start in [0, half] {
            let pictures: Vec<f32> = (start..start + half)
                .map(|i| {
                    self.composer
                        .sample(GRID_START + i as u64)
                        .map_err(|e| Error::Data(e.to_string()))
                })
                .collect::<Result<Vec<_>>>()?
                .iter()
                .flat_map(|s| s.rgb.iter().map(|&b| to_signed(b)))
                .collect();
            let pictures = Tensor::from_vec(pictures, &[half, SIZE_PX as usize, SIZE_PX as usize, 3]);
            let decoded = no_grad(|| decode(&self.vae, &encode(&self.vae, &pictures)?.mean))?;
            rows.extend([pictures, decoded]);
        }
        Ok(Some(grid(&stack_batch(&rows.iter().collect::<Vec<_>>()), half)))
    }
}

/// A square of `side` pixels from RGB bytes `[SIZE_PX, SIZE_PX, 3]`.
fn crop(rgb: &[u8], left: usize, top: usize, side: usize) -> Vec<f32> {
    let row = |y: usize| {
        let start = ((top + y) * SIZE_PX as usize + left) * 3;
        rgb[start..start + side * 3].iter().map(|&b| to_signed(b))
    };
    (0..side).flat_map(row).collect()
}

/// Per colour: right minus here, below minus here. `[6, 3, 2, 2]`.
fn edge_filter() -> Param {
    let mut weight = vec![0.0; 6 * 3 * 4];
    for colour in 0..3 {
        for (direction, neighbour) in [(0, 1), (1, 2)] {
            let filter = &mut weight[((2 * colour + direction) * 3 + colour) * 4..][..4];
            filter[0] = -1.0;
            filter[neighbour] = 1.0;
        }
    }
    Param::new(Tensor::from_vec(weight, &[6, 3, 2, 2]))
}

/// Per colour: the mean of 8x8 pixels. `[3, 3, 8, 8]`.
fn mean_filter() -> Param {
    let mut weight = vec![0.0; 3 * 3 * 64];
    for colour in 0..3 {
        weight[(colour * 3 + colour) * 64..][..64].fill(1.0 / 64.0);
    }
    Param::new(Tensor::from_vec(weight, &[3, 3, 8, 8]))
}

fn std(x: &Tensor) -> f32 {
    let n = x.numel() as f32;
    let mean = x.data().iter().sum::<f32>() / n;
    (x.data().iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edge_filter_gives_differences_and_mean_filter_means() {
        let ramp: Vec<f32> = (0..8 * 8).flat_map(|i| [(i % 8) as f32, (i / 8) as f32, 1.0]).collect();
        let x = Tensor::from_vec(ramp, &[1, 8, 8, 3]);
        let edges = conv2d(&x, &edge_filter(), None, Conv2d::padded(0), Activation::None, None);
        assert_eq!(edges.shape(), [1, 7, 7, 6]);
        assert_eq!(edges.data()[..6], [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let means = conv2d(&x, &mean_filter(), None, Conv2d::strided(8, 0), Activation::None, None);
        for (got, want) in means.data().iter().zip([3.5, 3.5, 1.0]) {
            assert!((got - want).abs() < 1e-5);
        }
    }

    #[test]
    fn a_crop_takes_the_square_at_its_corner() {
        let side = SIZE_PX as usize;
        let mut rgb = vec![0u8; side * side * 3];
        rgb[(5 * side + 7) * 3] = 255;
        let got = crop(&rgb, 6, 4, 8);
        assert_eq!(got[(8 + 1) * 3], 1.0);
        assert_eq!(got.iter().filter(|v| **v > -1.0).count(), 1);
    }
}
