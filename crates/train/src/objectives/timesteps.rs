//! Which noise levels are trained on.

use crate::draws::{normal, purpose, uniform};
use crate::noising::Noising;
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TimestepSampling {
    /// Share of samples at the last timestep (pure noise): what one-step sampling sees.
    pub(super) max_noise_share: f32,
    /// The others have `ln(sigma / alpha)` normal with this mean and deviation.
    pub(super) log_sigma_mean: f32,
    pub(super) log_sigma_std: f32,
}

impl Default for TimestepSampling {
    fn default() -> Self {
        Self {
            max_noise_share: 0.2,
            log_sigma_mean: 0.4,
            log_sigma_std: 1.3,
        }
    }
}

impl TimestepSampling {
    /// The timesteps of `n` samples of batch `number`.
    pub(super) fn draw(&self, noising: &Noising, seed: u64, number: u64, n: usize) -> Vec<usize> {
        let share = uniform(seed, purpose::TIMESTEP, number, n);
        let normal = normal(seed, purpose::TIMESTEP, number, n);
        share
            .iter()
            .zip(normal)
            .map(|(u, z)| {
                if *u < self.max_noise_share {
                    noising.last()
                } else {
                    noising.timestep_of(self.log_sigma_mean + self.log_sigma_std * z)
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noising::default_scheduler;

    #[test]
    fn timesteps_have_the_share_of_pure_noise_asked_for() {
        let sampling = TimestepSampling {
            max_noise_share: 0.5,
            log_sigma_mean: 0.0,
            log_sigma_std: 1.0,
        };
        let noising = Noising::new(&default_scheduler()).unwrap();
        let t = sampling.draw(&noising, 3, 9, 4000);
        let share = t.iter().filter(|t| **t == 999).count() as f32 / 4000.0;
        assert!((share - 0.5).abs() < 0.03, "{share}");
        let mut rest: Vec<f32> = t.iter().filter(|t| **t < 999).map(|&t| noising.log_sigma(t)).collect();
        rest.sort_by(f32::total_cmp);
        assert!(rest[rest.len() / 2].abs() < 0.1, "median {}", rest[rest.len() / 2]);
        assert_eq!(t, sampling.draw(&noising, 3, 9, 4000));
    }
}
