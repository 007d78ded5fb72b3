//! The feature network of every distance and score here (name it with them: this is not FID).

use crate::Error;
use prima_checkpoint::Reader;
use prima_models::{EfficientNetLite, EfficientNetLiteConfig};
use prima_picture::Picture;
use prima_tensor::{Tensor, no_grad};
use rayon::prelude::*;
use std::path::Path;

/// Side at which EfficientNet-lite0 was trained.
const SIDE_PX: usize = 224;

/// EfficientNet-lite0 before its classifier: 1280 features.
pub struct FeatureNet {
    network: EfficientNetLite,
}

impl FeatureNet {
    /// Weights as `scripts/eval/convert_efficientnet.py` writes them.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut reader = Reader::open(path)?;
        let network = EfficientNetLite::new(&EfficientNetLiteConfig::lite0(), &mut reader)?;
        reader.finish()?;
        Ok(Self { network })
    }

    /// Unit-length features of one picture, resized to 224 px (Lanczos).
    pub fn features(&self, picture: &Picture) -> Vec<f32> {
        let picture = picture.resized(SIDE_PX, SIDE_PX);
        let values = picture.rgb.iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect();
        let image = Tensor::from_vec(values, &[1, SIDE_PX, SIDE_PX, 3]);
        normalised(no_grad(|| self.network.features(&image)).into_vec())
    }

    /// The same for many pictures.
    pub fn features_of(&self, pictures: &[Picture]) -> Vec<Vec<f32>> {
        pictures.par_iter().map(|p| self.features(p)).collect()
    }
}

pub(crate) fn normalised(mut v: Vec<f32>) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    for x in &mut v {
        *x /= norm;
    }
    v
}
