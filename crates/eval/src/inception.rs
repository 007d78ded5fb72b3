//! What exact FID is measured with: Inception's pooled features of pictures of 299 x 299 pixels.

use crate::{Error, Features, Resize};
use prima_models::InceptionV3;
use prima_picture::Picture;
use prima_tensor::{Tensor, no_grad};
use std::path::Path;

const SIDE_PX: usize = 299;

/// With it [`between`](crate::distances::between) gives FID and KID as pytorch-fid and clean-fid name them.
pub struct Inception {
    network: InceptionV3,
    resize: Resize,
}

impl Inception {
    /// Weights as `scripts/eval/inception.py` writes them of pytorch-fid's.
    pub fn open(weights: &Path, resize: Resize) -> Result<Self, Error> {
        Ok(Self {
            network: InceptionV3::open(weights)?,
            resize,
        })
    }
}

impl Features for Inception {
    fn name(&self) -> String {
        format!("Inception v3 of FID, {} resizing", self.resize.name())
    }

    fn of(&self, picture: &Picture) -> Vec<f32> {
        let pixels = self.resize.apply(picture, SIDE_PX);
        let values = pixels.into_iter().map(|v| v / 127.5 - 1.0).collect();
        let image = Tensor::from_vec(values, &[1, SIDE_PX, SIDE_PX, 3]);
        no_grad(|| self.network.features(&image)).into_vec()
    }
}
