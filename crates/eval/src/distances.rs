//! Distances between two sets of pictures, in any space of features: how far a model's pictures are from real ones, how much of
//! either the other has, and how varied they are. The network is to be named with every figure, and numbers of pictures that
//! differ are not to be compared: all of these are biased by how many there are, the Frechet distance most.

use crate::Error;
use nalgebra::{DMatrix, DVector, SymmetricEigen};
use prima_tensor::Philox;
use rayon::prelude::*;
use serde::Serialize;

/// Pictures of a subset of the [kernel distance](kernel), and how many subsets are drawn.
const SUBSET: usize = 1000;
const SUBSETS: usize = 100;
/// Neighbours by which [`precision_recall`] knows the extent of a set.
const NEIGHBOURS: usize = 3;

/// What [`between`] finds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distances {
    /// Pictures of the real set and of the other.
    pub pictures: [usize; 2],
    pub frechet: f64,
    /// Mean and standard deviation over the subsets.
    pub kernel: [f64; 2],
    /// The share of the others that look real, and of the real ones that the others could be.
    pub precision: f64,
    pub recall: f64,
}

/// All of them, of features `real` and `other`, a picture each.
pub fn between(real: &[Vec<f32>], other: &[Vec<f32>], seed: u64) -> Result<Distances, Error> {
    let width = real.first().map_or(0, Vec::len);
    let are_alike = real.iter().chain(other).all(|row| row.len() == width);
    if !are_alike || width == 0 || real.len().min(other.len()) <= NEIGHBOURS {
        let reason = format!(
            "distances want more than {NEIGHBOURS} pictures on both sides, of features of one length, there are {} and {}",
            real.len(),
            other.len()
        );
        return Err(Error::Distances(reason));
    }
    let (precision, recall) = precision_recall(real, other, NEIGHBOURS);
    Ok(Distances {
        pictures: [real.len(), other.len()],
        frechet: frechet(real, other),
        kernel: kernel(real, other, seed),
        precision,
        recall,
    })
}

/// Width of the kernel of [`cmmd`], and the factor of its figures.
const CMMD_SIGMA: f64 = 10.0;
const CMMD_SCALE: f64 = 1000.0;

/// CMMD (Jayasumana et al. 2024): the squared maximum mean discrepancy under a Gaussian kernel, of CLIP's embeddings of unit length;
/// biased, with the diagonals, as its authors compute it. It assumes no normal distribution, and a thousand pictures do.
pub fn cmmd(real: &[Vec<f32>], other: &[Vec<f32>]) -> f64 {
    let alike = |a: &[f32], b: &[f32]| {
        let apart: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (-apart / (2.0 * CMMD_SIGMA * CMMD_SIGMA)).exp()
    };
    let mean = |a: &[Vec<f32>], b: &[Vec<f32>]| -> f64 {
        let rows = a.par_iter().map(|a| b.iter().map(|b| alike(a, b)).sum::<f64>());
        rows.sum::<f64>() / (a.len() * b.len()) as f64
    };
    CMMD_SCALE * (mean(real, real) + mean(other, other) - 2.0 * mean(real, other))
}

/// Frechet distance of the normal distributions with the sets' means and covariances (Heusel et al. 2017):
/// `|m - n|² + tr(C + D - 2 (C^½ D C^½)^½)`, covariances over n - 1, in f64.
pub fn frechet(a: &[Vec<f32>], b: &[Vec<f32>]) -> f64 {
    let ([mean_a, mean_b], [a, b]) = {
        let [(m, a), (n, b)] = [a, b].map(centred);
        ([m, n], [a, b])
    };
    let apart = (mean_a - mean_b).norm_squared();
    let traces = a.norm_squared() + b.norm_squared();
    // With C = AᵀA and D = BᵀB the trace of the root is the sum of the singular values of A Bᵀ: those of the smaller of
    // AᵀA-like products, whichever is less work.
    let product = if a.nrows().max(b.nrows()) < a.ncols() {
        &a * b.transpose()
    } else {
        root(&(a.transpose() * &a)) * root(&(b.transpose() * &b))
    };
    let gram = if product.nrows() < product.ncols() {
        &product * product.transpose()
    } else {
        product.transpose() * &product
    };
    let singular = SymmetricEigen::new(gram).eigenvalues.map(|v| v.max(0.0).sqrt());
    apart + traces - 2.0 * singular.sum()
}

