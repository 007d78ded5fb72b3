//! What the algorithm of one class works from: where a run stands before and after each step.

use crate::{
    class::{Flow, Whole},
    config::{FinalSigmasType, SchedulerConfig},
    edm,
    error::{Error, Result},
    flow,
    names::{SchedulerKind, TimestepSpacing},
    noise_schedule::NoiseSchedule,
    prediction::{Linear, PredictionType},
    schedule_options::ScheduleOptions,
    sigma_rules, spacing,
};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    pub config: SchedulerConfig,
    pub kind: SchedulerKind,
    pub noise: NoiseSchedule,
    pub prediction: PredictionType,
    /// One a step, descending.
    pub timesteps: Vec<f64>,
    /// For the sigma-based classes: before each step and after the last.
    pub sigmas: Vec<f64>,
    pub eta: Option<f64>,
    /// The rule behind the timesteps, also where they are explicit.
    pub rule: TimestepSpacing,
    /// Whether the rule was asked for by name, and is not the config's.
    pub requested: bool,
    /// Whether the timesteps were given one by one.
    pub explicit: bool,
    /// Whether the sample is flow matching's, `(1 - sigma) * x0 + sigma * noise`.
    pub is_flow: bool,
    /// The first step to be taken; above 0 for image-to-image.
    pub begin: usize,
}

/// Signal and noise of the samples at one place of a run: `sample = alpha * x0 + sigma * noise`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    pub alpha: f64,
    pub sigma: f64,
    /// `sigma / alpha`, minus whose logarithm is the solvers' lambda.
    pub ratio: f64,
}

impl Plan {
    pub fn new(
        config: &SchedulerConfig,
        options: &ScheduleOptions,
        kind: SchedulerKind,
        noise: NoiseSchedule,
    ) -> Result<Self> {
        let is_edm = noise.sigma_data().is_some();
        let rule = options.spacing.unwrap_or_else(|| {
            if is_edm {
                config.edm_spacing()
            } else {
                config.spacing(kind)
            }
        });
        let prediction = options.prediction_type.unwrap_or(config.prediction_type());
        let is_flow = match kind.class().flow {
            Flow::Never => false,
            Flow::Always => true,
            Flow::IfAsked => config.use_flow_sigmas == Some(true),
        };
        check_prediction(kind, prediction, is_flow)?;
        if is_edm {
            edm::check(kind, prediction)?;
        }
        let (timesteps, sigmas) = noise_levels(config, options, kind, rule, &noise, is_flow)?;
        let plan = Self {
            config: config.clone(),
            kind,
            noise,
            prediction,
            timesteps,
            sigmas,
            eta: checked_eta(options.eta)?,
            rule,
            requested: options.spacing.is_some(),
            explicit: options.timesteps.is_some(),
            is_flow,
            begin: 0,
        };
        if kind.class().whole_timesteps == Whole::Always {
            plan.whole_timesteps()?;
        }
        Ok(plan)
    }

    /// The number of steps, those before `begin` included.
    pub fn len(&self) -> usize {
        self.timesteps.len()
    }

    /// The steps to be taken.
    pub fn steps(&self) -> std::ops::Range<usize> {
        self.begin..self.len()
    }

    /// The spacing used; `None` for explicit timesteps.
    pub fn spacing(&self) -> Option<TimestepSpacing> {
        (!self.explicit).then_some(self.rule)
    }

    /// Step `i`'s timestep as an index, checked to be whole by `whole_timesteps`.
    pub fn index(&self, i: usize) -> usize {
        self.timesteps[i] as usize
    }

    /// Before step `i`, or after the last, of the solvers that work in lambda.
    pub fn level(&self, i: usize) -> Level {
        let ratio = self.sigmas[i];
        if self.noise.sigma_data().is_some() {
            return Level {
                alpha: 1.0,
                sigma: ratio,
                ratio,
            };
        }
        if self.is_flow {
            let (alpha, sigma) = (1.0 - ratio, ratio);
            return Level {
                alpha,
                sigma,
                ratio: sigma / alpha,
            };
        }
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        Level {
            alpha,
            sigma: ratio * alpha,
            ratio,
        }
    }

