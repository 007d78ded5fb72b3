//! `scheduler_config.json`: diffusers' field names, the defaults of each class, and a refusal by
//! name of what would be silently wrong here.

use crate::{
    error::{Error, Result},
    names::SchedulerKind,
    noise_schedule::BetaSchedule,
    prediction::PredictionType,
    spacing::TimestepSpacing,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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
    /// Default 0.0001; LCM and TCD 0.00085.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_start: Option<f64>,
    /// Default 0.02; LCM and TCD 0.012.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_end: Option<f64>,
    /// Default linear; LCM and TCD scaled_linear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta_schedule: Option<BetaSchedule>,
    /// Betas given one by one instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f32>>,
    /// Default epsilon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prediction_type: Option<PredictionType>,
    /// Default linspace; DDIM leading. LCM and TCD have a table of their own and never read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_spacing: Option<ConfigSpacing>,
    /// Added to leading timesteps, default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_offset: Option<usize>,
    /// Default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale_betas_zero_snr: Option<bool>,
    /// Euler: only linear.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interpolation_type: Option<String>,
    /// Euler: only discrete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestep_type: Option<String>,
    /// Euler and DPM++: noise level after the last step, default zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_sigmas_type: Option<FinalSigmasType>,
    /// Euler and DPM++, default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_karras_sigmas: Option<bool>,
    /// Only false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_exponential_sigmas: Option<bool>,
    /// Only false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_beta_sigmas: Option<bool>,
    /// Euler: lower end of Karras sigmas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma_min: Option<f64>,
    /// Euler: upper end of Karras sigmas.
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
    /// DPM++: 1 or 2, default 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_order: Option<usize>,
    /// DPM++: only dpmsolver++.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm_type: Option<String>,
    /// DPM++: only midpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub solver_type: Option<String>,
    /// DPM++: the last of fewer than 15 steps is of first order, default true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_order_final: Option<bool>,
    /// DPM++: the last step is always of first order, default false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub euler_at_final: Option<bool>,
    /// Only false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_lu_lambdas: Option<bool>,
    /// Only false.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_flow_sigmas: Option<bool>,
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

/// Fields of diffusers' schedulers that change nothing in the classes supported here, or only
/// together with a field that is refused.
const INERT_FIELDS: [&str; 6] = [
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "skip_prk_steps",
    "flow_shift",
    "time_shift_type",
];

impl SchedulerConfig {
    /// An empty config of one class: its defaults.
    pub fn of(kind: SchedulerKind) -> Self {
        Self {
            class_name: Some(kind.class_name().to_owned()),
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
        match serde_json::from_value(Value::Object(fields.clone())) {
            Ok(config) => Ok(config),
            // serde names no field when a type is wrong: find the one that fails alone.
            Err(error) => Err(fields.into_iter().find_map(bad_field).unwrap_or(Error::Json(error))),
        }
    }

    /// As pretty JSON, absent fields left out.
    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The class named in the file.
    pub fn kind(&self) -> Result<SchedulerKind> {
        self.class_name.as_deref().ok_or(Error::MissingClassName)?.parse()
    }

    pub fn num_train_timesteps(&self) -> usize {
        self.num_train_timesteps.unwrap_or(1000)
    }

    pub fn prediction_type(&self) -> PredictionType {
        self.prediction_type.unwrap_or(PredictionType::Epsilon)
    }

    pub(crate) fn spacing(&self, kind: SchedulerKind) -> TimestepSpacing {
        let default = match kind {
            SchedulerKind::Lcm | SchedulerKind::Tcd => return TimestepSpacing::Lcm,
            SchedulerKind::Ddim => ConfigSpacing::Leading,
            SchedulerKind::Euler | SchedulerKind::EulerAncestral | SchedulerKind::DpmPlusPlus2M => {
                ConfigSpacing::Linspace
            }
        };
        if self.use_karras_sigmas == Some(true) && matches!(kind, SchedulerKind::Euler | SchedulerKind::DpmPlusPlus2M) {
            return TimestepSpacing::Karras;
        }
        self.timestep_spacing.unwrap_or(default).into()
    }

    /// Refuses what `kind` would have to obey and cannot; returns warnings about what it never reads.
    pub(crate) fn check(&self, kind: SchedulerKind) -> Result<Vec<String>> {
        use SchedulerKind::{Ddim, DpmPlusPlus2M, Euler, EulerAncestral, Lcm, Tcd};
        for (field, value) in &self.other {
            let neutral = matches!(value, Value::Null | Value::Bool(false));
            if !(field.starts_with('_') || neutral || INERT_FIELDS.contains(&field.as_str())) {
                return Err(Error::UnknownField {
                    field: field.clone(),
                    value: value.to_string(),
                });
            }
        }
        let own_class = self.kind().is_ok_and(|own| own == kind);
        let clips_by_default = kind == Ddim && own_class;
        let refuse = Refuse {
            class: kind.class_name(),
        };
        refuse.flag(
            &[Ddim, Lcm],
            kind,
            "clip_sample",
            self.clip_sample.unwrap_or(clips_by_default),
        )?;
        refuse.flag(
            &[Ddim, Lcm, DpmPlusPlus2M],
            kind,
            "thresholding",
            self.thresholding == Some(true),
        )?;
        let sigma_classes = [Euler, DpmPlusPlus2M];
        refuse.flag(
            &sigma_classes,
            kind,
            "use_exponential_sigmas",
            self.use_exponential_sigmas == Some(true),
        )?;
        refuse.flag(
            &sigma_classes,
            kind,
            "use_beta_sigmas",
            self.use_beta_sigmas == Some(true),
        )?;
        refuse.flag(
            &sigma_classes,
            kind,
            "use_flow_sigmas",
            self.use_flow_sigmas == Some(true),
        )?;
        if kind == Euler {
            refuse.text(
                "interpolation_type",
                self.interpolation_type.as_deref(),
                &["linear"],
                "linear",
            )?;
            refuse.text(
                "timestep_type",
                self.timestep_type.as_deref(),
                &["discrete"],
                "discrete",
            )?;
        }
        if kind == DpmPlusPlus2M {
            self.check_dpmpp_2m(refuse)?;
        }

        let mut warnings = Vec::new();
        if self.use_karras_sigmas == Some(true) && matches!(kind, EulerAncestral | Ddim | Lcm | Tcd) {
            warnings.push(format!(
                "{} never reads use_karras_sigmas; it is ignored, as in diffusers",
                kind.class_name()
            ));
        }
        if kind == Ddim && !own_class && self.clip_sample.is_none() {
            warnings.push(
                "the config does not say clip_sample: latents are not clipped (DDIMScheduler's own default would clip them to [-1, 1])"
                    .to_owned(),
            );
        }
        Ok(warnings)
    }

    fn check_dpmpp_2m(&self, refuse: Refuse) -> Result<()> {
        refuse.text(
            "algorithm_type",
            self.algorithm_type.as_deref(),
            &["dpmsolver++"],
            "dpmsolver++",
        )?;
        // diffusers maps these names of other solvers to midpoint.
        let midpoint = ["midpoint", "logrho", "bh1", "bh2"];
        refuse.text("solver_type", self.solver_type.as_deref(), &midpoint, "midpoint")?;
        refuse.text("variance_type", self.variance_type.as_deref(), &[], "null")?;
        let all = [SchedulerKind::DpmPlusPlus2M];
        refuse.flag(&all, all[0], "use_lu_lambdas", self.use_lu_lambdas == Some(true))?;
        refuse.flag(
            &all,
            all[0],
            "use_dynamic_shifting",
            self.use_dynamic_shifting == Some(true),
        )?;
        if let Some(value) = self.lambda_min_clipped {
            return Err(refuse.error("lambda_min_clipped", value.to_string(), "-Infinity"));
        }
        match self.solver_order {
            None | Some(1 | 2) => Ok(()),
            Some(order) => Err(refuse.error("solver_order", order.to_string(), "1, 2")),
        }
    }
}

/// Builds the refusals of one class.
#[derive(Clone, Copy)]
struct Refuse {
    class: &'static str,
}

impl Refuse {
    fn error(self, field: &'static str, value: String, supported: &'static str) -> Error {
        Error::UnsupportedField {
            class: self.class,
            field,
            value,
            supported,
        }
    }

    fn flag(self, readers: &[SchedulerKind], kind: SchedulerKind, field: &'static str, set: bool) -> Result<()> {
        if set && readers.contains(&kind) {
            Err(self.error(field, "true".into(), "false"))
        } else {
            Ok(())
        }
    }

    fn text(self, field: &'static str, value: Option<&str>, accepted: &[&str], supported: &'static str) -> Result<()> {
        match value {
            Some(value) if !accepted.contains(&value) => Err(self.error(field, format!("{value:?}"), supported)),
            _ => Ok(()),
        }
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
