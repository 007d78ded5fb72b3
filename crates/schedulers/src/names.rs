//! The names people write for schedulers and spacings: diffusers' classes, A1111's samplers and
//! schedule types, ComfyUI's and k-diffusion's, and the hosted APIs' `K_` names.

use crate::error::{Error, Result};
use std::{fmt, str::FromStr};

/// A sampling algorithm, one per file of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum SchedulerKind {
    Euler,
    EulerAncestral,
    /// Two network evaluations a step.
    Heun,
    Ddim,
    Lcm,
    Tcd,
    /// `DPMSolverMultistepScheduler` with `dpmsolver++`.
    DpmPlusPlus2M,
    /// `DPMSolverMultistepScheduler` with `sde-dpmsolver++`.
    DpmPlusPlus2MSde,
    /// `DPMSolverSinglestepScheduler` with `dpmsolver++`.
    DpmPlusPlus2S,
    /// `DPMSolverSinglestepScheduler` with `sde-dpmsolver++`: the class that diffusers' documentation
    /// names for k-diffusion's DPM++ SDE. Its steps are network evaluations; k-diffusion counts two as one.
    DpmPlusPlusSde,
    UniPc,
    /// Of up to four steps, in sigma.
    Lms,
    /// `PNDMScheduler` without its Runge-Kutta steps (PLMS): one network evaluation more than steps.
    Pndm,
    Deis,
    /// DPM-Solver-2 in sigma, two network evaluations a step.
    Kdpm2,
    Kdpm2Ancestral,
    Ddpm,
    /// Flow matching.
    FlowMatchEuler,
}

/// What one scheduler is called.
struct Names {
    /// The diffusers class, as in `_class_name`.
    class: &'static str,
    /// On the command line.
    short: &'static str,
    /// In A1111's `sampler_name`.
    a1111: &'static str,
    /// Every further name, in the spelling of `canonical`.
    aliases: &'static [&'static str],
}

const fn names(
    class: &'static str,
    short: &'static str,
    a1111: &'static str,
    aliases: &'static [&'static str],
) -> Names {
    Names {
        class,
        short,
        a1111,
        aliases,
    }
}

impl SchedulerKind {
    /// Where two share a class, the first is what the class is without further options.
    pub const ALL: [Self; 18] = [
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Ddim,
        Self::Lcm,
        Self::Tcd,
        Self::DpmPlusPlus2M,
        Self::DpmPlusPlus2MSde,
        Self::DpmPlusPlus2S,
        Self::DpmPlusPlusSde,
        Self::UniPc,
        Self::Lms,
        Self::Pndm,
        Self::Deis,
        Self::Kdpm2,
        Self::Kdpm2Ancestral,
        Self::Ddpm,
        Self::FlowMatchEuler,
    ];

    fn names(self) -> Names {
        match self {
            Self::Euler => names(
                "EulerDiscreteScheduler",
                "euler",
                "Euler",
                &["euler_discrete", "k_euler", "edmeulerscheduler"],
            ),
            Self::EulerAncestral => names(
                "EulerAncestralDiscreteScheduler",
                "euler_a",
                "Euler a",
                &[
                    "euler_ancestral",
                    "euler_ancestral_discrete",
                    "k_euler_a",
                    "k_euler_ancestral",
                ],
            ),
            Self::Heun => names(
                "HeunDiscreteScheduler",
                "heun",
                "Heun",
                &["heun_discrete", "heundiscrete", "k_heun"],
            ),
            Self::Ddim => names("DDIMScheduler", "ddim", "DDIM", &["k_ddim"]),
            Self::Lcm => names("LCMScheduler", "lcm", "LCM", &["k_lcm"]),
            Self::Tcd => names("TCDScheduler", "tcd", "TCD", &["k_tcd"]),
            Self::DpmPlusPlus2M => names(
                "DPMSolverMultistepScheduler",
                "dpm++_2m",
                "DPM++ 2M",
                &[
                    "dpmpp_2m",
                    "k_dpmpp_2m",
                    "dpmsolvermultistep",
                    "dpmsolver++",
                    "dpm++",
                    "edmdpmsolvermultistepscheduler",
                    "k_dpm++_2m",
                ],
            ),
            Self::DpmPlusPlus2MSde => names(
                "DPMSolverMultistepScheduler",
                "dpm++_2m_sde",
                "DPM++ 2M SDE",
                &["dpmpp_2m_sde", "k_dpmpp_2m_sde", "k_dpm++_2m_sde", "sde_dpmsolver++"],
            ),
            Self::DpmPlusPlus2S => names(
                "DPMSolverSinglestepScheduler",
                "dpm++_2s",
                "DPM++ 2S",
                &["dpmpp_2s", "k_dpmpp_2s", "k_dpm++_2s", "dpmsolversinglestep"],
            ),
            Self::DpmPlusPlusSde => names(
                "DPMSolverSinglestepScheduler",
                "dpm++_sde",
                "DPM++ SDE",
                &["dpmpp_sde", "k_dpmpp_sde", "k_dpm++_sde"],
            ),
            _ => self.solver_names(),
        }
    }

