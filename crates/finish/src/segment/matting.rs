//! Soft edges of a mask from the picture itself: the guided filter (He, Sun and Tang 2013, section 3.5, with a colour guide).

use super::Mask;
use prima_picture::Picture;

/// How much the guide's colours may spread before an edge is taken from it, in squares of 0..1.
const EPSILON: f64 = 1e-4;

/// How much of each pixel belongs to the mask, 0 to 255: within about `radius_px` of the mask's edge, as much as the picture's
/// colours say. The same size as the picture.
pub fn soft_edges(picture: &Picture, mask: &Mask, radius_px: usize) -> Vec<u8> {
    if radius_px == 0 {
        return mask.values.clone();
    }
    let boxes = Boxes {
        width: picture.width,
        height: picture.height,
        radius: radius_px,
    };
    let colour = |channel: usize| -> Vec<f32> {
        picture
            .rgb
            .iter()
            .skip(channel)
            .step_by(3)
            .map(|byte| f32::from(*byte) / 255.0)
            .collect()
    };
    let guide = [0, 1, 2].map(colour);
    let wanted: Vec<f32> = mask.values.iter().map(|value| f32::from(*value) / 255.0).collect();
    let product = |a: &[f32], b: &[f32]| -> Vec<f32> { a.iter().zip(b).map(|(a, b)| a * b).collect() };
    let means = guide.each_ref().map(|values| boxes.means(values));
    let mean = boxes.means(&wanted);
    let with_wanted = guide.each_ref().map(|values| boxes.means(&product(values, &wanted)));
    const PAIRS: [(usize, usize); 6] = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];
    let squares = PAIRS.map(|(a, b)| boxes.means(&product(&guide[a], &guide[b])));
    let mut factors = [(); 4].map(|()| vec![0.0_f32; wanted.len()]);
    for i in 0..wanted.len() {
        let at = means.each_ref().map(|values| f64::from(values[i]));
        let mut spread = [[0.0; 3]; 3];
        for ((a, b), values) in PAIRS.iter().zip(&squares) {
            let value = f64::from(values[i]) - at[*a] * at[*b];
            (spread[*a][*b], spread[*b][*a]) = (value, value);
        }
        for (axis, row) in spread.iter_mut().enumerate() {
            row[axis] += EPSILON;
        }
        let wanted_mean = f64::from(mean[i]);
        let covariance = [0, 1, 2].map(|c| f64::from(with_wanted[c][i]) - at[c] * wanted_mean);
        let slope = solved(&spread, covariance);
        let shift = wanted_mean - slope.iter().zip(&at).map(|(slope, mean)| slope * mean).sum::<f64>();
        for (factor, value) in factors.iter_mut().zip([slope[0], slope[1], slope[2], shift]) {
            factor[i] = value as f32;
        }
    }
    let factors = factors.each_ref().map(|values| boxes.means(values));
    let soft = (0..wanted.len()).map(|i| {
        let sum: f32 = (0..3).map(|c| factors[c][i] * guide[c][i]).sum();
        ((sum + factors[3][i]).clamp(0.0, 1.0) * 255.0).round() as u8
    });
    soft.collect()
}

/// The solution of three equations, by Cramer's rule; the matrix is positive.
fn solved(matrix: &[[f64; 3]; 3], right: [f64; 3]) -> [f64; 3] {
    let determinant = |m: &[[f64; 3]; 3]| {
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    };
    let whole = determinant(matrix);
    [0, 1, 2].map(|column| {
        let mut replaced = *matrix;
        for (row, value) in replaced.iter_mut().zip(right) {
            row[column] = value;
        }
        determinant(&replaced) / whole
    })
}

/// Means over squares around each pixel, as far as there are pixels.
struct Boxes {
    width: usize,
    height: usize,
    radius: usize,
}

impl Boxes {
    fn means(&self, values: &[f32]) -> Vec<f32> {
        let (width, height) = (self.width, self.height);
        let mut across = vec![0.0; values.len()];
        for (row, out) in values.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
            self.line(width, |i| row[i], |i, mean| out[i] = mean);
        }
        let mut out = vec![0.0; values.len()];
        for x in 0..width {
            self.line(height, |y| across[y * width + x], |y, mean| out[y * width + x] = mean);
        }
        out
    }

    /// Of one row or column; the sum runs along, in f64 so that it does not drift.
    fn line(&self, length: usize, value: impl Fn(usize) -> f32, mut put: impl FnMut(usize, f32)) {
        let mut sum: f64 = (0..self.radius.min(length)).map(|i| f64::from(value(i))).sum();
        for i in 0..length {
            if i + self.radius < length {
                sum += f64::from(value(i + self.radius));
            }
            if i > self.radius {
                sum -= f64::from(value(i - self.radius - 1));
            }
            let count = (i + self.radius).min(length - 1) + 1 - i.saturating_sub(self.radius);
            put(i, (sum / count as f64) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_at_the_edges_are_of_the_pixels_that_there_are() {
        let boxes = Boxes {
            width: 4,
            height: 1,
            radius: 1,
        };
        assert_eq!(boxes.means(&[1.0, 2.0, 3.0, 7.0]), [1.5, 2.0, 4.0, 5.0]);
    }

    #[test]
    fn a_mask_that_is_a_little_off_finds_the_pictures_edge() {
        let (width, height) = (32, 16);
        // Red left of column 16 and blue from there on; the mask ends two columns early.
        let rgb = (0..width * height).flat_map(|i| if i % width < 16 { [220, 30, 30] } else { [20, 40, 210] });
        let picture = Picture {
            width,
            height,
            rgb: rgb.collect(),
        };
        let mask = Mask {
            width,
            height,
            values: (0..width * height)
                .map(|i| if i % width < 14 { 255 } else { 0 })
                .collect(),
            score: 1.0,
        };
        let soft = soft_edges(&picture, &mask, 4);
        let row = &soft[8 * width..][..width];
        assert!(row[4] > 250 && row[30] < 5, "{row:?}");
        assert!(
            row[15] > 2 * row[16].max(10),
            "the step is where the colours change: {row:?}"
        );
        assert_eq!(soft_edges(&picture, &mask, 0), mask.values);
    }
}
