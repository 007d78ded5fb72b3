//! What each class reads of a config: its choice of spacing, a refusal by name of what would be
//! silently wrong here, and a warning about what it never reads.

use crate::{
    class::{Flow, SigmaRules, Spacing},
    config::SchedulerConfig,
    error::{Error, Result},
    names::{SchedulerKind, TimestepSpacing},
};
use serde_json::Value;

/// Fields of diffusers' schedulers that change nothing in the classes supported here, or only
/// together with a field that is refused.
const INERT_FIELDS: [&str; 8] = [
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "time_shift_type",
    "base_shift",
    "max_shift",
    "base_image_seq_len",
    "max_image_seq_len",
];

impl SchedulerConfig {
    /// The spacing of `timestep_spacing`, or that which the class has of its own.
    pub(crate) fn timestep_spacing(&self, kind: SchedulerKind) -> TimestepSpacing {
        match kind.class().spacing {
            Spacing::Fixed(spacing) => spacing,
            Spacing::Default(spacing) => self.timestep_spacing.map_or(spacing, Into::into),
        }
    }

    /// How this config has `kind` choose its noise levels.
    pub(crate) fn spacing(&self, kind: SchedulerKind) -> TimestepSpacing {
        let lu = matches!(kind, SchedulerKind::DpmPlusPlus2M | SchedulerKind::DpmPlusPlus2MSde)
            && self.use_lu_lambdas == Some(true);
        if kind.class().flow == Flow::IfAsked && self.use_flow_sigmas == Some(true) {
            return TimestepSpacing::Flow;
        }
        let rules = self.sigma_flags().into_iter().filter(|(_, set, _)| *set);
        let rule = rules.map(|(.., rule)| rule).next();
        match rule.filter(|_| kind.class().sigma_rules != SigmaRules::Unread) {
            Some(TimestepSpacing::Karras) => TimestepSpacing::Karras,
            _ if lu => TimestepSpacing::Lu,
            Some(rule) => rule,
            None => self.timestep_spacing(kind),
        }
    }

