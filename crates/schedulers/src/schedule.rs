//! The table itself: options in, coefficients out.

use crate::{
    config::{FinalSigmasType, SchedulerConfig},
    ddim, dpmpp_2m,
    error::{Error, Result},
    euler, euler_ancestral, lcm,
    names::SchedulerKind,
    noise_schedule::NoiseSchedule,
    prediction::{Linear, PredictionType},
    spacing::{self, TimestepSpacing},
    tcd,
};

/// What a request may override in the model's `scheduler_config.json`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScheduleOptions {
    /// May be left out when `timesteps` are given; otherwise must agree with them.
    pub num_inference_steps: Option<usize>,
    pub scheduler: Option<SchedulerKind>,
    pub spacing: Option<TimestepSpacing>,
    /// Explicit timesteps, strictly descending, instead of a spacing.
    pub timesteps: Option<Vec<f64>>,
    pub prediction_type: Option<PredictionType>,
    /// Stochasticity, 0 to 1. Defaults: DDIM 0, TCD 0.3, Euler ancestral 1. The others have none.
    pub eta: Option<f64>,
}

impl ScheduleOptions {
    /// `num_inference_steps` steps, everything else as the config says.
    pub fn steps(num_inference_steps: usize) -> Self {
        Self {
            num_inference_steps: Some(num_inference_steps),
            ..Self::default()
        }
    }
}

/// One network evaluation and the update after it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCoeffs {
    /// What the network is told; fractional for some spacings.
    pub timestep: f64,
    /// The network sees `sample * input_scale`.
    pub input_scale: f64,
    /// `next = sample * self.sample + model_output * self.model_output + noise * self.noise
    ///   + previous_denoised * self.previous_denoised`, where `model_output` is the (guided) output.
    pub sample: f64,
    pub model_output: f64,
    /// 0 where the step is deterministic: no noise need be drawn.
    pub noise: f64,
    /// Factor of the previous step's denoised image; 0 except in multistep solvers.
    pub previous_denoised: f64,
    /// `x0 = sample * denoised.0 + model_output * denoised.1`.
    pub denoised: (f64, f64),
    /// A clean image at this step's noise level: `sample = x0 * add_noise.0 + noise * add_noise.1`
    /// (image-to-image start, inpainting).
    pub add_noise: (f64, f64),
}

impl StepCoeffs {
    /// The next sample, for scalars; tensors do the same elementwise.
    pub fn next(&self, sample: f64, model_output: f64, noise: f64, previous_denoised: f64) -> f64 {
        sample * self.sample
            + model_output * self.model_output
            + noise * self.noise
            + previous_denoised * self.previous_denoised
    }

    /// The denoised image, for scalars.
    pub fn denoised(&self, sample: f64, model_output: f64) -> f64 {
        sample * self.denoised.0 + model_output * self.denoised.1
    }

    pub fn needs_noise(&self) -> bool {
        self.noise != 0.0
    }
}

/// A whole run as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub kind: SchedulerKind,
    /// The spacing used; `None` for explicit timesteps.
    pub spacing: Option<TimestepSpacing>,
    pub prediction_type: PredictionType,
    /// One a step, descending.
    pub timesteps: Vec<f64>,
    /// Noise level (noise / signal) before each step and after the last: one more than `timesteps`.
    pub sigmas: Vec<f64>,
    /// Factor on unit normal noise for the first sample of text-to-image.
    pub init_noise_sigma: f64,
    pub steps: Vec<StepCoeffs>,
    /// Index of `steps[0]` in the full schedule; above 0 only after `truncate`.
    pub start_index: usize,
    /// `truncate` was asked for less than one step and gave one.
    pub strength_raised: bool,
    /// What is legal but likely not meant, one sentence each.
    pub warnings: Vec<String>,
}

/// What the algorithm of one class works from.
pub(crate) struct Plan<'a> {
    pub config: &'a SchedulerConfig,
    pub noise: &'a NoiseSchedule,
    pub prediction: PredictionType,
    pub timesteps: &'a [f64],
    /// For the sigma-based classes: one more than `timesteps`.
    pub sigmas: &'a [f64],
    pub eta: Option<f64>,
    /// `None` for explicit timesteps.
    pub spacing: Option<TimestepSpacing>,
}

