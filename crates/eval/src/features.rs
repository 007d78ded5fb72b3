//! The feature network of every distance and score here (name it with them: this is not FID).

use crate::Error;
use half::f16;
use prima_models::EfficientNetLite;
use prima_picture::Picture;
use prima_tensor::{Tensor, no_grad};
use rayon::prelude::*;
use std::path::Path;

/// Side at which EfficientNet-lite0 was trained.
const SIDE_PX: usize = 224;

/// Side at which [`FeatureNet::maps`] looks, that of the pictures that the scene generator draws.
pub(crate) const MAPS_SIDE_PX: usize = 256;
/// Cells a side of the finer map, and channels of a cell: those at an eighth of the side, averaged, those at a sixteenth, and
/// the mean colour.
pub(crate) const FINE: usize = 16;
pub(crate) const FINE_CHANNELS: usize = 40 + 112 + 3;
/// Pixels a side of the mosaic, each the mean of a square of the picture.
pub(crate) const MOSAIC: usize = 64;
/// The same of the coarser map.
pub(crate) const COARSE: usize = 8;
pub(crate) const COARSE_CHANNELS: usize = 320;
/// Features of the picture as a whole.
pub(crate) const POOLED: usize = 1280;
/// The network's maps that are looked at, of those at a half to a thirty-second of the side.
const EIGHTH: usize = 2;
const SIXTEENTH: usize = 3;
const LAST: usize = 4;

/// Pictures as points in a space in which sets of them have a distance.
pub trait Features: Sync {
    /// What is to be said beside every figure.
    fn name(&self) -> String;

    fn of(&self, picture: &Picture) -> Vec<f32>;
}

impl Features for FeatureNet {
    fn name(&self) -> String {
        "EfficientNet-lite0, unit length".to_owned()
    }

    fn of(&self, picture: &Picture) -> Vec<f32> {
        self.features(picture)
    }
}

/// EfficientNet-lite0 before its classifier: 1280 features.
pub struct FeatureNet {
    network: EfficientNetLite,
}

/// What the network sees of one picture, place by place. Halves, so that those of ten thousand pictures fit in memory.
#[derive(Clone, Debug)]
pub struct Maps {
    /// `[FINE, FINE, FINE_CHANNELS]`.
    pub(crate) fine: Vec<f16>,
    /// `[COARSE, COARSE, COARSE_CHANNELS]`.
    pub(crate) coarse: Vec<f16>,
    /// `[POOLED]`.
    pub(crate) pooled: Vec<f16>,
    /// `[MOSAIC, MOSAIC, 3]`: the picture itself, small.
    pub(crate) mosaic: Vec<u8>,
}

impl FeatureNet {
    /// Weights as `scripts/eval/convert_efficientnet.py` writes them.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            network: EfficientNetLite::lite0(path)?,
        })
    }

    /// With random weights: for tests of what comes after it.
    #[cfg(test)]
    pub(crate) fn random() -> Result<Self, Error> {
        let mut source = prima_checkpoint::RandomInit::new(0);
        let network = EfficientNetLite::new(&prima_models::EfficientNetLiteConfig::lite0(), &mut source)?;
        Ok(Self { network })
    }

    /// Unit-length features of one picture, resized to 224 px (Lanczos).
    pub fn features(&self, picture: &Picture) -> Vec<f32> {
        let image = image(picture, SIDE_PX);
        normalised(no_grad(|| self.network.features(&image)).into_vec())
    }

    /// The same for many pictures.
    pub fn features_of(&self, pictures: &[Picture]) -> Vec<Vec<f32>> {
        pictures.par_iter().map(|p| self.features(p)).collect()
    }

    /// What is seen where, of one picture, resized to 256 px.
    pub fn maps(&self, picture: &Picture) -> Maps {
        let image = image(picture, MAPS_SIDE_PX);
        let (seen, pooled) = no_grad(|| {
            let seen = self.network.maps(&image);
            let pooled = self.network.features_of(&seen[LAST]);
            (seen, pooled)
        });
        let parts = [
            averaged(seen[EIGHTH].data(), 40, FINE, 2),
            seen[SIXTEENTH].data().to_vec(),
            averaged(image.data(), 3, FINE, MAPS_SIDE_PX / FINE),
        ];
        let mut fine = Vec::with_capacity(FINE * FINE * FINE_CHANNELS);
        for cell in 0..FINE * FINE {
            for (part, channels) in parts.iter().zip([40, 112, 3]) {
                fine.extend(halves(&part[cell * channels..][..channels]));
            }
        }
        Maps {
            fine,
            coarse: halves(seen[LAST].data()).collect(),
            pooled: halves(pooled.data()).collect(),
            mosaic: mosaic_of(&image),
        }
    }
}

/// `[MOSAIC, MOSAIC, 3]`.
fn mosaic_of(image: &Tensor) -> Vec<u8> {
    let means = averaged(image.data(), 3, MOSAIC, MAPS_SIDE_PX / MOSAIC);
    means.into_iter().map(|v| ((v + 1.0) * 127.5).round() as u8).collect()
}

#[cfg(test)]
pub(crate) fn mosaic(picture: &Picture) -> Vec<u8> {
    mosaic_of(&image(picture, MAPS_SIDE_PX))
}

fn halves(values: &[f32]) -> impl Iterator<Item = f16> {
    values.iter().map(|v| f16::from_f32(*v))
}

/// `[1, side, side, 3]` in [-1, 1].
fn image(picture: &Picture, side_px: usize) -> Tensor {
    let picture = picture.resized(side_px, side_px);
    let values = picture.rgb.iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect();
    Tensor::from_vec(values, &[1, side_px, side_px, 3])
}

/// Means over `cells * cells` squares of `side` of a map of `cells * side` a side.
fn averaged(map: &[f32], channels: usize, cells: usize, side: usize) -> Vec<f32> {
    let mut means = vec![0.0f32; cells * cells * channels];
    let share = 1.0 / (side * side) as f32;
    for (i, place) in map.chunks_exact(channels).enumerate() {
        let (y, x) = (i / (cells * side), i % (cells * side));
        let cell = (y / side * cells + x / side) * channels;
        for (mean, v) in means[cell..cell + channels].iter_mut().zip(place) {
            *mean += v * share;
        }
    }
    means
}

pub(crate) fn normalised(mut v: Vec<f32>) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    for x in &mut v {
        *x /= norm;
    }
    v
}
