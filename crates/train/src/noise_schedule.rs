//! The training noise schedule: SDXL's `scaled_linear` betas, rescaled to zero terminal SNR
//! (Lin et al. 2024, as diffusers' `rescale_zero_terminal_snr`), with v-prediction
//! (Salimans and Ho 2022): `v = alpha·eps - sigma·x0`.

/// `x_t = alpha[t]·x0 + sigma[t]·eps` for t in 0..1000.
#[derive(Clone, Debug)]
pub struct NoiseSchedule {
    pub alpha: Vec<f32>,
    pub sigma: Vec<f32>,
}

pub const NUM_TRAIN_TIMESTEPS: usize = 1000;
pub const BETA_START: f64 = 0.00085;
pub const BETA_END: f64 = 0.012;

impl Default for NoiseSchedule {
    fn default() -> Self {
        Self::zero_terminal_snr()
    }
}

impl NoiseSchedule {
    pub fn zero_terminal_snr() -> Self {
        let last = (NUM_TRAIN_TIMESTEPS - 1) as f64;
        let (start, end) = (BETA_START.sqrt(), BETA_END.sqrt());
        let mut product = 1.0;
        let roots: Vec<f64> = (0..NUM_TRAIN_TIMESTEPS)
            .map(|i| {
                product *= 1.0 - (start + (end - start) * i as f64 / last).powi(2);
                f64::sqrt(product)
            })
            .collect();
        let (first, terminal) = (roots[0], roots[NUM_TRAIN_TIMESTEPS - 1]);
        let alpha: Vec<f64> = roots
            .iter()
            .map(|r| (r - terminal) * first / (first - terminal))
            .collect();
        let sigma = alpha.iter().map(|a| (1.0 - a * a).max(0.0).sqrt() as f32).collect();
        Self {
            alpha: alpha.into_iter().map(|a| a as f32).collect(),
            sigma,
        }
    }

    /// `(alpha, sigma)` of each timestep.
    pub fn coefficients(&self, timesteps: &[usize]) -> (Vec<f32>, Vec<f32>) {
        (
            timesteps.iter().map(|&t| self.alpha[t]).collect(),
            timesteps.iter().map(|&t| self.sigma[t]).collect(),
        )
    }

    /// The timestep whose `sigma / alpha` is nearest to `exp(log_sigma)`, by bisection.
    pub fn timestep_of(&self, log_sigma: f32) -> usize {
        let wanted = log_sigma.exp();
        self.alpha
            .iter()
            .zip(&self.sigma)
            .map(|(a, s)| s / a.max(1e-6))
            .collect::<Vec<_>>()
            .partition_point(|s| *s < wanted)
            .min(NUM_TRAIN_TIMESTEPS - 1)
    }

    /// Trailing spacing: `round(1000 - i·1000/n) - 1`, largest first.
    pub fn trailing(steps: usize) -> Vec<usize> {
        let total = NUM_TRAIN_TIMESTEPS as f64;
        (0..steps)
            .map(|i| (total - i as f64 * total / steps as f64).round_ties_even() as usize - 1)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_timestep_is_pure_noise_and_the_first_is_unchanged() {
        let s = NoiseSchedule::default();
        assert_eq!((s.alpha[999], s.sigma[999]), (0.0, 1.0));
        assert!((s.alpha[0] - (1.0f32 - 0.00085).sqrt()).abs() < 1e-6);
        // sigma / alpha at trailing-4 (papers: 5.39874, 1.76808, 0.72706).
        for (t, sigma) in [(749, 5.39874f32), (499, 1.76808), (249, 0.72706)] {
            assert!((s.sigma[t] / s.alpha[t] / sigma - 1.0).abs() < 1e-4, "timestep {t}");
        }
    }

    #[test]
    fn trailing_and_inverse_lookup_agree_with_the_tables() {
        assert_eq!(NoiseSchedule::trailing(4), [999, 749, 499, 249]);
        assert_eq!(NoiseSchedule::trailing(1), [999]);
        let s = NoiseSchedule::default();
        assert!(s.timestep_of(1.76808f32.ln()).abs_diff(499) <= 1);
        assert_eq!(s.timestep_of(50.0), 999);
    }
}
