//! How far a decoded picture is from the true one: L1 with a little MSE, differences of neighbouring pixels (edges), 8x8 means
//! (colours), and what a feature network sees at each of its sizes (Johnson, Alahi and Fei-Fei 2016, "Perceptual Losses for
//! Real-Time Style Transfer and Super-Resolution", here by L1).

use crate::config::TrainConfig;
use crate::error::Result;
use crate::networks::feature_network;
use crate::objective::Loss;
use prima_models::EfficientNetLite;
use prima_tensor::{
    Activation, Conv2d, Param, Tensor, add, affine, conv2d, mean_absolute_error, no_grad, weighted_mse,
};
use serde::Deserialize;

/// Weights of the distances between pictures beside their L1, whose weight is 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PictureWeights {
    mse: f32,
    /// L1 between differences of neighbouring pixels.
    edges: f32,
    /// L1 between 8x8 means.
    colours: f32,
    /// L1 between the maps of the run's feature network, each relative to its mean: 1 is as far as black.
    features: f32,
}

impl Default for PictureWeights {
    fn default() -> Self {
        Self {
            mse: 0.5,
            edges: 0.5,
            colours: 0.5,
            features: 0.0,
        }
    }
}

pub(crate) struct PictureLoss {
    weights: PictureWeights,
    edges: Param,
    means: Param,
    network: Option<EfficientNetLite>,
}

impl PictureLoss {
    /// The one that a run's section asks for.
    pub(super) fn of(weights: &PictureWeights, config: &TrainConfig) -> Result<Self> {
        let network = (weights.features > 0.0).then(|| feature_network(config));
        Ok(Self::new(weights.clone(), network.transpose()?))
    }

    pub(crate) fn new(weights: PictureWeights, network: Option<EfficientNetLite>) -> Self {
        Self {
            weights,
            edges: edge_filter(),
            means: mean_filter(),
            network,
        }
    }

    /// Of pictures `[B, H, W, 3]` in [-1, 1].
    pub(super) fn between(&self, decoded: &Tensor, pictures: &Tensor) -> Loss {
        let weights = &self.weights;
        let l1 = mean_absolute_error(decoded, pictures);
        let mse = weighted_mse(decoded, pictures, &vec![1.0; pictures.shape()[0]]);
        let edges = filtered_l1(&self.edges, Conv2d::padded(0), decoded, pictures);
        let colours = filtered_l1(&self.means, Conv2d::strided(8, 0), decoded, pictures);
        let mut metrics = vec![
            ("l1", l1.item()),
            // Peak to peak is 2.
            ("psnr", 10.0 * (4.0 / mse.item().max(1e-9)).log10()),
            ("edges", edges.item()),
            ("colours", colours.item()),
        ];
        let mut total = add(&l1, &affine(&mse, weights.mse, 0.0));
        total = add(&total, &affine(&edges, weights.edges, 0.0));
        total = add(&total, &affine(&colours, weights.colours, 0.0));
        if let Some(network) = &self.network {
            let seen = seen_apart(network, decoded, pictures);
            metrics.push(("features", seen.item()));
            total = add(&total, &affine(&seen, weights.features, 0.0));
        }
        Loss::new(total, metrics)
    }
}

/// L1 between what `network` sees in both pictures, relative to the target's, mean of all sizes.
fn seen_apart(network: &EfficientNetLite, picture: &Tensor, target: &Tensor) -> Tensor {
    let wanted = no_grad(|| network.maps(target));
    let maps = network.maps(picture);
    let each = maps.iter().zip(&wanted).map(|(map, wanted)| {
        let size = wanted.data().iter().map(|v| v.abs()).sum::<f32>() / wanted.numel() as f32;
        let apart = mean_absolute_error(map, wanted);
        affine(&apart, 1.0 / (size.max(1e-6) * maps.len() as f32), 0.0)
    });
    each.reduce(|a, b| add(&a, &b)).unwrap_or_else(|| Tensor::zeros(&[1]))
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
    use prima_checkpoint::RandomInit;
    use prima_models::EfficientNetLiteConfig;
    use prima_models::feature_networks::StageConfig;
    use prima_tensor::sub;

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
    fn what_a_feature_network_sees_draws_a_picture_to_its_target() {
        let stage = |stride, channels| StageConfig {
            blocks: 1,
            kernel: 3,
            stride,
            expand: 2,
            channels,
        };
        let config = EfficientNetLiteConfig {
            stem: 4,
            stages: vec![stage(1, 4), stage(2, 6)],
            head: 8,
            classes: 2,
        };
        let network = EfficientNetLite::new(&config, &mut RandomInit::new(3)).unwrap();
        let values = |seed: usize| (0..16 * 16 * 3).map(move |i| ((i * 7 + i / 5 * seed) % 13) as f32 / 6.0 - 1.0);
        let target = Tensor::from_vec(values(3).collect(), &[1, 16, 16, 3]);
        assert_eq!(seen_apart(&network, &target, &target).item(), 0.0);
        let picture = Tensor::from_vec(values(11).collect(), &[1, 16, 16, 3]).requires_grad();
        let before = seen_apart(&network, &picture, &target);
        let gradients = before.backward();
        let slope = gradients.get(&picture).unwrap();
        let nearer = sub(&picture.detach(), &affine(slope, 5.0, 0.0));
        let after = seen_apart(&network, &nearer, &target).item();
        assert!(after < 0.98 * before.item(), "{} -> {after}", before.item());
    }
}
