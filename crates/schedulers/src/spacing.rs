//! Which training timesteps a run of `n` steps visits.

use crate::{
    config::SchedulerConfig,
    error::{Error, Result},
    names::{SchedulerKind, canonical},
    noise_schedule::NoiseSchedule,
};
use std::{fmt, str::FromStr};

/// How timesteps are chosen. The first three are diffusers' `timestep_spacing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestepSpacing {
    /// From the last timestep down to timestep 0, both included.
    Linspace,
    /// Multiples of `T / n` plus `steps_offset`; never reaches pure noise.
    Leading,
    /// Ends at the last timestep, the noise the network was trained to start from.
    Trailing,
    /// ComfyUI's and A1111's `sgm_uniform`: `linspace(T - 1, 0, n + 1)` without its last point.
    SgmUniform,
    /// A1111's `uniform`, ComfyUI's `normal`: `linspace(T - 1, 0, n)`, sigmas interpolated in the logarithm.
    Normal,
    /// ComfyUI's and A1111's `simple`: every `T / n`-th timestep from the end.
    Simple,
    /// The first `n` of ten evenly spaced timesteps (999, 899, 799, ...), as in SDXL-Turbo's reference demo.
    Turbo,
    /// A subset of the distillation's `original_inference_steps` timesteps (LCM and TCD).
    Lcm,
    /// Karras et al. 2022, rho 7, between the config's smallest and largest sigma.
    Karras,
}

impl TimestepSpacing {
    pub const ALL: [Self; 9] = [
        Self::Linspace,
        Self::Leading,
        Self::Trailing,
        Self::SgmUniform,
        Self::Normal,
        Self::Simple,
        Self::Turbo,
        Self::Lcm,
        Self::Karras,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linspace => "linspace",
            Self::Leading => "leading",
            Self::Trailing => "trailing",
            Self::SgmUniform => "sgm_uniform",
            Self::Normal => "normal",
            Self::Simple => "simple",
            Self::Turbo => "turbo",
            Self::Lcm => "lcm",
            Self::Karras => "karras",
        }
    }

    /// As `from_str`, with A1111's "automatic" (the config decides) as `None`.
    pub fn from_a1111(name: &str) -> Result<Option<Self>> {
        if canonical(name) == "automatic" {
            Ok(None)
        } else {
            name.parse().map(Some)
        }
    }

    /// Whether sigmas between whole timesteps are interpolated in the logarithm, and the first noise
    /// is scaled by `sqrt(sigma^2 + 1)`: the habits of the tools these spacings come from.
    pub(crate) fn is_k_diffusion(self) -> bool {
        matches!(self, Self::SgmUniform | Self::Normal | Self::Simple | Self::Turbo)
    }
}

impl FromStr for TimestepSpacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match canonical(name).as_str() {
            "uniform" => Ok(Self::Normal),
            wanted => Self::ALL
                .into_iter()
                .find(|s| s.as_str() == wanted)
                .ok_or_else(|| Error::UnknownSpacing {
                    name: name.to_owned(),
                    known: Self::ALL.map(Self::as_str).join(", "),
                }),
        }
    }
}

impl fmt::Display for TimestepSpacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Descending timesteps of `n` steps, `1 <= n <= num_train_timesteps`; `Karras` is `karras_sigmas`' business.
pub(crate) fn timesteps(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    spacing: TimestepSpacing,
    n: usize,
) -> Result<Vec<f64>> {
    let train = config.num_train_timesteps();
    let offset = config.steps_offset.unwrap_or(0) as f64;
    let last = (train - 1) as f64;
    let refused = Error::SpacingForClass {
        class: kind.class_name(),
        spacing: spacing.as_str(),
    };
    Ok(match (spacing, kind) {
        // DPM-Solver takes n + 1 points and drops the one nearest to the image.
        (TimestepSpacing::Linspace, SchedulerKind::DpmPlusPlus2M) => {
            let mut points = round_all(descending_linspace(last, n + 1));
            points.truncate(n);
            points
        }
        (TimestepSpacing::Linspace, SchedulerKind::Euler | SchedulerKind::EulerAncestral) => {
            descending_linspace(last, n)
                .into_iter()
                .map(|t| f64::from(t as f32))
                .collect()
        }
        (TimestepSpacing::Linspace, _) => round_all(descending_linspace(last, n)),
        (TimestepSpacing::Leading, SchedulerKind::DpmPlusPlus2M) => {
            let ratio = train / (n + 1);
            (1..=n).rev().map(|i| (i * ratio) as f64 + offset).collect()
        }
        (TimestepSpacing::Leading, _) => (0..n).rev().map(|i| (i * (train / n)) as f64 + offset).collect(),
        (TimestepSpacing::Trailing, _) => trailing(train, n),
        (TimestepSpacing::SgmUniform, _) => {
            let mut points = descending_linspace(last, n + 1);
            points.truncate(n);
            points
        }
        (TimestepSpacing::Normal, _) if n == 1 => vec![last],
        (TimestepSpacing::Normal, _) => descending_linspace(last, n),
        (TimestepSpacing::Simple, _) => (0..n).map(|i| (train - 1 - i * train / n) as f64).collect(),
        (TimestepSpacing::Turbo, _) if n > 10 => {
            return Err(Error::TooManySteps {
                steps: n,
                limit: 10,
                limit_name: "the turbo spacing",
            });
        }
        (TimestepSpacing::Turbo, _) => (0..n).map(|i| ((10 - i) * train / 10 - 1) as f64).collect(),
        (TimestepSpacing::Lcm, _) => lcm(train, config.original_inference_steps.unwrap_or(50), n)?,
        (TimestepSpacing::Karras, _) => return Err(refused),
    })
}