    /// x0 where the sample is that of `level`.
    pub fn denoised_level(&self, level: Level) -> Linear {
        match self.noise.sigma_data() {
            Some(sigma_data) => edm::denoised(self.prediction, sigma_data, level.sigma),
            None => self.prediction.denoised_vp(level.alpha, level.sigma),
        }
    }

    /// What the network's input is multiplied by there.
    pub fn level_scale(&self, level: Level) -> f64 {
        let scale = |sigma_data: f64| 1.0 / level.sigma.hypot(sigma_data);
        self.noise.sigma_data().map_or(1.0, scale)
    }

    /// x0 where the sample is `x0 + sigma * noise`.
    pub fn denoised_ve(&self, sigma: f64) -> Linear {
        match self.noise.sigma_data() {
            Some(sigma_data) => edm::denoised(self.prediction, sigma_data, sigma),
            None => self.prediction.denoised_ve(sigma),
        }
    }

    /// What brings that sample to the deviation that the network was trained on.
    pub fn input_scale(&self, sigma: f64) -> f64 {
        let sigma_data = self.noise.sigma_data().unwrap_or(1.0);
        1.0 / (sigma * sigma + sigma_data * sigma_data).sqrt()
    }

    /// What the network is told of a noise between those of the steps.
    pub fn timestep_of_sigma(&self, sigma: f64) -> f64 {
        match self.noise.sigma_data() {
            Some(_) => edm::timestep(sigma),
            None => self.noise.timestep_of_sigma(sigma),
        }
    }

    /// x0 of step `i` for the variance-preserving classes.
    pub fn denoised_vp(&self, i: usize) -> Result<Linear> {
        self.denoised_at(self.index(i))
    }

    /// The same at a timestep.
    pub fn denoised_at(&self, timestep: usize) -> Result<Linear> {
        let (alpha, sigma) = self.noise.alpha_sigma(timestep);
        if alpha == 0.0 && self.prediction == PredictionType::Epsilon {
            return Err(Error::NoSignal {
                class: self.kind.class_name(),
                timestep: timestep as f64,
            });
        }
        Ok(self.prediction.denoised_vp(alpha, sigma))
    }

    fn whole_timesteps(&self) -> Result<()> {
        match self.timesteps.iter().find(|t| t.fract() != 0.0) {
            Some(&timestep) => Err(Error::FractionalTimestep {
                class: self.kind.class_name(),
                timestep,
                spacing: self.spacing().map_or("explicit", TimestepSpacing::as_str),
            }),
            None => Ok(()),
        }
    }
}

/// Timesteps, and the sigmas before each and after the last.
fn noise_levels(
    config: &SchedulerConfig,
    options: &ScheduleOptions,
    kind: SchedulerKind,
    rule: TimestepSpacing,
    noise: &NoiseSchedule,
    is_flow: bool,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let n = step_count(config, options)?;
    let (timesteps, mut sigmas) = match &options.timesteps {
        _ if is_flow => {
            let timesteps = options.timesteps.as_deref();
            let most = config.num_train_timesteps() + 1;
            let explicit = timesteps.map(|t| explicit(t, most)).transpose()?;
            flow::levels(config, kind, noise, rule, explicit.as_deref(), n)?
        }
        Some(timesteps) if noise.sigma_data().is_some() => {
            return Err(Error::BadTimesteps {
                max: 0,
                got: timesteps.clone(),
            });
        }
        None if noise.sigma_data().is_some() => edm::levels(config, kind, noise, rule, n)?,
        Some(timesteps) => {
            // diffusers interpolates explicit timesteps linearly, unless the caller means another tool's.
            let log = options.spacing.is_some_and(TimestepSpacing::is_k_diffusion);
            (
                explicit(timesteps, config.num_train_timesteps())?,
                sigmas_at(noise, timesteps, log),
            )
        }
        None if rule.chooses_sigmas() => sigma_rules::levels(config, kind, noise, rule, options.spacing.is_some(), n)?,
        None => {
            let timesteps = spacing::timesteps(config, kind, rule, n)?;
            in_range(&timesteps, config)?;
            let sigmas = sigmas_at(noise, &timesteps, rule.is_k_diffusion());
            (timesteps, sigmas)
        }
    };
    let reads_final = kind.class().reads_final_sigmas_type;
    let ends_above_zero = reads_final && config.final_sigmas_type == Some(FinalSigmasType::SigmaMin);
    // DEIS takes logarithms of it.
    let ends_above_zero = ends_above_zero || kind == SchedulerKind::Deis;
    let last = match kind {
        // Their last step goes nowhere then.
        SchedulerKind::UniPc | SchedulerKind::Deis if is_flow || rule.chooses_sigmas() => sigmas[n - 1],
        _ => noise.sigmas()[0],
    };
    sigmas.push(if ends_above_zero { last } else { 0.0 });
    // diffusers' table of sigmas is f32.
    Ok((timesteps, sigmas.into_iter().map(|s| f64::from(s as f32)).collect()))
}

