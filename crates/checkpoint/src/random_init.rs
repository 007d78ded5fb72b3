//! Parameters that start at random: what training begins with, and what speed tests use.

use crate::{Error, Init, ParamSource};
use prima_tensor::{Param, Tensor};

/// A [`ParamSource`] of random parameters. A parameter's values depend on the seed and its key
/// only, so that adding a layer leaves the others as they were.
pub struct RandomInit {
    seed: u64,
    params: Vec<(String, Param)>,
}

impl RandomInit {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            params: Vec::new(),
        }
    }

    /// Everything asked for so far, in order.
    pub fn params(&self) -> &[(String, Param)] {
        &self.params
    }

    pub fn into_params(self) -> Vec<(String, Param)> {
        self.params
    }
}

impl ParamSource for RandomInit {
    fn param(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Param, Error> {
        let len: usize = shape.iter().product();
        let stream = Stream {
            key: mix(self.seed ^ fnv1a(key)),
        };
        let data = match init {
            Init::Zeros => vec![0.0; len],
            Init::Ones => vec![1.0; len],
            Init::Normal(std) => (0..len as u64).map(|i| std * stream.normal(i)).collect(),
            Init::FanIn(fan_in) => {
                let bound = 1.0 / (fan_in.max(1) as f32).sqrt();
                (0..len as u64)
                    .map(|i| bound * (2.0 * stream.uniform(i) as f32 - 1.0))
                    .collect()
            }
        };
        let param = Param::new(Tensor::from_vec(data, shape));
        self.params.push((key.to_owned(), param.clone()));
        Ok(param)
    }
}

/// Value `i` of a stream is a hash of `i` and the stream's key: no state, no order.
struct Stream {
    key: u64,
}

impl Stream {
    /// Uniform in (0, 1), 53 bits.
    fn uniform(&self, i: u64) -> f64 {
        let bits = mix(self.key.wrapping_add(i.wrapping_mul(GOLDEN_GAMMA))) >> 11;
        (bits as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal: Box and Muller's transform of uniforms 2i and 2i+1.
    fn normal(&self, i: u64) -> f32 {
        let radius = (-2.0 * self.uniform(2 * i).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.uniform(2 * i + 1)).cos()) as f32
    }
}

/// The odd constant that SplitMix64 counts by.
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// SplitMix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits: stable across versions and platforms, as std's hasher is not.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}