/// The mean of `rows`, and what is left of each, over the root of n - 1.
fn centred(rows: &[Vec<f32>]) -> (DVector<f64>, DMatrix<f64>) {
    let width = rows[0].len();
    let mut matrix = DMatrix::from_fn(rows.len(), width, |i, j| f64::from(rows[i][j]));
    let mean = matrix.row_mean();
    let scale = 1.0 / ((rows.len() - 1).max(1) as f64).sqrt();
    for mut row in matrix.row_iter_mut() {
        row -= &mean;
        row *= scale;
    }
    (mean.transpose(), matrix)
}

/// The symmetric root of a covariance.
fn root(covariance: &DMatrix<f64>) -> DMatrix<f64> {
    let eigen = SymmetricEigen::new(covariance.clone());
    let roots = eigen.eigenvalues.map(|v| v.max(0.0).sqrt());
    &eigen.eigenvectors * DMatrix::from_diagonal(&roots) * eigen.eigenvectors.transpose()
}

/// Kernel distance (Binkowski et al. 2018): unbiased squared maximum mean discrepancy under `(x·y / d + 1)³`, mean and standard
/// deviation over random subsets of both.
pub fn kernel(a: &[Vec<f32>], b: &[Vec<f32>], seed: u64) -> [f64; 2] {
    let size = SUBSET.min(a.len()).min(b.len());
    let subset = |of: &[Vec<f32>], which: u32, number: usize| -> Vec<usize> {
        let draws = Philox {
            seed,
            image: which,
            purpose: 0x4b1d,
            step: number as u32,
        };
        let mut keyed: Vec<(f32, usize)> = draws.uniform(of.len()).into_iter().zip(0..).collect();
        keyed.sort_by(|x, y| x.0.total_cmp(&y.0));
        keyed.into_iter().take(size).map(|(_, i)| i).collect()
    };
    let one = |number: usize| {
        let (a, b): (Vec<&[f32]>, Vec<&[f32]>) = (
            subset(a, 0, number).into_iter().map(|i| &a[i][..]).collect(),
            subset(b, 1, number).into_iter().map(|i| &b[i][..]).collect(),
        );
        let n = size as f64;
        let within = |rows: &[&[f32]]| {
            let pairs = (0..size).flat_map(|i| (0..i).map(move |j| (i, j)));
            2.0 * pairs.map(|(i, j)| cubed(rows[i], rows[j])).sum::<f64>() / (n * (n - 1.0))
        };
        let across: f64 = a.iter().flat_map(|x| b.iter().map(|y| cubed(x, y))).sum();
        within(&a) + within(&b) - 2.0 * across / (n * n)
    };
    // Where a subset is everything, all subsets are the same.
    let subsets = if size == a.len().max(b.len()) { 1 } else { SUBSETS };
    let each: Vec<f64> = (0..subsets).into_par_iter().map(one).collect();
    let mean = each.iter().sum::<f64>() / subsets as f64;
    let variance = each.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / subsets as f64;
    [mean, variance.sqrt()]
}

fn cubed(x: &[f32], y: &[f32]) -> f64 {
    let dot: f64 = x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
    (dot / x.len() as f64 + 1.0).powi(3)
}

/// Improved precision and recall (Kynkäänniemi et al. 2019): the share of `other` that lies within reach of a `real` one, and of
/// `real` within reach of one of `other`; the reach of a picture is the distance to its `k`-th nearest of its own set.
pub fn precision_recall(real: &[Vec<f32>], other: &[Vec<f32>], k: usize) -> (f64, f64) {
    let within = |reaching: &[Vec<f32>], asked: &[Vec<f32>]| {
        let reach: Vec<f64> = reaching
            .par_iter()
            .map(|row| {
                let mut distances: Vec<f64> = reaching.iter().map(|other| apart(row, other)).collect();
                // The nearest is the picture itself.
                *distances.select_nth_unstable_by(k, f64::total_cmp).1
            })
            .collect();
        let inside = asked.par_iter().filter(|row| {
            let mut near = reaching.iter().zip(&reach);
            near.any(|(centre, reach)| apart(row, centre) <= *reach)
        });
        inside.count() as f64 / asked.len() as f64
    };
    (within(real, other), within(other, real))
}