    /// Of those that are no Euler, DDIM or DPM++, and have no table of a distillation.
    fn solver_names(self) -> Names {
        match self {
            Self::UniPc => names(
                "UniPCMultistepScheduler",
                "unipc",
                "UniPC",
                &["uni_pc", "uni_pc_bh2", "unipcmultistep", "k_unipc"],
            ),
            Self::Lms => names("LMSDiscreteScheduler", "lms", "LMS", &["lms_discrete", "k_lms"]),
            Self::Pndm => names("PNDMScheduler", "pndm", "PLMS", &["k_pndm", "k_plms"]),
            Self::Deis => names("DEISMultistepScheduler", "deis", "DEIS", &["deis_multistep", "k_deis"]),
            Self::Kdpm2 => names(
                "KDPM2DiscreteScheduler",
                "dpm2",
                "DPM2",
                &["k_dpm_2", "k_dpm2", "dpm_2", "kdpm2", "kdpm2_discrete"],
            ),
            Self::Kdpm2Ancestral => names(
                "KDPM2AncestralDiscreteScheduler",
                "dpm2_a",
                "DPM2 a",
                &[
                    "k_dpm_2_a",
                    "k_dpm_2_ancestral",
                    "dpm_2_ancestral",
                    "dpm2_ancestral",
                    "kdpm2_a",
                    "kdpm2_ancestral",
                ],
            ),
            Self::Ddpm => names("DDPMScheduler", "ddpm", "DDPM", &["k_ddpm"]),
            // Flow matching; all others have been told.
            _ => names(
                "FlowMatchEulerDiscreteScheduler",
                "flow_euler",
                "Flow Euler",
                &["flow_match_euler", "flow_match_euler_discrete"],
            ),
        }
    }

    /// The diffusers class, as in `_class_name`; the SDE kinds share theirs with another.
    pub fn class_name(self) -> &'static str {
        self.names().class
    }

    /// The short name of the command line.
    pub fn short_name(self) -> &'static str {
        self.names().short
    }

    /// The name in A1111's `sampler_name` and in the PNG's `Sampler:`.
    pub fn a1111_name(self) -> &'static str {
        self.names().a1111
    }

    /// Every further name, in lower case with `_` for spaces and hyphens.
    pub fn aliases(self) -> &'static [&'static str] {
        self.names().aliases
    }

    /// The schedule that A1111's "Automatic" stands for with this sampler (`modules/sd_samplers_kdiffusion.py`): it spans all noise
    /// whatever a config says. `None` where the sampler has timesteps of its own.
    pub fn automatic_spacing(self) -> Option<TimestepSpacing> {
        match self {
            Self::Euler | Self::EulerAncestral | Self::Heun | Self::Lms => Some(TimestepSpacing::Normal),
            Self::DpmPlusPlus2M | Self::DpmPlusPlus2S | Self::DpmPlusPlusSde | Self::Kdpm2 | Self::Kdpm2Ancestral => {
                Some(TimestepSpacing::Karras)
            }
            Self::DpmPlusPlus2MSde => Some(TimestepSpacing::Exponential),
            _ => None,
        }
    }

    /// A1111's `sampler_name`, with the schedule that its older versions put at the end: "DPM++ 2M Karras".
    pub fn from_a1111(name: &str) -> Result<(Self, Option<TimestepSpacing>)> {
        let wanted = canonical(name);
        let with_schedule = TimestepSpacing::ALL.into_iter().find_map(|spacing| {
            let sampler = wanted.strip_suffix(spacing.as_str())?.strip_suffix('_')?;
            Some((sampler.parse().ok()?, Some(spacing)))
        });
        match with_schedule {
            Some(found) => Ok(found),
            None => Ok((name.parse()?, None)),
        }
    }
}

