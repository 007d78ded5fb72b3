//! Resizing as Pillow does it, to the bit: one pass along the rows, then one along the columns, with weights of 22 binary digits
//! and bytes between. diffusers' pipelines resize with it, and whoever starts from another picture gets another one.

use crate::Picture;

/// Binary digits of a weight behind the point; a sum of bytes then has room in 32.
const PRECISION: u32 = 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Lanczos,
    Bicubic,
}

impl Filter {
    /// How far it reaches, in samples.
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { x.sin() / x };
        let (pi, far) = (std::f64::consts::PI, x.abs());
        match self {
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x * pi) * sinc(x / 3.0 * pi),
            Self::Bicubic if far < 1.0 => (1.5 * far - 2.5) * far * far + 1.0,
            Self::Bicubic if far < 2.0 => -0.5 * (((far - 5.0) * far + 8.0) * far - 4.0),
            _ => 0.0,
        }
    }
}

/// The samples that one of the other size is made of.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// For each of `to` samples those of `from`, of which only the stretch `between` is looked at.
fn taps(from: usize, between: [f64; 2], to: usize, filter: Filter) -> Vec<Taps> {
    let scale = (between[1] - between[0]) / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..to)
        .map(|at| {
            let center = between[0] + (at as f64 + 0.5) * scale;
            let first = ((center - support + 0.5) as usize).min(from);
            let end = ((center + support + 0.5) as usize).min(from);
            let weight = |i: usize| filter.weight((i as f64 - center + 0.5) / stretch);
            let weights: Vec<f64> = (first..end).map(weight).collect();
            let sum: f64 = weights.iter().sum();
            let sum = if sum == 0.0 { 1.0 } else { sum };
            let whole = |weight: &f64| (weight / sum * f64::from(1 << PRECISION)).round() as i32;
            Taps {
                first,
                weights: weights.iter().map(whole).collect(),
            }
        })
        .collect()
}

fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

fn along_rows(picture: &Picture, between: [f64; 2], to: usize, filter: Filter) -> Picture {
    let taps = taps(picture.width, between, to, filter);
    let mut rgb = Vec::with_capacity(3 * to * picture.height);
    for row in picture.rgb.chunks_exact(3 * picture.width) {
        for tap in &taps {
            let pixels = row[3 * tap.first..].chunks_exact(3);
            let mut sum = [HALF; 3];
            for (pixel, weight) in pixels.zip(&tap.weights) {
                for (sum, value) in sum.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            rgb.extend(sum.map(byte));
        }
    }
    Picture {
        width: to,
        height: picture.height,
        rgb,
    }
}

fn along_columns(picture: &Picture, between: [f64; 2], to: usize, filter: Filter) -> Picture {
    let stride = 3 * picture.width;
    let mut rgb = Vec::with_capacity(stride * to);
    let mut sums = vec![HALF; stride];
    for tap in taps(picture.height, between, to, filter) {
        sums.fill(HALF);
        let rows = picture.rgb[stride * tap.first..].chunks_exact(stride);
        for (row, weight) in rows.zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        rgb.extend(sums.iter().map(|sum| byte(*sum)));
    }
    Picture {
        width: picture.width,
        height: to,
        rgb,
    }
}

/// The picture at another size (Lanczos); none of its sides is 0.
pub(crate) fn resample(picture: &Picture, width: usize, height: usize) -> Picture {
    let filter = Filter::Lanczos;
    let wide = (width != picture.width).then(|| along_rows(picture, [0.0, picture.width as f64], width, filter));
    let wide = wide.as_ref().unwrap_or(picture);
    if height == wide.height {
        return wide.clone();
    }
    along_columns(wide, [0.0, wide.height as f64], height, filter)
}

impl Picture {
    /// In the middle of a frame that is no smaller: beyond its edges the picture goes on as diffusers' `VaeImageProcessor` lets it
    /// (`_resize_and_fill`), whose stretches of no length at the edge Pillow resizes from the two lines next to it.
    #[must_use]
    pub fn framed(&self, width: usize, height: usize) -> Self {
        let (left, top) = (width / 2 - self.width / 2, height / 2 - self.height / 2);
        let tall = if height == self.height {
            self.rgb.clone()
        } else {
            let beyond = |at: f64| along_columns(self, [at; 2], 1, Filter::Bicubic).rgb;
            let (above, below) = (beyond(0.0), beyond(self.height as f64));
            [
                above.repeat(top),
                self.rgb.clone(),
                below.repeat(height - self.height - top),
            ]
            .concat()
        };
        let tall = Self {
            width: self.width,
            height,
            rgb: tall,
        };
        if width == self.width {
            return tall;
        }
        let beyond = |at: f64| along_rows(&tall, [at; 2], 1, Filter::Bicubic).rgb;
        let (before, after) = (beyond(0.0), beyond(self.width as f64));
        let rows = tall
            .rgb
            .chunks_exact(3 * self.width)
            .zip(before.chunks_exact(3).zip(after.chunks_exact(3)));
        let right = width - self.width - left;
        let rgb =
            rows.flat_map(|(row, (before, after))| [&before.repeat(left)[..], row, &after.repeat(right)].concat());
        Self {
            width,
            height,
            rgb: rgb.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize) -> Picture {
        let rgb = (0..width * height * 3).map(|i| (i * i * 31 % 251) as u8).collect();
        Picture { width, height, rgb }
    }

    #[test]
    fn pictures_are_resized_as_by_pillow() {
        for (from, to, expected) in EXPECTED {
            let resized = resample(&picture(from.0, from.1), to.0, to.1);
            assert_eq!(fnv1a(&resized.rgb), expected, "{from:?} to {to:?}");
        }
    }

    type Size = (usize, usize);

    /// From which size to which, and the FNV-1a hash of what `Image.resize(size, LANCZOS)` of Pillow 13.0.0 makes.
    const EXPECTED: [(Size, Size, u64); 4] = [
        ((40, 30), (64, 64), 0x951D_F430_C916_BC85),
        ((64, 64), (40, 30), 0x16E6_B9A0_9B19_E6B8),
        ((37, 53), (37, 20), 0xF34E_9643_BDF7_9D90),
        ((120, 7), (16, 29), 0xCA87_BAB2_42C3_98E9),
    ];

    #[test]
    fn a_frame_repeats_what_is_flat_and_goes_on_with_what_is_not() {
        let flat = Picture {
            width: 4,
            height: 2,
            rgb: vec![90; 24],
        };
        assert_eq!(flat.framed(4, 6).rgb, [90; 72]);
        assert_eq!(flat.framed(8, 2).rgb, [90; 48]);
        let slope = Picture {
            width: 1,
            height: 2,
            rgb: vec![80, 80, 80, 160, 160, 160],
        };
        // 9/8 of the nearest line and -1/8 of the next.
        let rows: Vec<u8> = slope.framed(1, 4).rgb.chunks_exact(3).map(|pixel| pixel[0]).collect();
        assert_eq!(rows, [70, 80, 160, 170]);
    }

    fn fnv1a(bytes: &[u8]) -> u64 {
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        bytes.iter().fold(0xCBF2_9CE4_8422_2325, mix)
    }
}
