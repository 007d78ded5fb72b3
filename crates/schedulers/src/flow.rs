//! The noise levels of flow matching: `sample = (1 - sigma) * x0 + sigma * noise`, with sigma from 1 to 0
//! and moved towards noise by `shift`.

use crate::{
    config::SchedulerConfig,
    error::{Error, Result},
    names::{SchedulerKind, TimestepSpacing},
    noise_schedule::NoiseSchedule,
    sigma_rules,
};

/// Timesteps and sigmas of `n` steps, before the final one. Explicit timesteps are sigmas times
/// `num_train_timesteps`, for `FlowMatchEulerDiscreteScheduler` before the shift.
pub(crate) fn levels(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    noise: &NoiseSchedule,
    rule: TimestepSpacing,
    explicit: Option<&[f64]>,
    n: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let refused = Error::SpacingForClass {
        class: kind.class_name(),
        spacing: rule.as_str(),
    };
    let train = config.num_train_timesteps() as f64;
    if kind != SchedulerKind::FlowMatchEuler {
        if rule != TimestepSpacing::Flow {
            return Err(refused);
        }
        return Ok(solver_levels(config, kind, explicit, train, n));
    }
    let shift = config.shift.unwrap_or(1.0);
    let ends = noise.sigmas();
    // The ends have been shifted already; diffusers does it again.
    let (first, last) = (ends[ends.len() - 1] * train, ends[0] * train);
    let step = (last - first) / (n.max(2) - 1) as f64;
    let even = (0..n).map(|i| first + i as f64 * step).collect();
    let times = explicit.map_or(even, <[f64]>::to_vec);
    let mut sigmas: Vec<f64> = times.iter().map(|t| shifted(shift, t / train)).collect();
    match rule {
        TimestepSpacing::Flow => {}
        TimestepSpacing::Karras | TimestepSpacing::Exponential | TimestepSpacing::Beta => {
            sigmas = sigma_rules::choose(rule, sigmas[n - 1], sigmas[0], n);
        }
        _ => return Err(refused),
    }
    let timesteps = match explicit {
        Some(timesteps) => timesteps.to_vec(),
        None => sigmas.iter().map(|s| f64::from(*s as f32 * train as f32)).collect(),
    };
    Ok((timesteps, sigmas))
}

/// What `use_flow_sigmas` makes of DPM++'s classes and UniPC. They know whole timesteps only.
fn solver_levels(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    explicit: Option<&[f64]>,
    train: f64,
    n: usize,
) -> (Vec<f64>, Vec<f64>) {
    if let Some(timesteps) = explicit {
        return (timesteps.to_vec(), timesteps.iter().map(|t| t / train).collect());
    }
    let shift = config.flow_shift.unwrap_or(1.0);
    // With numpy's rounding errors, which decide what is cut off below.
    let alpha = |i: usize| {
        if i == n {
            1.0 / train
        } else {
            i as f64 * ((1.0 / train - 1.0) / n as f64) + 1.0
        }
    };
    let mut sigmas: Vec<f64> = (1..=n).rev().map(|i| shifted(shift, 1.0 - alpha(i))).collect();
    if kind == SchedulerKind::UniPc {
        sigmas = (0..n).map(|i| shifted(shift, alpha(i))).collect();
        // diffusers keeps lambda finite.
        sigmas[0] -= 1e-6;
    }
    (sigmas.iter().map(|s| (s * train).trunc()).collect(), sigmas)
}

/// Esser et al. 2024, equation 23.
pub(crate) fn shifted(shift: f64, sigma: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}