fn check_prediction(kind: SchedulerKind, prediction: PredictionType, is_flow: bool) -> Result<()> {
    let predicts_flow = prediction == PredictionType::FlowPrediction;
    let fix = match kind.class().flow {
        Flow::Always if !predicts_flow => "choose another scheduler",
        Flow::Never if predicts_flow => "use FlowMatchEulerDiscreteScheduler",
        Flow::IfAsked if predicts_flow && !is_flow => "set use_flow_sigmas",
        _ => return Ok(()),
    };
    Err(Error::PredictionForClass {
        class: kind.class_name(),
        prediction: prediction.as_str(),
        fix,
    })
}

fn step_count(config: &SchedulerConfig, options: &ScheduleOptions) -> Result<usize> {
    let n = match (options.num_inference_steps, &options.timesteps) {
        (None, None) => return Err(Error::MissingSteps),
        (Some(0), _) => return Err(Error::ZeroSteps),
        (Some(steps), Some(timesteps)) if steps != timesteps.len() => {
            return Err(Error::StepsMismatch {
                steps,
                given: timesteps.len(),
            });
        }
        (_, Some(timesteps)) => timesteps.len(),
        (Some(steps), None) => steps,
    };
    let limit = config.num_train_timesteps();
    if n > limit {
        return Err(Error::TooManySteps {
            steps: n,
            limit,
            limit_name: "num_train_timesteps",
        });
    }
    Ok(n)
}

fn checked_eta(eta: Option<f64>) -> Result<Option<f64>> {
    match eta {
        Some(eta) if !(0.0..=1.0).contains(&eta) => Err(Error::BadEta(eta)),
        _ => Ok(eta),
    }
}

fn explicit(timesteps: &[f64], train: usize) -> Result<Vec<f64>> {
    let max = train - 1;
    let descends = timesteps.windows(2).all(|w| w[0] > w[1]);
    let in_range = timesteps.iter().all(|t| (0.0..=max as f64).contains(t));
    if timesteps.is_empty() || !descends || !in_range {
        return Err(Error::BadTimesteps {
            max,
            got: timesteps.to_vec(),
        });
    }
    Ok(timesteps.to_vec())
}

/// A large `steps_offset` can push leading timesteps past the last one, which diffusers does not notice.
fn in_range(timesteps: &[f64], config: &SchedulerConfig) -> Result<()> {
    let max = config.num_train_timesteps() - 1;
    if timesteps[0] > max as f64 {
        return Err(Error::BadField {
            field: "steps_offset".into(),
            reason: format!("it moves the first timestep to {}, past {max}", timesteps[0]),
            value: config.steps_offset.unwrap_or(0).to_string(),
        });
    }
    Ok(())
}

fn sigmas_at(noise: &NoiseSchedule, timesteps: &[f64], log: bool) -> Vec<f64> {
    let sigma = |&t: &f64| if log { noise.sigma_at_log(t) } else { noise.sigma_at(t) };
    timesteps.iter().map(sigma).collect()
}
