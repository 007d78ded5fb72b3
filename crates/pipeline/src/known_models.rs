//! Few-step models that people have, and the settings they were distilled for: the one table of them, from what their authors
//! publish beside the weights. Nothing inside most of these files says which they are. Their metadata may; else the name of the
//! file is a hint, which is said aloud where it is followed and left aside where a request contradicts it.

use crate::Defaults;
use prima_schedulers::{ConfigSpacing, PredictionType, SchedulerConfig, SchedulerKind, TimestepSpacing};
use std::collections::BTreeMap;

/// A row of the table.
#[derive(Debug)]
pub struct KnownModel {
    /// As its authors call it.
    pub name: &'static str,
    /// Words that follow each other in a name or a title, in lower case, with numbers apart; any of these will do.
    phrases: &'static [&'static str],
    /// Numbers of steps in the name (`4step`, `8-steps`), of which one has to be there; with 0, the name may say none.
    steps_in_name: &'static [usize],
    /// Said of a merge by whoever made it, and of styles that have nothing to do with it: no LoRA is known by it.
    is_loose: bool,
    pub scheduler: SchedulerKind,
    pub spacing: TimestepSpacing,
    pub prediction_type: Option<PredictionType>,
    /// Steps that it takes by itself; 0 for those that its name says.
    steps: usize,
    /// All that it was distilled for; empty where that is not known.
    step_counts: &'static [usize],
    /// By number of steps, where they are none of a spacing.
    timesteps: &'static [&'static [f64]],
    pub guidance_scale: f64,
    /// Up to this, guidance does what its authors meant. More contradicts the name.
    pub most_guidance: f64,
    pub eta: Option<f64>,
    /// What the network is told of the last timestep (NitroFusion's `shifted_timestep`).
    pub shifted_timestep: Option<usize>,
    /// Side of its pictures in pixels, where it is not that of its family.
    pub side_px: Option<usize>,
}

/// SDXL-Lightning's settings; the others are told by how they differ.
const LIGHTNING: KnownModel = KnownModel {
    name: "SDXL-Lightning",
    phrases: &["lightning"],
    steps_in_name: &[2, 4, 8],
    is_loose: false,
    scheduler: SchedulerKind::Euler,
    spacing: TimestepSpacing::Trailing,
    prediction_type: None,
    steps: 0,
    step_counts: &[0],
    timesteps: &[],
    guidance_scale: 0.0,
    most_guidance: 1.0,
    eta: None,
    shifted_timestep: None,
    side_px: None,
};

/// Latent consistency models and their LoRAs.
const LCM: KnownModel = KnownModel {
    name: "LCM",
    phrases: &["lcm", "latent consistency"],
    steps_in_name: &[],
    scheduler: SchedulerKind::Lcm,
    spacing: TimestepSpacing::Lcm,
    steps: 4,
    step_counts: &[],
    guidance_scale: 1.0,
    most_guidance: 2.0,
    ..LIGHTNING
};

const HYPER: KnownModel = KnownModel {
    name: "Hyper-SD",
    phrases: &["hyper sd", "hyper sdxl", "hypersd", "hypersdxl", "hyper"],
    steps_in_name: &[2, 4, 8],
    scheduler: SchedulerKind::Ddim,
    ..LIGHTNING
};

const DMD: KnownModel = KnownModel {
    name: "DMD2, 4 steps",
    phrases: &["dmd 2", "dmd"],
    steps_in_name: &[0, 4],
    steps: 4,
    step_counts: &[4],
    timesteps: &[&[999.0, 749.0, 499.0, 249.0]],
    guidance_scale: 0.0,
    most_guidance: 1.0,
    ..LCM
};

const TURBO: KnownModel = KnownModel {
    name: "SDXL-Turbo",
    phrases: &["sdxl turbo", "sd xl turbo"],
    steps_in_name: &[],
    scheduler: SchedulerKind::EulerAncestral,
    steps: 1,
    step_counts: &[1, 2, 3, 4],
    side_px: Some(512),
    ..LIGHTNING
};

const NITRO: KnownModel = KnownModel {
    name: "NitroSD-Realism",
    phrases: &[
        "nitrosd realism",
        "nitro sd realism",
        "nitrosd",
        "nitrofusion",
        "nitro fusion",
    ],
    steps: 1,
    step_counts: &[1, 2, 3, 4],
    guidance_scale: 0.0,
    most_guidance: 1.0,
    shifted_timestep: Some(250),
    ..LCM
};

