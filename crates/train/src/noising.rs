//! A scheduler's noise process for batches: factors for each sample, from tables in f32.

use crate::error::{Error, Result};
use prima_schedulers::{
    BetaSchedule, ConfigSpacing, NoiseSchedule, PredictionType, Schedule, ScheduleOptions, SchedulerConfig,
    SchedulerKind, TimestepSpacing,
};
use prima_tensor::{Tensor, combine_per_sample};

/// Where neither the run's configuration nor a model says otherwise: SDXL's betas, rescaled to zero terminal SNR (Lin et al.
/// 2024), so that the first step from pure noise is well posed, with v-prediction (Salimans and Ho 2022).
pub(crate) fn default_scheduler() -> SchedulerConfig {
    SchedulerConfig {
        num_train_timesteps: Some(1000),
        beta_start: Some(0.00085),
        beta_end: Some(0.012),
        beta_schedule: Some(BetaSchedule::ScaledLinear),
        prediction_type: Some(PredictionType::VPrediction),
        rescale_betas_zero_snr: Some(true),
        timestep_spacing: Some(ConfigSpacing::Trailing),
        steps_offset: Some(0),
        ..SchedulerConfig::of(SchedulerKind::Euler)
    }
}

/// The timesteps of `steps` steps, evenly spaced from the noisiest down (trailing).
pub(crate) fn trailing(config: &SchedulerConfig, steps: usize) -> Result<Vec<usize>> {
    let options = ScheduleOptions {
        scheduler: Some(SchedulerKind::Euler),
        spacing: Some(TimestepSpacing::Trailing),
        ..ScheduleOptions::steps(steps)
    };
    let schedule = Schedule::new(config, &options).map_err(Error::config)?;
    Ok(schedule.timesteps.iter().map(|t| *t as usize).collect())
}

/// `x_t = alpha[t] x0 + sigma[t] noise`, and what the network says about it.
#[derive(Clone, Debug)]
pub(crate) struct Noising {
    alpha: Vec<f32>,
    sigma: Vec<f32>,
    prediction: PredictionType,
}

impl Noising {
    pub(crate) fn new(config: &SchedulerConfig) -> Result<Self> {
        let schedule = NoiseSchedule::exact(config).map_err(Error::config)?;
        let timesteps = schedule.num_train_timesteps();
        let prediction = config.prediction_type();
        if schedule.is_flow() != (prediction == PredictionType::FlowPrediction) {
            let message =
                "flow_prediction goes with FlowMatchEulerDiscreteScheduler or use_flow_sigmas, and with nothing else";
            return Err(Error::Config(message.into()));
        }
        let at = |t| schedule.alpha_sigma(t);
        if prediction == PredictionType::Epsilon && at(timesteps - 1).0 == 0.0 {
            let message = "epsilon prediction says nothing about the picture where rescale_betas_zero_snr leaves no signal: use v_prediction";
            return Err(Error::Config(message.into()));
        }
        Ok(Self {
            alpha: (0..timesteps).map(|t| at(t).0 as f32).collect(),
            sigma: (0..timesteps).map(|t| at(t).1 as f32).collect(),
            prediction,
        })
    }

    /// For the students of `stage`, which are sampled with LCM's scheduler.
    pub(crate) fn for_lcm_students(config: &SchedulerConfig, stage: &str) -> Result<Self> {
        let noising = Self::new(config)?;
        if noising.is_flow() {
            let message = "a student of flow_prediction cannot be sampled, as LCMScheduler does not know it";
            return Err(Error::Config(format!("{stage}: {message}")));
        }
        Ok(noising)
    }

    /// Refuses the `timesteps` of `stage` unless they fall, from the noisiest at most to 1 at least.
    pub(crate) fn check_falling(&self, stage: &str, timesteps: &[usize]) -> Result<()> {
        let last = self.last();
        let falling = timesteps.windows(2).all(|pair| pair[0] > pair[1]);
        if falling && timesteps.last().is_some_and(|&t| t > 0) && timesteps[0] <= last {
            return Ok(());
        }
        let message = format!("{stage}.timesteps is {timesteps:?}, expected falling ones between 1 and {last}");
        Err(Error::Config(message))
    }

    /// Is it flow matching's?
    pub(crate) fn is_flow(&self) -> bool {
        self.prediction == PredictionType::FlowPrediction
    }

    /// The timestep whose share of all has this logit.
    pub(crate) fn timestep_at(&self, logit: f32) -> usize {
        let share = 1.0 / (1.0 + (-logit).exp());
        (share * self.last() as f32) as usize
    }

    /// The noisiest timestep.
    pub(crate) fn last(&self) -> usize {
        self.alpha.len() - 1
    }

