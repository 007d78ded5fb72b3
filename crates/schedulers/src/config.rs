//! `scheduler_config.json`, with diffusers' field names.

use crate::{
    error::{Error, Result},
    names::{SchedulerKind, TimestepSpacing},
    prediction::PredictionType,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// The file as written: absent fields stay `None`, so that a config can be run by another class than
/// its own with that class's defaults (diffusers' `OtherScheduler.from_config(config)`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchedulerConfig {
    /// diffusers' class; decides the algorithm unless `ScheduleOptions::scheduler` does.
    #[serde(rename = "_class_name", skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// Training timesteps, default 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_train_timesteps: Option<usize>,
    /// Default 0.0001; LCM, TCD and Heun 0.00085.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// Default 0.02; LCM, TCD and Heun 0.012.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// Default linear; LCM and TCD scaled_linear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_schedule: Option<BetaSchedule>,
    /// Betas given one by one instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f32>>,
    /// Default epsilon; flow_prediction for flow matching.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<PredictionType>,
    /// Default linspace; DDIM leading. LCM, TCD and the singlestep solver never read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<ConfigSpacing>,
    /// Added to leading timesteps, default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_offset: Option<usize>,
    /// Default false. Heun and the singlestep solver never read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_betas_zero_snr: Option<bool>,
    /// Euler: only linear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation_type: Option<String>,
    /// Euler: only discrete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_type: Option<String>,
    /// Noise level after the last step, default zero. Only Euler and the solvers (DPM++, UniPC) read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_sigmas_type: Option<FinalSigmasType>,
    /// Default false; at most one of this and the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    /// Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_exponential_sigmas: Option<bool>,
    /// Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_beta_sigmas: Option<bool>,
    /// EDM: deviation of the data, default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_data: Option<f64>,
    /// EDM: karras (the default) or exponential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_schedule: Option<String>,
    /// EDM: of Karras's sigmas, default 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rho: Option<f64>,
    /// PNDM: only true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_prk_steps: Option<bool>,
    /// Euler and UniPC: lower end of the sigmas that those three choose; EDM: of all, default 0.002.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Their upper end; EDM's default is 80.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_max: Option<f64>,
    /// Only false (DDIM's default is true).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_sample: Option<bool>,
    /// DDIM: the last step ends at no noise (default true) or at the noise of timestep 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_alpha_to_one: Option<bool>,
    /// Only false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thresholding: Option<bool>,
    /// LCM and TCD: steps of the distillation, default 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_inference_steps: Option<usize>,
    /// LCM: factor on timesteps in the boundary condition, default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_scaling: Option<f64>,
    /// LCM: the network is told that share of each timestep, as of all timesteps (NitroFusion's `TimestepShiftLCMScheduler`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shifted_timestep: Option<usize>,
    /// Solvers: 1 to 3, default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_order: Option<usize>,
    /// DPM++: dpmsolver++ (the default) or sde-dpmsolver++. Says which of a class's two schedulers is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm_type: Option<String>,
    /// DPM++: midpoint (the default) or heun. UniPC: bh2 (the default) or bh1. Each reads the other's as its default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_type: Option<String>,
    /// Solvers: lower orders at the end. The multistep solver does so below 15 steps. Default true; the
    /// singlestep solver's is false, which it gives up where steps or last sigma do not allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_order_final: Option<bool>,
    /// DPM++ multistep: the last step is always of first order, default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euler_at_final: Option<bool>,
    /// DPM++ multistep, default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_lu_lambdas: Option<bool>,
    /// UniPC: only true, its default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predict_x0: Option<bool>,
    /// UniPC: the steps after which nothing is corrected, default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_corrector: Option<Vec<usize>>,
    /// DPM++ and UniPC: the model is one of flow matching, default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_flow_sigmas: Option<bool>,
    /// With `use_flow_sigmas`: as `shift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_shift: Option<f64>,
    /// Flow matching: above 1, more of the steps are spent on much noise. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shift: Option<f64>,
    /// Flow matching: fresh noise in every step, default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stochastic_sampling: Option<bool>,
    /// Only false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_dynamic_shifting: Option<bool>,
    /// Only minus infinity (read as null).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda_min_clipped: Option<f64>,
    /// Only null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variance_type: Option<String>,
    /// Everything else in the file.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    Linear,
    /// Linear in the square root of beta (latent diffusion).
    ScaledLinear,
    /// The cosine schedule, with beta capped at 0.999.
    #[serde(rename = "squaredcos_cap_v2")]
    SquaredcosCapV2,
}

/// The three spacings of diffusers' `timestep_spacing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfigSpacing {
    Linspace,
    Leading,
    Trailing,
}

