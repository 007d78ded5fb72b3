//! Betas, alphas_cumprod and sigmas of the training process.
//!
//! diffusers holds these in f32. Near timestep 0 the difference `1 - alphas_cumprod` keeps only
//! four of f32's seven digits, so the tables are rounded at the same places as there; everything
//! after them is f64.

use crate::{
    class::Flow,
    config::{BetaSchedule, SchedulerConfig},
    error::{Error, Result},
    names::SchedulerKind,
};

/// The noise process of training: one entry a training timestep.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f64>,
    sigmas: Vec<f64>,
    /// `sample = (1 - sigma) * x0 + sigma * noise`.
    is_flow: bool,
    /// Deviation of the data, of EDM's noise.
    sigma_data: Option<f64>,
}

impl NoiseSchedule {
    /// The schedule of `config`, with the defaults of `kind`'s class for absent fields.
    pub fn new(config: &SchedulerConfig, kind: SchedulerKind) -> Result<Self> {
        let class = kind.class();
        if class.flow == Flow::Always {
            return Self::flow(config);
        }
        if config.is_edm() {
            return Self::edm(config);
        }
        let rescale = config.rescale_betas_zero_snr == Some(true) && class.reads_rescale_betas_zero_snr;
        let mut betas = betas(config, class.betas)?;
        if rescale {
            betas = rescale_zero_terminal_snr(&betas);
        }
        let mut alphas_cumprod = cumprod(&betas);
        if rescale
            && class.keeps_sigmas_finite
            && let Some(last) = alphas_cumprod.last_mut()
        {
            *last = 1.0 / 16_777_216.0;
        }
        let sigmas = alphas_cumprod
            .iter()
            .map(|&a| f64::from(((1.0 - a) / a).sqrt()))
            .collect();
        Ok(Self {
            alphas_cumprod: alphas_cumprod.into_iter().map(f64::from).collect(),
            sigmas,
            is_flow: false,
            sigma_data: None,
        })
    }

    /// EDM's: sigmas that are even in their logarithm.
    fn edm(config: &SchedulerConfig) -> Result<Self> {
        let (low, high) = (config.sigma_min.unwrap_or(0.002), config.sigma_max.unwrap_or(80.0));
        if !(low > 0.0 && low < high) {
            return Err(Error::BadField {
                field: "sigma_min, sigma_max".into(),
                reason: "0 < sigma_min < sigma_max expected".into(),
                value: format!("{low}, {high}"),
            });
        }
        let n = checked_num_train_timesteps(config)?;
        let sigma = |t: usize| match t {
            0 => low,
            t if t == n - 1 => high,
            t => (low.ln() + (high / low).ln() * t as f64 / (n - 1) as f64).exp(),
        };
        let sigmas: Vec<f64> = (0..n).map(sigma).collect();
        Ok(Self {
            alphas_cumprod: sigmas.iter().map(|s| 1.0 / (1.0 + s * s)).collect(),
            sigmas,
            is_flow: false,
            sigma_data: Some(config.sigma_data.unwrap_or(0.5)),
        })
    }

    /// Flow matching's: timestep `t` is sigma `(t + 1) / num_train_timesteps`, shifted.
    fn flow(config: &SchedulerConfig) -> Result<Self> {
        let shift = config.shift.unwrap_or(1.0);
        if !(shift > 0.0 && shift.is_finite()) {
            return Err(Error::BadField {
                field: "shift".into(),
                reason: "a number above 0 expected".into(),
                value: shift.to_string(),
            });
        }
        let n = checked_num_train_timesteps(config)?;
        let sigma = |t: usize| shifted(shift, (t + 1) as f64 / n as f64);
        let sigmas: Vec<f64> = (0..n).map(|t| f64::from(sigma(t) as f32)).collect();
        Ok(Self {
            alphas_cumprod: sigmas.iter().map(|s| (1.0 - s) * (1.0 - s)).collect(),
            sigmas,
            is_flow: true,
            sigma_data: None,
        })
    }

    /// The same process in f64 throughout, without the roundings of diffusers' tables: what training adds noise by. With
    /// `rescale_betas_zero_snr` it really ends at no signal, whatever the class. Absent fields are those of the class that
    /// `config` names, or of `EulerDiscreteScheduler`.
    pub fn exact(config: &SchedulerConfig) -> Result<Self> {
        let kind = match config.class_name {
            Some(_) => config.kind()?,
            None => SchedulerKind::Euler,
        };
        let class = kind.class();
        if class.flow == Flow::Always || config.use_flow_sigmas == Some(true) {
            return Self::flow(config);
        }
        if config.is_edm() {
            return Self::edm(config);
        }
        let mut product = 1.0;
        let mut roots: Vec<f64> = exact_betas(config, class.betas)?
            .into_iter()
            .map(|beta| {
                product *= 1.0 - beta;
                f64::sqrt(product)
            })
            .collect();
        if config.rescale_betas_zero_snr == Some(true) {
            let (first, last) = (roots[0], roots[roots.len() - 1]);
            for root in &mut roots {
                *root = (*root - last) * first / (first - last);
            }
        }
        let alphas_cumprod: Vec<f64> = roots.iter().map(|root| root * root).collect();
        let sigmas = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        Ok(Self {
            alphas_cumprod,
            sigmas,
            is_flow: false,
            sigma_data: None,
        })
    }

