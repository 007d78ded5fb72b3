//! What a run learns from: pictures with captions, by number.

use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::latents::{LatentsConfig, to_signed};
use prima_data::world::World;
use prima_data::{Composer, ComposerOptions, Dataset, SIZE_PX};
use prima_picture::Picture;
use prima_tensor::Tensor;
use serde::Deserialize;
use std::path::PathBuf;

/// A picture and the words for it.
pub(crate) struct Sample {
    pub(crate) picture: Picture,
    pub(crate) caption: String,
}

/// An endless supply, all of one size; the same number gives the same sample.
pub(crate) trait PictureSource: Send + Sync {
    fn sample(&self, number: u64) -> Result<Sample>;

    /// Width and height of every picture in pixels.
    fn size_px(&self) -> [usize; 2];
}

/// The section `world`: pictures that the scene generator renders.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorldConfig {
    /// Folder of the model pack.
    models: PathBuf,
}

/// The run's source: the scene generator if the configuration names it, else the data set, whose options `adjust` may change.
pub(crate) fn open(config: &TrainConfig, adjust: impl FnOnce(&mut ComposerOptions)) -> Result<Box<dyn PictureSource>> {
    if let Some(world) = &config.world {
        let [height, width] = config.picture_size_px().map(|side| side as usize);
        return Ok(Box::new(Rendered {
            world: World::open(&world.models).map_err(|e| Error::Data(e.to_string()))?,
            seed: config.seed,
            size_px: [width, height],
        }));
    }
    let dataset = Dataset::open(&config.data_dir)?;
    let mut options = composer_options(&config.latents, &dataset, config.seed);
    adjust(&mut options);
    Ok(Box::new(Composer::new(dataset, options)?))
}

/// How the run composes its pictures.
fn composer_options(latents: &LatentsConfig, dataset: &Dataset, seed: u64) -> ComposerOptions {
    let mut options = ComposerOptions::for_profile(dataset.manifest.profile, seed);
    // Captions are dropped while training, row by row; the cache keeps them all.
    options.empty_caption = 0.0;
    if let Some(english) = latents.english {
        options.english = english;
    }
    if let Some(style) = latents.style {
        options.style = style;
    }
    if let Some(jitter) = latents.jitter {
        options.jitter = jitter;
    }
    options
}

struct Rendered {
    world: World,
    seed: u64,
    size_px: [usize; 2],
}

impl PictureSource for Rendered {
    fn sample(&self, number: u64) -> Result<Sample> {
        let [width, height] = self.size_px;
        let sample = self.world.sample_sized(self.seed, number, (width, height));
        let picture = Picture {
            width,
            height,
            rgb: sample.rgb,
        };
        Ok(Sample {
            picture,
            caption: sample.caption,
        })
    }

    fn size_px(&self) -> [usize; 2] {
        self.size_px
    }
}

impl PictureSource for Composer {
    fn sample(&self, number: u64) -> Result<Sample> {
        let sample = Composer::sample(self, number)?;
        let [width, height] = self.size_px();
        let picture = Picture {
            width,
            height,
            rgb: sample.rgb,
        };
        Ok(Sample {
            picture,
            caption: sample.caption,
        })
    }

    fn size_px(&self) -> [usize; 2] {
        [SIZE_PX as usize; 2]
    }
}

/// Pictures of one size as `[B, H, W, 3]` in [-1, 1].
pub(crate) fn to_tensor(samples: &[Sample]) -> Tensor {
    let [width, height] = samples.first().map_or([0; 2], |s| [s.picture.width, s.picture.height]);
    let bytes = samples.iter().flat_map(|s| &s.picture.rgb);
    Tensor::from_vec(
        bytes.map(|&b| to_signed(b)).collect(),
        &[samples.len(), height, width, 3],
    )
}