    fn sigma_flags(&self) -> [(&'static str, bool, TimestepSpacing); 3] {
        [
            ("use_karras_sigmas", self.use_karras_sigmas, TimestepSpacing::Karras),
            (
                "use_exponential_sigmas",
                self.use_exponential_sigmas,
                TimestepSpacing::Exponential,
            ),
            ("use_beta_sigmas", self.use_beta_sigmas, TimestepSpacing::Beta),
        ]
        .map(|(name, flag, rule)| (name, flag == Some(true), rule))
    }

    /// Refuses what `kind` would have to obey and cannot; returns warnings about what it never reads.
    pub(crate) fn check(&self, kind: SchedulerKind) -> Result<Vec<String>> {
        use SchedulerKind::{Ddim, DpmPlusPlus2M, DpmPlusPlus2MSde, DpmPlusPlus2S, DpmPlusPlusSde, Euler, Lcm, UniPc};
        self.check_ranges()?;
        self.check_unknown()?;
        let refuse = Refuse {
            class: kind.class_name(),
        };
        self.check_sigma_rules(kind, refuse)?;
        refuse.text(
            "sigma_schedule",
            self.sigma_schedule.as_deref(),
            &["karras", "exponential"],
        )?;
        let own_class = self.kind().is_ok_and(|own| own == kind);
        let clips = self
            .clip_sample
            .unwrap_or(matches!(kind, Ddim | SchedulerKind::Ddpm) && own_class);
        let thresholds = self.thresholding == Some(true);
        match kind {
            Ddim | Lcm => {
                refuse.flag("clip_sample", clips)?;
                refuse.flag("thresholding", thresholds)?;
            }
            Euler => {
                refuse.text("interpolation_type", self.interpolation_type.as_deref(), &["linear"])?;
                refuse.text("timestep_type", self.timestep_type.as_deref(), &["discrete"])?;
            }
            SchedulerKind::Ddpm => {
                refuse.flag("clip_sample", clips)?;
                refuse.flag("thresholding", thresholds)?;
                refuse.text("variance_type", self.variance_type.as_deref(), &["fixed_small"])?;
            }
            SchedulerKind::Pndm if own_class && self.skip_prk_steps != Some(true) => {
                return Err(refuse.error("skip_prk_steps", "false".into(), "true".into()));
            }
            SchedulerKind::Deis => {
                refuse.flag("thresholding", thresholds)?;
                refuse.flag("use_dynamic_shifting", self.use_dynamic_shifting == Some(true))?;
                self.check_solver_order(refuse)?;
            }
            SchedulerKind::Heun => refuse.flag("clip_sample", clips)?,
            DpmPlusPlus2M | DpmPlusPlus2MSde | DpmPlusPlus2S | DpmPlusPlusSde => {
                refuse.flag("thresholding", thresholds)?;
                self.check_dpm_solver(refuse)?;
            }
            UniPc => {
                refuse.flag("thresholding", thresholds)?;
                self.check_unipc(refuse)?;
            }
            SchedulerKind::FlowMatchEuler => {
                refuse.flag("use_dynamic_shifting", self.use_dynamic_shifting == Some(true))?;
            }
            _ => {}
        }
        if kind.class().flow != Flow::Always
            && let Some(shift) = self.shift
        {
            return Err(refuse.error("shift", shift.to_string(), "null".into()));
        }
        Ok(self.never_read(kind, own_class))
    }

    fn check_unknown(&self) -> Result<()> {
        for (field, value) in &self.other {
            let neutral = matches!(value, Value::Null | Value::Bool(false));
            if !(field.starts_with('_') || neutral || INERT_FIELDS.contains(&field.as_str())) {
                return Err(Error::UnknownField {
                    field: field.clone(),
                    value: value.to_string(),
                });
            }
        }
        Ok(())
    }

    fn check_sigma_rules(&self, kind: SchedulerKind, refuse: Refuse) -> Result<()> {
        let mut set: Vec<&'static str> = self
            .sigma_flags()
            .into_iter()
            .filter_map(|(name, set, _)| set.then_some(name))
            .collect();
        if kind.class().flow == Flow::IfAsked && self.use_flow_sigmas == Some(true) {
            set.push("use_flow_sigmas");
        }
        match (kind.class().sigma_rules, set.as_slice()) {
            (SigmaRules::OverSpacing | SigmaRules::OverTraining, [first, second, ..]) => {
                Err(refuse.error(second, "true".into(), format!("false where {first} is true")))
            }
            _ => Ok(()),
        }
    }

    fn check_dpm_solver(&self, refuse: Refuse) -> Result<()> {
        // diffusers maps deis to dpmsolver++, and the names of other solvers to midpoint.
        let algorithms = ["dpmsolver++", "sde-dpmsolver++", "deis"];
        refuse.text("algorithm_type", self.algorithm_type.as_deref(), &algorithms)?;
        let solvers = ["midpoint", "heun", "logrho", "bh1", "bh2"];
        refuse.text("solver_type", self.solver_type.as_deref(), &solvers)?;
        refuse.text("variance_type", self.variance_type.as_deref(), &[])?;
        refuse.flag("use_dynamic_shifting", self.use_dynamic_shifting == Some(true))?;
        if let Some(value) = self.lambda_min_clipped {
            return Err(refuse.error("lambda_min_clipped", value.to_string(), "-Infinity".into()));
        }
        self.check_solver_order(refuse)
    }

    fn check_unipc(&self, refuse: Refuse) -> Result<()> {
        // diffusers maps the names of other solvers to bh2.
        let solvers = ["bh1", "bh2", "midpoint", "heun", "logrho"];
        refuse.text("solver_type", self.solver_type.as_deref(), &solvers)?;
        if self.predict_x0 == Some(false) {
            return Err(refuse.error("predict_x0", "false".into(), "true".into()));
        }
        refuse.flag("use_dynamic_shifting", self.use_dynamic_shifting == Some(true))?;
        self.check_solver_order(refuse)
    }

    fn check_solver_order(&self, refuse: Refuse) -> Result<()> {
        match self.solver_order {
            None | Some(1..=3) => Ok(()),
            Some(order) => Err(refuse.error("solver_order", order.to_string(), "1, 2, 3".into())),
        }
    }

    /// One sentence for each field that is set and has no effect.
    fn never_read(&self, kind: SchedulerKind, own_class: bool) -> Vec<String> {
        let class = kind.class();
        let mut fields = Vec::new();
        if class.sigma_rules == SigmaRules::Unread {
            fields.extend(self.sigma_flags().into_iter().filter(|f| f.1).map(|f| f.0));
        }
        if self.rescale_betas_zero_snr == Some(true) && !class.reads_rescale_betas_zero_snr {
            fields.push("rescale_betas_zero_snr");
        }
        let ignored = |field| {
            format!(
                "{} never reads {field}; it is ignored, as in diffusers",
                kind.class_name()
            )
        };
        let mut warnings: Vec<String> = fields.into_iter().map(ignored).collect();
        if kind == SchedulerKind::Ddim && !own_class && self.clip_sample.is_none() {
            warnings.push(
                "the config does not say clip_sample: latents are not clipped (DDIMScheduler's own default would clip them to [-1, 1])"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// Builds the refusals of one class.
#[derive(Clone, Copy)]
struct Refuse {
    class: &'static str,
}

impl Refuse {
    fn error(self, field: &'static str, value: String, supported: String) -> Error {
        Error::UnsupportedField {
            class: self.class,
            field,
            value,
            supported,
        }
    }

    fn flag(self, field: &'static str, set: bool) -> Result<()> {
        if set {
            Err(self.error(field, "true".into(), "false".into()))
        } else {
            Ok(())
        }
    }

    fn text(self, field: &'static str, value: Option<&str>, accepted: &[&str]) -> Result<()> {
        let supported = || {
            if accepted.is_empty() {
                "null".into()
            } else {
                accepted.join(", ")
            }
        };
        match value {
            Some(value) if !accepted.contains(&value) => Err(self.error(field, format!("{value:?}"), supported())),
            _ => Ok(()),
        }
    }
}