/// The first that fits is meant.
pub const KNOWN_MODELS: &[KnownModel] = &[
    KnownModel {
        name: "SDXL-Lightning, 1 step",
        steps_in_name: &[1],
        prediction_type: Some(PredictionType::Sample),
        ..LIGHTNING
    },
    LIGHTNING,
    KnownModel {
        name: "a merge with SDXL-Lightning",
        steps_in_name: &[],
        is_loose: true,
        steps: 6,
        step_counts: &[],
        guidance_scale: 1.0,
        most_guidance: 2.0,
        ..LIGHTNING
    },
    KnownModel {
        name: "Hyper-SD, 1 step",
        phrases: &["hyper sdxl 1 step unet"],
        steps_in_name: &[1],
        scheduler: SchedulerKind::Lcm,
        spacing: TimestepSpacing::Lcm,
        step_counts: &[1],
        timesteps: &[&[800.0]],
        ..HYPER
    },
    KnownModel {
        name: "Hyper-SD, 1 to 8 steps",
        steps_in_name: &[1],
        scheduler: SchedulerKind::Tcd,
        spacing: TimestepSpacing::Lcm,
        step_counts: &[1, 2, 4, 8],
        timesteps: &[&[800.0]],
        eta: Some(1.0),
        ..HYPER
    },
    KnownModel {
        name: "Hyper-SD with guidance",
        phrases: &[
            "hyper sdxl 8 steps cfg",
            "hyper sdxl 12 steps cfg",
            "hyper sd 15 8 steps cfg",
            "hyper sd 15 12 steps cfg",
        ],
        steps_in_name: &[8, 12],
        guidance_scale: 5.0,
        most_guidance: 8.0,
        ..HYPER
    },
    HYPER,
    KnownModel {
        name: "DMD2, 1 step",
        steps_in_name: &[1],
        steps: 1,
        step_counts: &[1],
        timesteps: &[&[399.0]],
        ..DMD
    },
    DMD,
    KnownModel {
        name: "NitroSD-Vibrant",
        phrases: &["nitrosd vibrant", "nitro sd vibrant"],
        shifted_timestep: Some(500),
        ..NITRO
    },
    NITRO,
    LCM,
    TURBO,
    KnownModel {
        name: "SD-Turbo",
        phrases: &["sd turbo"],
        scheduler: SchedulerKind::Euler,
        ..TURBO
    },
    KnownModel {
        name: "a merge with SDXL-Turbo",
        phrases: &["turbo"],
        is_loose: true,
        scheduler: SchedulerKind::DpmPlusPlusSde,
        spacing: TimestepSpacing::Karras,
        steps: 6,
        step_counts: &[],
        guidance_scale: 2.0,
        most_guidance: 3.0,
        side_px: None,
        ..TURBO
    },
];

/// Where a model's settings were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// The title in its metadata.
    Title,
    FileName,
}

/// A model of the table, with what its name says.
#[derive(Clone, Debug)]
pub struct Recognised {
    pub model: &'static KnownModel,
    pub by: KnownBy,
    /// The name or title that told it.
    pub said: String,
    /// Steps that it takes by itself.
    pub num_inference_steps: usize,
}

impl Recognised {
    /// A checkpoint or a UNet of this name (of a file without its ending, of a repository), and this title in its metadata.
    pub fn checkpoint(name: &str, title: Option<&str>) -> Option<Self> {
        Self::find(name, title, |_| true)
    }

    /// A LoRA: known by words that are said of nothing else.
    pub fn lora(name: &str, title: Option<&str>) -> Option<Self> {
        Self::find(name, title, |model| !model.is_loose)
    }

    fn find(name: &str, title: Option<&str>, may_be: impl Fn(&KnownModel) -> bool) -> Option<Self> {
        let sources = [(KnownBy::Title, title.unwrap_or("")), (KnownBy::FileName, name)];
        sources.into_iter().find_map(|(by, said)| {
            let words = words(said);
            let steps = steps_said(&words);
            let mut models = KNOWN_MODELS.iter().filter(|model| may_be(model));
            let model = models.find(|model| model.is_called(&words, steps))?;
            Some(Self {
                model,
                by,
                said: said.to_owned(),
                num_inference_steps: if model.steps == 0 {
                    steps.unwrap_or(1)
                } else {
                    model.steps
                },
            })
        })
    }

