//! The model card: how the model came about, and what it cannot do.

use crate::config::{Origin, TrainConfig};
use crate::error::Result;
use crate::latents;
use crate::objectives::{AutoencoderConfig, DecoderConfig, StageConfig, TeacherConfig, TextConfig};
use crate::trained::read_summary;
use prima_data::{ComposerOptions, Dataset, EVALUATION_NOUNS, Manifest, world};

pub(super) fn card(config: &TrainConfig, is_lcm: bool, parameters: usize) -> Result<String> {
    let learnt = match (&config.pictures, &config.world) {
        (Some(_), _) => of_own_pictures(config),
        (None, Some(sources)) => of_world(config, sources),
        (None, None) => of_icons(config, &Dataset::open(&config.data_dir)?.manifest),
    };
    Ok(format!(
        "# {name}\n\nA small text-to-image model: {parameters} parameters, pictures of {side} x {side} pixels, {steps}, \
         guidance scale {guidance}. {shows}\n\n\
         {origin}\n\n\
         ## Training\n\n| stage | steps | samples | minutes | final loss |\n|---|---|---|---|---|\n{facts}\n\
         {data}\n\n\
         ## Data\n\n{sources}\n\n\
         ## Limits\n\n{limits}\n",
        name = config.export.name,
        side = config.picture_size_px()[0],
        steps = if is_lcm {
            "1 to 4 steps with the LCM scheduler"
        } else {
            "1 to 8 steps with the Euler scheduler"
        },
        guidance = config.export.guidance_scale.unwrap_or(1.0),
        shows = learnt.shows,
        origin = origin(config)?,
        facts = facts(config)?,
        data = learnt.data,
        sources = learnt.sources,
        limits = learnt.limits,
    ))
}

/// What a model learnt from, in sentences.
struct Learnt {
    /// What it draws, and what its captions look like.
    shows: String,
    data: String,
    sources: String,
    limits: String,
}

fn of_own_pictures(config: &TrainConfig) -> Learnt {
    Learnt {
        shows: "It paints what the model that it was trained from does, and what it was shown.".into(),
        data: format!("Pictures of whoever trained it. Seed {}.", config.seed),
        sources: "Whoever passes this model on has to say whose pictures it was shown, and under which licence.".into(),
        limits: "Those of the model that it was trained from.".into(),
    }
}

fn of_icons(config: &TrainConfig, manifest: &Manifest) -> Learnt {
    let style = config.latents.only_style.as_deref();
    let in_style = style.map_or(String::new(), |s| format!(" in one style ({s})"));
    let sameness = if config.latents.jitter == Some(0.0) {
        "Objects always have the same size and place, so that one caption gives nearly the same picture for every \
         seed. "
    } else {
        ""
    };
    Learnt {
        shows: format!(
            "It draws single objects as icons{in_style}; its captions look like `a red apple on a blue background`."
        ),
        data: data(config, manifest),
        sources: sources(manifest, style),
        limits: format!(
            "{sameness}Details are soft, and a word that no caption had is ignored at best. It does not \
             draw people, text, photographs or scenes."
        ),
    }
}

fn of_world(config: &TrainConfig, sources: &world::Sources) -> Learnt {
    let works = sources.pictured().into_iter();
    let works: Vec<String> = works
        .map(|credit| format!("- {} ({})", credit.work, credit.licence))
        .collect();
    Learnt {
        shows: "It draws everyday things, alone and in twos and threes, in landscapes, towns and rooms; its captions look like \
                `a red car on a beach at sunset`."
            .into(),
        data: format!(
            "Every picture was composed by `prima` from the works below, its caption true by construction. Seed {}.",
            config.seed
        ),
        sources: format!("{}\n\nAll credits and licences are in `NOTICE`.", works.join("\n")),
        limits: "Details are soft. A word that no caption had is taken for the nearest one that some caption had: `known_words.txt` \
                 lists those. It does not draw text or photographs."
            .into(),
    }
}

/// Whose weights went into it.
fn origin(config: &TrainConfig) -> Result<String> {
    Ok(match config.origin()? {
        Origin::Networks(_) => {
            "It was trained from scratch on a CPU by `prima train`; no weights of any other model went into it.".into()
        }
        Origin::Model(model) => format!(
            "It was trained by `prima train` from the weights of {}, whose licence goes on to hold.",
            model.name()
        ),
    })
}

/// A row a stage that ran.
fn facts(config: &TrainConfig) -> Result<String> {
    let mut stages = vec![
        AutoencoderConfig::NAME,
        DecoderConfig::NAME,
        TextConfig::NAME,
        latents::NAME,
        TeacherConfig::NAME,
    ];
    let shipped = config.export.stage()?.name;
    if shipped != TeacherConfig::NAME {
        stages.push(shipped);
    }
    let mut facts = String::new();
    for stage in stages {
        if let Some(s) = read_summary(config, stage)? {
            let minutes = s.seconds / 60.0;
            let row = format!(
                "| {stage} | {} | {} | {minutes:.1} | {:.4} |\n",
                s.steps, s.samples, s.loss
            );
            facts.push_str(&row);
        }
    }
    Ok(facts)
}

/// What the pictures were composed of.
fn data(config: &TrainConfig, manifest: &Manifest) -> String {
    let languages = match config.latents.english {
        Some(english) if english < 1.0 => format!(
            " {:.0} % of the captions were in German, Spanish, French, Italian, Portuguese, Japanese or Chinese.",
            100.0 * (1.0 - english)
        ),
        _ => String::new(),
    };
    format!(
        "{} nouns, {} source pictures, composed on coloured backgrounds. Seed {}. The {EVALUATION_NOUNS} nouns \
         that `prima eval` asks for were drawn {} times as often as the others.{languages}",
        manifest.nouns,
        manifest.sprites,
        config.seed,
        ComposerOptions::for_profile(manifest.profile, 0).evaluation_noun_weight,
    )
}

fn sources(manifest: &Manifest, style: Option<&str>) -> String {
    let list: Vec<String> = manifest
        .sources
        .iter()
        .map(|s| format!("- {} ({})", s.name, s.licence))
        .collect();
    let only = style.map_or(String::new(), |style| {
        format!(" The autoencoder saw all of them, the text-to-image network those in one style ({style}).")
    });
    format!(
        "{}\n\nWords are from emojibase-data.{only} Credits and licences are in `NOTICE`.",
        list.join("\n")
    )
}