/// Squared distance.
fn apart(x: &[f32], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, y)| f64::from(x - y).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normal features of `width` with these means and deviations in turn.
    fn normal(seed: u64, count: usize, width: usize, mean: &[f32], deviation: &[f32]) -> Vec<Vec<f32>> {
        let stream = Philox {
            seed,
            image: 0,
            purpose: 0x7e57,
            step: 0,
        };
        let values = stream.normal(count * width);
        let row = |row: &[f32]| {
            let scaled = row.iter().zip(mean.iter().cycle()).zip(deviation.iter().cycle());
            scaled.map(|((v, m), s)| m + s * v).collect()
        };
        values.chunks_exact(width).map(row).collect()
    }

    #[test]
    fn the_frechet_distance_is_that_of_the_normal_distributions() {
        let (a, b) = (
            normal(1, 4000, 4, &[0.0], &[1.0]),
            normal(2, 4000, 4, &[1.0], &[2.0, 3.0]),
        );
        // Of independent values: the sum of (m - n)² + (s - t)².
        let want = 4.0 + 2.0 * 1.0 + 2.0 * 4.0;
        let found = frechet(&a, &b);
        assert!((found - want).abs() < 0.05 * want, "{found}, expected {want}");
        assert!(frechet(&a, &a).abs() < 1e-9);
    }

    #[test]
    fn few_pictures_of_many_features_give_the_same_as_covariances() {
        let (a, b) = (
            normal(3, 12, 40, &[0.0], &[1.0, 2.0]),
            normal(4, 15, 40, &[0.5], &[1.0]),
        );
        let [(m, x), (n, y)] = [&a, &b].map(|rows| centred(rows));
        let (c, d) = (x.transpose() * &x, y.transpose() * &y);
        let half = root(&c);
        let inner = root(&(&half * &d * &half));
        let want = (m - n).norm_squared() + c.trace() + d.trace() - 2.0 * inner.trace();
        let found = frechet(&a, &b);
        assert!((found - want).abs() < 1e-4 * want, "{found}, expected {want}");
    }

    #[test]
    fn the_kernel_distance_is_zero_on_average_between_samples_of_one_distribution() {
        let (a, b) = (normal(5, 600, 8, &[0.0], &[1.0]), normal(6, 600, 8, &[0.0], &[1.0]));
        let far = normal(7, 600, 8, &[1.0], &[1.0]);
        let ([near, _], [other, _]) = (kernel(&a, &b, 1), kernel(&a, &far, 1));
        assert!(near.abs() < 0.02 && other > 0.5, "{near} {other}");
        // By hand, of two and two.
        let (x, y) = ([vec![1.0], vec![2.0]], [vec![0.0], vec![3.0]]);
        let want = 27.0 + 1.0 - 2.0 * (1.0 + 64.0 + 1.0 + 343.0) / 4.0;
        assert_eq!(kernel(&x, &y, 1), [want, 0.0]);
    }

    #[test]
    fn a_set_that_lacks_a_mode_has_precision_and_no_recall_of_it() {
        let mode = |seed, mean| normal(seed, 200, 2, &[mean], &[0.1]);
        let real = [mode(8, 0.0), mode(9, 5.0)].concat();
        let (precision, recall) = precision_recall(&real, &mode(10, 0.0), 3);
        assert!(precision > 0.9 && (recall - 0.5).abs() < 0.1, "{precision} {recall}");
        let (precision, recall) = precision_recall(&mode(11, 0.0), &real, 3);
        assert!(recall > 0.9 && (precision - 0.5).abs() < 0.1, "{precision} {recall}");
    }

    #[test]
    fn too_few_pictures_are_refused() {
        let few = vec![vec![1.0]; 3];
        let error = between(&few, &few, 0).unwrap_err().to_string();
        assert!(error.contains("more than 3 pictures"), "{error}");
    }
}
