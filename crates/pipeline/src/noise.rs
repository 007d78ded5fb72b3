//! Where a picture's randomness comes from.

use crate::Blend;
use crate::blend::spherical;
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
pub(crate) struct NoiseSource {
    own: Generator,
    /// What the latents' noise is on its way to, and how far.
    toward: Option<(Generator, f64)>,
}

enum Generator {
    Philox { seed: u64 },
    TorchCpu(Box<TorchCpuRng>),
}

impl Generator {
    fn new(rng: Rng, seed: u64) -> Self {
        match rng {
            Rng::Philox => Self::Philox { seed },
            Rng::TorchCpu => Self::TorchCpu(Box::new(TorchCpuRng::new(seed))),
        }
    }

    /// Standard normal values in diffusers' order.
    fn normal(&mut self, purpose: Purpose, step: usize, shape: &[usize; 4]) -> Tensor {
        match self {
            Self::TorchCpu(rng) => rng.randn(shape),
            Self::Philox { seed } => {
                let first = Philox {
                    seed: *seed,
                    image: 0,
                    purpose: purpose as u32,
                    step: step as u32,
                };
                first.normal_batch(shape)
            }
        }
    }
}

impl NoiseSource {
    pub fn new(rng: Rng, seed: u64, blend: Option<&Blend>) -> Self {
        let toward = blend.and_then(|blend| Some((Generator::new(rng, blend.seed?), blend.share)));
        Self {
            own: Generator::new(rng, seed),
            toward,
        }
    }

    /// Standard normal values `[images, height, width, channels]`, drawn as diffusers draws them:
    /// in the order of `[images, channels, height, width]`.
    pub fn normal(&mut self, purpose: Purpose, step: usize, [n, h, w, c]: [usize; 4]) -> Tensor {
        let mut nchw = self.own.normal(purpose, step, &[n, c, h, w]);
        if let (Purpose::Latents, Some((other, share))) = (purpose, &mut self.toward) {
            nchw = spherical(&nchw, &other.normal(purpose, step, &[n, c, h, w]), *share);
        }
        nchw_to_nhwc(&nchw)
    }
}