/// Samplers of A1111 and ComfyUI that there are no others quite like here, and what comes nearest.
const SAMPLERS_ELSEWHERE: [(&[&str], SchedulerKind); 7] = [
    (&["dpm++_2s_a", "dpmpp_2s_a"], SchedulerKind::DpmPlusPlus2S),
    (
        &["dpm++_3m_sde", "dpmpp_3m_sde", "dpm++_2m_sde_heun"],
        SchedulerKind::DpmPlusPlus2MSde,
    ),
    (&["dpm_fast", "dpm_adaptive"], SchedulerKind::DpmPlusPlus2M),
    (&["restart", "heunpp2"], SchedulerKind::Heun),
    (&["ddim_cfg++"], SchedulerKind::Ddim),
    (
        &[
            "euler_cfg_pp",
            "euler_a_cfg_pp",
            "res_multistep",
            "er_sde",
            "gradient_estimation",
        ],
        SchedulerKind::Euler,
    ),
    (&["ipndm"], SchedulerKind::Pndm),
];

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let wanted = canonical(name);
        if wanted == "dpmsolversdescheduler" {
            return Err(Error::BrownianTree);
        }
        let matches = |kind: &Self| {
            [kind.class_name(), kind.short_name(), kind.a1111_name()]
                .iter()
                .any(|n| canonical(n) == wanted)
                || kind.aliases().contains(&wanted.as_str())
        };
        let elsewhere = SAMPLERS_ELSEWHERE.iter().find(|(names, _)| {
            let mut names = names.iter();
            names.any(|known| wanted.strip_prefix("k_").unwrap_or(&wanted).starts_with(known))
        });
        let found = Self::ALL.into_iter().find(matches);
        if let (None, Some((_, nearest))) = (found, elsewhere) {
            return Err(Error::SamplerElsewhere {
                name: name.to_owned(),
                nearest: nearest.short_name(),
            });
        }
        found.ok_or_else(|| Error::UnknownScheduler {
            name: name.to_owned(),
            known: Self::ALL
                .map(|k| format!("{} ({})", k.short_name(), k.class_name()))
                .join(", "),
        })
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short_name())
    }
}

/// How the noise levels of a run are chosen. The first three are diffusers' `timestep_spacing`, which
/// with the next three choose timesteps; the others choose sigmas, and the timesteps follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimestepSpacing {
    /// From the last timestep down to timestep 0, both included.
    Linspace,
    /// Multiples of `T / n` plus `steps_offset`; never reaches pure noise.
    Leading,
    /// Ends at the last timestep, the noise the network was trained to start from.
    Trailing,
    /// ComfyUI's and A1111's `sgm_uniform`: `linspace(T - 1, 0, n + 1)` without its last point.
    SgmUniform,
    /// A1111's `uniform`, ComfyUI's `normal`: `linspace(T - 1, 0, n)`, sigmas interpolated in the logarithm.
    Normal,
    /// ComfyUI's and A1111's `simple`: every `T / n`-th timestep from the end.
    Simple,
    /// ComfyUI's `ddim_uniform`, A1111's `ddim`: multiples of `T / n` plus 1; never reaches pure noise.
    DdimUniform,
    /// The first `n` of ten evenly spaced timesteps (999, 899, 799, ...), as in SDXL-Turbo's reference demo.
    Turbo,
    /// A subset of the distillation's `original_inference_steps` timesteps (LCM and TCD).
    Lcm,
    /// Karras et al. 2022, rho 7.
    Karras,
    /// Even steps in the logarithm of sigma.
    Exponential,
    /// Quantiles of the beta distribution with both parameters 0.6 (Lee et al. 2024).
    Beta,
    /// Even steps in log SNR as DPM-Solver's authors take them (`use_lu_lambdas`); timesteps are rounded.
    Lu,
    /// Even steps in the arc tangent of sigma (Sabour et al. 2024, section 4.2).
    KlOptimal,
    /// Align Your Steps (Sabour et al. 2024), the ten steps optimised for Stable Diffusion 1.5;
    /// other step counts interpolate them.
    Ays,
    /// The same for SDXL.
    AysSdxl,
    /// Even steps of flow matching's sigma, then shifted. Only for models of flow matching.
    Flow,
}

