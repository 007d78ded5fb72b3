//! The table itself: options in, rows out.

use crate::{
    config::SchedulerConfig,
    ddim, ddpm, deis, dpmpp_multistep, dpmpp_singlestep,
    error::{Error, Result},
    euler, euler_ancestral, flow_match_euler, heun, kdpm2, lcm, lms,
    names::{SchedulerKind, TimestepSpacing},
    noise_schedule::NoiseSchedule,
    plan::Plan,
    pndm,
    prediction::PredictionType,
    rows::Row,
    schedule_options::ScheduleOptions,
    tcd, unipc,
};

/// A whole run as data.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    pub kind: SchedulerKind,
    /// The spacing used; `None` for explicit timesteps.
    pub spacing: Option<TimestepSpacing>,
    pub prediction_type: PredictionType,
    /// One a step, descending.
    pub timesteps: Vec<f64>,
    /// Noise level before each step and after the last: one more than `timesteps`. Noise over signal, or
    /// flow matching's sigma.
    pub sigmas: Vec<f64>,
    /// Factor on unit normal noise for the first sample of text-to-image.
    pub init_noise_sigma: f64,
    /// One a network evaluation: one a step, but for schedulers that evaluate more than once.
    pub rows: Vec<Row>,
    /// Index of `rows[0]` in the full schedule; above 0 only after `truncate`.
    pub start_index: usize,
    /// `truncate` was asked for less than one step and gave one.
    pub strength_raised: bool,
    /// What is legal but likely not meant, one sentence each.
    pub warnings: Vec<String>,
    /// What the rows follow from.
    plan: Plan,
}

impl Schedule {
    /// The table for `config` under `options`.
    pub fn new(config: &SchedulerConfig, options: &ScheduleOptions) -> Result<Self> {
        let kind = match options.scheduler {
            Some(kind) => kind,
            None => config.kind()?,
        };
        let mut warnings = config.check(kind)?;
        let plan = Plan::new(config, options, kind, NoiseSchedule::new(config, kind)?)?;
        warn(&mut warnings, &plan);
        let (rows, final_sigma) = rows(&plan)?;
        let mut sigmas = plan.sigmas.clone();
        sigmas.pop();
        sigmas.push(final_sigma);
        Ok(Self {
            kind,
            spacing: plan.spacing(),
            prediction_type: plan.prediction,
            timesteps: plan.timesteps.clone(),
            sigmas,
            init_noise_sigma: if plan.noise.sigma_data().is_some() {
                plan.sigmas[0].hypot(1.0)
            } else if kind.class().starts_at_sigma {
                euler::init_noise_sigma(&plan)
            } else {
                1.0
            },
            rows,
            start_index: 0,
            strength_raised: false,
            warnings,
            plan,
        })
    }

    /// Steps as a user counts them, `num_inference_steps`.
    pub fn len(&self) -> usize {
        self.timesteps.len()
    }

    pub fn is_empty(&self) -> bool {
        self.timesteps.is_empty()
    }

    /// What is legal but likely not meant, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Factors `(a, b)` of `x0 * a + noise * b`, the sample that image-to-image starts from.
    pub fn add_noise(&self) -> (f64, f64) {
        self.rows[0].add_noise
    }

