//! Nearest class mean: a picture counts as right when the mean feature vector nearest to its own
//! (cosine) is that of the class it was asked for.

use crate::features::normalised;
use crate::{Error, FeatureNet, Suite};
use prima_picture::Picture;
use serde::Serialize;

/// The mean feature vector of each class.
pub struct ClassMeans {
    means: Vec<Vec<f32>>,
}

/// Shares of pictures, 0 to 1.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Accuracy {
    pub pictures: usize,
    pub top1: f64,
    pub top5: f64,
}

impl ClassMeans {
    pub fn of_suite(suite: &Suite, net: &FeatureNet) -> Result<Self, Error> {
        let means = suite
            .classes
            .iter()
            .map(|class| Ok(mean(&net.features_of(&suite.pictures(class)?))))
            .collect::<Result<_, Error>>()?;
        Ok(Self { means })
    }

    /// Classes from nearest to farthest.
    pub fn ranking(&self, features: &[f32]) -> Vec<usize> {
        let similarity = |i: &usize| -> f32 { self.means[*i].iter().zip(features).map(|(a, b)| a * b).sum() };
        let mut order: Vec<usize> = (0..self.means.len()).collect();
        order.sort_by(|a, b| similarity(b).total_cmp(&similarity(a)));
        order
    }

    /// Accuracy over (class, picture) pairs.
    pub fn accuracy(&self, net: &FeatureNet, pictures: &[(usize, Picture)]) -> Accuracy {
        let ranks: Vec<usize> = pictures
            .iter()
            .map(|(class, picture)| {
                let order = self.ranking(&net.features(picture));
                order.iter().position(|c| c == class).unwrap_or(order.len())
            })
            .collect();
        let share = |limit: usize| ranks.iter().filter(|r| **r < limit).count() as f64 / ranks.len().max(1) as f64;
        Accuracy {
            pictures: ranks.len(),
            top1: share(1),
            top5: share(5),
        }
    }
}

fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0f32; vectors.first().map_or(0, Vec::len)];
    for v in vectors {
        for (s, x) in sum.iter_mut().zip(v) {
            *s += x;
        }
    }
    normalised(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mean_comes_first() {
        let means = ClassMeans {
            means: vec![vec![1.0, 0.0], vec![0.0, 1.0], vec![0.6, 0.8]],
        };
        assert_eq!(means.ranking(&[0.0, 1.0]), [1, 2, 0]);
    }

    #[test]
    fn a_mean_has_unit_length() {
        let mean = mean(&[vec![3.0, 0.0], vec![0.0, 1.0]]);
        let [x, y] = mean[..] else { panic!("{mean:?}") };
        assert!((x - 3.0 / 10f32.sqrt()).abs() < 1e-6 && (y - 1.0 / 10f32.sqrt()).abs() < 1e-6);
    }
}
