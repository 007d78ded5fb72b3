//! Which training timesteps a run of `n` steps visits.

use crate::{
    class::Whole,
    config::SchedulerConfig,
    error::{Error, Result},
    names::{SchedulerKind, TimestepSpacing},
};

/// Descending timesteps of `n` steps, `1 <= n <= num_train_timesteps`. What `chooses_sigmas` is the business of `sigma_rules`.
pub(crate) fn timesteps(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    spacing: TimestepSpacing,
    n: usize,
) -> Result<Vec<f64>> {
    let train = config.num_train_timesteps();
    let offset = config.steps_offset.unwrap_or(0) as f64;
    let last = (train - 1) as f64;
    let class = kind.class();
    Ok(match spacing {
        TimestepSpacing::Linspace if class.drops_last_point => {
            let mut points = round_all(descending_linspace(last, n + 1));
            points.truncate(n);
            points
        }
        TimestepSpacing::Linspace if matches!(class.whole_timesteps, Whole::Never | Whole::OfKarras) => {
            descending_linspace(last, n)
                .into_iter()
                .map(|t| f64::from(t as f32))
                .collect()
        }
        TimestepSpacing::Linspace => round_all(descending_linspace(last, n)),
        TimestepSpacing::Leading if class.drops_last_point => {
            let ratio = train / (n + 1);
            (1..=n).rev().map(|i| (i * ratio) as f64 + offset).collect()
        }
        TimestepSpacing::Leading => (0..n).rev().map(|i| (i * (train / n)) as f64 + offset).collect(),
        TimestepSpacing::DdimUniform => (0..n).rev().map(|i| (i * (train / n) + 1) as f64).collect(),
        TimestepSpacing::Trailing => trailing(train, n),
        TimestepSpacing::SgmUniform => {
            let mut points = descending_linspace(last, n + 1);
            points.truncate(n);
            points
        }
        TimestepSpacing::Normal if n == 1 => vec![last],
        TimestepSpacing::Normal => descending_linspace(last, n),
        TimestepSpacing::Simple => (0..n).map(|i| (train - 1 - i * train / n) as f64).collect(),
        TimestepSpacing::Turbo if n > 10 => {
            return Err(Error::TooManySteps {
                steps: n,
                limit: 10,
                limit_name: "the turbo spacing",
            });
        }
        TimestepSpacing::Turbo => (0..n).map(|i| ((10 - i) * train / 10 - 1) as f64).collect(),
        TimestepSpacing::Lcm => lcm(train, config.original_inference_steps.unwrap_or(50), n)?,
        TimestepSpacing::Karras
        | TimestepSpacing::Exponential
        | TimestepSpacing::Beta
        | TimestepSpacing::Lu
        | TimestepSpacing::KlOptimal
        | TimestepSpacing::Ays
        | TimestepSpacing::AysSdxl
        | TimestepSpacing::Flow => {
            return Err(Error::SpacingForClass {
                class: kind.class_name(),
                spacing: spacing.as_str(),
            });
        }
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
