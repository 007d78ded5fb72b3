//! From a data set to an evaluation suite: drawings that training never saw, and colour prompts.

use crate::suite::colours::Hue;
use crate::suite::{Class, ColourPrompt, Suite};
use crate::{Error, OnProgress};
use prima_data::{Composer, SIZE_PX, caption};
use prima_picture::{Format, Picture, QUALITY, encode};
use std::path::Path;

/// What a suite is made of.
#[derive(Clone, Debug)]
pub struct SuiteOptions {
    /// Drawings a class; half of them from the held-back sprite, half from the others on their own placement.
    pub pictures: usize,
    /// Only sprites that training never saw (one drawing style a class: a harder, narrower mean).
    pub held_back_only: bool,
    /// Language of the class prompts: `en`, or one that the data set has names in.
    pub language: String,
}

/// Nouns that ask for every colour.
const COLOURED_NOUNS: usize = 15;

impl Suite {
    /// Writes the suite of `composer`'s data set to `folder`: its pictures and `suite.json`.
    pub fn write(
        composer: &Composer,
        folder: &Path,
        options: &SuiteOptions,
        on_progress: OnProgress,
    ) -> Result<Self, Error> {
        let nouns = composer.evaluation_nouns();
        let mut classes = Vec::new();
        for (done, &noun) in nouns.iter().enumerate() {
            on_progress(done, nouns.len());
            classes.push(write_class(composer, noun, folder, options)?);
        }
        let description = if options.held_back_only {
            "one held-back drawing style a class, jittered, on white"
        } else {
            "half of the held-back drawing style, half of the other styles in placements of their own, on white"
        };
        let suite = Self::new(description.to_owned(), classes, colour_prompts(composer, &nouns));
        let path = folder.join("suite.json");
        let json = serde_json::to_vec_pretty(&suite).map_err(Error::file(&path))?;
        std::fs::write(&path, json).map_err(Error::file(&path))?;
        Ok(suite)
    }
}

fn write_class(composer: &Composer, noun: usize, folder: &Path, options: &SuiteOptions) -> Result<Class, Error> {
    let mut pictures = Vec::new();
    for k in 0..options.pictures {
        let held_back = options.held_back_only || k % 2 == 0;
        let rgb = if held_back {
            composer.held_back(noun, k / 2)?
        } else {
            composer.reference(noun, k / 2)?
        };
        let name = format!("{noun:04}/{k:02}.png");
        let path = folder.join(&name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::file(parent))?;
        }
        let png = encode(&drawing(rgb), Format::Png, QUALITY, None)?;
        std::fs::write(&path, png).map_err(Error::file(&path))?;
        pictures.push(name);
    }
    let prompt = composer.prompt(noun);
    Ok(Class {
        name: caption::without_article(prompt).to_owned(),
        prompt: match options.language.as_str() {
            "en" => prompt.to_owned(),
            code => name_in(composer, noun, code)?,
        },
        pictures,
    })
}

/// A drawing of the data set.
pub(crate) fn drawing(rgb: Vec<u8>) -> Picture {
    let side = SIZE_PX as usize;
    Picture {
        width: side,
        height: side,
        rgb,
    }
}

fn name_in(composer: &Composer, noun: usize, code: &str) -> Result<String, Error> {
    let names = &composer.dataset().nouns[noun].names;
    names.get(code).cloned().ok_or_else(|| Error::Language {
        code: code.to_owned(),
        noun: composer.prompt(noun).to_owned(),
        known: names.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
    })
}

/// Every hue for the common nouns most of whose sprites can be repainted.
fn colour_prompts(composer: &Composer, nouns: &[usize]) -> Vec<ColourPrompt> {
    let sprites = &composer.dataset().sprites;
    let tints = |noun: usize| {
        let own = sprites.iter().filter(|s| s.noun == noun);
        own.clone().filter(|s| s.hue_shiftable).count() * 2 > own.count()
    };
    nouns
        .iter()
        .filter(|noun| tints(**noun))
        .take(COLOURED_NOUNS)
        .flat_map(|noun| {
            Hue::ALL.map(|hue| ColourPrompt {
                prompt: caption::with_adjective(composer.prompt(*noun), hue.name()),
                colour: hue.name().to_owned(),
            })
        })
        .collect()
}