    /// The timestep whose `sigma / alpha` is nearest to `exp(log_sigma)`.
    pub(crate) fn timestep_of(&self, log_sigma: f32) -> usize {
        let wanted = log_sigma.exp();
        let sigmas: Vec<f32> = (0..self.alpha.len()).map(|t| self.sigma_of(t)).collect();
        sigmas.partition_point(|s| *s < wanted).min(self.last())
    }

    /// `sigma / alpha`, a million at pure noise.
    pub(crate) fn sigma_of(&self, timestep: usize) -> f32 {
        self.sigma[timestep] / self.alpha[timestep].max(1e-6)
    }

    /// `x0` with `noise`, each sample at its own timestep.
    pub(crate) fn noised(&self, timesteps: &[usize], x0: &Tensor, noise: &Tensor) -> Tensor {
        let of = |table: &[f32]| -> Vec<f32> { timesteps.iter().map(|&t| table[t]).collect() };
        combine_per_sample(&of(&self.alpha), x0, &of(&self.sigma), noise)
    }

    /// [`noised`](Self::noised), or `x0` itself where there is no timestep.
    pub(crate) fn noised_or_clean(&self, timesteps: &[Option<usize>], x0: &Tensor, noise: &Tensor) -> Tensor {
        let (alpha, sigma): (Vec<f32>, Vec<f32>) = timesteps.iter().map(|&t| self.level(t)).unzip();
        combine_per_sample(&alpha, x0, &sigma, noise)
    }

    /// The answer to `x` at `from` by which one DDIM step to the timesteps `to` arrives at `there`.
    pub(crate) fn output_that_leads(&self, from: &[usize], x: &Tensor, to: &[Option<usize>], there: &Tensor) -> Tensor {
        // there = a' x0 + s' e and x = a x0 + s e, solved for both.
        let levels = from.iter().zip(to).map(|(&from, &to)| {
            let ((a, s), (a_to, s_to)) = (self.level(Some(from)), self.level(to));
            let determinant = a_to * s - s_to * a;
            [
                s / determinant,
                -s_to / determinant,
                a_to / determinant,
                -a / determinant,
            ]
        });
        let levels: Vec<[f32; 4]> = levels.collect();
        let column = |i: usize| -> Vec<f32> { levels.iter().map(|level| level[i]).collect() };
        let x0 = combine_per_sample(&column(0), there, &column(1), x);
        let noise = combine_per_sample(&column(2), x, &column(3), there);
        self.target(from, &x0, &noise)
    }

    /// Factors of picture and noise; no timestep is no noise.
    pub(crate) fn level(&self, timestep: Option<usize>) -> (f32, f32) {
        timestep.map_or((1.0, 0.0), |t| (self.alpha[t], self.sigma[t]))
    }

    /// What the network should answer to [`noised`](Self::noised).
    pub(crate) fn target(&self, timesteps: &[usize], x0: &Tensor, noise: &Tensor) -> Tensor {
        let (picture, noise_part) = self.factors(timesteps, PredictionType::target);
        combine_per_sample(&noise_part, noise, &picture, x0)
    }

    /// The picture that `output`, the network's answer to `x`, amounts to.
    pub(crate) fn denoised(&self, timesteps: &[usize], x: &Tensor, output: &Tensor) -> Tensor {
        let (of_x, of_output) = self.factors(timesteps, PredictionType::denoised_vp);
        combine_per_sample(&of_x, x, &of_output, output)
    }

    /// The noise that it amounts to.
    pub(crate) fn noise_of(&self, timesteps: &[usize], x: &Tensor, output: &Tensor) -> Tensor {
        let (of_x, of_output) = self.factors(timesteps, PredictionType::epsilon_vp);
        combine_per_sample(&of_x, x, &of_output, output)
    }

    /// `alpha noise - sigma x0`: how a sample moves as the [angle](Self::angle) grows, and what v-prediction predicts.
    pub(crate) fn velocity(&self, timesteps: &[usize], x0: &Tensor, noise: &Tensor) -> Tensor {
        let (picture, noise_part): (Vec<f32>, Vec<f32>) =
            timesteps.iter().map(|&t| (-self.sigma[t], self.alpha[t])).unzip();
        combine_per_sample(&noise_part, noise, &picture, x0)
    }

    /// The velocity that `output`, the network's answer to `x`, amounts to.
    pub(crate) fn velocity_of(&self, timesteps: &[usize], x: &Tensor, output: &Tensor) -> Tensor {
        let x0 = self.denoised(timesteps, x, output);
        self.velocity(timesteps, &x0, &self.noise_of(timesteps, x, output))
    }

