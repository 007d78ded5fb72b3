//! What exact FID is measured with: Inception's pooled features of pictures of 299 x 299 pixels.

use crate::{Error, Features, Resize};
use prima_models::InceptionV3;
use prima_picture::Picture;
use prima_tensor::{Tensor, no_grad};
use std::path::Path;
use std::sync::Arc;

const SIDE_PX: usize = 299;

/// With it [`between`](crate::distances::between) gives FID and KID as pytorch-fid and clean-fid name them.
#[derive(Clone)]
pub struct Inception {
    network: Arc<InceptionV3>,
    resize: Resize,
}

impl Inception {
    /// Weights as `scripts/eval/inception.py` writes them of pytorch-fid's.
    pub fn open(weights: &Path, resize: Resize) -> Result<Self, Error> {
        Ok(Self {
            network: Arc::new(InceptionV3::open(weights)?),
            resize,
        })
    }
}

/// With it the Frechet distance is that of patches (Lin et al. 2024, SDXL-Lightning): of the middle of each picture at its own
/// resolution, where fine detail counts and composition does not.
pub struct Patches {
    /// 299 in the paper, for pictures of 1024 pixels. Of a picture that is smaller its middle square is seen.
    pub side_px: usize,
    pub network: Inception,
}

impl Features for Patches {
    fn name(&self) -> String {
        format!("the middle {0} x {0} pixels in {1}", self.side_px, self.network.name())
    }

    fn of(&self, picture: &Picture) -> Vec<f32> {
        let side = self.side_px.min(picture.width).min(picture.height);
        let (top, left) = ((picture.height - side) / 2, (picture.width - side) / 2);
        let row = |y: usize| &picture.rgb[3 * ((top + y) * picture.width + left)..][..3 * side];
        self.network.of(&Picture {
            width: side,
            height: side,
            rgb: (0..side).flat_map(row).copied().collect(),
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