    /// The last `floor(steps * strength)` steps, for image-to-image (diffusers' `get_timesteps`).
    /// Where diffusers fails, at less than one step, one step is kept and `strength_raised` set.
    pub fn truncate(&self, strength: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::BadStrength(strength));
        }
        let n = self.len();
        let wanted = (n as f64 * strength).floor() as usize;
        let mut out = self.starting_at(n - wanted.clamp(1, n))?;
        if wanted == 0 {
            out.strength_raised = true;
            out.warnings.push(format!(
                "strength {strength} of {n} step{} is less than one step; one step is made (give at least 1 / strength steps)",
                if n == 1 { "" } else { "s" }
            ));
        }
        Ok(out)
    }

    /// Without the first `start` steps.
    fn starting_at(&self, start: usize) -> Result<Self> {
        // Multistep solvers start afresh: their first step looks back on nothing.
        let plan = Plan {
            begin: self.plan.begin + start,
            ..self.plan.clone()
        };
        let (rows, _) = rows(&plan)?;
        Ok(Self {
            timesteps: self.timesteps[start..].to_vec(),
            sigmas: self.sigmas[start..].to_vec(),
            start_index: self.start_index + self.rows.len() - rows.len(),
            rows,
            plan,
            ..self.clone()
        })
    }

    /// The steps below `start` and from `end` up, shares of the `train_timesteps` counted from pure noise (diffusers'
    /// `denoising_start` and `denoising_end`); at least one step is left, or it is an error.
    pub fn between(&self, start: Option<f64>, end: Option<f64>, train_timesteps: usize) -> Result<Self> {
        let train = train_timesteps as f64;
        let cutoff = |share: f64| (train - share * train).round_ties_even();
        let empty = || Error::NothingBetween {
            start: start.unwrap_or(0.0),
            end: end.unwrap_or(1.0),
            steps: self.len(),
        };
        let mut out = self.clone();
        if let Some(start) = start {
            let first = self
                .timesteps
                .iter()
                .position(|t| *t < cutoff(start))
                .ok_or_else(empty)?;
            out = self.starting_at(first)?;
        }
        if let Some(end) = end.filter(|end| *end > 0.0 && *end < 1.0) {
            let kept = out.timesteps.iter().filter(|t| **t >= cutoff(end)).count();
            let mut ends = out
                .rows
                .iter()
                .enumerate()
                .filter(|(_, row)| row.ends_step)
                .map(|(i, _)| i);
            let last = kept.checked_sub(1).and_then(|step| ends.nth(step)).ok_or_else(empty)?;
            out.rows.truncate(last + 1);
            out.timesteps.truncate(kept);
            out.sigmas.truncate(kept + 1);
        }
        Ok(out)
    }
}

/// The rows of one class and the noise level after the last.
fn rows(plan: &Plan) -> Result<(Vec<Row>, f64)> {
    let final_sigma = plan.sigmas[plan.len()];
    Ok(match plan.kind {
        SchedulerKind::Euler => (euler::rows(plan), final_sigma),
        SchedulerKind::EulerAncestral => (euler_ancestral::rows(plan), final_sigma),
        SchedulerKind::Heun => (heun::rows(plan), final_sigma),
        SchedulerKind::Ddim => ddim::rows(plan)?,
        SchedulerKind::Ddpm => (ddpm::rows(plan)?, 0.0),
        SchedulerKind::Pndm => pndm::rows(plan)?,
        SchedulerKind::Deis => (deis::rows(plan), final_sigma),
        SchedulerKind::Lms => (lms::rows(plan), final_sigma),
        SchedulerKind::Kdpm2 | SchedulerKind::Kdpm2Ancestral => (kdpm2::rows(plan), final_sigma),
        SchedulerKind::Lcm => (lcm::rows(plan)?, 0.0),
        SchedulerKind::Tcd => (tcd::rows(plan)?, plan.noise.sigmas()[0]),
        SchedulerKind::DpmPlusPlus2M | SchedulerKind::DpmPlusPlus2MSde => (dpmpp_multistep::rows(plan), final_sigma),
        SchedulerKind::DpmPlusPlus2S | SchedulerKind::DpmPlusPlusSde => (dpmpp_singlestep::rows(plan), final_sigma),
        SchedulerKind::UniPc => (unipc::rows(plan), final_sigma),
        SchedulerKind::FlowMatchEuler => (flow_match_euler::rows(plan), final_sigma),
    })
}

fn warn(warnings: &mut Vec<String>, plan: &Plan) {
    let (n, train) = (plan.len(), plan.config.num_train_timesteps());
    let first = plan.timesteps[0];
    if let Some(spacing) = plan.spacing()
        && plan.noise.sigma_data().is_none()
        && first < 0.8 * train as f64
    {
        warnings.push(format!(
            "{spacing} spacing at {n} step{} starts at timestep {first}, far from pure noise; few-step models want trailing",
            if n == 1 { "" } else { "s" },
        ));
    }
    let trailing = plan.spacing() == Some(TimestepSpacing::Trailing);
    if plan.kind == SchedulerKind::Ddim && trailing && !train.is_multiple_of(n) {
        warnings.push(format!(
            "DDIM steps by {} timesteps, but trailing timesteps of {n} steps are not that far apart; choose a number of steps that divides {train}",
            train / n
        ));
    }
    if plan.eta.is_some_and(|e| e != 0.0) && !plan.kind.class().takes_eta {
        warnings.push(format!("eta has no effect with {}", plan.kind.class_name()));
    }
}
