//! The squared maximum mean discrepancy of two sets of features (Gretton et al. 2012), and its gradient.

/// Widths of the Gaussian kernels, relative to the mean squared distance of the real features.
const WIDTHS: [f64; 3] = [0.2, 1.0, 5.0];

/// Rows of equal length.
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) len: usize,
}

impl Rows<'_> {
    fn count(&self) -> usize {
        self.values.len() / self.len
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.len..(i + 1) * self.len]
    }

    /// One over the variance of each column.
    fn precisions(&self) -> Vec<f64> {
        let n = self.count() as f64;
        let column = |c: usize| (0..self.count()).map(move |i| f64::from(self.row(i)[c]));
        let precision = |c: usize| {
            let mean = column(c).sum::<f64>() / n;
            1.0 / (column(c).map(|x| (x - mean).powi(2)).sum::<f64>() / n + 1e-6)
        };
        (0..self.len).map(precision).collect()
    }
}

/// The mean over columns of the squared difference times `precisions`.
fn distance(a: &[f32], b: &[f32], precisions: &[f64]) -> f64 {
    let each = a.iter().zip(b).zip(precisions);
    let sum: f64 = each.map(|((a, b), p)| f64::from(a - b).powi(2) * p).sum();
    sum / precisions.len() as f64
}

/// `f(i, j)` for all pairs of different rows.
fn for_pairs(n: usize, mut f: impl FnMut(usize, usize)) {
    for i in 0..n {
        for j in (0..n).filter(|&j| j != i) {
            f(i, j);
        }
    }
}

/// The mean of `f(i, j)` over all pairs of different rows.
fn mean_of_pairs(n: usize, f: impl Fn(usize, usize) -> f64) -> f64 {
    let mut sum = 0.0;
    for_pairs(n, |i, j| sum += f(i, j));
    sum / (n * (n - 1)) as f64
}

/// How alike two captions are, as a factor of the kernel, 1 on the diagonal: so that pictures with their captions are compared, not
/// pictures alone. `captions` are rows too; their distances count `weight`.
pub(super) fn likeness(captions: &Rows, weight: f32) -> Vec<f64> {
    let (n, ones) = (captions.count(), vec![1.0; captions.len]);
    let apart = |i, j| distance(captions.row(i), captions.row(j), &ones);
    let mean = mean_of_pairs(n, apart).max(1e-12);
    (0..n * n)
        .map(|k| (-f64::from(weight) * apart(k / n, k % n) / mean).exp())
        .collect()
}

/// The discrepancy of `fake` from `real`, unbiased (so that it may be below 0), and its gradient towards `fake`. Row `i` of both
/// belongs to one caption; pairs of one row are left out, since they share it.
pub(super) fn discrepancy(fake: &Rows, real: &Rows, likeness: &[f64]) -> (f64, Vec<f32>) {
    let (n, precisions) = (real.count(), real.precisions());
    let pairs = (n * (n - 1)) as f64;
    let scale = mean_of_pairs(n, |i, j| distance(real.row(i), real.row(j), &precisions)).max(1e-12);
    // The kernel, and its slope in the distance.
    let kernel = |a: &[f32], b: &[f32], alike: f64| {
        let relative = distance(a, b, &precisions) / scale;
        let each = WIDTHS.map(|width| (-relative / width).exp() * alike / WIDTHS.len() as f64);
        let slopes = each.iter().zip(WIDTHS).map(|(k, width)| -k / (width * scale));
        (each.iter().sum::<f64>(), slopes.sum::<f64>())
    };
    let (mut value, mut gradient) = (0.0, vec![0.0f64; fake.values.len()]);
    for_pairs(n, |i, j| {
        let alike = likeness[i * n + j];
        value += kernel(real.row(i), real.row(j), alike).0 / pairs;
        // What a pair's kernel counts, and its slope for the fake row `i`: a pair of fakes moves with both.
        for (other, counts, moves) in [(fake, 1.0, 2.0), (real, -2.0, -2.0)] {
            let (k, slope) = kernel(fake.row(i), other.row(j), alike);
            value += counts * k / pairs;
            let factor = moves * slope * 2.0 / (pairs * precisions.len() as f64);
            let columns = fake.row(i).iter().zip(other.row(j)).zip(&precisions);
            for (g, ((a, b), p)) in gradient[i * fake.len..].iter_mut().zip(columns) {
                *g += factor * p * f64::from(a - b);
            }
        }
    });
    (value, gradient.into_iter().map(|g| g as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[f32]) -> Rows<'_> {
        Rows { values, len: 2 }
    }

    #[test]
    fn the_gradient_is_the_discrepancys_difference_quotient() {
        let real = [0.1f32, 0.5, -0.7, 1.2, 0.9, -0.4, 0.3, 0.0];
        let fake = [1.1f32, 0.4, 0.2, 0.2, -0.5, 0.7, 2.0, -1.0];
        let captions = [0.0f32, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
        let alike = likeness(&rows(&captions), 0.7);
        let (_, gradient) = discrepancy(&rows(&fake), &rows(&real), &alike);
        for (i, found) in gradient.iter().enumerate() {
            let moved = |h: f32| {
                let mut fake = fake;
                fake[i] += h;
                discrepancy(&rows(&fake), &rows(&real), &alike).0
            };
            let quotient = ((moved(1e-2) - moved(-1e-2)) / 2e-2) as f32;
            assert!((quotient - found).abs() < 1e-4, "{i}: {found}, expected {quotient}");
        }
    }

    #[test]
    fn sets_of_one_distribution_hardly_differ_and_others_do() {
        let draw = |image: u32| {
            let stream = prima_tensor::Philox {
                seed: 1,
                image,
                purpose: 0,
                step: 0,
            };
            stream.normal(200)
        };
        let (real, fake) = (draw(0), draw(1));
        let alike = vec![1.0; 100 * 100];
        let same = discrepancy(&rows(&fake), &rows(&real), &alike).0;
        let moved: Vec<f32> = fake.iter().map(|x| x + 1.0).collect();
        let other = discrepancy(&rows(&moved), &rows(&real), &alike).0;
        assert!(same.abs() < 0.02 && other > 0.1, "{same}, {other}");
    }
}