/// numpy's `linspace(0, last, n)` from its end.
fn descending_linspace(last: f64, n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![0.0];
    }
    let step = last / (n - 1) as f64;
    (0..n)
        .rev()
        .map(|i| if i == n - 1 { last } else { i as f64 * step })
        .collect()
}

fn round_all(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(f64::round_ties_even).collect()
}

/// numpy's `round(arange(T, 0, -T / n)) - 1` with its rounding errors, but always `n` long: for a few
/// `n` (61 of the first hundred) the original's rounding errors add a step at timestep -1.
fn trailing(train: usize, n: usize) -> Vec<f64> {
    let start = train as f64;
    let delta = (start - start / n as f64) - start;
    (0..n)
        .map(|i| (start + i as f64 * delta).round_ties_even() - 1.0)
        .collect()
}

/// diffusers' LCM and TCD table: `n` of the distillation's `original` timesteps, evenly by index.
fn lcm(train: usize, original: usize, n: usize) -> Result<Vec<f64>> {
    if original == 0 || original > train {
        return Err(Error::BadField {
            field: "original_inference_steps".into(),
            reason: format!("1 to {train} (num_train_timesteps) expected"),
            value: original.to_string(),
        });
    }
    if n > original {
        return Err(Error::TooManySteps {
            steps: n,
            limit: original,
            limit_name: "original_inference_steps",
        });
    }
    let stride = train / original;
    let step = original as f64 / n as f64;
    Ok((0..n)
        .map(|i| ((original - (i as f64 * step).floor() as usize) * stride - 1) as f64)
        .collect())
}

/// Karras sigmas and their timesteps. diffusers' Euler spans the sigmas its `timestep_spacing` would
/// have used, its DPM-Solver all of training's, with timesteps rounded.
pub(crate) fn karras(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    noise: &NoiseSchedule,
    n: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let sigmas = noise.sigmas();
    let (mut low, mut high) = (sigmas[0], sigmas[sigmas.len() - 1]);
    match kind {
        SchedulerKind::Euler => {
            let spacing = config.timestep_spacing.map_or(TimestepSpacing::Linspace, Into::into);
            let base = timesteps(config, kind, spacing, n)?;
            high = config.sigma_max.unwrap_or_else(|| noise.sigma_at(base[0]));
            low = config.sigma_min.unwrap_or_else(|| noise.sigma_at(base[n - 1]));
        }
        SchedulerKind::EulerAncestral | SchedulerKind::DpmPlusPlus2M => {}
        SchedulerKind::Ddim | SchedulerKind::Lcm | SchedulerKind::Tcd => {
            return Err(Error::SpacingForClass {
                class: kind.class_name(),
                spacing: "karras",
            });
        }
    }
    let root = |s: f64| s.powf(1.0 / 7.0);
    let ramp = |i: usize| if n == 1 { 0.0 } else { i as f64 / (n - 1) as f64 };
    let sigmas: Vec<f64> = (0..n)
        .map(|i| (root(high) + ramp(i) * (root(low) - root(high))).powi(7))
        .collect();
    let cosine = config.beta_schedule == Some(crate::noise_schedule::BetaSchedule::SquaredcosCapV2);
    let rounded = kind == SchedulerKind::DpmPlusPlus2M && !cosine;
    let timestep = |&s: &f64| {
        let t = noise.timestep_of_sigma(s);
        if rounded { t.round_ties_even() } else { t }
    };
    Ok((sigmas.iter().map(timestep).collect(), sigmas))
}
