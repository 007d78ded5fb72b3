//! One picture's colours given to another by their means, spreads and correlations (`coral` of naoto0804/pytorch-AdaIN).

use prima_tensor::Tensor;

type Matrix = [[f64; 3]; 3];

/// What there is to know of a picture's colours.
struct Colours {
    mean: [f64; 3],
    spread: [f64; 3],
    /// The root of the sums of products of normalised channels, with 1 added to each square.
    root: Matrix,
}

impl Colours {
    fn of(picture: &Tensor) -> Self {
        let pixels = picture.data().as_chunks::<3>().0;
        let count = pixels.len() as f64;
        let (mut mean, mut products) = ([0.0; 3], [[0.0; 3]; 3]);
        for pixel in pixels {
            for (sum, value) in mean.iter_mut().zip(pixel) {
                *sum += f64::from(*value) / count;
            }
        }
        for pixel in pixels {
            let from_mean = [0, 1, 2].map(|c| f64::from(pixel[c]) - mean[c]);
            for (row, a) in products.iter_mut().zip(from_mean) {
                for (sum, b) in row.iter_mut().zip(from_mean) {
                    *sum += a * b;
                }
            }
        }
        // A picture of one colour spreads by nothing.
        let spread = [0, 1, 2].map(|c| (products[c][c] / (count - 1.0).max(1.0)).sqrt().max(1e-6));
        for (a, row) in products.iter_mut().enumerate() {
            for (b, sum) in row.iter_mut().enumerate() {
                *sum = *sum / (spread[a] * spread[b]) + if a == b { 1.0 } else { 0.0 };
            }
        }
        Self {
            mean,
            spread,
            root: root(&products),
        }
    }
}

/// `picture` with the colours of `target`; both are `[1, H, W, 3]`.
pub(super) fn given(picture: &Tensor, target: &Tensor) -> Tensor {
    let (own, wanted) = (Colours::of(picture), Colours::of(target));
    let turn = product(&wanted.root, &inverse(&own.root));
    let pixels = picture.data().as_chunks::<3>().0.iter().flat_map(|pixel| {
        let normal = [0, 1, 2].map(|c| (f64::from(pixel[c]) - own.mean[c]) / own.spread[c]);
        [0, 1, 2].map(|c| {
            let turned: f64 = turn[c].iter().zip(normal).map(|(factor, value)| factor * value).sum();
            (turned * wanted.spread[c] + wanted.mean[c]) as f32
        })
    });
    Tensor::from_vec(pixels.collect(), picture.shape())
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    a.map(|row| [0, 1, 2].map(|column| (0..3).map(|i| row[i] * b[i][column]).sum()))
}

fn inverse(m: &Matrix) -> Matrix {
    let minor = |row: usize, column: usize| {
        let [r, s] = [(row + 1) % 3, (row + 2) % 3];
        let [c, d] = [(column + 1) % 3, (column + 2) % 3];
        m[r][c] * m[s][d] - m[r][d] * m[s][c]
    };
    let determinant: f64 = (0..3).map(|column| m[0][column] * minor(0, column)).sum();
    [0, 1, 2].map(|row| [0, 1, 2].map(|column| minor(column, row) / determinant))
}

/// The positive root of a positive matrix, by Denman's and Beavers' iteration, which doubles the digits that are right.
fn root(matrix: &Matrix) -> Matrix {
    const STEPS: usize = 30;
    let size: f64 = (0..3).map(|i| matrix[i][i]).sum();
    let mut y = matrix.map(|row| row.map(|value| value / size));
    let mut z: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let mean = |a: &Matrix, b: &Matrix| [0, 1, 2].map(|i| [0, 1, 2].map(|j| f64::midpoint(a[i][j], b[i][j])));
    for _ in 0..STEPS {
        (y, z) = (mean(&y, &inverse(&z)), mean(&z, &inverse(&y)));
    }
    y.map(|row| row.map(|value| value * size.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prima_checkpoint::TensorFile;
    use prima_tensor::nchw_to_nhwc;

    #[test]
    fn colours_are_given_as_pytorch_gives_them() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../goldens/adain/outputs.safetensors");
        let golden = TensorFile::open(path.as_ref()).unwrap();
        let tensor = |name: &str| nchw_to_nhwc(&golden.read(name).unwrap());
        let made = given(&tensor("one"), &tensor("content"));
        for (found, expected) in made.data().iter().zip(tensor("coral").data()) {
            assert!((found - expected).abs() < 1e-4, "{found} {expected}");
        }
    }

    #[test]
    fn a_root_squared_is_the_matrix() {
        let matrix = [[900.0, 850.0, 10.0], [850.0, 900.0, 5.0], [10.0, 5.0, 1.0]];
        let root = root(&matrix);
        for (found, expected) in product(&root, &root).iter().flatten().zip(matrix.iter().flatten()) {
            assert!((found - expected).abs() < 1e-6 * 900.0, "{found} {expected}");
        }
    }
}
