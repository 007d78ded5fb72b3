//! The names people write for schedulers: diffusers' classes, A1111's samplers, k-diffusion's
//! and the hosted APIs' `K_` names.

use crate::{
    error::{Error, Result},
    spacing::TimestepSpacing,
};
use std::{fmt, str::FromStr};

/// A sampling algorithm, one per file of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum SchedulerKind {
    Euler,
    EulerAncestral,
    Ddim,
    Lcm,
    Tcd,
    /// `DPMSolverMultistepScheduler` with `dpmsolver++`, order 2, midpoint.
    DpmPlusPlus2M,
}

impl SchedulerKind {
    pub const ALL: [Self; 6] = [
        Self::Euler,
        Self::EulerAncestral,
        Self::Ddim,
        Self::Lcm,
        Self::Tcd,
        Self::DpmPlusPlus2M,
    ];

    /// The diffusers class, as in `_class_name`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Lcm => "LCMScheduler",
            Self::Tcd => "TCDScheduler",
            Self::DpmPlusPlus2M => "DPMSolverMultistepScheduler",
        }
    }

    /// The short name of the command line.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_a",
            Self::Ddim => "ddim",
            Self::Lcm => "lcm",
            Self::Tcd => "tcd",
            Self::DpmPlusPlus2M => "dpm++_2m",
        }
    }

    /// The name in A1111's `sampler_name` and in the PNG's `Sampler:`.
    pub fn a1111_name(self) -> &'static str {
        match self {
            Self::Euler => "Euler",
            Self::EulerAncestral => "Euler a",
            Self::Ddim => "DDIM",
            Self::Lcm => "LCM",
            Self::Tcd => "TCD",
            Self::DpmPlusPlus2M => "DPM++ 2M",
        }
    }

    /// Every further name, in the spelling of `canonical`.
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Euler => &["euler_discrete", "k_euler"],
            Self::EulerAncestral => &[
                "euler_ancestral",
                "euler_ancestral_discrete",
                "k_euler_a",
                "k_euler_ancestral",
            ],
            Self::Ddim => &["k_ddim"],
            Self::Lcm => &["k_lcm"],
            Self::Tcd => &["k_tcd"],
            Self::DpmPlusPlus2M => &[
                "dpmpp_2m",
                "k_dpmpp_2m",
                "dpmsolvermultistep",
                "dpmsolver++",
                "dpm++",
                "k_dpm++_2m",
            ],
        }
    }
}

impl SchedulerKind {
    /// A1111's `sampler_name`, with the schedule that its older versions put at the end: "DPM++ 2M Karras".
    pub fn from_a1111(name: &str) -> Result<(Self, Option<TimestepSpacing>)> {
        let wanted = canonical(name);
        match wanted.strip_suffix("_karras").and_then(|sampler| sampler.parse().ok()) {
            Some(kind) => Ok((kind, Some(TimestepSpacing::Karras))),
            None => Ok((name.parse()?, None)),
        }
    }
}

/// Lower case, with `_` for spaces and hyphens: "SGM Uniform" and "sgm-uniform" are `sgm_uniform`.
pub(crate) fn canonical(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_")
}

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let wanted = canonical(name);
        let matches = |kind: &Self| {
            [kind.class_name(), kind.short_name(), kind.a1111_name()]
                .iter()
                .any(|n| canonical(n) == wanted)
                || kind.aliases().contains(&wanted.as_str())
        };
        Self::ALL
            .into_iter()
            .find(matches)
            .ok_or_else(|| Error::UnknownScheduler {
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
