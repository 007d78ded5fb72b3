//! Noise as EDM has it (Karras et al. 2022, table 1): the sample is `x0 + sigma * noise` with sigmas between two ends, and the
//! network is told a quarter of their logarithm. Playground 2.5 and CosXL were trained so (`EDMEulerScheduler`,
//! `EDMDPMSolverMultistepScheduler`).

use crate::{
    class::{Flow, Whole},
    config::SchedulerConfig,
    error::{Error, Result},
    names::{SchedulerKind, TimestepSpacing},
    noise_schedule::NoiseSchedule,
    prediction::{Linear, PredictionType},
    sigma_rules, spacing,
};

impl SchedulerConfig {
    /// Whether the model was trained on EDM's noise, whichever class takes the steps.
    pub fn is_edm(&self) -> bool {
        let class = self.class_name.as_deref().unwrap_or_default();
        class.starts_with("EDM") || self.sigma_data.is_some()
    }

    /// How its own classes choose sigmas.
    pub(crate) fn edm_spacing(&self) -> TimestepSpacing {
        match self.sigma_schedule.as_deref() {
            Some("exponential") => TimestepSpacing::Exponential,
            _ => TimestepSpacing::Karras,
        }
    }
}

/// Refuses what has no meaning with this noise.
pub(crate) fn check(kind: SchedulerKind, prediction: PredictionType) -> Result<()> {
    let class = kind.class();
    let fix = match prediction {
        PredictionType::Epsilon | PredictionType::VPrediction => "use euler, heun or dpm++_2m",
        _ => "its models predict epsilon or v",
    };
    let by_table = class.whole_timesteps == Whole::Always || class.flow == Flow::Always;
    let predicts = matches!(prediction, PredictionType::Epsilon | PredictionType::VPrediction);
    if by_table || !predicts {
        return Err(Error::PredictionForClass {
            class: kind.class_name(),
            prediction: "EDM noise",
            fix,
        });
    }
    Ok(())
}

/// Timesteps and sigmas of `n` steps. Rules that choose timesteps choose them of a table whose sigmas are even in their
/// logarithm, as ComfyUI does.
pub(crate) fn levels(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    noise: &NoiseSchedule,
    rule: TimestepSpacing,
    n: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let table = noise.sigmas();
    let (low, high) = (table[0], table[table.len() - 1]);
    let sigmas = match rule {
        TimestepSpacing::Karras => sigma_rules::karras(low, high, config.rho.unwrap_or(7.0), n),
        TimestepSpacing::Exponential | TimestepSpacing::Beta | TimestepSpacing::KlOptimal => {
            sigma_rules::choose(rule, low, high, n)
        }
        rule if rule.chooses_sigmas() => {
            return Err(Error::SpacingForClass {
                class: kind.class_name(),
                spacing: rule.as_str(),
            });
        }
        rule => {
            let timesteps = spacing::timesteps(config, kind, rule, n)?;
            timesteps.into_iter().map(|t| noise.sigma_at_log(t)).collect()
        }
    };
    Ok((sigmas.iter().copied().map(timestep).collect(), sigmas))
}

/// What the network is told (`c_noise`).
pub(crate) fn timestep(sigma: f64) -> f64 {
    0.25 * sigma.ln()
}

/// x0 from the sample and the network's output (`c_skip`, `c_out`).
pub(crate) fn denoised(prediction: PredictionType, sigma_data: f64, sigma: f64) -> Linear {
    let variance = sigma * sigma + sigma_data * sigma_data;
    let out = sigma * sigma_data / variance.sqrt();
    let sign = if prediction == PredictionType::VPrediction {
        -1.0
    } else {
        1.0
    };
    (sigma_data * sigma_data / variance, sign * out)
}