    /// The step counts that it was distilled for.
    pub fn step_counts(&self) -> Vec<usize> {
        match self.model.step_counts {
            [0] => vec![self.num_inference_steps],
            counts => counts.to_vec(),
        }
    }

    /// Whether a request's guidance fits what the model is taken for.
    pub fn allows(&self, guidance_scale: Option<f64>) -> bool {
        guidance_scale.is_none_or(|scale| scale <= self.model.most_guidance)
    }

    /// The config that it was distilled for, with the process of noise of `config`.
    pub fn scheduler_config(&self, config: &SchedulerConfig) -> SchedulerConfig {
        let model = self.model;
        let of = SchedulerConfig::of(model.scheduler);
        let spacing = match model.spacing {
            TimestepSpacing::Trailing => Some(ConfigSpacing::Trailing),
            _ => config.timestep_spacing,
        };
        SchedulerConfig {
            class_name: of.class_name,
            algorithm_type: of.algorithm_type,
            timestep_spacing: spacing,
            prediction_type: model.prediction_type.or(config.prediction_type),
            use_karras_sigmas: (model.spacing == TimestepSpacing::Karras).then_some(true),
            use_exponential_sigmas: None,
            use_beta_sigmas: None,
            clip_sample: Some(false),
            set_alpha_to_one: Some(false),
            shifted_timestep: model.shifted_timestep,
            // NitroFusion's timesteps are those of four.
            original_inference_steps: model.shifted_timestep.map(|_| 4).or(config.original_inference_steps),
            ..config.clone()
        }
    }

    /// `defaults` with its settings in them.
    pub(crate) fn defaults(&self, defaults: Defaults) -> Defaults {
        let model = self.model;
        let timesteps = model.timesteps.iter().map(|list| (list.len(), list.to_vec()));
        Defaults {
            num_inference_steps: self.num_inference_steps,
            guidance_scale: model.guidance_scale,
            width: model.side_px.unwrap_or(defaults.width),
            height: model.side_px.unwrap_or(defaults.height),
            step_counts: self.step_counts(),
            timesteps: timesteps.collect::<BTreeMap<_, _>>(),
            guidance_free: model.most_guidance <= 1.0,
            few_steps: true,
            eta: model.eta,
            ..defaults
        }
    }

    /// One sentence about what is done by that, for whoever asked for a picture.
    pub fn sentence(&self) -> String {
        let (model, said) = (self.model, &self.said);
        let told = match self.by {
            KnownBy::Title => format!("its metadata call it \"{said}\""),
            KnownBy::FileName => format!("the name `{said}` says so and nothing in the file does"),
        };
        format!(
            "taken for {}, distilled for few steps: {told}; it gets {} steps, guidance_scale {}, {} with {} timesteps where you do not say",
            model.name, self.num_inference_steps, model.guidance_scale, model.scheduler, model.spacing
        )
    }

    /// The same where a request's guidance contradicts it.
    pub fn contradicted(&self, guidance_scale: f64) -> String {
        format!(
            "`{}` sounds like {}, distilled for few steps and guidance_scale {}: as {guidance_scale} was asked for, its scheduler and timesteps stay those of its config",
            self.said, self.model.name, self.model.guidance_scale
        )
    }
}

impl KnownModel {
    fn is_called(&self, words: &str, steps: Option<usize>) -> bool {
        let fits = match (self.steps_in_name, steps) {
            ([], _) => true,
            (wanted, None) => wanted.contains(&0),
            (wanted, Some(steps)) => wanted.contains(&steps),
        };
        let says = |phrase: &&str| words.contains(&format!(" {phrase} "));
        fits && self.phrases.iter().any(says)
    }
}

/// The words of a name in lower case, each between two spaces; numbers, and what a capital begins, are words of their own.
fn words(name: &str) -> String {
    let mut words = String::from(" ");
    let mut before = ' ';
    for c in name.chars() {
        let begins = c.is_ascii_digit() != before.is_ascii_digit() || (c.is_uppercase() && before.is_lowercase());
        if !c.is_alphanumeric() || begins {
            words.push(' ');
        }
        if c.is_alphanumeric() {
            words.extend(c.to_lowercase());
        }
        before = c;
    }
    let words: Vec<&str> = words.split_whitespace().collect();
    format!(" {} ", words.join(" "))
}