impl TimestepSpacing {
    pub const ALL: [Self; 17] = [
        Self::Linspace,
        Self::Leading,
        Self::Trailing,
        Self::SgmUniform,
        Self::Normal,
        Self::Simple,
        Self::DdimUniform,
        Self::Turbo,
        Self::Lcm,
        Self::Karras,
        Self::Exponential,
        Self::Beta,
        Self::Lu,
        Self::KlOptimal,
        Self::Ays,
        Self::AysSdxl,
        Self::Flow,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Linspace => "linspace",
            Self::Leading => "leading",
            Self::Trailing => "trailing",
            Self::SgmUniform => "sgm_uniform",
            Self::Normal => "normal",
            Self::Simple => "simple",
            Self::DdimUniform => "ddim_uniform",
            Self::Turbo => "turbo",
            Self::Lcm => "lcm",
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::Beta => "beta",
            Self::Lu => "lu",
            Self::KlOptimal => "kl_optimal",
            Self::Ays => "ays",
            Self::AysSdxl => "ays_sdxl",
            Self::Flow => "flow",
        }
    }

    /// The label of A1111's schedule type, for those it has too.
    pub fn a1111_label(self) -> &'static str {
        match self {
            Self::SgmUniform => "SGM Uniform",
            Self::DdimUniform => "DDIM",
            Self::KlOptimal => "KL Optimal",
            Self::Ays => "Align Your Steps",
            Self::AysSdxl => "Align Your Steps SDXL",
            Self::Linspace => "Linspace",
            Self::Leading => "Leading",
            Self::Trailing => "Trailing",
            Self::Normal => "Normal",
            Self::Simple => "Simple",
            Self::Turbo => "Turbo",
            Self::Lcm => "LCM",
            Self::Karras => "Karras",
            Self::Exponential => "Exponential",
            Self::Beta => "Beta",
            Self::Lu => "Lu",
            Self::Flow => "Flow",
        }
    }

    /// Every further name, in the spelling of `canonical`.
    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Normal => &["uniform"],
            Self::SgmUniform => &["sgmuniform"],
            Self::DdimUniform => &["ddim"],
            // k-diffusion's polyexponential with its default exponent, 1.
            Self::Exponential => &["polyexponential"],
            Self::Ays => &["align_your_steps", "ays_sd15"],
            Self::AysSdxl => &["align_your_steps_sdxl"],
            _ => &[],
        }
    }

    /// As `from_str`, with A1111's "automatic" (the config decides) as `None`.
    pub fn from_a1111(name: &str) -> Result<Option<Self>> {
        if canonical(name) == "automatic" {
            Ok(None)
        } else {
            name.parse().map(Some)
        }
    }

    /// What a model of SDXL's kind means by this: [`Ays`](Self::Ays) has a table of its own there.
    pub fn for_sdxl(self) -> Self {
        if self == Self::Ays { Self::AysSdxl } else { self }
    }

    /// Whether sigmas are chosen, and timesteps follow from them.
    pub(crate) fn chooses_sigmas(self) -> bool {
        matches!(
            self,
            Self::Karras | Self::Exponential | Self::Beta | Self::Lu | Self::KlOptimal | Self::Ays | Self::AysSdxl
        )
    }

    /// Whether sigmas between whole timesteps are interpolated in the logarithm, and the first noise
    /// is scaled by `sqrt(sigma^2 + 1)`: the habits of the tools these spacings come from.
    pub(crate) fn is_k_diffusion(self) -> bool {
        matches!(
            self,
            Self::SgmUniform | Self::Normal | Self::Simple | Self::DdimUniform | Self::Turbo
        )
    }
}

impl FromStr for TimestepSpacing {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let wanted = canonical(name);
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == wanted || s.aliases().contains(&wanted.as_str()))
            .ok_or_else(|| Error::UnknownSpacing {
                name: name.to_owned(),
                known: Self::ALL.map(Self::as_str).join(", "),
            })
    }
}

impl fmt::Display for TimestepSpacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lower case, with `_` for spaces and hyphens: "SGM Uniform" and "sgm-uniform" are `sgm_uniform`.
fn canonical(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_")
}
