//! Rules that choose sigmas: Karras, exponential, beta and their kin. The timesteps follow from them.

use crate::{
    class::{SigmaRules, Whole},
    config::{BetaSchedule, SchedulerConfig},
    error::{Error, Result},
    names::{SchedulerKind, TimestepSpacing},
    noise_schedule::NoiseSchedule,
    spacing,
};
use statrs::function::beta::inv_beta_reg;

/// The ten timesteps of Align Your Steps (diffusers' `AysSchedules`).
const AYS: [usize; 10] = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24];
const AYS_SDXL: [usize; 10] = [999, 845, 730, 587, 443, 310, 193, 116, 53, 13];

/// Timesteps and sigmas of `n` steps by `rule`, which must be one that `chooses_sigmas`. `requested`: the
/// rule was asked for by name and spans all of training's noise, as in the tools that the names come
/// from; what the config asks for spans what diffusers' class would.
pub(crate) fn levels(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    noise: &NoiseSchedule,
    rule: TimestepSpacing,
    requested: bool,
    n: usize,
) -> Result<(Vec<f64>, Vec<f64>)> {
    if kind.class().whole_timesteps == Whole::Always {
        return Err(Error::SpacingForClass {
            class: kind.class_name(),
            spacing: rule.as_str(),
        });
    }
    let timestep = |sigma: f64| whole(config, kind, rule, noise.timestep_of_sigma(sigma));
    if let Some(table) = match rule {
        TimestepSpacing::Ays => Some(AYS),
        TimestepSpacing::AysSdxl => Some(AYS_SDXL),
        _ => None,
    } {
        return align_your_steps(noise, &table, n, timestep);
    }
    let (low, high) = span(config, kind, noise, requested, n)?;
    let sigmas = choose(rule, low, high, n);
    Ok((sigmas.iter().copied().map(timestep).collect(), sigmas))
}

/// `n` sigmas from `high` to `low` by `rule`.
pub(crate) fn choose(rule: TimestepSpacing, low: f64, high: f64, n: usize) -> Vec<f64> {
    match rule {
        TimestepSpacing::Karras => karras(low, high, RHO, n),
        TimestepSpacing::Beta => beta(low, high, n),
        TimestepSpacing::KlOptimal => kl_optimal(low, high, n),
        // numpy takes the logarithms of its f32 table in f32.
        TimestepSpacing::Lu => even(f64::from(low.ln() as f32), f64::from(high.ln() as f32), n),
        _ => even(low.ln(), high.ln(), n),
    }
}

/// The smallest and the largest sigma.
fn span(
    config: &SchedulerConfig,
    kind: SchedulerKind,
    noise: &NoiseSchedule,
    requested: bool,
    n: usize,
) -> Result<(f64, f64)> {
    let class = kind.class();
    let sigmas = noise.sigmas();
    let mut span = (sigmas[0], sigmas[sigmas.len() - 1]);
    if class.sigma_rules == SigmaRules::OverSpacing && !requested {
        let base = spacing::timesteps(config, kind, config.timestep_spacing(kind), n)?;
        span = (noise.sigma_at(base[n - 1]), noise.sigma_at(base[0]));
    }
    if class.reads_sigma_ends {
        span = (config.sigma_min.unwrap_or(span.0), config.sigma_max.unwrap_or(span.1));
    }
    Ok(span)
}

/// diffusers' solvers know whole timesteps only: some rules' are rounded, others' cut off.
fn whole(config: &SchedulerConfig, kind: SchedulerKind, rule: TimestepSpacing, timestep: f64) -> f64 {
    let multistep = matches!(kind, SchedulerKind::DpmPlusPlus2M | SchedulerKind::DpmPlusPlus2MSde);
    let cosine = config.beta_schedule == Some(BetaSchedule::SquaredcosCapV2);
    let cut_off = matches!(rule, TimestepSpacing::Exponential | TimestepSpacing::Beta) || (multistep && cosine);
    match kind.class().whole_timesteps {
        Whole::OfKarras if rule == TimestepSpacing::Karras => timestep.round_ties_even(),
        Whole::FromSigmas if cut_off => timestep.trunc(),
        Whole::FromSigmas => timestep.round_ties_even(),
        Whole::Never | Whole::Always | Whole::OfKarras => timestep,
    }
}

fn ramp(i: usize, n: usize) -> f64 {
    if n == 1 { 0.0 } else { i as f64 / (n - 1) as f64 }
}

/// What Karras et al. recommend.
const RHO: f64 = 7.0;

pub(crate) fn karras(low: f64, high: f64, rho: f64, n: usize) -> Vec<f64> {
    let root = |s: f64| s.powf(1.0 / rho);
    (0..n)
        .map(|i| (root(high) + ramp(i, n) * (root(low) - root(high))).powf(rho))
        .collect()
}

/// Even steps between two logarithms, as numpy's linspace takes them.
fn even(low: f64, high: f64, n: usize) -> Vec<f64> {
    let step = (low - high) / (n.max(2) - 1) as f64;
    let log = |i: usize| {
        if i > 0 && i == n - 1 {
            low
        } else {
            high + i as f64 * step
        }
    };
    (0..n).map(|i| log(i).exp()).collect()
}

fn beta(low: f64, high: f64, n: usize) -> Vec<f64> {
    (0..n)
        .map(|i| low + inv_beta_reg(0.6, 0.6, 1.0 - ramp(i, n)) * (high - low))
        .collect()
}

/// A1111's: `n` of `n + 1` levels, of which the last is followed by none here.
fn kl_optimal(low: f64, high: f64, n: usize) -> Vec<f64> {
    let part = |i: usize| i as f64 / n as f64;
    (0..n)
        .map(|i| (part(i) * low.atan() + (1.0 - part(i)) * high.atan()).tan())
        .collect()
}

/// Ten steps are the table's. Others lie on the line through the logarithms of its sigmas and the
/// smallest, as the authors recommend.
fn align_your_steps(
    noise: &NoiseSchedule,
    table: &[usize; 10],
    n: usize,
    timestep: impl Fn(f64) -> f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let train = noise.num_train_timesteps();
    if train != 1000 {
        return Err(Error::BadField {
            field: "num_train_timesteps".into(),
            reason: "1000 expected by Align Your Steps".into(),
            value: train.to_string(),
        });
    }
    let sigmas = noise.sigmas();
    let level = |i: usize| sigmas[table.get(i).copied().unwrap_or(0)];
    Ok((0..n)
        .map(|i| {
            let (index, rest) = (i * 10 / n, (i * 10 % n) as f64 / n as f64);
            if rest == 0.0 {
                (table[index] as f64, level(index))
            } else {
                let sigma = ((1.0 - rest) * level(index).ln() + rest * level(index + 1).ln()).exp();
                (timestep(sigma), sigma)
            }
        })
        .unzip())
}
