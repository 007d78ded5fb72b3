//! What the diffusers class behind each scheduler reads of its config, and how it writes its sample.

use crate::{
    config::BetaSchedule,
    names::{SchedulerKind, TimestepSpacing},
};

/// The facts in which diffusers' classes differ, beyond their algorithms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    /// `beta_start`, `beta_end` and `beta_schedule` where the config does not say.
    pub betas: (f64, f64, BetaSchedule),
    pub reads_rescale_betas_zero_snr: bool,
    /// Where a signal of zero is rescaled to, the last sigma is kept finite with f16's smallest
    /// subnormal; the others really end at zero.
    pub keeps_sigmas_finite: bool,
    /// `timestep_spacing` where the config does not say; `Fixed` classes never ask it.
    pub spacing: Spacing,
    /// `use_karras_sigmas` and its kin: whether they are read, and over what they span.
    pub sigma_rules: SigmaRules,
    /// `sigma_min` and `sigma_max` are read.
    pub reads_sigma_ends: bool,
    /// Which timesteps must be whole.
    pub whole_timesteps: Whole,
    /// Linspace and leading take one point more than steps and drop the one nearest to the image.
    pub drops_last_point: bool,
    pub reads_final_sigmas_type: bool,
    pub flow: Flow,
    /// The sample is `x0 + sigma * noise`, and starts with the deviation of the first sigma.
    pub starts_at_sigma: bool,
    pub takes_eta: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Spacing {
    Default(TimestepSpacing),
    Fixed(TimestepSpacing),
}

/// Which sigmas the rules of `chooses_sigmas` span when the config asks for them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum SigmaRules {
    /// The class never reads the fields.
    Unread,
    /// Those that `timestep_spacing` would have used, unless `sigma_min` and `sigma_max` say.
    OverSpacing,
    /// All of training's.
    OverTraining,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Whole {
    /// Any timestep will do.
    Never,
    /// Karras's and Lu's are rounded, the other rules' cut off; other spacings' may be fractional.
    FromSigmas,
    /// Karras's are rounded, all others may be fractional.
    OfKarras,
    /// The algorithm looks up tables by timestep.
    Always,
}

/// Whether the sample is `(1 - sigma) * x0 + sigma * noise`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Flow {
    Never,
    Always,
    /// With `use_flow_sigmas`.
    IfAsked,
}

const BETAS: (f64, f64, BetaSchedule) = (0.0001, 0.02, BetaSchedule::Linear);
const LATENT_BETAS: (f64, f64, BetaSchedule) = (0.00085, 0.012, BetaSchedule::ScaledLinear);

/// `EulerDiscreteScheduler`; the others are told by how they differ.
const EULER: Class = Class {
    betas: BETAS,
    reads_rescale_betas_zero_snr: true,
    keeps_sigmas_finite: true,
    spacing: Spacing::Default(TimestepSpacing::Linspace),
    sigma_rules: SigmaRules::OverSpacing,
    reads_sigma_ends: true,
    whole_timesteps: Whole::Never,
    drops_last_point: false,
    reads_final_sigmas_type: true,
    flow: Flow::Never,
    starts_at_sigma: true,
    takes_eta: false,
};

const DDIM: Class = Class {
    keeps_sigmas_finite: false,
    spacing: Spacing::Default(TimestepSpacing::Leading),
    sigma_rules: SigmaRules::Unread,
    reads_sigma_ends: false,
    whole_timesteps: Whole::Always,
    reads_final_sigmas_type: false,
    starts_at_sigma: false,
    takes_eta: true,
    ..EULER
};

const LCM: Class = Class {
    betas: LATENT_BETAS,
    spacing: Spacing::Fixed(TimestepSpacing::Lcm),
    takes_eta: false,
    ..DDIM
};

const MULTISTEP: Class = Class {
    sigma_rules: SigmaRules::OverTraining,
    reads_sigma_ends: false,
    whole_timesteps: Whole::FromSigmas,
    drops_last_point: true,
    flow: Flow::IfAsked,
    starts_at_sigma: false,
    ..EULER
};

const HEUN: Class = Class {
    betas: (0.00085, 0.012, BetaSchedule::Linear),
    reads_rescale_betas_zero_snr: false,
    reads_sigma_ends: false,
    reads_final_sigmas_type: false,
    ..EULER
};

impl SchedulerKind {
    pub(crate) fn class(self) -> Class {
        match self {
            Self::Euler => EULER,
            Self::EulerAncestral => Class {
                sigma_rules: SigmaRules::Unread,
                reads_sigma_ends: false,
                reads_final_sigmas_type: false,
                takes_eta: true,
                ..EULER
            },
            Self::Heun => HEUN,
            Self::Lms => Class { betas: BETAS, ..HEUN },
            Self::Kdpm2 | Self::Kdpm2Ancestral => Class {
                whole_timesteps: Whole::OfKarras,
                ..HEUN
            },
            Self::Ddim => DDIM,
            Self::Ddpm => Class {
                takes_eta: false,
                ..DDIM
            },
            Self::Pndm => Class {
                reads_rescale_betas_zero_snr: false,
                takes_eta: false,
                ..DDIM
            },
            Self::Lcm => LCM,
            Self::Tcd => Class { takes_eta: true, ..LCM },
            Self::DpmPlusPlus2M | Self::DpmPlusPlus2MSde => MULTISTEP,
            Self::DpmPlusPlus2S | Self::DpmPlusPlusSde => Class {
                reads_rescale_betas_zero_snr: false,
                spacing: Spacing::Fixed(TimestepSpacing::Linspace),
                ..MULTISTEP
            },
            Self::Deis => Class {
                reads_rescale_betas_zero_snr: false,
                reads_final_sigmas_type: false,
                ..MULTISTEP
            },
            Self::UniPc => Class {
                reads_sigma_ends: true,
                ..MULTISTEP
            },
            Self::FlowMatchEuler => Class {
                reads_rescale_betas_zero_snr: false,
                spacing: Spacing::Fixed(TimestepSpacing::Flow),
                sigma_rules: SigmaRules::OverSpacing,
                reads_sigma_ends: false,
                reads_final_sigmas_type: false,
                flow: Flow::Always,
                starts_at_sigma: false,
                ..EULER
            },
        }
    }
}