    pub fn num_train_timesteps(&self) -> usize {
        self.sigmas.len()
    }

    /// Whether it is flow matching's, `sample = (1 - sigma) * x0 + sigma * noise`.
    pub fn is_flow(&self) -> bool {
        self.is_flow
    }

    /// Deviation of the data, if the noise is EDM's.
    pub fn sigma_data(&self) -> Option<f64> {
        self.sigma_data
    }

    /// Signal power by training timestep.
    pub fn alphas_cumprod(&self) -> &[f64] {
        &self.alphas_cumprod
    }

    /// `sqrt((1 - alphas_cumprod) / alphas_cumprod)` by training timestep; flow matching's own sigma.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// `(alpha, sigma)` at a whole timestep, where `sample = alpha * x0 + sigma * noise`: of the
    /// variance-preserving process, or of flow matching's.
    pub fn alpha_sigma(&self, timestep: usize) -> (f64, f64) {
        if self.is_flow {
            let sigma = self.sigmas[timestep];
            return (1.0 - sigma, sigma);
        }
        let a = self.alphas_cumprod[timestep];
        (a.sqrt(), (1.0 - a).sqrt())
    }

    /// Sigma at a possibly fractional timestep, interpolated linearly (diffusers) and clamped to the ends.
    pub fn sigma_at(&self, timestep: f64) -> f64 {
        self.interpolate(timestep, |s| s)
    }

    /// Sigma at a possibly fractional timestep, interpolated in its logarithm (k-diffusion, ComfyUI).
    pub fn sigma_at_log(&self, timestep: f64) -> f64 {
        self.interpolate(timestep, f64::ln).exp()
    }

    fn interpolate(&self, timestep: f64, f: impl Fn(f64) -> f64) -> f64 {
        let last = self.sigmas.len() - 1;
        let t = timestep.clamp(0.0, last as f64);
        let low = t.floor() as usize;
        let (a, b) = (f(self.sigmas[low]), f(self.sigmas[(low + 1).min(last)]));
        (b - a) * (t - low as f64) + a
    }

    /// The fractional timestep whose log sigma is that of `sigma` (diffusers' `_sigma_to_t`).
    pub fn timestep_of_sigma(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.max(1e-10).ln();
        // numpy takes the logarithms of its f32 table in f32.
        let log_at = |i: usize| f64::from(self.sigmas[i].ln() as f32);
        let above = self.sigmas.partition_point(|&s| f64::from(s.ln() as f32) <= log_sigma);
        let low = above.saturating_sub(1).min(self.sigmas.len() - 2);
        let w = ((log_at(low) - log_sigma) / (log_at(low) - log_at(low + 1))).clamp(0.0, 1.0);
        (1.0 - w) * low as f64 + w * (low + 1) as f64
    }
}

/// `defaults`: start, end and schedule.
fn betas(config: &SchedulerConfig, defaults: (f64, f64, BetaSchedule)) -> Result<Vec<f32>> {
    let n = checked_num_train_timesteps(config)?;
    if let Some(trained) = &config.trained_betas {
        if trained.len() != n {
            return Err(Error::BadField {
                field: "trained_betas".into(),
                reason: format!("{n} numbers (num_train_timesteps) expected"),
                value: trained.len().to_string(),
            });
        }
        if let Some(beta) = trained.iter().find(|&&b| !(b > 0.0 && b < 1.0)) {
            return Err(Error::BadField {
                field: "trained_betas".into(),
                reason: "numbers between 0 and 1 expected".into(),
                value: beta.to_string(),
            });
        }
        return Ok(trained.clone());
    }
    let (start, end, schedule) = beta_range(config, defaults)?;
    Ok(match schedule {
        BetaSchedule::Linear => linspace_f32(start, end, n),
        BetaSchedule::ScaledLinear => linspace_f32(start.sqrt(), end.sqrt(), n)
            .into_iter()
            .map(|b| b * b)
            .collect(),
        BetaSchedule::SquaredcosCapV2 => squaredcos_cap_v2(n).map(|beta| beta as f32).collect(),
    })
}

