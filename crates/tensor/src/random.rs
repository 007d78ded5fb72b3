//! Noise. Philox is keyed by what the noise is for, so a picture does not depend on the batch,
//! the thread count or the device; `TorchCpuRng` reproduces torch's CPU generator.

use crate::Tensor;
use crate::device::gpu;
use rayon::prelude::*;

/// Counter-based generator Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
/// 1, 2, 3", 2011), keyed by (seed, image index, purpose, step).
///
/// Layout, which a twin on another device has to follow:
/// - key = `[seed low 32 bits, seed high 32 bits]`
/// - counter of block `i` = `[i, image, purpose, step]`, `i` a `u32`
/// - block `i` gives the four outputs `u[0..4]`: values `4 i .. 4 i + 4`
/// - uniform: `(u >> 8) · 2^-24`, in `[0, 1)`
/// - normal, Box-Muller over the pairs `(u[0], u[1])` and `(u[2], u[3])`:
///   `a = ((u[0] >> 8) + 1) · 2^-24` in `(0, 1]`, `b = (u[1] >> 8) · 2^-24`,
///   `r = sqrt(-2 ln a)`; the two values are `r cos(2 π b)` and `r sin(2 π b)`, in f64 by the series
///   below, rounded to f32 at the end. Series of plain additions, products and divisions, because
///   those are all that every machine rounds alike: libraries' logarithms and sines are not.
///
/// The first values do not depend on how many are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Philox {
    pub seed: u64,
    pub image: u32,
    pub purpose: u32,
    pub step: u32,
}

/// `2^-24`: the step of a uniform with 24 random bits.
const UNIT: f32 = 1.0 / 16_777_216.0;

impl Philox {
    /// Standard normal values.
    pub fn normal(&self, len: usize) -> Vec<f32> {
        self.fill(len, |u| {
            let (a, b) = box_muller(u[0], u[1]);
            let (c, d) = box_muller(u[2], u[3]);
            [a, b, c, d]
        })
    }

    /// Standard normal values for `shape[0]` images: `self.image` and those after it, each drawn by its own key.
    pub fn normal_batch(&self, shape: &[usize]) -> Tensor {
        let images = shape[0];
        let len = shape[1..].iter().product();
        if let Some(gpu) = gpu() {
            return gpu.philox_normal(*self, images, len, shape);
        }
        let one = |image| Self { image, ..*self }.normal(len);
        let values = (0..images as u32)
            .flat_map(|i| one(self.image.wrapping_add(i)))
            .collect();
        Tensor::from_vec(values, shape)
    }

    /// Uniform values in `[0, 1)`.
    pub fn uniform(&self, len: usize) -> Vec<f32> {
        self.fill(len, |u| u.map(|u| (u >> 8) as f32 * UNIT))
    }

    fn fill(&self, len: usize, convert: impl Fn([u32; 4]) -> [f32; 4] + Sync) -> Vec<f32> {
        /// Blocks of one parallel task.
        const BLOCKS: usize = 1024;
        assert!(
            len.div_ceil(4) <= 1 << 32,
            "{len} values are more than one Philox stream holds"
        );
        let mut out = vec![0.0f32; len];
        out.par_chunks_mut(4 * BLOCKS).enumerate().for_each(|(task, part)| {
            for (i, values) in part.chunks_mut(4).enumerate() {
                let block = (task * BLOCKS + i) as u32;
                values.copy_from_slice(&convert(self.block(block))[..values.len()]);
            }
        });
        out
    }

    /// The four outputs of block `index`.
    fn block(&self, index: u32) -> [u32; 4] {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        philox_4x32_10([index, self.image, self.purpose, self.step], key)
    }
}

fn box_muller(u: u32, v: u32) -> (f32, f32) {
    let radius = (-2.0 * log_of_units((u >> 8) + 1)).sqrt();
    let (sin, cos) = sin_cos_of_units(v >> 8);
    ((radius * cos) as f32, (radius * sin) as f32)
}

/// `ln(k / 2^24)` for k in `1 ..= 2^24`: the exponent, and the series of artanh. crates/cuda's noise.cu does the same, step by step.
fn log_of_units(k: u32) -> f64 {
    let mut exponent = k.ilog2() as i32;
    let mut m = f64::from(k) / f64::from(1u32 << exponent);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let mut p = 1.0 / 19.0;
    for i in (0..9).rev() {
        p = p * z + 1.0 / f64::from(2 * i + 1);
    }
    f64::from(exponent - 24) * std::f64::consts::LN_2 + 2.0 * s * p
}