impl From<ConfigSpacing> for TimestepSpacing {
    fn from(spacing: ConfigSpacing) -> Self {
        match spacing {
            ConfigSpacing::Linspace => Self::Linspace,
            ConfigSpacing::Leading => Self::Leading,
            ConfigSpacing::Trailing => Self::Trailing,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmasType {
    Zero,
    /// The sigma of training timestep 0.
    SigmaMin,
}

/// A hundred times what every published model was trained with.
const MAX_TRAIN_TIMESTEPS: usize = 100_000;
/// f32's range of noise that leaves a signal to tell: 2^20.
const MAX_SIGMA: f64 = 1_048_576.0;

/// The one check of a number: field, value and what is allowed. Absent fields are the class's default.
fn in_range<T: PartialOrd + Display>(field: &str, value: Option<T>, allowed: RangeInclusive<T>) -> Result<()> {
    match value {
        Some(value) if !allowed.contains(&value) => Err(Error::BadField {
            field: field.to_owned(),
            reason: format!("a number from {} to {} expected", allowed.start(), allowed.end()),
            value: value.to_string(),
        }),
        _ => Ok(()),
    }
}

/// `algorithm_type` of the stochastic solvers.
const SDE: &str = "sde-dpmsolver++";

impl SchedulerConfig {
    /// An empty config of one scheduler: its class and that class's defaults.
    pub fn of(kind: SchedulerKind) -> Self {
        let is_sde = matches!(kind, SchedulerKind::DpmPlusPlus2MSde | SchedulerKind::DpmPlusPlusSde);
        Self {
            class_name: Some(kind.class_name().to_owned()),
            algorithm_type: is_sde.then(|| SDE.to_owned()),
            skip_prk_steps: (kind == SchedulerKind::Pndm).then_some(true),
            ..Self::default()
        }
    }

    /// The noise process of Stable Diffusion and SDXL (1000 steps, scaled linear 0.00085 to 0.012) under `kind`.
    pub fn stable_diffusion(kind: SchedulerKind, timestep_spacing: ConfigSpacing) -> Self {
        Self {
            num_train_timesteps: Some(1000),
            beta_start: Some(0.00085),
            beta_end: Some(0.012),
            beta_schedule: Some(BetaSchedule::ScaledLinear),
            prediction_type: Some(PredictionType::Epsilon),
            timestep_spacing: Some(timestep_spacing),
            steps_offset: Some(1),
            clip_sample: Some(false),
            set_alpha_to_one: Some(false),
            ..Self::of(kind)
        }
    }

    /// Reads the text of a `scheduler_config.json`. Python writes infinities that JSON does not have
    /// (`"lambda_min_clipped": -Infinity`); they are read as null.
    pub fn from_json(text: &str) -> Result<Self> {
        let fields: Map<String, Value> = serde_json::from_str(&without_infinities(text))?;
        match serde_json::from_value::<Self>(Value::Object(fields.clone())) {
            Ok(config) => config.check_ranges().map(|()| config),
            // serde names no field when a type is wrong: find the one that fails alone.
            Err(error) => Err(fields.into_iter().find_map(bad_field).unwrap_or(Error::Json(error))),
        }
    }

    /// Refuses numbers that no process of noise can have, or that would ask for tables without end. What only some
    /// classes read is checked for all: a config may run under another class than its own.
    pub(crate) fn check_ranges(&self) -> Result<()> {
        let floats = [
            ("beta_start", self.beta_start, 0.0..=1.0),
            ("beta_end", self.beta_end, 0.0..=1.0),
            ("sigma_min", self.sigma_min, 0.0..=MAX_SIGMA),
            ("sigma_max", self.sigma_max, 0.0..=MAX_SIGMA),
            ("timestep_scaling", self.timestep_scaling, f64::MIN_POSITIVE..=1e6),
            ("sigma_data", self.sigma_data, 1e-3..=1e3),
            ("rho", self.rho, 1.0..=100.0),
            ("shift", self.shift, 1e-3..=1e3),
            ("flow_shift", self.flow_shift, 1e-3..=1e3),
        ];
        for (field, value, allowed) in floats {
            in_range(field, value, allowed)?;
        }
        let counts = [
            ("num_train_timesteps", self.num_train_timesteps, 2..=MAX_TRAIN_TIMESTEPS),
            ("steps_offset", self.steps_offset, 0..=MAX_TRAIN_TIMESTEPS),
            (
                "shifted_timestep",
                self.shifted_timestep,
                1..=self.num_train_timesteps(),
            ),
            (
                "original_inference_steps",
                self.original_inference_steps,
                1..=MAX_TRAIN_TIMESTEPS,
            ),
        ];
        for (field, value, allowed) in counts {
            in_range(field, value, allowed)?;
        }
        match (self.sigma_min, self.sigma_max) {
            (Some(min), Some(max)) if min > max => in_range("sigma_min", Some(min), 0.0..=max),
            _ => Ok(()),
        }
    }

    /// As pretty JSON, absent fields left out.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The scheduler that the file names, by its class and `algorithm_type`.
    pub fn kind(&self) -> Result<SchedulerKind> {
        let kind = self.class_name.as_deref().ok_or(Error::MissingClassName)?.parse()?;
        Ok(match kind {
            SchedulerKind::DpmPlusPlus2M if self.algorithm_type.as_deref() == Some(SDE) => {
                SchedulerKind::DpmPlusPlus2MSde
            }
            SchedulerKind::DpmPlusPlus2S if self.algorithm_type.as_deref() == Some(SDE) => {
                SchedulerKind::DpmPlusPlusSde
            }
            kind => kind,
        })
    }

    pub fn num_train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(1000)
    }

    /// The file's, else that of its class: flow_prediction for flow matching, epsilon for the others.
    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type.unwrap_or(match self.kind() {
            Ok(SchedulerKind::FlowMatchEuler) => PredictionType::FlowPrediction,
            _ => PredictionType::Epsilon,
        })
    }
}

fn bad_field((field, value): (String, Value)) -> Option<Error> {
    let alone = Map::from_iter([(field.clone(), value.clone())]);
    let error = serde_json::from_value::<SchedulerConfig>(Value::Object(alone)).err()?;
    Some(Error::BadField {
        field,
        reason: error.to_string(),
        value: value.to_string(),
    })
}

/// Replaces the bare words `Infinity` and `-Infinity`, outside strings, by `null`.
fn without_infinities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string && let Some(after) = ["-Infinity", "Infinity"].iter().find_map(|w| rest.strip_prefix(w)) {
            out.push_str("null");
            rest = after;
            continue;
        }
        if in_string && !escaped && c == '\\' {
            escaped = true;
        } else {
            in_string ^= c == '"' && !escaped;
            escaped = false;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}