impl Plan<'_> {
    /// Step `i`'s timestep as an index, checked to be whole by `whole_timesteps`.
    pub fn index(&self, i: usize) -> usize {
        self.timesteps[i] as usize
    }

    /// x0 of step `i` for the variance-preserving classes.
    pub fn denoised_vp(&self, kind: SchedulerKind, i: usize) -> Result<Linear> {
        let (alpha, sigma) = self.noise.alpha_sigma(self.index(i));
        if alpha == 0.0 && self.prediction == PredictionType::Epsilon {
            return Err(Error::NoSignal {
                class: kind.class_name(),
                timestep: self.timesteps[i],
            });
        }
        Ok(self.prediction.denoised_vp(alpha, sigma))
    }
}

impl Schedule {
    /// The table for `config` under `options`.
    pub fn new(config: &SchedulerConfig, options: &ScheduleOptions) -> Result<Self> {
        let kind = match options.scheduler {
            Some(kind) => kind,
            None => config.kind()?,
        };
        let mut warnings = config.check(kind)?;
        let eta = checked_eta(options.eta)?;
        let noise = NoiseSchedule::new(config, kind)?;
        let prediction = options.prediction_type.unwrap_or(config.prediction_type());
        let rule = options.spacing.unwrap_or_else(|| config.spacing(kind));
        let spacing = options.timesteps.is_none().then_some(rule);

        let (timesteps, mut sigmas) = noise_levels(config, options, kind, rule, &noise)?;
        warn(
            &mut warnings,
            kind,
            spacing,
            &timesteps,
            config.num_train_timesteps(),
            eta,
        );
        let plan = Plan {
            config,
            noise: &noise,
            prediction,
            timesteps: &timesteps,
            sigmas: &sigmas,
            eta,
            spacing,
        };
        let (steps, final_sigma) = coefficients(kind, &plan)?;
        let init_noise_sigma = match kind {
            SchedulerKind::Euler | SchedulerKind::EulerAncestral => euler::init_noise_sigma(&plan, rule),
            SchedulerKind::Ddim | SchedulerKind::Lcm | SchedulerKind::Tcd | SchedulerKind::DpmPlusPlus2M => 1.0,
        };
        sigmas.pop();
        sigmas.push(final_sigma);
        Ok(Self {
            kind,
            spacing,
            prediction_type: prediction,
            timesteps,
            sigmas,
            init_noise_sigma,
            steps,
            start_index: 0,
            strength_raised: false,
            warnings,
        })
    }

    pub fn len(&self) -> usize {
        self.steps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// What is legal but likely not meant, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Factors `(a, b)` of `x0 * a + noise * b`, the sample that image-to-image starts from.
    pub fn add_noise(&self) -> (f64, f64) {
        self.steps[0].add_noise
    }

    /// The last `floor(steps * strength)` steps, for image-to-image (diffusers' `get_timesteps`).
    /// Where diffusers fails, at less than one step, one step is kept and `strength_raised` set.
    pub fn truncate(&self, strength: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::BadStrength(strength));
        }
        let n = self.steps.len();
        let wanted = (n as f64 * strength).floor() as usize;
        let start = n - wanted.clamp(1, n);
        let mut out = Self {
            timesteps: self.timesteps[start..].to_vec(),
            sigmas: self.sigmas[start..].to_vec(),
            steps: self.steps[start..].to_vec(),
            start_index: self.start_index + start,
            ..self.clone()
        };
        // A multistep solver starts afresh: with the current image in place of the previous one its
        // difference term vanishes, which is the first-order step.
        let first = &mut out.steps[0];
        first.sample += first.previous_denoised * first.denoised.0;
        first.model_output += first.previous_denoised * first.denoised.1;
        first.previous_denoised = 0.0;
        if wanted == 0 {
            out.strength_raised = true;
            out.warnings.push(format!(
                "strength {strength} of {n} step{} is less than one step; one step is made (give at least 1 / strength steps)",
                if n == 1 { "" } else { "s" }
            ));
        }
        Ok(out)
    }
}

