//! Where a network's parameters come from: a file, or random initialisation.

use prima_tensor::Param;

/// How a parameter starts when it is not read from a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform in ±sqrt(1/fan_in), torch's default for Linear and Conv2d; `fan_in` is the
    /// product of all axes but the first (for a bias the caller gives the weight's fan_in).
    FanIn(usize),
}

/// A source of named parameters. Implemented by `Reader` (files) and `RandomInit` (training).
pub trait ParamSource {
    /// The parameter `key`, which must have `shape` (file layout). Errors name file, key,
    /// expected shape and found shape.
    fn param(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Param, crate::Error>;
}