/// The number before `step` or `steps`.
fn steps_said(words: &str) -> Option<usize> {
    let words: Vec<&str> = words.split_whitespace().collect();
    words.windows(2).find_map(|pair| {
        let number = pair[0].parse().ok().filter(|steps| (1..=64).contains(steps))?;
        ["step", "steps"].contains(&pair[1]).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Option<(&'static str, usize)> {
        Recognised::checkpoint(name, None).map(|known| (known.model.name, known.num_inference_steps))
    }

    #[test]
    fn published_files_are_known_by_their_names() {
        for (name, model, steps) in [
            ("sdxl_lightning_4step_unet", "SDXL-Lightning", 4),
            ("sdxl_lightning_8step", "SDXL-Lightning", 8),
            ("sdxl_lightning_1step_unet_x0", "SDXL-Lightning, 1 step", 1),
            ("juggernautXL_v9Rdphoto2Lightning", "a merge with SDXL-Lightning", 6),
            ("dreamshaperXL_lightningDPMSDE", "a merge with SDXL-Lightning", 6),
            ("sd_xl_turbo_1.0_fp16", "SDXL-Turbo", 1),
            ("stabilityai/sdxl-turbo", "SDXL-Turbo", 1),
            ("sd_turbo", "SD-Turbo", 1),
            ("DreamShaperXL_Turbo_v2", "a merge with SDXL-Turbo", 6),
            ("Hyper-SDXL-1step-Unet", "Hyper-SD, 1 step", 1),
            ("Hyper-SDXL-1step-lora", "Hyper-SD, 1 to 8 steps", 1),
            ("Hyper-SDXL-8steps-CFG-lora", "Hyper-SD with guidance", 8),
            ("Hyper-SD15-4steps-lora", "Hyper-SD", 4),
            ("dmd2_sdxl_4step_unet_fp16", "DMD2, 4 steps", 4),
            ("dmd2_sdxl_1step_unet", "DMD2, 1 step", 1),
            ("nitrosd-realism_unet", "NitroSD-Realism", 1),
            ("nitrosd-vibrant_comfyui", "NitroSD-Vibrant", 1),
            ("lcm-lora-sdxl", "LCM", 4),
        ] {
            assert_eq!(found(name), Some((model, steps)), "{name}");
        }
    }

    #[test]
    fn other_names_are_not_taken_for_few_step_models() {
        for name in [
            "sd_xl_base_1.0",
            "ponyDiffusionV6XL",
            "hyperrealism_v3",
            "turbolence",
            "v1-5-pruned-emaonly",
        ] {
            assert_eq!(found(name), None, "{name}");
        }
        assert!(Recognised::lora("lightning_wizard", None).is_none());
        assert!(Recognised::lora("sdxl_lightning_4step_lora", None).is_some());
    }

    #[test]
    fn a_title_goes_before_a_name() {
        let known = Recognised::checkpoint("model", Some("SDXL Lightning 8 Step")).unwrap();
        assert_eq!((known.by, known.num_inference_steps), (KnownBy::Title, 8));
        assert_eq!(known.step_counts(), [8]);
    }

    #[test]
    fn the_config_keeps_its_process_of_noise() {
        let base = SchedulerConfig::stable_diffusion(SchedulerKind::Euler, ConfigSpacing::Leading);
        let config = |name| Recognised::checkpoint(name, None).unwrap().scheduler_config(&base);
        let lightning = config("sdxl_lightning_1step_unet_x0");
        assert_eq!(lightning.timestep_spacing, Some(ConfigSpacing::Trailing));
        assert_eq!(lightning.prediction_type, Some(PredictionType::Sample));
        assert_eq!(lightning.beta_end, Some(0.012));
        assert_eq!(config("Hyper-SDXL-1step-Unet").kind().unwrap(), SchedulerKind::Lcm);
        assert_eq!(
            config("dreamshaper_turbo").kind().unwrap(),
            SchedulerKind::DpmPlusPlusSde
        );
        assert_eq!(config("nitrosd-vibrant").shifted_timestep, Some(500));
    }
}
