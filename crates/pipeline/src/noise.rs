//! Where a picture's randomness comes from.

use prima_tensor::{Philox, Tensor, TorchCpuRng, nchw_to_nhwc};
use std::str::FromStr;

/// Which generator turns a seed into noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rng {
    /// Keyed by (seed, image index, purpose, step): the same picture whatever the batch, the thread
    /// count or the device.
    #[default]
    Philox,
    /// torch's CPU generator: the picture that diffusers paints for
    /// `generator=torch.Generator("cpu").manual_seed(seed)`.
    TorchCpu,
}

impl Rng {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Philox => "philox",
            Self::TorchCpu => "torch-cpu",
        }
    }
}

impl FromStr for Rng {
    type Err = crate::Error;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "philox" => Ok(Self::Philox),
            "torch-cpu" => Ok(Self::TorchCpu),
            _ => Err(crate::Error::request("rng", name, "use philox or torch-cpu")),
        }
    }
}

/// What a draw is for; part of Philox's key.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The latents that sampling starts from.
    Latents = 0,
    /// The noise an ancestral or consistency step adds.
    Step = 1,
    /// The draw from the encoder's distribution of an initial picture.
    Encode = 2,
    /// What stands for the part of an initial picture that is masked.
    Fill = 3,
}

/// The noise of one request. With `TorchCpu` the order of the draws is part of the picture: it is
/// that of diffusers' pipelines.
pub(crate) enum NoiseSource {
    Philox { seed: u64 },
    TorchCpu(Box<TorchCpuRng>),
}

impl NoiseSource {
    pub fn new(rng: Rng, seed: u64) -> Self {
        match rng {
            Rng::Philox => Self::Philox { seed },
            Rng::TorchCpu => Self::TorchCpu(Box::new(TorchCpuRng::new(seed))),
        }
    }

    /// Standard normal values `[images, height, width, channels]`, drawn as diffusers draws them:
    /// in the order of `[images, channels, height, width]`.
    pub fn normal(&mut self, purpose: Purpose, step: usize, [n, h, w, c]: [usize; 4]) -> Tensor {
        let nchw = match self {
            Self::TorchCpu(rng) => rng.randn(&[n, c, h, w]),
            Self::Philox { seed } => {
                let first = Philox {
                    seed: *seed,
                    image: 0,
                    purpose: purpose as u32,
                    step: step as u32,
                };
                first.normal_batch(&[n, c, h, w])
            }
        };
        nchw_to_nhwc(&nchw)
    }
}
