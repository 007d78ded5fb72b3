//! What the network predicts, and the straight lines from (sample, model_output) to x0 and epsilon.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// `sample * self.0 + model_output * self.1`.
pub(crate) type Linear = (f64, f64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise.
    Epsilon,
    /// `alpha * noise - sigma * x0`.
    VPrediction,
    /// The denoised image itself.
    #[serde(alias = "original_sample")]
    Sample,
    /// `noise - x0`, the velocity of flow matching.
    FlowPrediction,
}

impl PredictionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::VPrediction => "v_prediction",
            Self::Sample => "sample",
            Self::FlowPrediction => "flow_prediction",
        }
    }

    /// x0 where the sample is `x0 + sigma * noise` (the Euler family).
    pub(crate) fn denoised_ve(self, sigma: f64) -> Linear {
        match self {
            Self::Epsilon => (1.0, -sigma),
            Self::VPrediction => {
                let variance = sigma * sigma + 1.0;
                (1.0 / variance, -sigma / variance.sqrt())
            }
            Self::Sample => (0.0, 1.0),
            Self::FlowPrediction => (1.0 / (1.0 + sigma), -sigma / (1.0 + sigma)),
        }
    }

    /// What a network of this type is trained to predict: `x0 * .0 + noise * .1`, where the sample is
    /// `alpha * x0 + sigma * noise`.
    pub fn target(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (0.0, 1.0),
            Self::VPrediction => (-sigma, alpha),
            Self::Sample => (1.0, 0.0),
            Self::FlowPrediction => (-1.0, 1.0),
        }
    }

    /// x0 as `sample * .0 + model_output * .1`, where the sample is `alpha * x0 + sigma * noise` with
    /// `alpha^2 + sigma^2 = 1`, or `alpha + sigma = 1` for flow matching.
    pub fn denoised_vp(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (1.0 / alpha, -sigma / alpha),
            Self::VPrediction => (alpha, -sigma),
            Self::Sample => (0.0, 1.0),
            Self::FlowPrediction => (1.0, -sigma),
        }
    }

    /// The noise, in the same way.
    pub fn epsilon_vp(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Self::Epsilon => (0.0, 1.0),
            Self::VPrediction => (sigma, alpha),
            Self::Sample => (1.0 / sigma, -alpha / sigma),
            Self::FlowPrediction => (1.0, alpha),
        }
    }
}

impl FromStr for PredictionType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "epsilon" => Ok(Self::Epsilon),
            "v_prediction" => Ok(Self::VPrediction),
            "sample" | "original_sample" => Ok(Self::Sample),
            "flow_prediction" => Ok(Self::FlowPrediction),
            _ => Err(Error::UnknownPredictionType { name: name.to_owned() }),
        }
    }
}

/// `a * x + b * y` for two lines.
pub(crate) fn combine(a: f64, x: Linear, b: f64, y: Linear) -> Linear {
    (a * x.0 + b * y.0, a * x.1 + b * y.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_what_a_network_is_trained_on_comes_the_picture_and_the_noise() {
        for (prediction, alpha, sigma) in [
            (PredictionType::Epsilon, 0.6, 0.8),
            (PredictionType::VPrediction, 0.6, 0.8),
            (PredictionType::Sample, 0.6, 0.8),
            (PredictionType::FlowPrediction, 0.3, 0.7),
        ] {
            let (x0, noise) = (0.3, -1.7);
            let sample = alpha * x0 + sigma * noise;
            let target = prediction.target(alpha, sigma);
            let output = x0 * target.0 + noise * target.1;
            let line = |(a, b): Linear| sample * a + output * b;
            assert!(
                (line(prediction.denoised_vp(alpha, sigma)) - x0).abs() < 1e-12,
                "{prediction:?}"
            );
            assert!(
                (line(prediction.epsilon_vp(alpha, sigma)) - noise).abs() < 1e-12,
                "{prediction:?}"
            );
        }
    }
}
