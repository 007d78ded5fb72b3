//! Value noise on a wrapped lattice of fixed random numbers.

use super::maths::lerp;
use crate::random::Random;

const SIDE: usize = 256;

/// A lattice of random numbers in [0, 1), the same in every run; pictures differ by where they look at it.
#[derive(Debug)]
pub struct Noise {
    lattice: Vec<f32>,
}

impl Noise {
    pub fn new() -> Self {
        let mut random = Random::new(&[0x0006_e015_e000]);
        Self {
            lattice: (0..SIDE * SIDE).map(|_| random.unit()).collect(),
        }
    }

    /// Smooth noise in [0, 1); one bump per unit. Coordinates may be negative down to -4096.
    #[inline]
    pub fn value(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x + 4096.0, y + 4096.0);
        let (xi, yi) = (x as u32, y as u32);
        let (mut u, mut v) = (x - xi as f32, y - yi as f32);
        u = u * u * (3.0 - 2.0 * u);
        v = v * v * (3.0 - 2.0 * v);
        let mask = SIDE as u32 - 1;
        let row0 = ((yi & mask) as usize) * SIDE;
        let row1 = (((yi + 1) & mask) as usize) * SIDE;
        let (c0, c1) = ((xi & mask) as usize, ((xi + 1) & mask) as usize);
        let l = &self.lattice[..SIDE * SIDE];
        lerp(
            lerp(l[row0 + c0], l[row0 + c1], u),
            lerp(l[row1 + c0], l[row1 + c1], u),
            v,
        )
    }

    /// Fractal noise around 0.5: `octaves` layers, each of half the size and half the strength.
    #[inline]
    pub fn fbm(&self, x: f32, y: f32, octaves: usize) -> f32 {
        let (mut sum, mut weight, mut total) = (0.0, 1.0, 0.0);
        let (mut x, mut y) = (x, y);
        for _ in 0..octaves {
            sum += weight * self.value(x, y);
            total += weight;
            weight *= 0.5;
            // Turned a little at each octave, so that the lattice does not show.
            (x, y) = (1.62 * x - 1.18 * y + 17.3, 1.18 * x + 1.62 * y + 9.1);
            if x.abs() > 4000.0 || y.abs() > 4000.0 {
                (x, y) = (x % 256.0, y % 256.0);
            }
        }
        sum / total
    }

    /// Sharp ridges in [0, 1]: creases of mountains and dunes.
    #[inline]
    pub fn ridged(&self, x: f32, y: f32, octaves: usize) -> f32 {
        let (mut sum, mut weight, mut total) = (0.0, 1.0, 0.0);
        let (mut x, mut y) = (x, y);
        let mut previous = 1.0;
        for _ in 0..octaves {
            let n = 1.0 - (2.0 * self.value(x, y) - 1.0).abs();
            let n = n * n;
            sum += weight * n * previous;
            total += weight;
            previous = n.max(0.25);
            weight *= 0.5;
            (x, y) = (1.62 * x - 1.18 * y + 31.7, 1.18 * x + 1.62 * y + 3.3);
            if x.abs() > 4000.0 || y.abs() > 4000.0 {
                (x, y) = (x % 256.0, y % 256.0);
            }
        }
        sum / total
    }
}