/// Timesteps, and the sigmas before each and after the last.
fn noise_levels(
    config: &SchedulerConfig,
    options: &ScheduleOptions,
    kind: SchedulerKind,
    rule: TimestepSpacing,
    noise: &NoiseSchedule,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let n = step_count(config, options)?;
    let (timesteps, mut sigmas) = match &options.timesteps {
        Some(timesteps) => {
            // diffusers interpolates explicit timesteps linearly, unless the caller means another tool's.
            let log = options.spacing.is_some_and(TimestepSpacing::is_k_diffusion);
            (
                explicit(timesteps, config.num_train_timesteps())?,
                sigmas_at(noise, timesteps, log),
            )
        }
        None if rule == TimestepSpacing::Karras => spacing::karras(config, kind, noise, n)?,
        None => {
            let timesteps = spacing::timesteps(config, kind, rule, n)?;
            in_range(&timesteps, config)?;
            let sigmas = sigmas_at(noise, &timesteps, rule.is_k_diffusion());
            (timesteps, sigmas)
        }
    };
    let reads_final = matches!(kind, SchedulerKind::Euler | SchedulerKind::DpmPlusPlus2M);
    let ends_above_zero = reads_final && config.final_sigmas_type == Some(FinalSigmasType::SigmaMin);
    sigmas.push(if ends_above_zero { noise.sigmas()[0] } else { 0.0 });
    // diffusers' table of sigmas is f32.
    Ok((timesteps, sigmas.into_iter().map(|s| f64::from(s as f32)).collect()))
}

/// The steps of one class and the noise level after the last.
fn coefficients(kind: SchedulerKind, plan: &Plan) -> Result<(Vec<StepCoeffs>, f64)> {
    if matches!(kind, SchedulerKind::Ddim | SchedulerKind::Lcm | SchedulerKind::Tcd) {
        whole_timesteps(kind, plan)?;
    }
    let final_sigma = plan.sigmas[plan.timesteps.len()];
    Ok(match kind {
        SchedulerKind::Euler => (euler::steps(plan), final_sigma),
        SchedulerKind::EulerAncestral => (euler_ancestral::steps(plan), final_sigma),
        SchedulerKind::DpmPlusPlus2M => (dpmpp_2m::steps(plan), final_sigma),
        SchedulerKind::Ddim => ddim::steps(plan)?,
        SchedulerKind::Lcm => (lcm::steps(plan)?, 0.0),
        SchedulerKind::Tcd => (tcd::steps(plan)?, plan.noise.sigmas()[0]),
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

fn whole_timesteps(kind: SchedulerKind, plan: &Plan) -> Result<()> {
    let spacing = plan.spacing.map_or("explicit", TimestepSpacing::as_str);
    match plan.timesteps.iter().find(|t| t.fract() != 0.0) {
        Some(&timestep) => Err(Error::FractionalTimestep {
            class: kind.class_name(),
            timestep,
            spacing,
        }),
        None => Ok(()),
    }
}

fn warn(
    warnings: &mut Vec<String>,
    kind: SchedulerKind,
    spacing: Option<TimestepSpacing>,
    timesteps: &[f64],
    train: usize,
    eta: Option<f64>,
) {
    let n = timesteps.len();
    if let Some(spacing) = spacing
        && timesteps[0] < 0.8 * train as f64
    {
        warnings.push(format!(
            "{spacing} spacing at {n} step{} starts at timestep {}, far from pure noise; few-step models want trailing",
            if n == 1 { "" } else { "s" },
            timesteps[0]
        ));
    }
    if kind == SchedulerKind::Ddim && spacing == Some(TimestepSpacing::Trailing) && !train.is_multiple_of(n) {
        warnings.push(format!(
            "DDIM steps by {} timesteps, but trailing timesteps of {n} steps are not that far apart; choose a number of steps that divides {train}",
            train / n
        ));
    }
    if eta.is_some_and(|e| e != 0.0)
        && matches!(
            kind,
            SchedulerKind::Euler | SchedulerKind::Lcm | SchedulerKind::DpmPlusPlus2M
        )
    {
        warnings.push(format!("eta has no effect with {}", kind.class_name()));
    }
}