/// The betas before any rounding, where they are not given one by one.
fn exact_betas(config: &SchedulerConfig, defaults: (f64, f64, BetaSchedule)) -> Result<Vec<f64>> {
    let rounded = betas(config, defaults)?;
    if config.trained_betas.is_some() {
        return Ok(rounded.into_iter().map(f64::from).collect());
    }
    let (start, end, schedule) = beta_range(config, defaults)?;
    let n = rounded.len();
    let linspace = |start: f64, end: f64| (0..n).map(move |i| start + (end - start) * i as f64 / (n - 1) as f64);
    Ok(match schedule {
        BetaSchedule::Linear => linspace(start, end).collect(),
        BetaSchedule::ScaledLinear => linspace(start.sqrt(), end.sqrt()).map(|b| b.powi(2)).collect(),
        BetaSchedule::SquaredcosCapV2 => squaredcos_cap_v2(n).collect(),
    })
}

/// `beta_start`, `beta_end` and how to go from one to the other.
fn beta_range(config: &SchedulerConfig, defaults: (f64, f64, BetaSchedule)) -> Result<(f64, f64, BetaSchedule)> {
    let (start, end, schedule) = defaults;
    let start = config.beta_start.unwrap_or(start);
    let end = config.beta_end.unwrap_or(end);
    if !(start > 0.0 && start <= end && end < 1.0) {
        return Err(Error::BadField {
            field: "beta_start, beta_end".into(),
            reason: "0 < beta_start <= beta_end < 1 expected".into(),
            value: format!("{start}, {end}"),
        });
    }
    Ok((start, end, config.beta_schedule.unwrap_or(schedule)))
}

fn checked_num_train_timesteps(config: &SchedulerConfig) -> Result<usize> {
    match config.num_train_timesteps() {
        n if n >= 2 => Ok(n),
        n => Err(Error::BadField {
            field: "num_train_timesteps".into(),
            reason: "at least 2 expected".into(),
            value: n.to_string(),
        }),
    }
}

/// Flow matching's sigma moved towards noise, Esser et al. 2024, equation 23.
pub(crate) fn shifted(shift: f64, sigma: f64) -> f64 {
    shift * sigma / (1.0 + (shift - 1.0) * sigma)
}

/// torch's f32 linspace: from both ends towards the middle, each value rounded once.
fn linspace_f32(start: f64, end: f64, n: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (n - 1) as f32;
    let value = |i: usize| {
        if i < n / 2 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((n - 1 - i) as f32, end)
        }
    };
    (0..n).map(value).collect()
}

fn squaredcos_cap_v2(n: usize) -> impl Iterator<Item = f64> {
    let alpha_bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
    let beta = move |i: usize| 1.0 - alpha_bar((i + 1) as f64 / n as f64) / alpha_bar(i as f64 / n as f64);
    (0..n).map(move |i| beta(i).min(0.999))
}

/// `cumprod(1 - betas)`: torch accumulates in f64 and stores f32.
fn cumprod(betas: &[f32]) -> Vec<f32> {
    let product = |acc: &mut f64, beta: &f32| {
        *acc *= f64::from(1.0 - beta);
        Some(*acc as f32)
    };
    betas.iter().scan(1.0, product).collect()
}

/// Shifts and scales sqrt(alphas_cumprod) so that it ends at 0 and begins where it did
/// (Lin et al. 2023, "Common Diffusion Noise Schedules and Sample Steps are Flawed", algorithm 1).
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let root: Vec<f32> = cumprod(betas).into_iter().map(f32::sqrt).collect();
    let (first, last) = (root[0], root[root.len() - 1]);
    let scale = first / (first - last);
    let bar: Vec<f32> = root.iter().map(|r| ((r - last) * scale).powi(2)).collect();
    std::iter::once(1.0 - bar[0])
        .chain(bar.windows(2).map(|w| 1.0 - w[1] / w[0]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_process_is_diffusers_but_for_its_roundings() {
        for beta_schedule in [
            BetaSchedule::Linear,
            BetaSchedule::ScaledLinear,
            BetaSchedule::SquaredcosCapV2,
        ] {
            for zero_snr in [false, true] {
                let config = SchedulerConfig {
                    beta_schedule: Some(beta_schedule),
                    rescale_betas_zero_snr: Some(zero_snr),
                    ..SchedulerConfig::of(SchedulerKind::Ddim)
                };
                let exact = NoiseSchedule::exact(&config).unwrap();
                let rounded = NoiseSchedule::new(&config, SchedulerKind::Ddim).unwrap();
                for (a, b) in exact.alphas_cumprod().iter().zip(rounded.alphas_cumprod()) {
                    assert!(
                        (a - b).abs() < 2e-6,
                        "{beta_schedule:?}, zero SNR {zero_snr}: {a}, rounded {b}"
                    );
                }
                assert_eq!(exact.alpha_sigma(999) == (0.0, 1.0), zero_snr);
            }
        }
    }
}