/// Sine and cosine of `2 π j / 2^24`: the nearest quarter turn, then their series within an eighth.
fn sin_cos_of_units(j: u32) -> (f64, f64) {
    /// `2 π / 2^24`
    const TURN: f64 = std::f64::consts::TAU / 16_777_216.0;
    let quarter = ((j + (1 << 21)) >> 22) as i32;
    let t = f64::from(j as i32 - (quarter << 22)) * TURN;
    let z = t * t;
    let (mut s, mut c) = (1.0, 1.0);
    for i in (1..=8).rev() {
        s = 1.0 - s * (z * (1.0 / f64::from(2 * i * (2 * i + 1))));
        c = 1.0 - c * (z * (1.0 / f64::from(2 * i * (2 * i - 1))));
    }
    s *= t;
    match quarter & 3 {
        0 => (s, c),
        1 => (c, -s),
        2 => (-s, -c),
        _ => (-c, s),
    }
}

fn philox_4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
    }
    counter
}

/// Words of mt19937's state.
const WORDS: usize = 624;

/// torch's CPU generator (mt19937), to the digit of `torch.randn` in f32.
///
/// Seeded with the low 32 bits of the seed. 16 or more values take the vectorised path (f32
/// Box-Muller over chunks of 16, the last 16 values drawn again when the count is not a
/// multiple), fewer the serial one (Box-Muller in f64, whose second value is kept for the next
/// call). Matches to about 1e-6: torch's vector sine and cosine differ in the last digit.
pub struct TorchCpuRng {
    state: [u32; WORDS],
    next: usize,
    /// Second value of the serial path's last pair.
    cached: Option<f64>,
}

impl TorchCpuRng {
    pub fn new(seed: u64) -> Self {
        let mut state = [0u32; WORDS];
        state[0] = seed as u32;
        for i in 1..WORDS {
            let before = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = before.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self {
            state,
            next: WORDS,
            cached: None,
        }
    }

    /// What `torch.randn(shape, generator=...)` gives next.
    pub fn randn(&mut self, shape: &[usize]) -> Tensor {
        let len = shape.iter().product();
        let values = if len >= 16 {
            self.normal_chunks(len)
        } else {
            (0..len).map(|_| self.normal_one()).collect()
        };
        Tensor::from_vec(values, shape)
    }

    fn normal_chunks(&mut self, len: usize) -> Vec<f32> {
        let mut data: Vec<f32> = (0..len).map(|_| self.uniform()).collect();
        data.chunks_exact_mut(16).for_each(box_muller_16);
        if !len.is_multiple_of(16) {
            let tail = &mut data[len - 16..];
            for v in tail.iter_mut() {
                *v = self.uniform();
            }
            box_muller_16(tail);
        }
        data
    }

    /// One value of torch's `normal_distribution<double>`.
    fn normal_one(&mut self) -> f32 {
        if let Some(value) = self.cached.take() {
            return value as f32;
        }
        let (u1, u2) = (self.uniform_f64(), self.uniform_f64());
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * u1).sin_cos();
        self.cached = Some(radius * sin);
        (radius * cos) as f32
    }

    fn uniform(&mut self) -> f32 {
        (self.next_u32() & 0x00FF_FFFF) as f32 * UNIT
    }

    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (self.next_u32(), self.next_u32());
        let bits = (u64::from(high) << 32 | u64::from(low)) & ((1 << 53) - 1);
        bits as f64 / (1u64 << 53) as f64
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == WORDS {
            self.refill();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    fn refill(&mut self) {
        const SHIFT: usize = 397;
        for i in 0..WORDS {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % WORDS] & 0x7FFF_FFFF);
            let twist = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % WORDS] ^ (y >> 1) ^ twist;
        }
        self.next = 0;
    }
}

/// Box-Muller in place over 16 uniforms: the first eight give radii, the last eight angles.
fn box_muller_16(data: &mut [f32]) {
    for j in 0..8 {
        let radius = (-2.0 * (1.0 - data[j]).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * data[j + 8]).sin_cos();
        data[j] = radius * cos;
        data[j + 8] = radius * sin;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_the_paper() {
        assert_eq!(
            philox_4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        let ones = philox_4x32_10([u32::MAX; 4], [u32::MAX; 2]);
        assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox_4x32_10(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
        );
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn the_series_of_box_muller_are_as_good_as_f64() {
        for k in (1..=1u32 << 24).step_by(997).chain([1, 2, 3, (1 << 24) - 1, 1 << 24]) {
            let want = (f64::from(k) / f64::from(1u32 << 24)).ln();
            assert!((log_of_units(k) - want).abs() <= 1e-15 * want.abs().max(1e-3), "{k}");
        }
        for j in (0..1u32 << 24).step_by(991).chain([0, 1 << 22, 1 << 23, (1 << 24) - 1]) {
            let (sin, cos) = (std::f64::consts::TAU * f64::from(j) / f64::from(1u32 << 24)).sin_cos();
            let (s, c) = sin_cos_of_units(j);
            assert!((s - sin).abs() < 1e-15 && (c - cos).abs() < 1e-15, "{j}");
        }
    }

    #[test]
    fn mt19937_gives_its_known_ten_thousandth_output() {
        let mut rng = TorchCpuRng::new(5489);
        let last = (0..10_000).map(|_| rng.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }
}
