//! How far a decoded picture is from the true one: L1 with a little MSE, differences of neighbouring pixels (edges) and
//! 8x8 means (colours).

use crate::objective::Loss;
use prima_tensor::{
    Activation, Conv2d, Param, Tensor, add, affine, conv2d, mean_absolute_error, no_grad, weighted_mse,
};
use serde::Deserialize;

/// Weights of the distances between pictures beside their L1, whose weight is 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PictureWeights {
    mse: f32,
    /// L1 between differences of neighbouring pixels.
    edges: f32,
    /// L1 between 8x8 means.
    colours: f32,
}

impl Default for PictureWeights {
    fn default() -> Self {
        Self {
            mse: 0.5,
            edges: 0.5,
            colours: 0.5,
        }
    }
}

pub(super) struct PictureLoss {
    weights: PictureWeights,
    edges: Param,
    means: Param,
}

impl PictureLoss {
    pub(super) fn new(weights: PictureWeights) -> Self {
        Self {
            weights,
            edges: edge_filter(),
            means: mean_filter(),
        }
    }

    /// Of pictures `[B, H, W, 3]` in [-1, 1].
    pub(super) fn between(&self, decoded: &Tensor, pictures: &Tensor) -> Loss {
        let weights = &self.weights;
        let l1 = mean_absolute_error(decoded, pictures);
        let mse = weighted_mse(decoded, pictures, &vec![1.0; pictures.shape()[0]]);
        let edges = filtered_l1(&self.edges, Conv2d::padded(0), decoded, pictures);
        let colours = filtered_l1(&self.means, Conv2d::strided(8, 0), decoded, pictures);
        let metrics = vec![
            ("l1", l1.item()),
            // Peak to peak is 2.
            ("psnr", 10.0 * (4.0 / mse.item().max(1e-9)).log10()),
            ("edges", edges.item()),
            ("colours", colours.item()),
        ];
        let mut total = add(&l1, &affine(&mse, weights.mse, 0.0));
        total = add(&total, &affine(&edges, weights.edges, 0.0));
        total = add(&total, &affine(&colours, weights.colours, 0.0));
        Loss::new(total, metrics)
    }
}

/// L1 of `filter` over both pictures.
fn filtered_l1(filter: &Param, geometry: Conv2d, picture: &Tensor, target: &Tensor) -> Tensor {
    let apply = |x: &Tensor| conv2d(x, filter, None, geometry, Activation::None, None);
    mean_absolute_error(&apply(picture), &no_grad(|| apply(target)))
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
}