    /// Of which `alpha` and `sigma` are cosine and sine; 0 without noise.
    pub(crate) fn angle(&self, timestep: usize) -> f32 {
        self.sigma[timestep].atan2(self.alpha[timestep])
    }

    fn factors(&self, timesteps: &[usize], line: fn(PredictionType, f64, f64) -> (f64, f64)) -> (Vec<f32>, Vec<f32>) {
        let at = |&t: &usize| {
            let (a, b) = line(self.prediction, f64::from(self.alpha[t]), f64::from(self.sigma[t]));
            (a as f32, b as f32)
        };
        timesteps.iter().map(at).unzip()
    }

    #[cfg(test)]
    pub(crate) fn log_sigma(&self, timestep: usize) -> f32 {
        (self.sigma[timestep] / self.alpha[timestep]).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noising() -> Noising {
        Noising::new(&default_scheduler()).unwrap()
    }

    #[test]
    fn the_last_timestep_is_pure_noise_and_the_first_is_unchanged() {
        let s = noising();
        assert_eq!((s.alpha[999], s.sigma[999]), (0.0, 1.0));
        assert!((s.alpha[0] - (1.0f32 - 0.00085).sqrt()).abs() < 1e-6);
        // sigma / alpha at trailing-4 (papers: 5.39874, 1.76808, 0.72706).
        for (t, sigma) in [(749, 5.39874f32), (499, 1.76808), (249, 0.72706)] {
            assert!((s.log_sigma(t).exp() / sigma - 1.0).abs() < 1e-4, "timestep {t}");
        }
        assert!(s.timestep_of(1.76808f32.ln()).abs_diff(499) <= 1);
        assert_eq!(s.timestep_of(50.0), 999);
    }

    #[test]
    fn timesteps_are_trailing() {
        let config = default_scheduler();
        assert_eq!(trailing(&config, 4).unwrap(), [999, 749, 499, 249]);
        assert_eq!(trailing(&config, 1).unwrap(), [999]);
    }

    #[test]
    fn picture_and_noise_come_back_from_the_target_of_every_prediction_type() {
        let x0 = Tensor::from_vec(vec![0.5, -1.0], &[2, 1]);
        let noise = Tensor::from_vec(vec![-0.3, 2.0], &[2, 1]);
        let timesteps = [100, 700];
        let betas = |prediction| SchedulerConfig {
            prediction_type: Some(prediction),
            rescale_betas_zero_snr: None,
            ..default_scheduler()
        };
        for config in [
            betas(PredictionType::Epsilon),
            betas(PredictionType::VPrediction),
            betas(PredictionType::Sample),
            SchedulerConfig::of(SchedulerKind::FlowMatchEuler),
        ] {
            let prediction = config.prediction_type();
            let noising = Noising::new(&config).unwrap();
            let x = noising.noised(&timesteps, &x0, &noise);
            let output = noising.target(&timesteps, &x0, &noise);
            let parts = [
                (noising.denoised(&timesteps, &x, &output), &x0),
                (noising.noise_of(&timesteps, &x, &output), &noise),
            ];
            for (got, want) in parts {
                for (a, b) in got.data().iter().zip(want.data()) {
                    assert!((a - b).abs() < 1e-5, "{prediction:?}: {a}, expected {b}");
                }
            }
        }
    }

    #[test]
    fn the_answer_that_leads_somewhere_leads_there_in_one_step() {
        let noising = noising();
        let x = Tensor::from_vec(vec![0.7, -0.2, 1.5], &[3, 1]);
        let there = Tensor::from_vec(vec![0.1, 0.9, -0.4], &[3, 1]);
        let (from, to) = ([999, 600, 249], [Some(749), Some(100), None]);
        let output = noising.output_that_leads(&from, &x, &to, &there);
        let x0 = noising.denoised(&from, &x, &output);
        let noise = noising.noise_of(&from, &x, &output);
        let arrived = noising.noised_or_clean(&to, &x0, &noise);
        for (a, b) in arrived.data().iter().zip(there.data()) {
            assert!((a - b).abs() < 1e-5, "{a}, expected {b}");
        }
    }

    #[test]
    fn a_prediction_that_does_not_suit_the_noise_is_refused() {
        let error = Noising::new(&SchedulerConfig {
            prediction_type: Some(PredictionType::Epsilon),
            ..default_scheduler()
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("use v_prediction"), "{error}");
        let error = Noising::new(&SchedulerConfig {
            prediction_type: Some(PredictionType::FlowPrediction),
            ..default_scheduler()
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("FlowMatchEulerDiscreteScheduler"), "{error}");
    }
}
